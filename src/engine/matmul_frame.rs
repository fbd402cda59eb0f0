//! What the matrix kernels of every x86 instruction set share: the checks that make their pointers sound, and the choice
//! of a kernel by format and number of tokens. A level brings two functions, for codes and for plain weights.
#![allow(unsafe_code, reason = "hands checked pointers to SIMD kernels; each block says why it is sound")]

use crate::engine::acts::Acts;
use crate::engine::matmul::{Sums, TOKENS};
use crate::engine::packed::{Format, Packed, ROWS};
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
    /// Scales, `columns / 32` per token.
    pub scales: *const f32,
    /// Sums per group of columns, `columns / group` per token.
    pub sums: *const f32,
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

    /// Sums of `T` tokens over coded weights; returns `T`.
    ///
    /// # Safety
    /// `source` must cover `T` rows of activations and all blocks of the format; the instructions must be present.
    unsafe fn coded<const BITS: usize, const GROUP: usize, const MIN: bool, const T: usize>(
        source: Source,
        sums: &mut [[f32; ROWS]],
    ) -> usize;

    /// Sums of `T` tokens over plain weights of `BITS` bits; returns `T`.
    ///
    /// # Safety
    /// As [`Kernels::coded`].
    unsafe fn plain<const BITS: usize, const T: usize>(source: Source, sums: &mut [[f32; ROWS]]) -> usize;
}

/// See `matmul::rows16`.
pub fn rows16<K: Kernels>(weights: &Packed, group: usize, acts: &Acts, token: usize, tokens: usize, sums: &mut Sums) {
    assert!(K::LEVEL.runs_here(), "chosen on a machine without these instructions");
    let (format, columns) = (weights.format(), acts.columns);
    let blocks = columns / format.group;
    let bytes = weights.group(group);
    assert!(bytes.len() == blocks * format.block_bytes() && weights.columns() == columns && columns.is_multiple_of(32));
    assert!(acts.rows >= token + tokens && tokens <= TOKENS && acts.floats.len() >= acts.rows * columns);
    assert!(acts.codes.len() >= acts.rows * columns && acts.scales.len() >= acts.rows * columns / 32);
    let totals = if format.group == 16 { &acts.half_sums } else { &acts.sums };
    assert!(totals.len() >= acts.rows * columns / format.group);
    for side in 0..K::SIDES {
        let mut done = 0;
        while let Some(rest) = sums.get_mut(done..tokens).filter(|rest| !rest.is_empty()) {
            let first = (token + done) * columns;
            // SAFETY: the asserts above put the rows of all tokens inside the activations, and all blocks inside
            // `bytes`; a kernel takes at most as many tokens as `rest` has; the instructions were checked for.
            unsafe {
                let source = Source {
                    weights: bytes.as_ptr(),
                    side,
                    blocks,
                    codes: acts.codes.as_ptr().add(first),
                    scales: acts.scales.as_ptr().add(first / 32),
                    sums: totals.as_ptr().add(first / format.group),
                    floats: acts.floats.as_ptr().add(first),
                    columns,
                };
                done += choose::<K>(format, source, rest);
            }
        }
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
        match (format.bits, format.group, format.minimum) {
            (4, 16, false) => coded::<K, 4, 16, false>(source, sums),
            (4, 16, true) => coded::<K, 4, 16, true>(source, sums),
            (4, 32, false) => coded::<K, 4, 32, false>(source, sums),
            (4, 32, true) => coded::<K, 4, 32, true>(source, sums),
            (5, 32, false) => coded::<K, 5, 32, false>(source, sums),
            (5, 32, true) => coded::<K, 5, 32, true>(source, sums),
            (6, 16, false) => coded::<K, 6, 16, false>(source, sums),
            (8, 32, false) => coded::<K, 8, 32, false>(source, sums),
            (16, 32, false) => plain::<K, 16>(source, sums),
            (32, 32, false) => plain::<K, 32>(source, sums),
            _ => unreachable!("no type is stored like this"),
        }
    }
}

/// # Safety
/// As [`choose`].
unsafe fn coded<K: Kernels, const BITS: usize, const GROUP: usize, const MIN: bool>(
    source: Source,
    sums: &mut [[f32; ROWS]],
) -> usize {
    // SAFETY: passed on; each kernel takes no more tokens than there are.
    unsafe {
        match sums.len().min(K::TOKENS) {
            8.. => K::coded::<BITS, GROUP, MIN, 8>(source, sums),
            4.. => K::coded::<BITS, GROUP, MIN, 4>(source, sums),
            2.. => K::coded::<BITS, GROUP, MIN, 2>(source, sums),
            _ => K::coded::<BITS, GROUP, MIN, 1>(source, sums),
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
