//! Row by row: scores to weights, weights times slopes, half precision to single.
#![allow(clippy::indexing_slicing, reason = "two fixed places of a list of two")]
#![allow(unsafe_code, reason = "vector loops over raw rows; each block says why it is sound")]

use half::f16;

use crate::lla::lanes::Lanes;
use crate::lla::record::Record;
use crate::lla::store::LANES;

/// Turns scores into weights relative to the largest so far, updates that and the sum of weights (`[most, total]`), and
/// returns what earlier sums of the row must be multiplied by.
///
/// # Safety
/// `lines * 16` numbers must be there at `scores`.
#[inline(always)]
pub unsafe fn weigh<L: Lanes>(scores: *mut f32, lines: usize, running: &mut [f32]) -> f32 {
    let len = lines * LANES;
    let mut top = L::splat(f32::NEG_INFINITY);
    for i in (0..len).step_by(L::WIDTH) {
        // SAFETY: the caller's promise.
        top = unsafe { L::load(scores.add(i)) }.max(top);
    }
    let (before, top) = (running[Record::MOST], top.top());
    let most = if top > before { top } else { before };
    // Where nothing is seen yet all weights come out as zero, unless a score is NaN, which must not vanish.
    let base = if most == f32::NEG_INFINITY { 0.0 } else { most };
    let mut sum = L::splat(0.0);
    for i in (0..len).step_by(L::WIDTH) {
        // SAFETY: the caller's promise.
        unsafe {
            let weight = L::load(scores.add(i)).sub(L::splat(base)).exp();
            weight.store(scores.add(i));
            sum = sum.add(weight);
        }
    }
    let shrink = if most == before { 1.0 } else { crate::lla::simd::exp(before - base) };
    running[Record::TOTAL] = running[Record::TOTAL] * shrink + sum.sum();
    running[Record::MOST] = most;
    shrink
}

/// Turns `t` into weights times `t`, and returns their sum.
///
/// # Safety
/// Both must hold `lines * 16` numbers.
#[inline(always)]
pub unsafe fn lean<L: Lanes>(weights: *const f32, t: *mut f32, lines: usize) -> f32 {
    let mut sum = L::splat(0.0);
    for i in (0..lines * LANES).step_by(L::WIDTH) {
        // SAFETY: the caller's promise that both hold `lines` lines.
        unsafe {
            let product = L::load(t.add(i)).mul(L::load(weights.add(i)));
            product.store(t.add(i));
            sum = sum.add(product);
        }
    }
    sum.sum()
}

/// Converts `len` numbers, a multiple of sixteen.
///
/// # Safety
/// Both must hold `len` numbers.
#[inline(always)]
pub unsafe fn widen<L: Lanes>(from: *const f16, to: *mut f32, len: usize) {
    for i in (0..len).step_by(L::WIDTH) {
        // SAFETY: the caller's promise that both hold `len` numbers.
        unsafe { L::load_half(from.add(i)).store(to.add(i)) };
    }
}
