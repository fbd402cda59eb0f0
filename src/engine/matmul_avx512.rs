//! Matrix kernels for AVX-512 with VNNI: one instruction multiplies 16 rows by 4 columns.
#![allow(unsafe_code, reason = "SIMD kernels; each block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays of fixed size, indexed by constants of the kernel's own loops")]

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_and_si512, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_add_epi8,
    _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_srli_epi16, _mm512_storeu_ps,
};

use crate::engine::matmul_frame::{Kernels, Source};
use crate::engine::packed::{Format, ROWS};
use crate::lla::simd::Level;

/// How far ahead of the stream to fetch, in bytes; measured on Zen 4.
const AHEAD_BYTES: usize = 2048;

/// AVX-512 F, BW and VNNI.
pub struct Avx512;

impl Kernels for Avx512 {
    const LEVEL: Level = Level::Avx512;
    const SIDES: usize = 1;
    const TOKENS: usize = 8;

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
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,f16c,fma")]
unsafe fn kernel<const BITS: usize, const GROUP: usize, const MIN: bool, const T: usize>(
    source: Source,
    sums: &mut [[f32; ROWS]],
) -> usize {
    let format = const { Format { bits: BITS, group: GROUP, minimum: MIN } };
    let offset = _mm512_set1_ps(-f32::from(format.offset()));
    let mut totals = [_mm512_setzero_ps(); T];
    let mut block = source.weights;
    for b in 0..source.blocks {
        // SAFETY: `block` is block `b` of `blocks`; each token's row has `blocks * GROUP` codes and their scales and
        // sums. Prefetching past the end is allowed by the instruction.
        unsafe {
            if T == 1 {
                for line in 0..format.block_bytes().div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(AHEAD_BYTES + line * 64).cast());
                }
            }
            let codes = unpack::<BITS, GROUP>(block);
            let at = block.add(format.code_bytes() + format.plane_bytes());
            let scale = _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
            let minimum = if MIN {
                _mm512_cvtph_ps(_mm256_loadu_si256(at.add(ROWS * 2).cast()))
            } else {
                _mm512_mul_ps(scale, offset)
            };
            for (t, total) in totals.iter_mut().enumerate() {
                let row = source.codes.add(t * source.columns + b * GROUP).cast::<i32>();
                let mut dot = _mm512_setzero_si512();
                for (step, line) in codes.iter().enumerate().take(GROUP / 4) {
                    dot = _mm512_dpbusd_epi32(dot, *line, _mm512_set1_epi32(row.add(step).read_unaligned()));
                }
                let a = _mm512_set1_ps(*source.scales.add((t * source.columns + b * GROUP) / 32));
                let s = _mm512_set1_ps(*source.sums.add(t * source.columns / GROUP + b));
                *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scale, a), *total);
                *total = _mm512_fmadd_ps(minimum, s, *total);
            }
            block = block.add(format.block_bytes());
        }
    }
    store(&totals, sums);
    T
}

#[target_feature(enable = "avx512f")]
fn store<const T: usize>(totals: &[__m512; T], sums: &mut [[f32; ROWS]]) {
    for (total, sum) in totals.iter().zip(sums) {
        // SAFETY: `sum` is 16 floats.
        unsafe { _mm512_storeu_ps(sum.as_mut_ptr(), *total) }
    }
}

/// The codes of a block, one register per step of four columns; the first `GROUP / 4` are used.
///
/// # Safety
/// `block` must have the codes and planes of a block of this format; AVX-512 F and BW must be present.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn unpack<const BITS: usize, const GROUP: usize>(block: *const u8) -> [__m512i; 8] {
    let format = const { Format { bits: BITS, group: GROUP, minimum: false } };
    let mut codes = [_mm512_setzero_si512(); 8];
    // SAFETY: all offsets are below `code_bytes + plane_bytes`, as the layout in `packed` says.
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

/// # Safety
/// As [`Kernels::plain`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn plain<const BITS: usize, const T: usize>(source: Source, sums: &mut [[f32; ROWS]]) -> usize {
    let mut totals = [_mm512_setzero_ps(); T];
    for column in 0..source.columns {
        // SAFETY: a column of 16 weights is `BITS * 2` bytes, and blocks follow each other without scales.
        // Prefetching past the end is allowed by the instruction.
        unsafe {
            let at = source.weights.add(column * BITS * 2);
            if T == 1 && (column * BITS * 2).is_multiple_of(64) {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD_BYTES).cast());
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
