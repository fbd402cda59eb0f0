//! The transposed product of decoding: sums of keys under weights, with the keys interleaved as the store keeps them.
//!
//! `sums[r][d][lane] += sum over blocks of weights[r][block][lane] * (keys[block][d][lane] - centre[d])`. The lanes stay apart until
//! [`collect`], so that no sum across a vector is made per key.
#![allow(clippy::indexing_slicing, reason = "`i` is below `P`, the length of the list")]
#![allow(unsafe_code, reason = "vector kernels over raw tiles; each block says why it is sound")]

use crate::lla::lanes::{Element, Lanes};
use crate::lla::store::LANES;

/// A tile of keys, weights for it, and where the sums are.
#[derive(Clone, Copy)]
pub struct Spread<E> {
    /// Rows of weights and sums.
    pub rows: usize,
    /// Blocks of sixteen keys.
    pub blocks: usize,
    /// Numbers per key.
    pub dim: usize,
    /// Keys: `dim` lines per block.
    pub keys: *const E,
    /// What keys are measured from, `dim` numbers.
    pub centre: *const f32,
    /// Weights, sixteen per block.
    pub weights: *const f32,
    /// From one row of weights to the next.
    pub weights_row: usize,
    /// Sums: `dim` lines per row.
    pub sums: *mut f32,
}

/// Adds a tile to the sums.
///
/// # Safety
/// All that `tile` names must be readable, its sums writable.
#[inline(always)]
pub unsafe fn spread<L: Lanes, E: Element>(tile: &Spread<E>) {
    // SAFETY: the caller's promise; the type's own width decides the register blocking.
    unsafe {
        match L::WIDTH {
            16 => strips::<L, E, 1, 4, 4>(tile),
            8 => strips::<L, E, 2, 2, 2>(tile),
            _ => strips::<L, E, 4, 2, 2>(tile),
        }
    }
}

/// `R` rows and `B` blocks at a time.
#[inline(always)]
unsafe fn strips<L: Lanes, E: Element, const P: usize, const R: usize, const B: usize>(tile: &Spread<E>) {
    let mut row = 0;
    while row < tile.rows {
        let rows = R.min(tile.rows - row);
        let mut block = 0;
        while block < tile.blocks {
            let wide = tile.blocks - block >= B;
            // SAFETY: `row + rows` and `block + B` (or one) are within the tile.
            unsafe {
                if R >= 4 && rows == 4 {
                    pick::<L, E, P, 4, B>(tile, row, block, wide);
                } else if R >= 3 && rows == 3 {
                    pick::<L, E, P, 3, B>(tile, row, block, wide);
                } else if rows == 2 {
                    pick::<L, E, P, 2, B>(tile, row, block, wide);
                } else {
                    pick::<L, E, P, 1, B>(tile, row, block, wide);
                }
            }
            block += if wide { B } else { 1 };
        }
        row += rows;
    }
}

#[inline(always)]
unsafe fn pick<L: Lanes, E: Element, const P: usize, const R: usize, const B: usize>(
    tile: &Spread<E>,
    row: usize,
    block: usize,
    wide: bool,
) {
    // SAFETY: the caller's promise; `wide` says that `B` blocks are left.
    unsafe { if wide { strip::<L, E, P, R, B>(tile, row, block) } else { strip::<L, E, P, R, 1>(tile, row, block) } }
}

#[inline(always)]
unsafe fn strip<L: Lanes, E: Element, const P: usize, const R: usize, const B: usize>(
    tile: &Spread<E>,
    row: usize,
    block: usize,
) {
    let line = tile.dim * LANES;
    // SAFETY: the contract of `spread`; rows and blocks are within the tile.
    unsafe {
        let mut weights = [[[L::splat(0.0); P]; B]; R];
        for (r, weights) in weights.iter_mut().enumerate() {
            for (b, weights) in weights.iter_mut().enumerate() {
                for (i, weight) in weights.iter_mut().enumerate() {
                    let at = (row + r) * tile.weights_row + (block + b) * LANES + i * L::WIDTH;
                    *weight = L::load(tile.weights.add(at));
                }
            }
        }
        let (mut keys, mut sums) = (tile.keys.add(block * line), tile.sums.add(row * line));
        for d in 0..tile.dim {
            let centre = L::splat(*tile.centre.add(d));
            for i in 0..P {
                let mut key = [L::splat(0.0); B];
                for (b, key) in key.iter_mut().enumerate() {
                    *key = E::load::<L>(keys.add(b * line + i * L::WIDTH)).sub(centre);
                }
                for (r, weights) in weights.iter().enumerate() {
                    let place = sums.add(r * line + i * L::WIDTH);
                    let mut sum = L::load(place);
                    for (weights, key) in weights.iter().zip(&key) {
                        sum = weights[i].fma(*key, sum);
                    }
                    sum.store(place);
                }
            }
            keys = keys.wrapping_add(LANES);
            sums = sums.wrapping_add(LANES);
        }
    }
}

/// Adds up the lanes of `dim` lines; `to` has room for `dim` rounded up to whole lines.
///
/// # Safety
/// `dim` rounded up to sixteen lines must be readable at `sums`, the same count of numbers writable at `to`.
#[inline(always)]
pub unsafe fn collect<L: Lanes>(sums: *const f32, dim: usize, to: *mut f32) {
    for d in (0..dim).step_by(LANES) {
        // SAFETY: the caller's promise.
        unsafe { to.add(d).cast::<[f32; LANES]>().write_unaligned(L::sum_lines(sums.add(d * LANES))) };
    }
}
