//! Keys and values of the tokens seen so far, one store per layer, in half precision.
//!
//! Memory is bounded: at most `context` positions, grown as tokens arrive, so a short chat never pays for a long window.

use half::f16;

use crate::lla::Shape;
use crate::lla::store::{LANES, Precision, Store};

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

    /// Sets how many tokens may be held.
    pub(crate) fn allow(&mut self, tokens: usize) {
        self.context = tokens.max(self.len);
    }

    /// Makes this a copy of the first `len` tokens of another cache of the same model.
    pub(crate) fn copy_prefix(&mut self, other: &Self, len: usize) {
        let len = len.min(other.len).min(self.context);
        let copied = self.layers.iter_mut().zip(&other.layers).all(|(to, from)| to.copy_prefix(from, len).is_ok());
        self.len = if copied { len } else { 0 };
        self.truncate(self.len);
    }

    /// Gives back memory that tokens used which are held no more.
    pub(crate) fn shrink(&mut self) {
        if self.bytes() > bytes_for(self.layers.len(), self.shape, self.len) {
            let mut small = Self::new(self.layers.len(), self.shape, self.context);
            small.copy_prefix(self, self.len);
            *self = small;
        }
    }

    pub(crate) fn fits(&self, layers: usize, shape: Shape) -> bool {
        self.layers.len() == layers && self.shape == shape
    }
}

/// Bytes that a cache of `tokens` takes at most, the stores' spare room included.
pub fn bytes_for(layers: usize, shape: Shape, tokens: usize) -> usize {
    let tokens = tokens.next_multiple_of(LANES);
    let lines = tokens / LANES * shape.dim + tokens * shape.value_dim.div_ceil(LANES);
    let head = lines * LANES * size_of::<f16>() + tokens * size_of::<f64>();
    let whole = layers * shape.kv_heads * head;
    whole + whole / 8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPE: Shape = Shape { heads: 4, kv_heads: 2, dim: 6, value_dim: 18 };

    fn filled(tokens: usize, seed: u64) -> KvCache {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut cache = KvCache::new(2, SHAPE, 1000);
        for _ in 0..tokens {
            let mut draw = |n: usize| (0..n).map(|_| random.f32()).collect::<Vec<f32>>();
            let (keys, values) = (draw(12), draw(36));
            assert!(cache.extend(1));
            cache.layers.iter_mut().for_each(|store| store.append(&keys, &values).unwrap());
        }
        cache
    }

    fn same(a: &KvCache, b: &KvCache, len: usize) {
        for (a, b) in a.layers.iter().zip(&b.layers) {
            for at in 0..len {
                assert_eq!((a.key(1, at), a.value(1, at)), (b.key(1, at), b.value(1, at)));
            }
        }
    }

    proptest! {
        #[test]
        fn memory_stays_within_what_was_said(tokens in 0_usize..200, cut in 0_usize..200) {
            let mut cache = filled(tokens, 3);
            prop_assert!(cache.bytes() <= bytes_for(2, SHAPE, tokens));
            let whole = cache.clone();
            cache.truncate(cut);
            cache.shrink();
            let left = tokens.min(cut);
            prop_assert_eq!(cache.len(), left);
            prop_assert!(cache.bytes() <= bytes_for(2, SHAPE, left));
            same(&cache, &whole, left);
        }

        #[test]
        fn a_copy_holds_the_beginning_and_nothing_else(mine in 0_usize..50, theirs in 0_usize..50, len in 0_usize..60) {
            let (mut to, from) = (filled(mine, 1), filled(theirs, 2));
            to.copy_prefix(&from, len);
            prop_assert_eq!(to.len(), len.min(theirs));
            same(&to, &from, to.len());
        }
    }
}
