//! Sizes and splits of launches: pure arithmetic that mirrors the constants of the kernels' sources.

use crate::lla::cuda::source::{Family, Math, Variant};

/// Tokens of a job up to which each is a row of decode of its own, so that its keys are shared out among blocks.
pub const DECODE_TOKENS: usize = 4;
/// Rows (tokens x group) of a block of prefill.
pub const PREFILL_ROWS: usize = 64;
/// Most splits of a row, as `solve.cu` has room for.
pub const MOST_SPLITS: usize = 64;
/// Fewest keys of a split: below it the merge costs more than the split gains.
pub const LEAST_SPLIT: usize = 256;
/// Splits begin at a multiple of this, the largest tile, so that only the last tile of a split is ragged.
const SPLIT_STEP: usize = 64;

/// Threads and shared bytes of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Threads per block.
    pub threads: u32,
    /// Shared bytes per block.
    pub shared: u32,
}

/// Query heads that a block of softmax decode takes.
pub fn heads_per_block(variant: Variant) -> usize {
    let most = if variant.family == Family::Projected { 4 } else { 8 };
    (variant.group as usize).min(most)
}

/// Floats of one split of one head (softmax) or of one row's moments.
pub fn part(variant: Variant) -> usize {
    let (dim, value_dim) = (variant.dim as usize, variant.value_dim as usize);
    match variant.family {
        Family::Softmax => value_dim + 2,
        Family::Projected => 2 * value_dim + 3,
        _ => {
            let columns = dim.next_multiple_of(16) + value_dim;
            4 + columns + dim * columns
        }
    }
}

/// What a kernel's block needs; `None` for a name that the family does not have.
pub fn size(variant: Variant, kernel: &str) -> Option<Size> {
    let (dim, value_dim) = (variant.dim, variant.value_dim);
    let stored = if variant.half { 2 } else { 4 };
    let columns = dim.next_multiple_of(16) + value_dim;
    let floats = |n: u32| n * 4;
    let (threads, shared) = match kernel {
        "append" => (256, 0),
        "decode_softmax" => (128, floats(4 * u32::try_from(part(variant)).ok()?)),
        "merge_softmax" => (128, 0),
        "decode_moments" => {
            let threads = if dim > 64 || value_dim > 64 { 256 } else { 128 };
            let (tile, cell) = if variant.math == Math::Bf16 { (64, 2) } else { (32, 4) };
            let stages = 2 * tile * ((dim + value_dim) * stored + 32);
            (threads, stages + columns * (tile + 8) * cell + floats(dim + columns + threads + tile))
        }
        "merge_moments" => (128, floats(128 + columns)),
        "solve" => (256, floats((dim * dim).max(1024) + dim + 256 + 8)),
        "prefill_softmax" | "prefill_projected" | "prefill_lla" => {
            let (rows, tile, threads) = (64, 32, 128);
            let (key_row, value_row) = (dim.next_multiple_of(32), value_dim.next_multiple_of(32));
            let own = match kernel {
                "prefill_projected" => rows * key_row,
                "prefill_lla" => 3 * (dim / 8 * 4) * threads,
                _ => 0,
            };
            let tiles = tile * (key_row + value_row) + rows * key_row + dim + tile;
            (threads, tile * (dim + value_dim) * stored + floats(tiles + own))
        }
        _ => return None,
    };
    Some(Size { threads, shared })
}

/// How many splits each of `blocks` runs over `keys` keys gets so that `wanted` blocks are busy.
pub fn splits(keys: usize, blocks: usize, wanted: usize) -> usize {
    let useful = keys.div_ceil(LEAST_SPLIT).min(MOST_SPLITS);
    wanted.div_ceil(blocks.max(1)).clamp(1, useful.max(1))
}

/// The ranges of `count` splits of the keys from `begin` to before `end`: they cover it without overlap, none is empty.
pub fn ranges(begin: usize, end: usize, count: usize) -> Vec<(usize, usize)> {
    let each = (end - begin.min(end)).div_ceil(count.max(1)).next_multiple_of(SPLIT_STEP).max(SPLIT_STEP);
    (begin..end).step_by(each).map(|from| (from, end.min(from + each))).collect()
}

/// Keys that the query at position `at` sees, given a window.
pub fn visible(at: usize, window: Option<usize>) -> (usize, usize) {
    let end = at + 1;
    (end.saturating_sub(window.unwrap_or(usize::MAX)), end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a block of a Hopper device may have; the kernels are sized for it at any width.
    const HOPPER_SHARED: u32 = 227 * 1024;

    fn variants() -> impl Strategy<Value = Variant> {
        let maths = prop_oneof![Just(Math::F32), Just(Math::Tf32), Just(Math::Tf32x3), Just(Math::Bf16)];
        (1_u32..=16, 1_u32..=16, any::<bool>(), 1_u32..=16, maths).prop_map(|(k, v, half, group, math)| Variant {
            family: Family::Moments,
            dim: 8 * k,
            value_dim: 8 * v,
            half,
            group,
            math,
        })
    }

    proptest! {
        #[test]
        fn blocks_fit_the_device(variant in variants()) {
            let kernels = ["append", "decode_moments", "merge_moments", "solve", "prefill_softmax", "prefill_projected",
                "prefill_lla"];
            for kernel in kernels {
                let size = size(variant, kernel).unwrap();
                prop_assert!(size.shared <= HOPPER_SHARED, "{kernel}: {size:?}");
                prop_assert!(size.threads.is_multiple_of(32) && size.threads <= 1024);
            }
            for family in [Family::Softmax, Family::Projected] {
                let variant = Variant { family, ..variant };
                prop_assert!(size(variant, "decode_softmax").unwrap().shared <= 48 * 1024);
                prop_assert!((1..=variant.group as usize).contains(&heads_per_block(variant)));
            }
            prop_assert_eq!(size(variant, "other"), None);
        }

        #[test]
        fn splits_cover_every_key_once(begin in 0_usize..5000, len in 0_usize..100_000, blocks in 0_usize..4000, wanted in 0_usize..2000) {
            let count = splits(len, blocks, wanted);
            prop_assert!((1..=MOST_SPLITS).contains(&count));
            let ranges = ranges(begin, begin + len, count);
            prop_assert!(ranges.len() <= count, "{} for {count}", ranges.len());
            let mut at = begin;
            for (from, to) in ranges {
                prop_assert!(from == at && to > from);
                at = to;
            }
            prop_assert_eq!(at, begin + len);
        }

        #[test]
        fn a_window_is_never_more_than_asked_for(at in 0_usize..10_000, window in proptest::option::of(0_usize..12_000)) {
            let (begin, end) = visible(at, window);
            prop_assert!(begin <= end && end == at + 1);
            prop_assert_eq!(end - begin, (at + 1).min(window.unwrap_or(usize::MAX)));
        }
    }

    #[test]
    fn short_runs_are_not_split_and_long_ones_fill_the_device() {
        assert_eq!(splits(100, 8, 528), 1);
        assert_eq!(splits(32_768, 8, 528), 64);
        assert_eq!(splits(2048, 8, 528), 8);
        assert_eq!(splits(32_768, 4096, 528), 1);
        assert_eq!(ranges(3, 3, 4), []);
    }
}
