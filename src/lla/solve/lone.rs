//! The covariance times one vector: both products with the keys in one pass, a few blocks at a time, so that the second
//! finds them in the first-level cache and nothing but sums leaves the registers.
#![allow(clippy::indexing_slicing, reason = "indices are below the constant lengths of the lists")]
#![allow(unsafe_code, reason = "vector kernels over raw tiles; each block says why it is sound")]

use crate::lla::lanes::{Element, Lanes};
use crate::lla::store::LANES;

/// Bytes per key up to which four blocks of keys stay in the first-level cache beside the sums.
const SHORT: usize = 320;

/// One row's keys, weights and vector, and where the sums are.
#[derive(Clone, Copy)]
pub struct Lone<E> {
    /// Keys: `dim` lines per block.
    pub keys: *const E,
    /// Blocks of sixteen keys.
    pub blocks: usize,
    /// Numbers per key.
    pub dim: usize,
    /// `dim` numbers.
    pub vector: *const f32,
    /// What keys are measured from, `dim` numbers.
    pub centre: *const f32,
    /// The vector's product with the mean key.
    pub shift: f32,
    /// Weights, sixteen per block.
    pub weights: *const f32,
    /// Sums: `dim` lines.
    pub sums: *mut f32,
    /// Room for four blocks in single precision: halves are converted once and used twice.
    pub wide: *mut f32,
}

/// Adds `p (k . vector - shift) k`, `k` from the centre on, of every key to the sums, lanes apart, and returns the sum of the factors.
///
/// # Safety
/// All that `row` names must be readable, its sums writable.
#[inline(always)]
pub unsafe fn lone<L: Lanes, E: Element>(row: &Lone<E>) -> f32 {
    // SAFETY: the caller's promise; the type's own width decides the register blocking.
    unsafe {
        match (L::WIDTH, row.dim * size_of::<f32>() <= SHORT) {
            (16, true) => all::<L, E, 1, 4>(row),
            (16, false) => all::<L, E, 1, 2>(row),
            (8, _) => all::<L, E, 2, 2>(row),
            _ => all::<L, E, 4, 1>(row),
        }
    }
}

#[inline(always)]
unsafe fn all<L: Lanes, E: Element, const P: usize, const B: usize>(row: &Lone<E>) -> f32 {
    let (mut block, mut sum) = (0, L::splat(0.0));
    // SAFETY: `block + B` (or one) is within the row.
    unsafe {
        while block + B <= row.blocks {
            sum = sum.add(strip::<L, E, P, B>(row, block));
            block += B;
        }
        while block < row.blocks {
            sum = sum.add(strip::<L, E, P, 1>(row, block));
            block += 1;
        }
    }
    sum.sum()
}

/// `B` blocks from `block` on; returns the factors' sum, lanes apart.
#[inline(always)]
unsafe fn strip<L: Lanes, E: Element, const P: usize, const B: usize>(row: &Lone<E>, block: usize) -> L {
    let line = row.dim * LANES;
    let mut total = L::splat(0.0);
    // SAFETY: the contract of `lone`; the blocks are within the row.
    unsafe {
        let keys = row.keys.add(block * line);
        // Even and odd components apart: twice as many sums hide the latency of a multiply-add.
        let mut dots = [[[L::splat(0.0); P]; B]; 2];
        for d in (0..row.dim).step_by(2) {
            for (half, dots) in dots.iter_mut().enumerate().take(row.dim - d) {
                let (by, centre) = (L::splat(*row.vector.add(d + half)), L::splat(*row.centre.add(d + half)));
                for (b, dots) in dots.iter_mut().enumerate() {
                    for (i, dot) in dots.iter_mut().enumerate() {
                        let at = b * line + (d + half) * LANES + i * L::WIDTH;
                        let key = E::load::<L>(keys.add(at)).sub(centre);
                        if size_of::<E>() == 2 {
                            key.store(row.wide.add(at));
                        }
                        *dot = by.fma(key, *dot);
                    }
                }
            }
        }
        let (shift, [mut factors, odd]) = (L::splat(row.shift), dots);
        for (b, factors) in factors.iter_mut().enumerate() {
            for (i, factor) in factors.iter_mut().enumerate() {
                let weight = L::load(row.weights.add((block + b) * LANES + i * L::WIDTH));
                *factor = factor.add(odd[b][i]).sub(shift).mul(weight);
                total = total.add(*factor);
            }
        }
        for d in 0..row.dim {
            let centre = L::splat(*row.centre.add(d));
            for i in 0..P {
                let place = row.sums.add(d * LANES + i * L::WIDTH);
                let mut sum = L::load(place);
                for (b, factors) in factors.iter().enumerate() {
                    let at = b * line + d * LANES + i * L::WIDTH;
                    let key = if size_of::<E>() == 2 {
                        L::load(row.wide.add(at))
                    } else {
                        E::load::<L>(keys.add(at)).sub(centre)
                    };
                    sum = factors[i].fma(key, sum);
                }
                sum.store(place);
            }
        }
    }
    total
}
