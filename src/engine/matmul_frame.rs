//! What the matrix kernels of every x86 instruction set share: the checks that make their pointers sound, and the choice
//! of a kernel by format and number of tokens. A level brings three functions: for weights with half-precision scales,
//! with integer scales, and without any.
#![allow(unsafe_code, reason = "hands checked pointers to SIMD kernels; each block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "the lengths of the buffers are what is being checked")]

use std::ptr;

use crate::engine::acts::Acts;
use crate::engine::matmul::{Sums, TOKENS};
use crate::engine::packed::{Format, Packed, ROWS, WIDE};
use crate::lla::simd::Level;

/// Where a kernel reads: a group of rows, and the activations of its first token.
#[derive(Clone, Copy)]
pub struct Source {
    /// Blocks of the group, one after another.
    pub weights: *const u8,
    /// Part of the rows that one call takes, below [`Kernels::SIDES`].
    pub side: usize,
    /// Blocks in the group.
    pub blocks: usize,
    /// Codes of the first token; the next one's are `columns` further.
    pub codes: *const i8,
    /// Scales, one per block and token.
    pub scales: *const f32,
    /// Narrow formats: sums per block, as many.
    pub sums: *const f32,
    /// Wide formats: sums of pairs of groups, two 16-bit numbers each, `parts / 2` per block and token.
    pub pairs: *const i32,
    /// Values, `columns` per token.
    pub floats: *const f32,
    /// Columns.
    pub columns: usize,
}

/// The kernels of one instruction set.
pub trait Kernels {
    /// The instruction set.
    const LEVEL: Level;
    /// Calls that cover the sixteen rows.
    const SIDES: usize;
    /// Tokens that one call takes at most.
    const TOKENS: usize;

    /// Sums of `T` tokens over weights with half-precision scales; returns `T`.
    ///
    /// # Safety
    /// `source` must cover `T` rows of activations and all blocks of the format; the instructions must be present.
    unsafe fn narrow<const BITS: usize, const MIN: bool, const T: usize>(
        source: Source,
        sums: &mut [[f32; ROWS]],
    ) -> usize;

    /// Sums of `T` tokens over weights with integer scales; returns `T`.
    ///
    /// # Safety
    /// As [`Kernels::narrow`].
    unsafe fn wide<const BITS: usize, const GROUP: usize, const MIN: bool, const T: usize>(
        source: Source,
        sums: &mut [[f32; ROWS]],
    ) -> usize;

    /// Sums of `T` tokens over plain weights of `BITS` bits; returns `T`.
    ///
    /// # Safety
    /// As [`Kernels::narrow`].
    unsafe fn plain<const BITS: usize, const T: usize>(source: Source, sums: &mut [[f32; ROWS]]) -> usize;
}

/// See `matmul::rows16`.
pub fn rows16<K: Kernels>(weights: &Packed, group: usize, acts: &Acts, token: usize, tokens: usize, sums: &mut Sums) {
    assert!(K::LEVEL.runs_here(), "chosen on a machine without these instructions");
    let (format, columns) = (weights.format(), acts.columns);
    let blocks = columns / format.columns();
    let bytes = weights.group(group);
    assert!(bytes.len() == blocks * format.block_bytes() && weights.columns() == columns && columns.is_multiple_of(32));
    assert!(acts.rows >= token + tokens && tokens <= TOKENS);
    for side in 0..K::SIDES {
        let mut done = 0;
        while let Some(rest) = sums.get_mut(done..tokens).filter(|rest| !rest.is_empty()) {
            let source = source(format, bytes, acts, token + done, Source { side, blocks, columns, ..EMPTY });
            // SAFETY: `source` covers all rows from this token on, and all blocks of `bytes`; a kernel takes at most as
            // many tokens as `rest` has; the instructions were checked for.
            done += unsafe { choose::<K>(format, source, rest) };
        }
    }
}

const EMPTY: Source = Source {
    weights: ptr::null(),
    side: 0,
    blocks: 0,
    codes: ptr::null(),
    scales: ptr::null(),
    sums: ptr::null(),
    pairs: ptr::null(),
    floats: ptr::null(),
    columns: 0,
};

