//! One pass over keys and values: the moments of a block of rows under its softmax weights.
//!
//! A row is a query head of a token. Per row: the largest score, the sum of weights relative to it, and the weighted sum
//! of values; with a given projection rho also the weighted sums of `t = rho.k` and of `t v`. Keys and values are read
//! once for all rows of the block. [`apply`](crate::lla::apply) turns moments into outputs and joins those of a split.
#![allow(
    clippy::indexing_slicing,
    reason = "scratch is sized in `Scratch::reset` from the shape that `attend` checked"
)]
#![allow(unsafe_code, reason = "vector kernels over scratch and store; each block says why it is sound")]

use std::cell::RefCell;
use std::ops::Range;

use half::f16;

use crate::lla::Attention;
use crate::lla::aligned::Aligned;
use crate::lla::gemm::Product;
use crate::lla::lanes::{Element, Kernel, Lanes};
use crate::lla::lines::LineSlice;
use crate::lla::plan::Task;
use crate::lla::record::Record;
use crate::lla::ridge::Rho;
use crate::lla::store::LANES;
use crate::lla::weigh::{lean, weigh, widen};

/// Keys per tile for few rows: enough sums side by side to hide the latency of a multiply-add.
const FEW_KEYS: usize = 128;
/// Keys per tile for many rows: keys, values and one step's rows fit the first-level cache at 64 numbers per head.
const MANY_KEYS: usize = 64;
/// Rows at a time, about, of a tile that not all rows see whole.
const STRIP: usize = 12;
/// Rows up to which keys in half precision are converted as they are used rather than once per tile.
const FEW_ROWS: usize = 6;

/// Working memory of a pass; kept per thread so that a decode step allocates nothing.
#[derive(Default)]
pub struct Scratch {
    /// Scaled queries, `rows * dim`; then, for a projection, as many rows of rho.
    queries: Aligned,
    /// Scores, then weights, `rows * tile`; then `t`, then weights times `t`.
    scores: Aligned,
    /// For a projection, the key that all keys are measured from.
    reference: Vec<f32>,
    /// Keys of the tile in single precision, where they are not read in place.
    keys: Aligned,
    /// Values likewise.
    values: Aligned,
    /// The moments, one record per row; see [`Record`].
    pub moments: Aligned,
}

thread_local! {
    /// One per thread.
    pub static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Gathers the moments of a task's rows over its keys into `scratch.moments`.
pub struct Gather<'a, 'b> {
    /// The job.
    pub job: &'a Attention<'a>,
    /// Its part.
    pub task: &'a Task,
    /// Where to work.
    pub scratch: &'b mut Scratch,
}

/// Sizes of a pass.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    group: usize,
    dim: usize,
    /// Keys per tile.
    tile: usize,
    record: Record,
    probed: bool,
    /// Position of the first token.
    position: usize,
    window: usize,
}

impl Kernel for Gather<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { job, task, scratch } = self;
        let group = job.shape.group();
        let rows = task.tokens.len() * group;
        let sizes = Sizes {
            rows,
            group,
            dim: job.shape.dim,
            tile: if rows > FEW_ROWS { MANY_KEYS } else { FEW_KEYS },
            record: Record::of(job),
            probed: matches!(job.rho, Rho::Projection(_)),
            position: job.first + task.tokens.start,
            window: job.window.unwrap_or(usize::MAX),
        };
        scratch.reset(job, task, sizes);
        let mut start = task.keys.start / LANES * LANES;
        while start < task.keys.end {
            let tile = start..task.keys.end.min(start + sizes.tile);
            start = tile.end;
            // SAFETY: `attend` checked that the store holds the task's keys; scratch fits `sizes`.
            unsafe {
                match (job.store.keys(task.kv_head), job.store.values(task.kv_head)) {
                    (LineSlice::Full(keys), LineSlice::Full(values)) => {
                        let (keys, values) = (keys.as_ptr().cast::<f32>(), values.as_ptr().cast::<f32>());
                        let (k, v) = (keys.add(tile.start * sizes.dim), values.add(tile.start * sizes.record.width));
                        add_tile::<L, f32>(sizes, scratch, tile, k, v);
                    }
                    (LineSlice::Half(keys), LineSlice::Half(values)) => {
                        let (keys, values) = (keys.as_ptr().cast::<f16>(), values.as_ptr().cast::<f16>());
                        let (k, v) = (keys.add(tile.start * sizes.dim), values.add(tile.start * sizes.record.width));
                        if rows <= FEW_ROWS {
                            add_tile::<L, f16>(sizes, scratch, tile, k, v);
                        } else {
                            let (a, b) = (scratch.keys.numbers().as_mut_ptr(), scratch.values.numbers().as_mut_ptr());
                            widen::<L>(k, a, tile.len().next_multiple_of(LANES) * sizes.dim);
                            widen::<L>(v, b, tile.len() * sizes.record.width);
                            add_tile::<L, f32>(sizes, scratch, tile, a, b);
                        }
                    }
                    // A store keeps both in the same precision.
                    _ => {}
                }
            }
        }
    }
}

