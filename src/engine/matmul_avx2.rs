//! Matrix kernels for AVX2: eight rows at a time, on the same layout as AVX-512.
#![allow(unsafe_code, reason = "SIMD kernels; each block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays of fixed size, indexed by constants of the kernel's own loops")]

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256,
    _mm256_cmpeq_epi8, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_ps, _mm256_setr_epi8, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8, _mm256_slli_epi32, _mm256_srli_epi16,
    _mm256_srli_epi32, _mm256_storeu_ps, _mm256_xor_si256,
};

use crate::engine::matmul_frame::{Kernels, Source};
use crate::engine::packed::{Format, ROWS, WIDE};
use crate::lla::simd::Level;

/// AVX2, FMA and F16C.
pub struct Avx2;

impl Kernels for Avx2 {
    const LEVEL: Level = Level::Avx2;
    const SIDES: usize = 2;
    const TOKENS: usize = 4;

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn narrow<const BITS: usize, const MIN: bool, const T: usize>(
        source: Source,
        sums: &mut [[f32; ROWS]],
    ) -> usize {
        let format = const { Format::narrow(BITS, MIN) };
        let ones = _mm256_set1_epi16(1);
        let mut totals = [_mm256_setzero_ps(); T];
        let mut block = source.weights;
        for b in 0..source.blocks {
            // SAFETY: `block` is block `b` of `blocks`; each token's row has `blocks * 32` codes, scales and sums.
            unsafe {
                let codes = unpack::<BITS, 32>(block, source.side);
                let (scale, minimum) = factors(format, block, source.side);
                for (t, total) in totals.iter_mut().enumerate() {
                    let dot = dot::<BITS, 32>(&codes, source.codes.add(t * source.columns + b * 32), ones);
                    let a = _mm256_set1_ps(*source.scales.add(t * source.blocks + b));
                    *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scale, a), *total);
                    // Signed 8-bit codes need no offset: the dot product takes their sign into the activations.
                    if BITS != 8 {
                        let s = _mm256_set1_ps(*source.sums.add(t * source.blocks + b));
                        *total = _mm256_fmadd_ps(minimum, s, *total);
                    }
                }
                block = block.add(format.block_bytes());
            }
        }
        store(&totals, source.side, sums);
        T
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn wide<const BITS: usize, const GROUP: usize, const MIN: bool, const T: usize>(
        source: Source,
        sums: &mut [[f32; ROWS]],
    ) -> usize {
        let format = const { Format::wide(BITS, GROUP, MIN) };
        let mut totals = [_mm256_setzero_ps(); T];
        let mut block = source.weights;
        for b in 0..source.blocks {
            // SAFETY: `block` is block `b` of `blocks`; each token's row has `blocks * WIDE` codes, and their scales and sums.
            unsafe {
                let (mut dots, mut offsets) = ([_mm256_setzero_si256(); T], [_mm256_setzero_si256(); T]);
                for pair in 0..format.parts() / 2 {
                    let at = block.add(format.scales_at() + pair * 2 * ROWS + source.side * ROWS);
                    let scales = bytes(at);
                    for (side, &scale) in doubled(scales).iter().enumerate() {
                        let part = pair * 2 + side;
                        let codes = unpack::<BITS, GROUP>(block.add(part * format.part_bytes()), source.side);
                        for (t, sum) in dots.iter_mut().enumerate() {
                            let row = source.codes.add(t * source.columns + b * WIDE + part * GROUP);
                            *sum = _mm256_add_epi32(*sum, dot::<BITS, GROUP>(&codes, row, scale));
                        }
                    }
                    let minima = if MIN { bytes(at.add(format.parts() * ROWS)) } else { scales };
                    for (t, sum) in offsets.iter_mut().enumerate() {
                        let at = source.pairs.add((t * source.blocks + b) * (format.parts() / 2) + pair);
                        let sums = _mm256_set1_epi32(at.read_unaligned());
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(minima, sums));
                    }
                }
                let (scale, minimum) = factors(format, block, source.side);
                for (t, total) in totals.iter_mut().enumerate() {
                    let a = _mm256_set1_ps(*source.scales.add(t * source.blocks + b));
                    *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t]), _mm256_mul_ps(scale, a), *total);
                    *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(offsets[t]), _mm256_mul_ps(minimum, a), *total);
                }
                block = block.add(format.block_bytes());
            }
        }
        store(&totals, source.side, sums);
        T
    }

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
}

