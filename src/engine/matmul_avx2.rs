//! Matrix kernels for AVX2: eight rows at a time, on the same layout as AVX-512.
#![allow(unsafe_code, reason = "SIMD kernels; each block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays of fixed size, indexed by constants of the kernel's own loops")]

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256,
    _mm256_cmpeq_epi8, _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_ps, _mm256_setr_epi8, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_sign_epi8, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_xor_si256,
};

use crate::engine::matmul_frame::{Kernels, Source};
use crate::engine::packed::{Format, ROWS};
use crate::lla::simd::Level;

/// AVX2, FMA and F16C.
pub struct Avx2;

impl Kernels for Avx2 {
    const LEVEL: Level = Level::Avx2;
    const SIDES: usize = 2;
    const TOKENS: usize = 4;

    unsafe fn coded<const BITS: usize, const GROUP: usize, const MIN: bool, const T: usize>(
        source: Source,
        sums: &mut [[f32; ROWS]],
    ) -> usize {
        // SAFETY: passed on.
        unsafe { kernel::<BITS, GROUP, MIN, T>(source, sums) }
    }

    unsafe fn plain<const BITS: usize, const T: usize>(source: Source, sums: &mut [[f32; ROWS]]) -> usize {
        // SAFETY: passed on.
        unsafe { plain::<BITS, T>(source, sums) }
    }
}

/// # Safety
/// As [`Kernels::coded`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn kernel<const BITS: usize, const GROUP: usize, const MIN: bool, const T: usize>(
    source: Source,
    sums: &mut [[f32; ROWS]],
) -> usize {
    let format = const { Format { bits: BITS, group: GROUP, minimum: MIN } };
    // Signed 8-bit codes need no offset: the dot product takes their sign into the activations.
    let offset = _mm256_set1_ps(if BITS == 8 { 0.0 } else { -f32::from(format.offset()) });
    let mut totals = [_mm256_setzero_ps(); T];
    let mut block = source.weights;
    for b in 0..source.blocks {
        // SAFETY: `block` is block `b` of `blocks`; each token's row has `blocks * GROUP` codes, scales and sums.
        unsafe {
            let codes = unpack::<BITS, GROUP>(block, source.side);
            let at = block.add(format.code_bytes() + format.plane_bytes() + source.side * 16);
            let scale = _mm256_cvtph_ps(_mm_loadu_si128(at.cast()));
            let minimum = if MIN {
                _mm256_cvtph_ps(_mm_loadu_si128(at.add(ROWS * 2).cast()))
            } else {
                _mm256_mul_ps(scale, offset)
            };
            for (t, total) in totals.iter_mut().enumerate() {
                let row = source.codes.add(t * source.columns + b * GROUP).cast::<i32>();
                let dot = dot::<BITS, GROUP>(&codes, row);
                let a = _mm256_set1_ps(*source.scales.add((t * source.columns + b * GROUP) / 32));
                let s = _mm256_set1_ps(*source.sums.add(t * source.columns / GROUP + b));
                *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scale, a), *total);
                *total = _mm256_fmadd_ps(minimum, s, *total);
            }
            block = block.add(format.block_bytes());
        }
    }
    store(&totals, source.side, sums);
    T
}

#[target_feature(enable = "avx2")]
fn store<const T: usize>(totals: &[__m256; T], side: usize, sums: &mut [[f32; ROWS]]) {
    for (total, sum) in totals.iter().zip(sums) {
        let half = &mut sum[side * 8..side * 8 + 8];
        // SAFETY: `half` is 8 floats.
        unsafe { _mm256_storeu_ps(half.as_mut_ptr(), *total) }
    }
}