impl Scratch {
    fn reset(&mut self, job: &Attention, task: &Task, sizes: Sizes) {
        let Sizes { rows, group, dim, tile, record, .. } = sizes;
        let sets = if sizes.probed { 2 } else { 1 };
        self.queries.fit(sets * rows * dim);
        self.scores.fit(sets * rows * tile);
        self.keys.fit(tile * dim);
        self.values.fit(tile * record.width);
        self.moments.set(rows * record.len, 0.0);
        let (queries, moments) = (self.queries.numbers(), self.moments.numbers());
        // The latest key is as good a reference as any and, unlike the first one, not an outlier in trained models.
        self.reference = match job.rho {
            Rho::Projection(_) => job.store.key(task.kv_head, job.first + task.tokens.end - 1),
            Rho::Zero | Rho::Solve(_) => Vec::new(),
        };
        for row in 0..rows {
            let from = ((task.tokens.start + row / group) * job.shape.heads + task.kv_head * group + row % group) * dim;
            let place = &mut queries[row * dim..(row + 1) * dim];
            place.iter_mut().zip(&job.queries[from..from + dim]).for_each(|(p, q)| *p = q * job.scale);
            moments[row * record.len + Record::MOST] = f32::NEG_INFINITY;
            if let Rho::Projection(rho) = job.rho {
                queries[(rows + row) * dim..(rows + row + 1) * dim].copy_from_slice(&rho[from..from + dim]);
            }
        }
    }
}

/// Adds a tile of keys and values to the moments of every row. Where rows do not see all of it, they go by a few at a time,
/// each few as far as its last row sees.
#[inline(always)]
unsafe fn add_tile<L: Lanes, E: Element>(
    sizes: Sizes,
    scratch: &mut Scratch,
    tile: Range<usize>,
    keys: *const E,
    values: *const E,
) {
    let Sizes { rows, group, position, .. } = sizes;
    let step = if tile.end <= position + 1 { rows } else { STRIP.div_ceil(group) * group };
    for first in (0..rows).step_by(step) {
        let strip = first..rows.min(first + step);
        let end = position + (strip.end - 1) / group + 1;
        if tile.start < end {
            // SAFETY: the caller's promise; the strip sees no more than the tile.
            unsafe { add_strip::<L, E>(sizes, scratch, strip, tile.start..end.min(tile.end), keys, values) };
        }
    }
}

/// Adds the keys and values at positions `tile` to the moments of some rows.
#[inline(always)]
unsafe fn add_strip<L: Lanes, E: Element>(
    sizes: Sizes,
    scratch: &mut Scratch,
    strip: Range<usize>,
    tile: Range<usize>,
    keys: *const E,
    values: *const E,
) {
    let Sizes { rows, dim, record, .. } = sizes;
    let lines = tile.len().div_ceil(LANES);
    let (queries, scores) = (scratch.queries.numbers().as_mut_ptr(), scratch.scores.numbers().as_mut_ptr());
    let moments = &mut scratch.moments.numbers()[strip.start * record.len..];
    // SAFETY: the tile's keys and values are those of the store or of scratch, and scratch was sized for `sizes`.
    unsafe {
        let (queries, scores) = (queries.add(strip.start * dim), scores.add(strip.start * sizes.tile));
        let dots = Product {
            rows: strip.len(),
            inner: dim,
            lines,
            a: queries.cast_const(),
            a_row: dim,
            b: keys,
            b_row: LANES,
            b_line: dim * LANES,
            c: scores,
            c_row: sizes.tile,
            add: false,
            centre: std::ptr::null(),
        };
        L::multiply(&dots);
        if sizes.probed {
            let (a, c) = (dots.a.add(rows * dim), scores.add(rows * sizes.tile));
            L::multiply(&Product { a, c, centre: scratch.reference.as_ptr(), ..dots });
        }
        weigh_rows::<L>(sizes, moments, strip.clone(), &tile, scores);
        // Once more by the second set of a probe.
        for set in 0..if sizes.probed { 2 } else { 1 } {
            L::multiply(&Product {
                rows: strip.len(),
                inner: tile.len(),
                lines: record.width / LANES,
                a: scores.add(set * rows * sizes.tile).cast_const(),
                a_row: sizes.tile,
                b: values,
                b_row: record.width,
                b_line: LANES,
                c: moments.as_mut_ptr().add(Record::SUMS + set * record.width),
                c_row: record.len,
                add: true,
                centre: std::ptr::null(),
            });
        }
    }
}

/// Turns the scores of some rows against the keys at positions `tile` into weights. `scores` holds them a row every
/// `sizes.tile` numbers, those of a probe `sizes.rows` rows on.
#[inline(always)]
unsafe fn weigh_rows<L: Lanes>(
    sizes: Sizes,
    moments: &mut [f32],
    strip: Range<usize>,
    tile: &Range<usize>,
    scores: *mut f32,
) {
    let lines = tile.len().div_ceil(LANES);
    for (index, record) in moments.chunks_exact_mut(sizes.record.len).take(strip.len()).enumerate() {
        // SAFETY: the caller's scores have a line of `sizes.tile` numbers for each row, and as many again for a probe.
        unsafe {
            let line = scores.add(index * sizes.tile);
            mask(std::slice::from_raw_parts_mut(line, lines * LANES), sizes, strip.start + index, tile);
            let shrink = weigh::<L>(line, lines, &mut record[Record::MOST..=Record::TOTAL]);
            if shrink != 1.0 {
                record[Record::SUMS..].iter_mut().for_each(|s| *s *= shrink);
                record[Record::SLOPE] *= shrink;
            }
            if sizes.probed {
                record[Record::SLOPE] += lean::<L>(line, scores.add((sizes.rows + index) * sizes.tile), lines);
            }
        }
    }
}

/// Takes from sight what a row must not see of a tile: later keys, and those before its window.
#[inline(always)]
fn mask(scores: &mut [f32], sizes: Sizes, row: usize, tile: &Range<usize>) {
    let end = sizes.position + row / sizes.group + 1;
    let seen = end.saturating_sub(tile.start).min(tile.len());
    let unseen = end.saturating_sub(sizes.window).saturating_sub(tile.start).min(seen);
    scores[seen..].fill(f32::NEG_INFINITY);
    scores[..unseen].fill(f32::NEG_INFINITY);
}
