//! Products of small row-major matrices, either side's layout by strides: `c = a b` or `c += a b`.
#![allow(unsafe_code, reason = "SIMD kernel; each block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "extents are asserted at the top of `multiply`")]

use crate::lla::simd::Level;

/// Rows and columns of `c`, and what is summed over. `rows` is a multiple of 8, `width` of 16.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub rows: usize,
    pub inner: usize,
    pub width: usize,
}

/// The left factor: element `(r, k)` is `data[r * row + k * step]`.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    data: &'a [f32],
    row: usize,
    step: usize,
}

impl<'a> Left<'a> {
    /// Rows of `row` numbers.
    pub fn plain(data: &'a [f32], row: usize) -> Self {
        Self { data, row, step: 1 }
    }

    /// The transpose of rows of `row` numbers.
    pub fn turned(data: &'a [f32], row: usize) -> Self {
        Self { data, row: 1, step: row }
    }
}

/// The product's place: rows of `row` numbers, overwritten or added to.
pub struct Out<'a> {
    pub data: &'a mut [f32],
    pub row: usize,
    pub add: bool,
}

impl<'a> Out<'a> {
    /// Overwritten.
    pub fn fresh(data: &'a mut [f32], row: usize) -> Self {
        Self { data, row, add: false }
    }
}

/// `c = a b`; `right` is the data of `b` and its row length.
pub fn multiply(level: Level, sizes: Sizes, left: Left, right: (&[f32], usize), out: Out) {
    let Sizes { rows, inner, width } = sizes;
    if rows == 0 || width == 0 {
        return;
    }
    assert!(rows.is_multiple_of(8) && width.is_multiple_of(16));
    assert!(inner == 0 || left.data.len() > (rows - 1) * left.row + (inner - 1) * left.step);
    assert!(inner == 0 || right.0.len() >= (inner - 1) * right.1 + width);
    assert!(out.data.len() >= (rows - 1) * out.row + width);
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if level.runs_here() => x86::multiply_512(sizes, left, right, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.runs_here() => x86::multiply_2(sizes, left, right, out),
        _ => product::<false>(sizes, left, right, out),
    }
}

