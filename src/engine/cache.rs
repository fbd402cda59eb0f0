//! Keys and values of the tokens seen so far, one store per layer, in half precision.
//!
//! Memory is bounded: at most `context` positions, grown as tokens arrive, so a short chat never pays for a long window.

use crate::lla::Shape;
use crate::lla::store::{Precision, Store};

/// The key-value cache of one sequence. Made by `Model::new_cache`; belongs to the model that made it.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Per layer: keys after RoPE and values. Inside a forward pass the layers to come are shorter than `len`.
    pub(crate) layers: Vec<Store>,
    /// Tokens held.
    len: usize,
    /// Most tokens that may be held.
    context: usize,
    shape: Shape,
}

impl KvCache {
    pub(crate) fn new(layers: usize, shape: Shape, context: usize) -> Self {
        Self { layers: vec![Store::new(shape, Precision::Half); layers], len: 0, context, shape }
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
        self.layers.iter().map(Store::bytes).sum()
    }

    /// Forgets everything; keeps the memory for the next sequence.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Forgets all tokens from position `len` on, so that a shared prefix can be used again.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        for store in &mut self.layers {
            store.truncate(self.len);
        }
    }

    /// Counts `tokens` more, whose keys and values every layer is about to append; `false` (and no change) when they
    /// would not fit the context.
    pub(crate) fn extend(&mut self, tokens: usize) -> bool {
        if tokens > self.context.saturating_sub(self.len) {
            return false;
        }
        self.len += tokens;
        true
    }

    pub(crate) fn fits(&self, layers: usize, shape: Shape) -> bool {
        self.layers.len() == layers && self.shape == shape
    }
}