/// Sums over the columns of a block, for eight rows.
///
/// # Safety
/// `row` must have `GROUP` codes; AVX2 must be present.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot<const BITS: usize, const GROUP: usize>(codes: &[__m256i; 8], row: *const i32) -> __m256i {
    // Pairs of products are summed in 16 bits. That many steps fit: 8 x 2 x 15 x 127, 4 x 2 x 31 x 127, 2 x 2 x 63 x 127.
    let fold = const {
        match BITS {
            4 => 8,
            5 => 4,
            6 => 2,
            _ => 1,
        }
    };
    let ones = _mm256_set1_epi16(1);
    let mut sum = _mm256_setzero_si256();
    for from in (0..GROUP / 4).step_by(fold) {
        let mut pairs = _mm256_setzero_si256();
        for (step, &code) in codes.iter().enumerate().take((from + fold).min(GROUP / 4)).skip(from) {
            // SAFETY: `step` is below `GROUP / 4`.
            let four = _mm256_set1_epi32(unsafe { row.add(step).read_unaligned() });
            let product = if BITS == 8 {
                _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(four, code))
            } else {
                _mm256_maddubs_epi16(code, four)
            };
            pairs = _mm256_add_epi16(pairs, product);
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    sum
}

/// The codes of eight rows of a block, one register per step of four columns; the first `GROUP / 4` are used.
/// 8-bit codes come back signed.
///
/// # Safety
/// `block` must have the codes and planes of a block of this format; AVX2 must be present.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack<const BITS: usize, const GROUP: usize>(block: *const u8, side: usize) -> [__m256i; 8] {
    let format = const { Format { bits: BITS, group: GROUP, minimum: false } };
    let mut codes = [_mm256_setzero_si256(); 8];
    let half = side * 32;
    // SAFETY: all offsets are below `code_bytes + plane_bytes`, as the layout in `packed` says.
    unsafe {
        if BITS == 8 {
            let sign = _mm256_set1_epi8(-128);
            for (step, code) in codes.iter_mut().enumerate().take(GROUP / 4) {
                *code = _mm256_xor_si256(_mm256_loadu_si256(block.add(step * 64 + half).cast()), sign);
            }
            return codes;
        }
        let low = _mm256_set1_epi8(15);
        for step in 0..GROUP / 8 {
            let pair = _mm256_loadu_si256(block.add(step * 64 + half).cast());
            codes[step] = _mm256_and_si256(pair, low);
            codes[step + GROUP / 8] = _mm256_and_si256(_mm256_srli_epi16::<4>(pair), low);
        }
        // Byte i of a register gets bit i of a 32-bit word: its byte i / 8 to every place, then bit i % 8 of it.
        let spread = _mm256_setr_epi8(
            0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3,
        );
        let bits = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
        for bit in 4..BITS {
            let plane = block.add(format.code_bytes() + (bit - 4) * GROUP * 2 + side * 4);
            let value = _mm256_set1_epi8(if bit == 4 { 16 } else { 32 });
            for (step, code) in codes.iter_mut().enumerate().take(GROUP / 4) {
                let word = _mm256_set1_epi32(plane.add(step * 8).cast::<i32>().read_unaligned());
                let set = _mm256_and_si256(_mm256_shuffle_epi8(word, spread), bits);
                *code = _mm256_or_si256(*code, _mm256_and_si256(_mm256_cmpeq_epi8(set, bits), value));
            }
        }
    }
    codes
}

/// # Safety
/// As [`Kernels::plain`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn plain<const BITS: usize, const T: usize>(source: Source, sums: &mut [[f32; ROWS]]) -> usize {
    let mut totals = [_mm256_setzero_ps(); T];
    for column in 0..source.columns {
        // SAFETY: a column of 16 weights is `BITS * 2` bytes, half of them for each side; blocks follow each other
        // without scales.
        unsafe {
            let at = source.weights.add(column * BITS * 2 + source.side * BITS);
            let weights = match BITS {
                16 => _mm256_cvtph_ps(_mm_loadu_si128(at.cast())),
                _ => _mm256_loadu_ps(at.cast()),
            };
            for (t, total) in totals.iter_mut().enumerate() {
                let value = _mm256_set1_ps(*source.floats.add(t * source.columns + column));
                *total = _mm256_fmadd_ps(weights, value, *total);
            }
        }
    }
    store(&totals, source.side, sums);
    T
}