#[inline(always)]
fn product<const FUSED: bool>(sizes: Sizes, left: Left, right: (&[f32], usize), out: Out) {
    for row in (0..sizes.rows).step_by(4) {
        for column in (0..sizes.width).step_by(16) {
            let mut sums = [[0.0_f32; 16]; 4];
            for k in 0..sizes.inner {
                let line = &right.0[k * right.1 + column..k * right.1 + column + 16];
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x = left.data[(row + i) * left.row + k * left.step];
                    // Without the instruction `mul_add` is a slow library call.
                    sum.iter_mut().zip(line).for_each(|(s, y)| *s = if FUSED { x.mul_add(*y, *s) } else { *s + x * y });
                }
            }
            for (i, sum) in sums.iter().enumerate() {
                let place = &mut out.data[(row + i) * out.row + column..(row + i) * out.row + column + 16];
                place.iter_mut().zip(sum).for_each(|(p, s)| *p = if out.add { *p + s } else { *s });
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps};

    use super::{Left, Out, Sizes, product};

    pub fn multiply_2(sizes: Sizes, left: Left, right: (&[f32], usize), out: Out) {
        #[target_feature(enable = "avx2,fma")]
        fn wide(sizes: Sizes, left: Left, right: (&[f32], usize), out: Out) {
            product::<true>(sizes, left, right, out);
        }
        // SAFETY: called only where `Level::runs_here` found AVX2 and FMA.
        unsafe { wide(sizes, left, right, out) }
    }

    /// Four rows by 64 columns, or eight by 32 or 16: many accumulators hide the latency of the multiplication.
    pub fn multiply_512(sizes: Sizes, left: Left, right: (&[f32], usize), out: Out) {
        let place = out.data.as_mut_ptr();
        for row in (0..sizes.rows).step_by(8) {
            let mut column = 0;
            while column < sizes.width {
                let tile = |at: usize| Tile { row: at, column, inner: sizes.inner, out_row: out.row, add: out.add };
                // SAFETY: `multiply` asserted that all three matrices cover `sizes`; `row + 8 <= rows`, and the columns
                // of the chosen kernel end at or before `width`; AVX-512 was found by `Level::runs_here`.
                unsafe {
                    column += match sizes.width - column {
                        64.. => {
                            columns::<4, 4>(tile(row), left, right, place);
                            columns::<4, 4>(tile(row + 4), left, right, place)
                        }
                        32.. => columns::<8, 2>(tile(row), left, right, place),
                        _ => columns::<8, 1>(tile(row), left, right, place),
                    };
                }
            }
        }
    }

    struct Tile {
        row: usize,
        column: usize,
        inner: usize,
        out_row: usize,
        add: bool,
    }

    /// `R` rows by `16 N` columns; returns the columns.
    ///
    /// # Safety
    /// The rows and columns must lie inside the matrices.
    #[target_feature(enable = "avx512f")]
    unsafe fn columns<const R: usize, const N: usize>(
        tile: Tile,
        left: Left,
        right: (&[f32], usize),
        out: *mut f32,
    ) -> usize {
        let mut sums = [[_mm512_setzero_ps(); N]; R];
        // SAFETY: as the function's contract says.
        unsafe {
            let a = left.data.as_ptr().add(tile.row * left.row);
            let b = right.0.as_ptr().add(tile.column);
            let c = out.add(tile.row * tile.out_row + tile.column);
            for k in 0..tile.inner {
                let mut line = [_mm512_setzero_ps(); N];
                for (j, l) in line.iter_mut().enumerate() {
                    *l = _mm512_loadu_ps(b.add(k * right.1 + j * 16));
                }
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(i * left.row + k * left.step));
                    for (s, l) in sum.iter_mut().zip(&line) {
                        *s = _mm512_fmadd_ps(x, *l, *s);
                    }
                }
            }
            let one = _mm512_set1_ps(1.0);
            for (i, sum) in sums.iter().enumerate() {
                for (j, s) in sum.iter().enumerate() {
                    let place = c.add(i * tile.out_row + j * 16);
                    let before = if tile.add { _mm512_loadu_ps(place) } else { _mm512_setzero_ps() };
                    _mm512_storeu_ps(place, _mm512_fmadd_ps(*s, one, before));
                }
            }
        }
        16 * N
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_agree_with_the_definition_at_every_level() {
        let mut random = fastrand::Rng::with_seed(5);
        for (rows, inner, width) in [(8, 1, 16), (16, 7, 48), (8, 33, 112), (24, 0, 16), (8, 64, 64)] {
            for turned in [false, true] {
                let (a_row, b_row, c_row) = (if turned { rows + 3 } else { inner + 3 }, width + 5, width + 1);
                let a: Vec<f32> = (0..(rows + inner + 3) * a_row).map(|_| random.f32() - 0.5).collect();
                let b: Vec<f32> = (0..(inner + 1) * b_row).map(|_| random.f32() - 0.5).collect();
                let left = if turned { Left::turned(&a, a_row) } else { Left::plain(&a, a_row) };
                for level in Level::all().into_iter().filter(|l| l.runs_here()) {
                    let mut c = vec![1.0_f32; rows * c_row];
                    let out = Out { data: &mut c, row: c_row, add: true };
                    multiply(level, Sizes { rows, inner, width }, left, (&b, b_row), out);
                    for (r, j) in (0..rows).flat_map(|r| (0..c_row).map(move |j| (r, j))) {
                        let at = |k: usize| if turned { a[k * a_row + r] } else { a[r * a_row + k] };
                        let sum: f32 = (0..inner).map(|k| at(k) * b[k * b_row + j.min(width)]).sum();
                        let want = if j < width { 1.0 + sum } else { 1.0 };
                        assert!((c[r * c_row + j] - want).abs() < 1e-5, "{level:?} {rows} {inner} {width} {turned}");
                    }
                }
            }
        }
    }
}
