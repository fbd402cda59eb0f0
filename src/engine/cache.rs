//! Keys and values of the tokens seen so far, one row per token and layer, in half precision.
//!
//! Memory is bounded: at most `context` rows, grown as tokens arrive, so a short chat never pays for a long window.

use half::f16;

/// The key-value cache of one sequence. Made by `Model::new_cache`; belongs to the model that made it.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Per layer: keys after RoPE, `len * width` values.
    pub(crate) keys: Vec<Vec<f16>>,
    /// Per layer: values, `len * width` values.
    pub(crate) values: Vec<Vec<f16>>,
    /// Tokens held.
    len: usize,
    /// Most tokens that may be held.
    context: usize,
    /// Values per row: key-value heads x head dimension.
    width: usize,
}

impl KvCache {
    pub(crate) fn new(layers: usize, width: usize, context: usize) -> Self {
        Self { keys: vec![Vec::new(); layers], values: vec![Vec::new(); layers], len: 0, context, width }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Most tokens that may be held.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Bytes in use now.
    pub fn bytes(&self) -> usize {
        self.keys.iter().chain(&self.values).map(|v| v.capacity() * size_of::<f16>()).sum()
    }

    /// Forgets everything; keeps the memory for the next sequence.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Forgets all tokens from position `len` on, so that a shared prefix can be used again.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        let values = self.len * self.width;
        for row in self.keys.iter_mut().chain(&mut self.values) {
            row.truncate(values);
        }
    }

    /// Makes room for `tokens` more rows in every layer; `false` (and no change) when they would not fit the context.
    pub(crate) fn extend(&mut self, tokens: usize) -> bool {
        if tokens > self.context.saturating_sub(self.len) {
            return false;
        }
        self.len += tokens;
        let values = self.len * self.width;
        for row in self.keys.iter_mut().chain(&mut self.values) {
            row.resize(values, f16::ZERO);
        }
        true
    }

    pub(crate) fn fits(&self, layers: usize, width: usize) -> bool {
        self.keys.len() == layers && self.width == width
    }
}
