//! Matrix kernels for AVX-512 with VNNI: one instruction multiplies 16 rows by 4 columns.
#![allow(unsafe_code, reason = "SIMD kernels; each block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays of fixed size, indexed by constants of the kernel's own loops")]

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T1, _mm_prefetch, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512,
    _mm512_cvtepi8_epi16, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_add_epi8, _mm512_mul_ps, _mm512_mullo_epi32,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_srai_epi32, _mm512_srli_epi16, _mm512_storeu_ps,
};

use crate::engine::matmul_frame::{Kernels, Source};
use crate::engine::packed::{Format, ROWS, WIDE};
use crate::lla::simd::Level;

/// How far ahead of the stream to fetch into the second-level cache, in bytes. Measured on Zen 4 with weights that fit no
/// cache: nearer fetches, and those into the first level, wait for the few lines that may be under way there. Narrow formats
/// are fastest without, since several of their blocks are in flight at a time.
const AHEAD_BYTES: usize = 8192;

/// AVX-512 F, BW and VNNI.
pub struct Avx512;

impl Kernels for Avx512 {
    const LEVEL: Level = Level::Avx512;
    const SIDES: usize = 1;
    const TOKENS: usize = 8;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,f16c,fma")]
    unsafe fn narrow<const BITS: usize, const MIN: bool, const T: usize>(
        source: Source,
        sums: &mut [[f32; ROWS]],
    ) -> usize {
        let format = const { Format::narrow(BITS, MIN) };
        let mut totals = [_mm512_setzero_ps(); T];
        let mut block = source.weights;
        for b in 0..source.blocks {
            // SAFETY: `block` is block `b` of `blocks`; each token's row has `blocks * 32` codes and their scales and sums.
            unsafe {
                let codes = unpack::<BITS, 32>(block);
                let (scale, minimum) = factors(format, block);
                for (t, total) in totals.iter_mut().enumerate() {
                    let dot = dot::<32>(&codes, source.codes.add(t * source.columns + b * 32));
                    let a = _mm512_set1_ps(*source.scales.add(t * source.blocks + b));
                    let s = _mm512_set1_ps(*source.sums.add(t * source.blocks + b));
                    *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scale, a), *total);
                    *total = _mm512_fmadd_ps(minimum, s, *total);
                }
                block = block.add(format.block_bytes());
            }
        }
        store(&totals, sums);
        T
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,f16c,fma")]
    unsafe fn wide<const BITS: usize, const GROUP: usize, const MIN: bool, const T: usize>(
        source: Source,
        sums: &mut [[f32; ROWS]],
    ) -> usize {
        let format = const { Format::wide(BITS, GROUP, MIN) };
        let mut totals = [_mm512_setzero_ps(); T];
        let mut block = source.weights;
        for b in 0..source.blocks {
            // SAFETY: `block` is block `b` of `blocks`; each token's row has `blocks * WIDE` codes, and their scales and sums.
            unsafe {
                let (mut dots, mut offsets) = ([_mm512_setzero_si512(); T], [_mm512_setzero_si512(); T]);
                for pair in 0..format.parts() / 2 {
                    let scales = bytes(block.add(format.scales_at() + pair * 2 * ROWS));
                    let each =
                        [_mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(scales)), _mm512_srai_epi32::<16>(scales)];
                    for (side, &scale) in each.iter().enumerate() {
                        let part = pair * 2 + side;
                        let at = block.add(part * format.part_bytes());
                        fetch::<T>(at, format.part_bytes());
                        let codes = unpack::<BITS, GROUP>(at);
                        for (t, sum) in dots.iter_mut().enumerate() {
                            let dot =
                                dot::<GROUP>(&codes, source.codes.add(t * source.columns + b * WIDE + part * GROUP));
                            *sum = _mm512_add_epi32(*sum, _mm512_mullo_epi32(dot, scale));
                        }
                    }
                    let minima = match MIN {
                        true => bytes(block.add(format.scales_at() + format.parts() * ROWS + pair * 2 * ROWS)),
                        false => scales,
                    };
                    for (t, sum) in offsets.iter_mut().enumerate() {
                        let at = source.pairs.add((t * source.blocks + b) * (format.parts() / 2) + pair);
                        *sum = _mm512_dpwssd_epi32(*sum, minima, _mm512_set1_epi32(at.read_unaligned()));
                    }
                }
                fetch::<T>(block.add(format.scales_at()), format.block_bytes() - format.scales_at());
                let (scale, minimum) = factors(format, block);
                for (t, total) in totals.iter_mut().enumerate() {
                    let a = _mm512_set1_ps(*source.scales.add(t * source.blocks + b));
                    *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t]), _mm512_mul_ps(scale, a), *total);
                    *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(offsets[t]), _mm512_mul_ps(minimum, a), *total);
                }
                block = block.add(format.block_bytes());
            }
        }
        store(&totals, sums);
        T
    }

    #[target_feature(enable = "avx512f,avx512bw,f16c,fma")]
    unsafe fn plain<const BITS: usize, const T: usize>(source: Source, sums: &mut [[f32; ROWS]]) -> usize {
        let mut totals = [_mm512_setzero_ps(); T];
        for column in 0..source.columns {
            // SAFETY: a column of 16 weights is `BITS * 2` bytes, and blocks follow each other without scales.
            unsafe {
                let at = source.weights.add(column * BITS * 2);
                if (column * BITS * 2).is_multiple_of(64) {
                    fetch::<T>(at, 64);
                }
                let weights = match BITS {
                    16 => _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())),
                    _ => _mm512_loadu_ps(at.cast()),
                };
                for (t, total) in totals.iter_mut().enumerate() {
                    let value = _mm512_set1_ps(*source.floats.add(t * source.columns + column));
                    *total = _mm512_fmadd_ps(weights, value, *total);
                }
            }
        }
        store(&totals, sums);
        T
    }
}

