//! AVX2 and AVX-512 as the kernels see them.
#![allow(
    unsafe_code,
    reason = "intrinsics. Values of these types exist only where `lanes::run` found the instructions, which is what \
              every block below relies on; memory is the caller's promise"
)]
#![allow(clippy::indexing_slicing, reason = "fixed places of lists of fixed length")]

use std::arch::x86_64::*;

use half::f16;

use crate::lla::gemm::{Product, multiply};
use crate::lla::lanes::{Element, Lanes};
use crate::lla::store::LANES;

/// ln 2 in two parts, the first exact in few bits (Cody and Waite).
const LN2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
/// Cephes' minimax polynomial of (e^r - 1 - r) / r^2 on [-ln2/2, ln2/2].
const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// Sixteen numbers.
#[derive(Clone, Copy)]
pub struct Zmm(__m512);

/// Eight numbers.
#[derive(Clone, Copy)]
pub struct Ymm(__m256);

impl Lanes for Zmm {
    const WIDTH: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see the module.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn fma(self, by: Self, to: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_fmadd_ps(self.0, by.0, to.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn root(self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn exp(self) -> Self {
        // SAFETY: see the module.
        unsafe {
            // The instruction's second operand comes through where one is not a number: NaN stays NaN.
            let x = _mm512_max_ps(_mm512_set1_ps(-200.0), _mm512_min_ps(_mm512_set1_ps(100.0), self.0));
            let n = _mm512_roundscale_ps::<8>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
            let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN2.0), x);
            let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN2.1), r);
            let mut p = _mm512_set1_ps(EXP[0]);
            for c in [EXP[1], EXP[2], EXP[3], EXP[4], EXP[5]] {
                p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
            }
            let p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0)));
            Self(_mm512_scalef_ps(p, n))
        }
    }
    unsafe fn multiply<E: Element>(product: &Product<E>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        unsafe fn wide<E: Element>(product: &Product<E>) {
            // SAFETY: the caller's promise.
            unsafe { multiply::<Zmm, E, 1>(product) }
        }
        // SAFETY: the caller's promise; see the module.
        unsafe { wide(product) }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see the module.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
    #[inline(always)]
    fn top(self) -> f32 {
        // SAFETY: see the module.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
    /// Halves the lines with every step: each pair is interleaved and added.
    #[inline(always)]
    unsafe fn sum_lines(from: *const f32) -> [f32; LANES] {
        // SAFETY: see the module and the caller's promise.
        unsafe {
            let (a, b, c, d) =
                (four(from), four(from.add(4 * LANES)), four(from.add(8 * LANES)), four(from.add(12 * LANES)));
            let ab = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            let cd = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
            let all = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
            let mut sums = [0.0; LANES];
            _mm512_storeu_ps(sums.as_mut_ptr(), all);
            sums
        }
    }
    #[inline(always)]
    unsafe fn turn(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: see the module and the caller's promise.
        unsafe {
            let mut v = [_mm512_setzero_ps(); LANES];
            for (i, v) in v.iter_mut().enumerate() {
                *v = _mm512_loadu_ps(from.add(i * from_row));
            }
            // 4 x 4 blocks inside the 128-bit quarters, then the quarters themselves.
            for i in (0..LANES).step_by(4) {
                let (a, b) = (_mm512_unpacklo_ps(v[i], v[i + 1]), _mm512_unpackhi_ps(v[i], v[i + 1]));
                let (c, d) = (_mm512_unpacklo_ps(v[i + 2], v[i + 3]), _mm512_unpackhi_ps(v[i + 2], v[i + 3]));
                v[i] = _mm512_shuffle_ps::<0x44>(a, c);
                v[i + 1] = _mm512_shuffle_ps::<0xee>(a, c);
                v[i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
                v[i + 3] = _mm512_shuffle_ps::<0xee>(b, d);
            }
            for i in 0..4 {
                let (a, b) =
                    (_mm512_shuffle_f32x4::<0x88>(v[i], v[i + 4]), _mm512_shuffle_f32x4::<0xdd>(v[i], v[i + 4]));
                let (c, d) = (
                    _mm512_shuffle_f32x4::<0x88>(v[i + 8], v[i + 12]),
                    _mm512_shuffle_f32x4::<0xdd>(v[i + 8], v[i + 12]),
                );
                _mm512_storeu_ps(to.add(i * to_row), _mm512_shuffle_f32x4::<0x88>(a, c));
                _mm512_storeu_ps(to.add((i + 4) * to_row), _mm512_shuffle_f32x4::<0x88>(b, d));
                _mm512_storeu_ps(to.add((i + 8) * to_row), _mm512_shuffle_f32x4::<0xdd>(a, c));
                _mm512_storeu_ps(to.add((i + 12) * to_row), _mm512_shuffle_f32x4::<0xdd>(b, d));
            }
        }
    }
}

/// Lane `4 q + i` is the sum of quarter `q` of line `i` of four. A function and not a closure: closures are compiled for
/// the baseline.
#[inline(always)]
unsafe fn four(from: *const f32) -> __m512 {
    // SAFETY: see the module and the caller's promise that four lines follow.
    unsafe {
        let (a, b) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(LANES)));
        let (c, d) = (_mm512_loadu_ps(from.add(2 * LANES)), _mm512_loadu_ps(from.add(3 * LANES)));
        let ac = _mm512_add_ps(_mm512_unpacklo_ps(a, c), _mm512_unpackhi_ps(a, c));
        let bd = _mm512_add_ps(_mm512_unpacklo_ps(b, d), _mm512_unpackhi_ps(b, d));
        _mm512_add_ps(_mm512_unpacklo_ps(ac, bd), _mm512_unpackhi_ps(ac, bd))
    }
}

impl Lanes for Ymm {
    const WIDTH: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see the module.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn fma(self, by: Self, to: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_fmadd_ps(self.0, by.0, to.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn root(self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn exp(self) -> Self {
        // SAFETY: see the module.
        unsafe {
            // The instruction's second operand comes through where one is not a number: NaN stays NaN.
            let x = _mm256_max_ps(_mm256_set1_ps(-87.0), _mm256_min_ps(_mm256_set1_ps(88.0), self.0));
            let n = _mm256_round_ps::<8>(_mm256_mul_ps(x, _mm256_set1_ps(std::f32::consts::LOG2_E)));
            let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2.0), x);
            let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2.1), r);
            let mut p = _mm256_set1_ps(EXP[0]);
            for c in [EXP[1], EXP[2], EXP[3], EXP[4], EXP[5]] {
                p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
            }
            let p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, _mm256_add_ps(r, _mm256_set1_ps(1.0)));
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent));
            let far = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, _mm256_set1_ps(-87.0));
            Self(_mm256_andnot_ps(far, _mm256_mul_ps(p, power)))
        }
    }
    unsafe fn multiply<E: Element>(product: &Product<E>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn wide<E: Element>(product: &Product<E>) {
            // SAFETY: the caller's promise.
            unsafe { multiply::<Ymm, E, 2>(product) }
        }
        // SAFETY: the caller's promise; see the module.
        unsafe { wide(product) }
    }
}
