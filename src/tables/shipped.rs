//! The tables inside this program.
//!
//! Files of `eval/tables/`; each is found by its file name, by its model's name and by the model's short forms.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::Table;

const FILES: &[(&str, &str)] = &[
    ("claude-3-5-haiku", include_str!("../../eval/tables/published/claude-3-5-haiku.json")),
    ("claude-3-5-sonnet", include_str!("../../eval/tables/published/claude-3-5-sonnet.json")),
    ("claude-sonnet-4-5", include_str!("../../eval/tables/published/claude-sonnet-4-5.json")),
    ("gemini-1.5-flash-002", include_str!("../../eval/tables/published/gemini-1.5-flash-002.json")),
    ("gemini-1.5-pro-002", include_str!("../../eval/tables/published/gemini-1.5-pro-002.json")),
    ("gemini-2.5-pro", include_str!("../../eval/tables/published/gemini-2.5-pro.json")),
    ("gemma-2-9b-it", include_str!("../../eval/tables/published/gemma-2-9b-it.json")),
    ("gpt-4o", include_str!("../../eval/tables/published/gpt-4o.json")),
    ("gpt-4o-mini", include_str!("../../eval/tables/published/gpt-4o-mini.json")),
    ("gpt-5", include_str!("../../eval/tables/published/gpt-5.json")),
    ("gpt-oss-120b", include_str!("../../eval/tables/published/gpt-oss-120b.json")),
    ("gpt-oss-120b@b200", include_str!("../../eval/tables/published/gpt-oss-120b@b200.json")),
    ("gpt-oss-120b@m4-max", include_str!("../../eval/tables/published/gpt-oss-120b@m4-max.json")),
    ("gpt-oss-120b@sn40l", include_str!("../../eval/tables/published/gpt-oss-120b@sn40l.json")),
    ("gpt-oss-20b", include_str!("../../eval/tables/published/gpt-oss-20b.json")),
    ("gpt-oss-20b@b200", include_str!("../../eval/tables/published/gpt-oss-20b@b200.json")),
    ("gpt-oss-20b@m4-max", include_str!("../../eval/tables/published/gpt-oss-20b@m4-max.json")),
    ("llama-3.1-70b-instruct", include_str!("../../eval/tables/published/llama-3.1-70b-instruct.json")),
    ("llama-3.1-8b-instruct", include_str!("../../eval/tables/published/llama-3.1-8b-instruct.json")),
    ("mistral-7b-instruct-v0.2", include_str!("../../eval/tables/published/mistral-7b-instruct-v0.2.json")),
    ("mixtral-8x7b-instruct-v0.1", include_str!("../../eval/tables/published/mixtral-8x7b-instruct-v0.1.json")),
    ("o1-mini", include_str!("../../eval/tables/published/o1-mini.json")),
    ("phi-3-mini-4k-instruct", include_str!("../../eval/tables/published/phi-3-mini-4k-instruct.json")),
    ("qwen3-14b", include_str!("../../eval/tables/published/qwen3-14b.json")),
    ("qwen3-235b-a22b", include_str!("../../eval/tables/published/qwen3-235b-a22b.json")),
    ("qwen3-30b-a3b", include_str!("../../eval/tables/published/qwen3-30b-a3b.json")),
    ("qwen3-32b", include_str!("../../eval/tables/published/qwen3-32b.json")),
    ("qwen3-32b@b200", include_str!("../../eval/tables/published/qwen3-32b@b200.json")),
    ("qwen3-32b@m4-max", include_str!("../../eval/tables/published/qwen3-32b@m4-max.json")),
    ("qwen3-32b@sn40l", include_str!("../../eval/tables/published/qwen3-32b@sn40l.json")),
    ("qwen3-4b", include_str!("../../eval/tables/published/qwen3-4b.json")),
    ("qwen3-8b", include_str!("../../eval/tables/published/qwen3-8b.json")),
    ("qwen3-8b@b200", include_str!("../../eval/tables/published/qwen3-8b@b200.json")),
    ("qwen3-8b@m4-max", include_str!("../../eval/tables/published/qwen3-8b@m4-max.json")),
    ("qwen2.5-coder-0.5b", include_str!("../../eval/tables/measured/qwen2.5-coder-0.5b.json")),
    ("qwen2.5-coder-1.5b", include_str!("../../eval/tables/measured/qwen2.5-coder-1.5b.json")),
    ("smollm2-135m", include_str!("../../eval/tables/measured/smollm2-135m.json")),
    ("smollm2-135m@lla-300", include_str!("../../eval/tables/measured/smollm2-135m@lla-300.json")),
];

static TABLES: LazyLock<BTreeMap<&'static str, Arc<Table>>> = LazyLock::new(|| {
    let parsed = FILES.iter().filter_map(|(name, text)| Some((*name, Arc::new(serde_json::from_str(text).ok()?))));
    parsed.collect()
});

/// Names of the shipped tables.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// Names and texts of the shipped tables.
pub fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().copied()
}

/// The shipped table of this name, or of the model of this name: `gpt-4o-mini`, `openai/gpt-oss-20b` and
/// `Qwen3-8B` find theirs. A device may follow an at sign: `qwen3-8b@m4-max`.
pub fn shipped(name: &str) -> Option<Arc<Table>> {
    let wanted = plain(name);
    TABLES.get(wanted.as_str()).or_else(|| TABLES.values().find(|t| plain(&t.model) == wanted)).map(Arc::clone)
}

/// Lower case, without owner, and without the suffixes that name a packing of the same weights.
fn plain(name: &str) -> String {
    let short = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let short = short.strip_prefix("meta-").unwrap_or(&short);
    let short = short.strip_suffix(".gguf").unwrap_or(short);
    let weights = short
        .rfind("-q")
        .filter(|at| short.get(at + 2..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())));
    short.get(..weights.unwrap_or(short.len())).unwrap_or(short).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::check_text;
    use super::*;

    #[test]
    fn every_shipped_table_passes_its_own_check() {
        for (name, text) in FILES {
            let problems = check_text(text, name);
            assert!(problems.is_empty(), "{problems:?}");
        }
        assert_eq!(TABLES.len(), FILES.len());
    }

    #[test]
    fn tables_are_found_by_name_and_by_model() {
        assert_eq!(shipped("gpt-4o-mini").unwrap().model, "gpt-4o-mini-2024-07-18");
        assert_eq!(shipped("meta-llama/Meta-Llama-3.1-8B-Instruct").unwrap().model, "Meta-Llama-3.1-8B-Instruct");
        assert_eq!(shipped("qwen3-8b@b200").unwrap().device, "B200");
        assert!(shipped("no-such-model").is_none());
        let small = shipped("smollm2-135m").unwrap();
        assert_eq!(shipped("smollm2-135m-instruct-q4_1").unwrap().model, small.model);
    }
}