/// Scales and minima of eight rows of a block, or their factors.
///
/// # Safety
/// `block` must be a block of the format.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn factors(format: Format, block: *const u8, side: usize) -> (__m256, __m256) {
    // SAFETY: the layout in `packed`: 16 halves, and 16 more where there are minima.
    unsafe {
        let at = block.add(format.factors_at() + side * ROWS);
        let scale = _mm256_cvtph_ps(_mm_loadu_si128(at.cast()));
        let minimum = match format.minimum {
            true => _mm256_cvtph_ps(_mm_loadu_si128(at.add(ROWS * 2).cast())),
            false => _mm256_mul_ps(scale, _mm256_set1_ps(-f32::from(format.offset()))),
        };
        (scale, minimum)
    }
}

/// Two signed bytes for each of eight rows, widened.
///
/// # Safety
/// `at` must have 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn bytes(at: *const u8) -> __m256i {
    // SAFETY: as promised.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(at.cast()) })
}

/// Of two 16-bit numbers in every lane, the first twice and the second twice.
#[inline]
#[target_feature(enable = "avx2")]
fn doubled(pairs: __m256i) -> [__m256i; 2] {
    let low = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff));
    let high = _mm256_srli_epi32::<16>(pairs);
    [_mm256_or_si256(low, _mm256_slli_epi32::<16>(low)), _mm256_or_si256(high, _mm256_slli_epi32::<16>(high))]
}

#[target_feature(enable = "avx2")]
fn store<const T: usize>(totals: &[__m256; T], side: usize, sums: &mut [[f32; ROWS]]) {
    for (total, sum) in totals.iter().zip(sums) {
        let half = &mut sum[side * 8..side * 8 + 8];
        // SAFETY: `half` is 8 floats.
        unsafe { _mm256_storeu_ps(half.as_mut_ptr(), *total) }
    }
}

/// Sums over the columns of a group, for eight rows, times `scale` (the same in both halves of a lane).
///
/// # Safety
/// `row` must have `GROUP` codes; AVX2 must be present.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot<const BITS: usize, const GROUP: usize>(codes: &[__m256i; 8], row: *const i8, scale: __m256i) -> __m256i {
    // Pairs of products are summed in 16 bits. That many steps fit: 8 x 2 x 15 x 127, 4 x 2 x 31 x 127, 2 x 2 x 63 x 127.
    let fold = const {
        match BITS {
            4 => 8,
            5 => 4,
            6 => 2,
            _ => 1,
        }
    };
    let mut sum = _mm256_setzero_si256();
    for from in (0..GROUP / 4).step_by(fold) {
        let mut pairs = _mm256_setzero_si256();
        for (step, &code) in codes.iter().enumerate().take((from + fold).min(GROUP / 4)).skip(from) {
            // SAFETY: `step` is below `GROUP / 4`.
            let four = _mm256_set1_epi32(unsafe { row.cast::<i32>().add(step).read_unaligned() });
            let product = if BITS == 8 {
                _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(four, code))
            } else {
                _mm256_maddubs_epi16(code, four)
            };
            pairs = _mm256_add_epi16(pairs, product);
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, scale));
    }
    sum
}

/// The codes of eight rows of a group, one register per step of four columns; the first `GROUP / 4` are used.
/// 8-bit codes come back signed.
///
/// # Safety
/// `block` must have the codes and planes of a group of this format; AVX2 must be present.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack<const BITS: usize, const GROUP: usize>(block: *const u8, side: usize) -> [__m256i; 8] {
    let format = const { Format { bits: BITS, group: GROUP, minimum: false, wide: false } };
    let mut codes = [_mm256_setzero_si256(); 8];
    let half = side * 32;
    // SAFETY: all offsets are below `part_bytes`, as the layout in `packed` says.
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
