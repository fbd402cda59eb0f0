//! The arithmetic inside a tile: small matrix products and the online softmax of one row.
#![allow(unsafe_code, reason = "SIMD kernels; each block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "lengths are asserted at the top of each public function")]

use crate::lla::simd::{Level, exp};

/// Sizes of a product: `rows` a multiple of 4, `width` a multiple of 16.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Rows of `a` and `c`.
    pub rows: usize,
    /// Columns of `a`, rows of `b`.
    pub inner: usize,
    /// Columns of `b` and `c`.
    pub width: usize,
}

/// `c = a b`, or `c += a b`; all row by row.
pub fn multiply(level: Level, sizes: Sizes, a: &[f32], b: &[f32], c: &mut [f32], add: bool) {
    let Sizes { rows, inner, width } = sizes;
    assert!(rows.is_multiple_of(4) && width.is_multiple_of(16));
    assert!(a.len() >= rows * inner && b.len() >= inner * width && c.len() >= rows * width);
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if level.runs_here() => x86::multiply_512(sizes, a, b, c, add),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.runs_here() => x86::multiply_2(sizes, a, b, c, add),
        _ => product::<false>(sizes, a, b, c, add),
    }
}

/// Turns a row's scores into weights relative to the largest score so far, and updates that and the sum of weights.
/// Returns what earlier sums of the row must be multiplied by.
pub fn weigh(level: Level, scores: &mut [f32], most: &mut f32, total: &mut f32) -> f32 {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 if level.runs_here() => x86::weigh(scores, most, total),
        _ => online(scores, most, total),
    }
}

#[inline(always)]
fn fused<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction `mul_add` is a slow library call.
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn product<const FUSED: bool>(sizes: Sizes, a: &[f32], b: &[f32], c: &mut [f32], add: bool) {
    let Sizes { rows, inner, width } = sizes;
    for row in (0..rows).step_by(4) {
        for column in (0..width).step_by(16) {
            let mut sums = [[0.0_f32; 16]; 4];
            for k in 0..inner {
                let line = &b[k * width + column..k * width + column + 16];
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x = a[(row + i) * inner + k];
                    sum.iter_mut().zip(line).for_each(|(s, y)| *s = fused::<FUSED>(x, *y, *s));
                }
            }
            for (i, sum) in sums.iter().enumerate() {
                let place = &mut c[(row + i) * width + column..(row + i) * width + column + 16];
                for (p, s) in place.iter_mut().zip(sum) {
                    *p = if add { *p + s } else { *s };
                }
            }
        }
    }
}

#[inline(always)]
fn online(scores: &mut [f32], most: &mut f32, total: &mut f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = scores.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(m, s)| *m = if *s > *m { *s } else { *m });
    }
    let highest = lanes.iter().chain(rest).fold(*most, |m, s| if *s > m { *s } else { m });
    if highest == f32::NEG_INFINITY {
        // Nothing visible has weight, unless a score is NaN, which must not vanish.
        *total += if scores.iter().any(|s| s.is_nan()) { f32::NAN } else { 0.0 };
        scores.fill(0.0);
        return 1.0;
    }
    let shrink = exp(*most - highest);
    let mut sums = [0.0_f32; 16];
    let (chunks, rest) = scores.as_chunks_mut::<16>();
    for chunk in chunks {
        for (sum, s) in sums.iter_mut().zip(chunk) {
            *s = exp(*s - highest);
            *sum += *s;
        }
    }
    for s in rest {
        *s = exp(*s - highest);
        sums[0] += *s;
    }
    *total = *total * shrink + sums.iter().sum::<f32>();
    *most = highest;
    shrink
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps};

    use super::{Sizes, online, product};

    pub fn multiply_2(sizes: Sizes, a: &[f32], b: &[f32], c: &mut [f32], add: bool) {
        #[target_feature(enable = "avx2,fma")]
        fn wide(sizes: Sizes, a: &[f32], b: &[f32], c: &mut [f32], add: bool) {
            product::<true>(sizes, a, b, c, add);
        }
        // SAFETY: called only where `Level::runs_here` found AVX2 and FMA.
        unsafe { wide(sizes, a, b, c, add) }
    }

    pub fn weigh(scores: &mut [f32], most: &mut f32, total: &mut f32) -> f32 {
        #[target_feature(enable = "avx2,fma")]
        fn wide(scores: &mut [f32], most: &mut f32, total: &mut f32) -> f32 {
            online(scores, most, total)
        }
        // SAFETY: called only where `Level::runs_here` found AVX2 and FMA.
        unsafe { wide(scores, most, total) }
    }

    /// Four rows by 64 columns at a time: sixteen accumulators hide the latency of the multiplication.
    pub fn multiply_512(sizes: Sizes, a: &[f32], b: &[f32], c: &mut [f32], add: bool) {
        for row in (0..sizes.rows).step_by(4) {
            let mut column = 0;
            while column < sizes.width {
                // SAFETY: `multiply` asserted that `a`, `b` and `c` cover `sizes`, `row + 4 <= rows` and, by the choice
                // of the kernel, its columns are below `width`; AVX-512 was found by `Level::runs_here`.
                unsafe {
                    column += if sizes.width - column >= 64 {
                        columns::<4>(sizes, a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), row, column, add)
                    } else {
                        columns::<1>(sizes, a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), row, column, add)
                    };
                }
            }
        }
    }

    /// # Safety
    /// Rows `row..row + 4` and columns `column..column + 16 * N` must lie inside the matrices of `sizes`.
    #[target_feature(enable = "avx512f")]
    unsafe fn columns<const N: usize>(
        sizes: Sizes,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        row: usize,
        column: usize,
        add: bool,
    ) -> usize {
        let mut sums = [[_mm512_setzero_ps(); N]; 4];
        // SAFETY: as the function's contract says.
        unsafe {
            if add {
                for (i, sum) in sums.iter_mut().enumerate() {
                    for (j, s) in sum.iter_mut().enumerate() {
                        *s = _mm512_loadu_ps(c.add((row + i) * sizes.width + column + j * 16));
                    }
                }
            }
            for k in 0..sizes.inner {
                let mut line = [_mm512_setzero_ps(); N];
                for (j, l) in line.iter_mut().enumerate() {
                    *l = _mm512_loadu_ps(b.add(k * sizes.width + column + j * 16));
                }
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add((row + i) * sizes.inner + k));
                    for (s, l) in sum.iter_mut().zip(&line) {
                        *s = _mm512_fmadd_ps(x, *l, *s);
                    }
                }
            }
            for (i, sum) in sums.iter().enumerate() {
                for (j, s) in sum.iter().enumerate() {
                    _mm512_storeu_ps(c.add((row + i) * sizes.width + column + j * 16), *s);
                }
            }
        }
        16 * N
    }
}
