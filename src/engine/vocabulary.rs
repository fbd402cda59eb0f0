//! What a GGUF file says about its tokens, checked before anything is built from it.
//!
//! Invariant: every merge joins two tokens of the vocabulary into a third, so that building the merge table cannot fail
//! later. The file's chat template is only recognised (by its hash and one word); it is never rendered.

use std::collections::HashSet;

use crate::engine::metadata::Metadata;
use crate::engine::types::EngineError;

/// Token tables of a file whose `tokenizer.ggml.model` is `gpt2`: byte-level BPE.
pub struct Vocabulary {
    /// Pre-tokenizer name, such as `smollm` or `qwen2`.
    pub pre: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Token strings by id, in the byte-level alphabet for ordinary tokens.
    pub tokens: Vec<String>,
    /// Kind by id, as long as `tokens`.
    pub kinds: Vec<TokenKind>,
    /// Pairs in rank order.
    pub merges: Vec<(String, String)>,
    /// Beginning of sequence.
    pub bos: Option<u32>,
    /// Ends of a turn or text that the file declares.
    pub ends: Vec<u32>,
    /// Whether plain text starts with `bos`.
    pub add_bos: bool,
    /// BLAKE3 of the file's chat template, in hex.
    pub template_hash: Option<String>,
    /// Whether that template lets its caller switch thinking off.
    pub thinking_switch: bool,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Text that the merges can produce.
    Normal,
    /// A mark that only a template may place; shown as nothing.
    Control,
    /// A mark added by the model's authors; shown as its text, never made from a user's text.
    UserDefined,
    /// A hole in the table.
    Unused,
}

impl TokenKind {
    /// The GGUF number: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    fn of(number: i64) -> Self {
        match number {
            1 | 6 => Self::Normal,
            4 => Self::UserDefined,
            5 => Self::Unused,
            _ => Self::Control,
        }
    }
}

/// Reads the tables; every problem names the key.
pub fn read(metadata: &Metadata) -> Result<Vocabulary, EngineError> {
    let model = metadata.text("tokenizer.ggml.model").unwrap_or("not named");
    if model != "gpt2" {
        return Err(EngineError::Load(format!(
            "the model's tokenizer is \"{}\"; only \"gpt2\" (byte-level BPE) is supported: use a model of the SmolLM2, Qwen2.5 \
             or Llama 3 families, or serve this one with an external server as an openai backend",
            clip(model)
        )));
    }
    let tokens = metadata.texts("tokenizer.ggml.tokens").ok_or_else(|| bad("tokenizer.ggml.tokens", "is missing"))?;
    let id = |key: &str| metadata.u32(key).filter(|id| usize::try_from(*id).is_ok_and(|at| at < tokens.len()));
    let pre = metadata.text("tokenizer.ggml.pre").unwrap_or("default");
    Ok(Vocabulary {
        pre: pre.to_owned(),
        architecture: metadata.text("general.architecture").unwrap_or_default().to_owned(),
        kinds: kinds(metadata, tokens.len())?,
        merges: merges(metadata, tokens)?,
        bos: id("tokenizer.ggml.bos_token_id"),
        ends: ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"].iter().filter_map(|key| id(key)).collect(),
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token").unwrap_or(pre == "llama-bpe"),
        template_hash: metadata
            .text("tokenizer.chat_template")
            .map(|t| blake3::hash(t.as_bytes()).to_hex().to_string()),
        thinking_switch: metadata.text("tokenizer.chat_template").is_some_and(|t| t.contains("enable_thinking")),
        tokens: tokens.to_vec(),
    })
}

fn kinds(metadata: &Metadata, tokens: usize) -> Result<Vec<TokenKind>, EngineError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let Some(numbers) = metadata.ints(KEY) else {
        return Err(bad(KEY, "is missing, so that control tokens cannot be told from text"));
    };
    if numbers.len() != tokens {
        return Err(bad(KEY, &format!("has {} entries for {tokens} tokens", numbers.len())));
    }
    Ok(numbers.iter().copied().map(TokenKind::of).collect())
}

fn merges(metadata: &Metadata, tokens: &[String]) -> Result<Vec<(String, String)>, EngineError> {
    const KEY: &str = "tokenizer.ggml.merges";
    let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    let lines = metadata.texts(KEY).ok_or_else(|| bad(KEY, "is missing"))?;
    let mut pairs = Vec::with_capacity(lines.len());
    let mut joined = String::new();
    for (rank, line) in lines.iter().enumerate() {
        let Some((left, right)) = line.split_once(' ') else {
            return Err(bad(KEY, &format!("has no space in entry {rank}")));
        };
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if ![left, right, joined.as_str()].iter().all(|part| known.contains(part)) {
            return Err(bad(KEY, &format!("entry {rank} joins tokens that the vocabulary lacks")));
        }
        pairs.push((left.to_owned(), right.to_owned()));
    }
    Ok(pairs)
}

fn bad(key: &str, what: &str) -> EngineError {
    EngineError::Load(format!("the model file's {key} {what}: fetch the file again or use another one"))
}

/// A file's own words in an error message, kept short and printable.
pub fn clip(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()
}