/// Points `source` at the weights, and at the activations from `token` on that the format takes: to the end of their
/// buffers, whose lengths are those of all rows.
fn source(format: Format, bytes: &[u8], acts: &Acts, token: usize, source: Source) -> Source {
    let (first, all) = (token * acts.columns, acts.rows * acts.columns);
    let source = Source { weights: bytes.as_ptr(), ..source };
    if format.is_plain() {
        return Source { floats: acts.floats[first..all].as_ptr(), ..source };
    }
    if !format.wide {
        assert!(acts.kinds.narrow, "activations were not made for these weights");
        let from = &acts.narrow;
        return Source {
            codes: from.codes[first..all].as_ptr(),
            scales: from.scales[first / 32..all / 32].as_ptr(),
            sums: from.sums[first / 32..all / 32].as_ptr(),
            ..source
        };
    }
    assert!(acts.kinds.wide && acts.columns.is_multiple_of(WIDE), "activations were not made for these weights");
    let from = &acts.wide;
    let sums = if format.group == 16 { &from.half_sums } else { &from.sums };
    Source {
        codes: from.codes[first..all].as_ptr(),
        scales: from.scales[first / WIDE..all / WIDE].as_ptr(),
        pairs: sums[first / format.group..all / format.group].as_ptr().cast(),
        ..source
    }
}

/// Runs the kernel of a format on some of `sums`' tokens and says how many.
///
/// # Safety
/// `source` must cover as many rows of activations as `sums` has, and all blocks of `format`; the instructions of `K`
/// must be present.
unsafe fn choose<K: Kernels>(format: Format, source: Source, sums: &mut [[f32; ROWS]]) -> usize {
    // SAFETY: passed on.
    unsafe {
        match (format.wide, format.bits, format.group, format.minimum) {
            (false, 4, 32, false) => narrow::<K, 4, false>(source, sums),
            (false, 4, 32, true) => narrow::<K, 4, true>(source, sums),
            (false, 5, 32, false) => narrow::<K, 5, false>(source, sums),
            (false, 5, 32, true) => narrow::<K, 5, true>(source, sums),
            (false, 8, 32, false) => narrow::<K, 8, false>(source, sums),
            (true, 4, 16, false) => wide::<K, 4, 16, false>(source, sums),
            (true, 4, 16, true) => wide::<K, 4, 16, true>(source, sums),
            (true, 4, 32, true) => wide::<K, 4, 32, true>(source, sums),
            (true, 5, 32, true) => wide::<K, 5, 32, true>(source, sums),
            (true, 6, 16, false) => wide::<K, 6, 16, false>(source, sums),
            (false, 16, 32, false) => plain::<K, 16>(source, sums),
            (false, 32, 32, false) => plain::<K, 32>(source, sums),
            _ => unreachable!("no type is stored like this"),
        }
    }
}

/// # Safety
/// As [`choose`].
unsafe fn narrow<K: Kernels, const BITS: usize, const MIN: bool>(source: Source, sums: &mut [[f32; ROWS]]) -> usize {
    // SAFETY: passed on; each kernel takes no more tokens than there are.
    unsafe {
        match sums.len().min(K::TOKENS) {
            8.. => K::narrow::<BITS, MIN, 8>(source, sums),
            4.. => K::narrow::<BITS, MIN, 4>(source, sums),
            2.. => K::narrow::<BITS, MIN, 2>(source, sums),
            _ => K::narrow::<BITS, MIN, 1>(source, sums),
        }
    }
}

/// # Safety
/// As [`choose`].
unsafe fn wide<K: Kernels, const BITS: usize, const GROUP: usize, const MIN: bool>(
    source: Source,
    sums: &mut [[f32; ROWS]],
) -> usize {
    // SAFETY: passed on; each kernel takes no more tokens than there are.
    unsafe {
        match sums.len().min(K::TOKENS) {
            8.. => K::wide::<BITS, GROUP, MIN, 8>(source, sums),
            4.. => K::wide::<BITS, GROUP, MIN, 4>(source, sums),
            2.. => K::wide::<BITS, GROUP, MIN, 2>(source, sums),
            _ => K::wide::<BITS, GROUP, MIN, 1>(source, sums),
        }
    }
}

/// # Safety
/// As [`choose`].
unsafe fn plain<K: Kernels, const BITS: usize>(source: Source, sums: &mut [[f32; ROWS]]) -> usize {
    // SAFETY: passed on; each kernel takes no more tokens than there are.
    unsafe {
        match sums.len().min(K::TOKENS) {
            8.. => K::plain::<BITS, 8>(source, sums),
            4.. => K::plain::<BITS, 4>(source, sums),
            2.. => K::plain::<BITS, 2>(source, sums),
            _ => K::plain::<BITS, 1>(source, sums),
        }
    }
}
