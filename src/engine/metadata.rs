//! Key-value pairs of a GGUF header, typed.
//!
//! Arrays are kept flat and compact (a vocabulary is 150,000 strings). Nothing here reads a file or interprets a key.

use std::collections::BTreeMap;

use crate::engine::types::EngineError;

/// One metadata value. Integers of every width are one variant; so are floats.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any integer type; unsigned 64-bit values above `i64::MAX` are refused when the header is read.
    Int(i64),
    /// 32 or 64-bit float.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// Array of integers.
    Ints(Vec<i64>),
    /// Array of floats.
    Floats(Vec<f32>),
    /// Array of booleans.
    Bools(Vec<bool>),
    /// Array of texts.
    Texts(Vec<String>),
    /// Array of arrays: checked, then dropped, because no supported architecture uses one.
    Nested,
}

/// What a model file says about itself and its tokenizer.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pairs: BTreeMap<String, Value>,
}

impl Metadata {
    /// Adds a pair; `false` when the key was there already.
    pub(crate) fn insert(&mut self, key: String, value: Value) -> bool {
        self.pairs.insert(key, value).is_none()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pairs.get(key)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.keys().map(String::as_str)
    }

    /// A text value, such as `tokenizer.ggml.model` or `tokenizer.chat_template`.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A non-negative integer that fits 32 bits, such as `tokenizer.ggml.eos_token_id`.
    pub fn u32(&self, key: &str) -> Option<u32> {
        match self.get(key) {
            Some(Value::Int(n)) => u32::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A float (integers are not converted).
    pub fn f32(&self, key: &str) -> Option<f32> {
        match self.get(key) {
            #[expect(clippy::cast_possible_truncation, reason = "the file stores 32-bit floats for all keys we read")]
            Some(Value::Float(x)) => Some(*x as f32),
            _ => None,
        }
    }

    /// A boolean, such as `tokenizer.ggml.add_bos_token`.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(Value::Bool(b)) => Some(*b),
            _ => None,
        }
    }

    /// An array of texts, such as `tokenizer.ggml.tokens` or `tokenizer.ggml.merges`.
    pub fn texts(&self, key: &str) -> Option<&[String]> {
        match self.get(key) {
            Some(Value::Texts(texts)) => Some(texts),
            _ => None,
        }
    }

    /// An array of integers, such as `tokenizer.ggml.token_type`.
    pub fn ints(&self, key: &str) -> Option<&[i64]> {
        match self.get(key) {
            Some(Value::Ints(ints)) => Some(ints),
            _ => None,
        }
    }

    /// An array of floats, such as `tokenizer.ggml.scores`.
    pub fn floats(&self, key: &str) -> Option<&[f32]> {
        match self.get(key) {
            Some(Value::Floats(floats)) => Some(floats),
            _ => None,
        }
    }

    /// A required positive size, or an error that names the key.
    pub(crate) fn size(&self, key: &str) -> Result<usize, EngineError> {
        match self.u32(key) {
            Some(n) if n > 0 => Ok(n as usize),
            _ => Err(EngineError::Load(format!(
                "metadata key {key} is missing, zero or not an integer: the file was not written for this architecture"
            ))),
        }
    }
}
