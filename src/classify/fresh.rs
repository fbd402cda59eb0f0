//! Each feature of a text once, in batches: a bitmap of what was seen and a buffer of what was not handed on.
//!
//! Invariant: a bucket is handed on at most once per text. Whoever offers makes sure that there is room.
#![allow(
    clippy::indexing_slicing,
    reason = "cells and places in the batch are masked by the lengths of their arrays, which are powers of two"
)]

/// Most features of a batch: few enough for 16-bit sums of 8-bit weights.
pub const BATCH: usize = 256;
/// An odd number whose bits are spread: 2^64 over the golden ratio.
pub const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The features that a text has had, one bit for each bucket of a table of `64 * CELLS`, and those not handed on yet. The
/// memory is borrowed: what owns as much gets copied when it is moved.
pub struct Fresh<'a, const CELLS: usize> {
    /// One bit per bucket.
    pub seen: &'a mut [u64; CELLS],
    /// Buckets to hand on.
    pub batch: &'a mut [u32; BATCH],
    /// How many of these.
    pub len: usize,
}

impl<const CELLS: usize> Fresh<'_, CELLS> {
    /// log2 of the buckets; a cell holds 64 of them.
    const BITS: u32 = CELLS.trailing_zeros() + 6;

    /// Takes a mixed hash in. Without a branch: whether one is new cannot be foreseen.
    #[inline]
    pub fn offer(&mut self, mixed: u64) {
        let bucket = ((mixed ^ (mixed >> 29)).wrapping_mul(MIX) >> (64 - Self::BITS)) as u32;
        let cell = &mut self.seen[(bucket >> 6) as usize & (CELLS - 1)];
        let new = !(*cell >> (bucket & 63)) & 1;
        *cell |= 1 << (bucket & 63);
        self.batch[self.len & (BATCH - 1)] = bucket;
        self.len += new as usize;
    }

    /// How many more the batch takes.
    pub fn room(&self) -> usize {
        BATCH - self.len
    }

    /// Hands the batch on and begins another.
    pub fn drain(&mut self) -> &[u32] {
        let len = std::mem::take(&mut self.len);
        &self.batch[..len]
    }
}
