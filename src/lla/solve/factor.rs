//! The direct route: the ridged covariance factored by Cholesky, upper triangle, row by row.
#![allow(clippy::indexing_slicing, reason = "all indices are below the size that the slices were checked for")]
#![allow(unsafe_code, reason = "vector loads and stores; the block says why it is sound")]

use crate::lla::lanes::{Kernel, Lanes};
use crate::lla::store::LANES;

/// Solves `matrix x = right`. Only the upper triangle of the matrix is read; it becomes its factor. `x` takes the place
/// of `right`. Returns whether all pivots were above zero.
pub struct Factor<'a> {
    /// `size * stride` numbers, `stride` a multiple of sixteen.
    pub matrix: &'a mut [f32],
    /// Unknowns.
    pub size: usize,
    /// From one row to the next.
    pub stride: usize,
    /// Right-hand side, then solution; `stride` numbers.
    pub right: &'a mut [f32],
}

impl Kernel for Factor<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<L: Lanes>(self) -> bool {
        let Self { matrix, size, stride, right } = self;
        assert!(matrix.len() >= size * stride && right.len() >= stride && stride >= size);
        for k in 0..size {
            let (above, below) = matrix.split_at_mut((k + 1) * stride);
            let row = &mut above[k * stride..];
            let pivot = row[k];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return false;
            }
            let inverse = 1.0 / pivot.sqrt();
            row[k..].iter_mut().for_each(|x| *x *= inverse);
            for i in k + 1..size {
                let (line, by) = (i / LANES * LANES, L::splat(-row[i]));
                let to = &mut below[(i - k - 1) * stride + line..(i - k) * stride];
                for (to, from) in to.chunks_exact_mut(L::WIDTH).zip(row[line..].chunks_exact(L::WIDTH)) {
                    // SAFETY: both chunks are as wide as the vector.
                    unsafe { L::load(from.as_ptr()).fma(by, L::load(to.as_ptr())).store(to.as_mut_ptr()) };
                }
            }
            let z = right[k] * inverse;
            right[k] = z;
            right[k + 1..size].iter_mut().zip(&row[k + 1..size]).for_each(|(r, u)| *r -= u * z);
        }
        for k in (0..size).rev() {
            let row = &matrix[k * stride..(k + 1) * stride];
            let sum: f32 = (k + 1..size).map(|j| row[j] * right[j]).sum();
            right[k] = (right[k] - sum) / row[k];
        }
        true
    }
}

/// Whether the covariance costs less than the iterations expected: both are memory-light, so operations decide,
/// `4 n d` per iteration against `n d^2` (as a product, about 1.5 times as fast) and the factor.
pub fn prefers_factor(expected: usize, dim: usize, seen: usize) -> bool {
    expected * 6 * seen >= dim * (seen + dim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lla::lanes;
    use crate::lla::simd::Level;

    #[test]
    fn positive_definite_systems_are_solved_and_others_refused() {
        for level in Level::all().into_iter().filter(|l| l.runs_here()) {
            for size in [1_usize, 3, 16, 20, 64] {
                let stride = size.next_multiple_of(LANES);
                let mut random = fastrand::Rng::with_seed(size as u64);
                let square: Vec<f32> = (0..size * size).map(|_| random.f32() - 0.5).collect();
                let mut matrix = vec![f32::NAN; size * stride];
                for i in 0..size {
                    for j in i..size {
                        let dot: f32 = (0..size).map(|k| square[k * size + i] * square[k * size + j]).sum();
                        matrix[i * stride + j] = dot + if i == j { 0.5 } else { 0.0 };
                    }
                }
                let full = matrix.clone();
                let want: Vec<f32> = (0..size).map(|i| i as f32 - 2.0).collect();
                let mut right = vec![0.0; stride];
                for i in 0..size {
                    right[i] = (0..size).map(|j| full[i.min(j) * stride + i.max(j)] * want[j]).sum();
                }
                let factor = Factor { matrix: &mut matrix, size, stride, right: &mut right };
                assert!(lanes::run(level, factor));
                let error = right.iter().zip(&want).map(|(x, w)| (x - w).abs()).fold(0.0, f32::max);
                assert!(error < 2e-3, "{level:?} {size}: {error}");
                let mut bad = full;
                bad[(size - 1) * stride + size - 1] = -1.0;
                assert!(!lanes::run(level, Factor { matrix: &mut bad, size, stride, right: &mut right }));
            }
        }
    }

    #[test]
    fn the_covariance_is_preferred_from_a_sixth_of_the_dimension_on() {
        assert!(!prefers_factor(0, 64, 100_000) && !prefers_factor(10, 64, 100_000) && prefers_factor(11, 64, 100_000));
        assert!(!prefers_factor(21, 128, 100_000) && prefers_factor(22, 128, 100_000));
        assert!(!prefers_factor(20, 64, 64) && prefers_factor(22, 64, 64), "a short context pays for the factor");
    }
}
