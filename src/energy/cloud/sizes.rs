//! Sizes of models by name: what the formula needs where nobody measured. The shipped list is EcoLogits'.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::config::problem::did_you_mean;

static SIZES: LazyLock<BTreeMap<String, Size>> = LazyLock::new(|| {
    let text = include_str!("../../../eval/data/prices/sizes.csv");
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    reader.deserialize::<Size>().filter_map(Result::ok).map(|size| (size.model.clone(), size)).collect()
});

/// Parameters of a model in billions.
#[derive(Clone, Debug, Deserialize)]
pub struct Size {
    model: String,
    total_low: f64,
    total_high: f64,
    active_low: f64,
    active_high: f64,
    estimated: u8,
}

impl Size {
    /// Fewest and most in all.
    pub fn total(&self) -> (f64, f64) {
        (self.total_low, self.total_high)
    }

    /// Fewest and most that a token passes through.
    pub fn active(&self) -> (f64, f64) {
        (self.active_low, self.active_high)
    }

    /// Where it comes from, in words: nobody but the provider knows, or it is public.
    pub fn how(&self) -> &'static str {
        if self.estimated == 0 { "size by EcoLogits' list" } else { "size estimated by EcoLogits, not published" }
    }
}

/// Size of a model that the shipped list has.
pub fn size(model: &str) -> Option<&'static Size> {
    listed_as(model).find_map(|name| SIZES.get(&name))
}

/// The listed name that a misspelt one is nearest to.
pub fn nearest(model: &str) -> Option<&'static str> {
    did_you_mean(&model.to_lowercase(), SIZES.keys().map(String::as_str))
}

/// What a model may be listed as: without owner, without a host after an at sign.
pub fn listed_as(model: &str) -> impl Iterator<Item = String> {
    let tail = model.rsplit('/').next().unwrap_or(model).to_lowercase();
    let bare = tail.split('@').next().unwrap_or(&tail).to_owned();
    let short = bare.strip_prefix("meta-").unwrap_or(&bare).to_owned();
    [tail, bare, short].into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_by_name_and_say_whether_they_are_known() {
        let estimated = size("gpt-4o-2024-08-06").unwrap();
        assert!(estimated.how().contains("estimated") && estimated.active() == (44.0, 132.0));
        assert!(size("meta-llama/Meta-Llama-3.1-70B-Instruct").unwrap().how().contains("list"));
        assert_eq!(nearest("gpt-4o-mni"), Some("gpt-4o-mini"));
        assert!(SIZES.len() > 300);
    }
}
