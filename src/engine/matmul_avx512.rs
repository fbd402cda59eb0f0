//! Matrix kernels for AVX-512 with VNNI: one instruction multiplies 16 rows by 4 columns.
#![allow(unsafe_code, reason = "SIMD kernels; each block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "arrays of fixed size, indexed by constants of the kernel's own loops")]

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_and_si512, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_add_epi8,
    _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_srli_epi16, _mm512_storeu_ps,
};

use crate::engine::acts::Acts;
use crate::engine::matmul::{Sums, TOKENS};
use crate::engine::packed::{Format, Packed, ROWS};
use crate::lla::simd::Level;

/// How far ahead of the stream to fetch, in bytes; measured on Zen 4.
const AHEAD_BYTES: usize = 2048;

/// Where a kernel reads: the blocks of 16 rows, and the activations of its first token.
#[derive(Clone, Copy)]
struct Source {
    weights: *const u8,
    blocks: usize,
    codes: *const i8,
    scales: *const f32,
    sums: *const f32,
    floats: *const f32,
    columns: usize,
}

/// See `matmul::rows16`.
pub fn rows16(weights: &Packed, group: usize, acts: &Acts, token: usize, tokens: usize, sums: &mut Sums) {
    assert!(Level::Avx512.runs_here(), "chosen on a machine without AVX-512");
    let (format, columns) = (weights.format(), acts.columns);
    let blocks = columns / format.group;
    let bytes = weights.group(group);
    assert!(bytes.len() == blocks * format.block_bytes() && weights.columns() == columns && columns.is_multiple_of(32));
    assert!(acts.rows >= token + tokens && tokens <= TOKENS && acts.floats.len() >= acts.rows * columns);
    assert!(acts.codes.len() >= acts.rows * columns && acts.scales.len() >= acts.rows * columns / 32);
    let totals = if format.group == 16 { &acts.half_sums } else { &acts.sums };
    assert!(totals.len() >= acts.rows * columns / format.group);
    let first = token * columns;
    // SAFETY: the asserts above put the rows of all tokens inside the activations, and all blocks inside `bytes`; the
    // instructions were checked for.
    unsafe {
        let source = Source {
            weights: bytes.as_ptr(),
            blocks,
            codes: acts.codes.as_ptr().add(first),
            scales: acts.scales.as_ptr().add(first / 32),
            sums: totals.as_ptr().add(first / format.group),
            floats: acts.floats.as_ptr().add(first),
            columns,
        };
        choose(format, source, tokens, sums);
    }
}

/// # Safety
/// `source` must cover `tokens` rows of activations and all blocks of `format`; AVX-512 must be present.
unsafe fn choose(format: Format, source: Source, tokens: usize, sums: &mut Sums) {
    // SAFETY: passed on.
    unsafe {
        match (format.bits, format.group, format.minimum) {
            (4, 32, false) => split::<4, 32, false>(source, tokens, sums),
            (4, 32, true) => split::<4, 32, true>(source, tokens, sums),
            (5, 32, false) => split::<5, 32, false>(source, tokens, sums),
            (5, 32, true) => split::<5, 32, true>(source, tokens, sums),
            (6, 16, false) => split::<6, 16, false>(source, tokens, sums),
            (8, 32, false) => split::<8, 32, false>(source, tokens, sums),
            (32, 32, false) => plain(source, tokens, sums),
            _ => unreachable!("no type is stored like this"),
        }
    }
}

/// # Safety
/// As [`choose`].
unsafe fn split<const BITS: usize, const GROUP: usize, const MIN: bool>(
    source: Source,
    tokens: usize,
    sums: &mut Sums,
) {
    let mut t = 0;
    while t < tokens {
        // SAFETY: token `t` and the ones a kernel adds to it are below `tokens`.
        unsafe {
            let from = Source {
                codes: source.codes.add(t * source.columns),
                scales: source.scales.add(t * source.columns / 32),
                sums: source.sums.add(t * source.columns / GROUP),
                ..source
            };
            t += match tokens - t {
                8.. => kernel::<BITS, GROUP, MIN, 8>(from, &mut sums[t..]),
                4.. => kernel::<BITS, GROUP, MIN, 4>(from, &mut sums[t..]),
                2.. => kernel::<BITS, GROUP, MIN, 2>(from, &mut sums[t..]),
                _ => kernel::<BITS, GROUP, MIN, 1>(from, &mut sums[t..]),
            };
        }
    }
}

/// # Safety
/// As [`choose`], for `T` tokens.
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
/// As [`choose`], for blocks of plain weights.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn plain(source: Source, tokens: usize, sums: &mut Sums) {
    for (t, sum) in sums.iter_mut().enumerate().take(tokens) {
        let mut total = _mm512_setzero_ps();
        for column in 0..source.columns {
            // SAFETY: a column of 16 weights is 64 bytes, blocks follow each other without scales.
            unsafe {
                let weights = _mm512_loadu_ps(source.weights.add(column * 64).cast());
                let value = _mm512_set1_ps(*source.floats.add(t * source.columns + column));
                total = _mm512_fmadd_ps(weights, value, total);
            }
        }
        // SAFETY: `sum` is 16 floats.
        unsafe { _mm512_storeu_ps(sum.as_mut_ptr(), total) }
    }
}
