//! One small matrix product, over keys and values as they lie in a store.
//!
//! Every element of the result is one chain of multiply-adds in the order of the inner index, whatever the number of
//! rows or columns: a row's result does not depend on what it is computed together with.
#![allow(unsafe_code, reason = "vector kernels over raw tiles; each block says why it is sound")]

use crate::lla::lanes::{Element, Lanes};
use crate::lla::store::LANES;

/// `c = a b` or `c += a b`, where `b`'s columns come in lines of sixteen.
#[derive(Clone, Copy)]
pub struct Product<E> {
    /// Rows of `a` and `c`.
    pub rows: usize,
    /// Columns of `a`, rows of `b`.
    pub inner: usize,
    /// Columns of `b` and `c`, in lines.
    pub lines: usize,
    /// `a`, row by row.
    pub a: *const f32,
    /// From one row of `a` to the next.
    pub a_row: usize,
    /// `b`.
    pub b: *const E,
    /// From one row of `b` to the next: sixteen for interleaved keys, a value's padded width for values.
    pub b_row: usize,
    /// From one line of columns of `b` to the next: a block for interleaved keys, sixteen for values.
    pub b_line: usize,
    /// `c`, row by row.
    pub c: *mut f32,
    /// From one row of `c` to the next.
    pub c_row: usize,
    /// Whether to add to `c`.
    pub add: bool,
    /// What to take from every row of `b` first, `inner` numbers; null for nothing. Products with a centre lose nothing
    /// to a common offset of the keys.
    pub centre: *const f32,
}

/// Computes a product. `P` is sixteen divided by the width of `L`.
///
/// # Safety
/// For `r < rows`, `k < inner`, `l < lines`: `a[r * a_row + k]` must be readable, sixteen numbers readable at
/// `b[k * b_row + l * b_line]` and sixteen writable at `c[r * c_row + l * 16]` (readable too if `add`);
/// `centre`, if any, must hold `inner` numbers.
#[inline(always)]
pub unsafe fn multiply<L: Lanes, E: Element, const P: usize>(p: &Product<E>) {
    // SAFETY: the caller's promise.
    unsafe { if p.centre.is_null() { lines::<L, E, P, false>(p) } else { lines::<L, E, P, true>(p) } }
}

/// Blocks of `R` rows by `C` lines whose sums fit the registers: twelve in sixteen of them, 24 in 32. What does not fit
/// is ruled out by constants, so that it is not compiled either.
#[inline(always)]
unsafe fn lines<L: Lanes, E: Element, const P: usize, const M: bool>(p: &Product<E>) {
    let mut line = 0;
    while line < p.lines {
        let left = p.lines - line;
        // SAFETY: rows and lines handed on lie inside the product's.
        line += unsafe {
            if P == 1 && p.rows == 1 && left >= 8 {
                column::<L, E, P, M, 1, 8>(p, line)
            } else if P == 1 && left >= 4 {
                column::<L, E, P, M, 6, 4>(p, line)
            } else if P > 1 && p.rows == 1 && left >= 4 {
                column::<L, E, P, M, 1, 4>(p, line)
            } else if P == 1 && left >= 2 {
                column::<L, E, P, M, 6, 2>(p, line)
            } else if P > 1 && p.rows <= 3 && left >= 2 {
                column::<L, E, P, M, 3, 2>(p, line)
            } else {
                column::<L, E, P, M, 6, 1>(p, line)
            }
        };
    }
}

/// All rows of `C` lines from `line` on, at most `MOST` at a time; returns `C`.
#[inline(always)]
unsafe fn column<L: Lanes, E: Element, const P: usize, const M: bool, const MOST: usize, const C: usize>(
    p: &Product<E>,
    line: usize,
) -> usize {
    let mut row = 0;
    while row < p.rows {
        let left = p.rows - row;
        // Seven rows are four and three, not six and one: a lone row cannot hide the latency of its sums.
        // SAFETY: `row + R <= rows` in every arm, and `line + C <= lines`.
        row += unsafe {
            if MOST >= 6 && (left == 6 || left >= 9) {
                micro::<L, E, P, M, 6, C>(p, row, line)
            } else if MOST >= 4 && (left == 4 || left >= 7) {
                micro::<L, E, P, M, 4, C>(p, row, line)
            } else if MOST >= 3 && left >= 3 {
                micro::<L, E, P, M, 3, C>(p, row, line)
            } else if MOST >= 2 && left >= 2 {
                micro::<L, E, P, M, 2, C>(p, row, line)
            } else {
                micro::<L, E, P, M, 1, C>(p, row, line)
            }
        };
    }
    C
}

/// `R` rows by `C` lines, their sums in registers; returns `R`.
#[inline(always)]
unsafe fn micro<L: Lanes, E: Element, const P: usize, const M: bool, const R: usize, const C: usize>(
    p: &Product<E>,
    row: usize,
    line: usize,
) -> usize {
    let mut sums = [[[L::splat(0.0); P]; C]; R];
    // SAFETY: the contract of `multiply`; `row + R` and `line + C` are within the product.
    unsafe {
        let place = |r: usize, c: usize, i: usize| p.c.add((row + r) * p.c_row + (line + c) * LANES + i * L::WIDTH);
        if p.add {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (c, sums) in sums.iter_mut().enumerate() {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = L::load(place(r, c, i));
                    }
                }
            }
        }
        let (mut b, a) = (p.b.add(line * p.b_line), p.a.add(row * p.a_row));
        for k in 0..p.inner {
            let mut right = [[L::splat(0.0); P]; C];
            for (c, right) in right.iter_mut().enumerate() {
                for (i, v) in right.iter_mut().enumerate() {
                    *v = E::load(b.add(c * p.b_line + i * L::WIDTH));
                    if M {
                        *v = v.sub(L::splat(*p.centre.add(k)));
                    }
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let left = L::splat(*a.add(r * p.a_row + k));
                for (sums, right) in sums.iter_mut().zip(&right) {
                    for (sum, v) in sums.iter_mut().zip(right) {
                        *sum = left.fma(*v, *sum);
                    }
                }
            }
            b = b.wrapping_add(p.b_row);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (c, sums) in sums.iter().enumerate() {
                for (i, sum) in sums.iter().enumerate() {
                    sum.store(place(r, c, i));
                }
            }
        }
    }
    R
}