/// Fetches what comes [`AHEAD_BYTES`] after a part of the stream, where there is one token: memory bounds that case alone.
#[inline]
#[target_feature(enable = "avx512f")]
fn fetch<const T: usize>(at: *const u8, length: usize) {
    if T == 1 {
        for line in 0..length.div_ceil(64) {
            _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(AHEAD_BYTES + line * 64).cast());
        }
    }
}

/// Scales and minima of a block, or their factors.
///
/// # Safety
/// `block` must be a block of the format.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn factors(format: Format, block: *const u8) -> (__m512, __m512) {
    // SAFETY: the layout in `packed`: 16 halves, and 16 more where there are minima.
    unsafe {
        let at = block.add(format.factors_at());
        let scale = _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
        let minimum = match format.minimum {
            true => _mm512_cvtph_ps(_mm256_loadu_si256(at.add(ROWS * 2).cast())),
            false => _mm512_mul_ps(scale, _mm512_set1_ps(-f32::from(format.offset()))),
        };
        (scale, minimum)
    }
}

/// Two signed bytes per row, widened.
///
/// # Safety
/// `at` must have 32 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn bytes(at: *const u8) -> __m512i {
    // SAFETY: as promised.
    _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// Sums over the columns of a group.
///
/// # Safety
/// `row` must have `GROUP` codes.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dot<const GROUP: usize>(codes: &[__m512i; 8], row: *const i8) -> __m512i {
    let mut dot = _mm512_setzero_si512();
    for (step, line) in codes.iter().enumerate().take(GROUP / 4) {
        // SAFETY: `step` is below `GROUP / 4`.
        let four = unsafe { row.cast::<i32>().add(step).read_unaligned() };
        dot = _mm512_dpbusd_epi32(dot, *line, _mm512_set1_epi32(four));
    }
    dot
}

#[target_feature(enable = "avx512f")]
fn store<const T: usize>(totals: &[__m512; T], sums: &mut [[f32; ROWS]]) {
    for (total, sum) in totals.iter().zip(sums) {
        // SAFETY: `sum` is 16 floats.
        unsafe { _mm512_storeu_ps(sum.as_mut_ptr(), *total) }
    }
}

/// The codes of a group, one register per step of four columns; the first `GROUP / 4` are used.
///
/// # Safety
/// `block` must have the codes and planes of a group of this format; AVX-512 F and BW must be present.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn unpack<const BITS: usize, const GROUP: usize>(block: *const u8) -> [__m512i; 8] {
    let format = const { Format { bits: BITS, group: GROUP, minimum: false, wide: false } };
    let mut codes = [_mm512_setzero_si512(); 8];
    // SAFETY: all offsets are below `part_bytes`, as the layout in `packed` says.
    unsafe {
        if BITS == 8 {
            for (step, code) in codes.iter_mut().enumerate().take(GROUP / 4) {
                *code = _mm512_loadu_si512(block.add(step * 64).cast());
            }
            return codes;
        }
        let low = _mm512_set1_epi8(15);
        for step in 0..GROUP / 8 {
            let pair = _mm512_loadu_si512(block.add(step * 64).cast());
            codes[step] = _mm512_and_si512(pair, low);
            codes[step + GROUP / 8] = _mm512_and_si512(_mm512_srli_epi16::<4>(pair), low);
        }
        for bit in 4..BITS {
            let plane = block.add(format.code_bytes() + (bit - 4) * GROUP * 2).cast::<u64>();
            let value = _mm512_set1_epi8(if bit == 4 { 16 } else { 32 });
            for (step, code) in codes.iter_mut().enumerate().take(GROUP / 4) {
                *code = _mm512_mask_add_epi8(*code, plane.add(step).read_unaligned(), *code, value);
            }
        }
    }
    codes
}
