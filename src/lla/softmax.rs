//! One block of queries over all keys it sees, for one key-value head.
//!
//! Moments: [`gather`] keeps, per row, the running maximum, the sum of weights and the weighted sum of values, and is
//! where key moments would be added. Rho: zero here, so there is no step. Apply: [`apply`] divides and writes.
#![allow(
    clippy::indexing_slicing,
    reason = "scratch is sized in `Scratch::reset` from the shape that `attend` checked"
)]
#![allow(unsafe_code, reason = "blocks write disjoint rows of one output")]

use std::cell::RefCell;
use std::ops::Range;

use crate::lla::pool::Shards;
use crate::lla::simd::Level;
use crate::lla::store::{LANES, LineSlice};
use crate::lla::{Attention, Task, tile};

/// Keys per tile: a transposed tile of keys and one of values fit the first-level cache at 64 values per head.
pub const KEYS: usize = 64;

/// Working memory of one block; kept per thread so that a decode step allocates nothing.
#[derive(Default)]
struct Scratch {
    /// Scaled queries, `rows * dim`.
    queries: Vec<f32>,
    /// Keys of the tile, component by component, `dim * KEYS`.
    keys: Vec<f32>,
    /// Values of the tile, `KEYS * value_dim`.
    values: Vec<f32>,
    /// Scores, then weights, `rows * KEYS`.
    scores: Vec<f32>,
    /// Weighted sums of values, `rows * value_dim`.
    sums: Vec<f32>,
    /// Largest score so far, per row.
    most: Vec<f32>,
    /// Sum of weights relative to it, per row.
    total: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Sizes of a block, all that the tile functions need to know.
#[derive(Clone, Copy)]
struct Sizes {
    /// Rows in use: tokens x query heads per key-value head.
    rows: usize,
    /// The same rounded up to four.
    padded: usize,
    /// Numbers per query and key.
    dim: usize,
    /// Numbers per value rounded up to sixteen; the added ones are zero.
    value_dim: usize,
    /// Query heads per key-value head.
    group: usize,
}

/// Attends for one task, into its rows of `out`.
pub fn block(level: Level, job: &Attention, task: &Task, out: &Shards<f32>) {
    let group = job.shape.group();
    let rows = task.tokens.len() * group;
    let sizes = Sizes {
        rows,
        padded: rows.next_multiple_of(4),
        dim: job.shape.dim,
        value_dim: job.shape.value_dim.next_multiple_of(LANES),
        group,
    };
    let position = job.first + task.tokens.start;
    let window = job.window.unwrap_or(usize::MAX);
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.reset(job, task, sizes);
        let (keys, values) = (job.store.keys(task.kv_head), job.store.values(task.kv_head));
        let end = job.first + task.tokens.end;
        let first_seen = (position + 1).saturating_sub(window) / KEYS * KEYS;
        for start in (first_seen..end).step_by(KEYS) {
            let tile = start..end.min(start + KEYS);
            load_keys(keys, tile.clone(), sizes.dim, &mut scratch.keys);
            load_values(values, tile.clone(), sizes.value_dim, &mut scratch.values);
            gather(level, scratch, sizes, Sight { position, window }, tile);
        }
        apply(job, task, sizes, scratch, out);
    });
}

/// What the queries of a block see: row `r` the keys before `position + r / group + 1`, at most `window` of them.
#[derive(Clone, Copy)]
struct Sight {
    position: usize,
    window: usize,
}

impl Scratch {
    fn reset(&mut self, job: &Attention, task: &Task, sizes: Sizes) {
        let Sizes { rows, padded, dim, value_dim, group } = sizes;
        let set = |v: &mut Vec<f32>, n: usize, x: f32| {
            v.clear();
            v.resize(n, x);
        };
        set(&mut self.queries, padded * dim, 0.0);
        set(&mut self.sums, padded * value_dim, 0.0);
        set(&mut self.most, padded, f32::NEG_INFINITY);
        set(&mut self.total, padded, 0.0);
        self.scores.resize(padded * KEYS, 0.0);
        self.keys.resize(KEYS * dim, 0.0);
        self.values.resize(KEYS * value_dim, 0.0);
        let heads = job.shape.heads;
        for row in 0..rows {
            let from = ((task.tokens.start + row / group) * heads + task.kv_head * group + row % group) * dim;
            let place = &mut self.queries[row * dim..(row + 1) * dim];
            place.iter_mut().zip(&job.queries[from..from + dim]).for_each(|(p, q)| *p = q * job.scale);
        }
    }
}

/// Lays out a tile of keys component by component, `KEYS` numbers each. Tiles start at whole blocks.
fn load_keys(lines: LineSlice, keys: Range<usize>, dim: usize, tile: &mut [f32]) {
    for (block, offset) in (keys.start / LANES..keys.end.div_ceil(LANES)).zip((0..).step_by(LANES)) {
        for d in 0..dim {
            tile[d * KEYS + offset..][..LANES].copy_from_slice(&lines.line(block * dim + d));
        }
    }
    let loaded = keys.len().next_multiple_of(LANES);
    tile.chunks_exact_mut(KEYS).for_each(|row| row[loaded..].fill(0.0));
}

/// Copies a tile of values; rows past its end are zero.
fn load_values(lines: LineSlice, keys: Range<usize>, width: usize, tile: &mut [f32]) {
    let row = width / LANES;
    for (line, place) in (keys.start * row..keys.end * row).zip(tile.chunks_exact_mut(LANES)) {
        place.copy_from_slice(&lines.line(line));
    }
    tile[keys.len() * width..].fill(0.0);
}

/// Adds a tile to the moments of every row.
fn gather(level: Level, scratch: &mut Scratch, sizes: Sizes, sight: Sight, keys: Range<usize>) {
    let Sizes { rows, padded, dim, value_dim, group } = sizes;
    let Scratch { queries, keys: tile_keys, values, scores, sums, most, total } = scratch;
    tile::multiply(level, tile::Sizes { rows: padded, inner: dim, width: KEYS }, queries, tile_keys, scores, false);
    for row in 0..rows {
        let end = sight.position + row / group + 1;
        let seen = end.saturating_sub(keys.start).min(keys.len());
        let unseen = end.saturating_sub(sight.window).saturating_sub(keys.start).min(seen);
        let line = &mut scores[row * KEYS..(row + 1) * KEYS];
        line[seen..].fill(f32::NEG_INFINITY);
        line[..unseen].fill(f32::NEG_INFINITY);
        let shrink = tile::weigh(level, line, &mut most[row], &mut total[row]);
        if shrink != 1.0 {
            sums[row * value_dim..(row + 1) * value_dim].iter_mut().for_each(|s| *s *= shrink);
        }
    }
    scores[rows * KEYS..padded * KEYS].fill(0.0);
    tile::multiply(level, tile::Sizes { rows: padded, inner: KEYS, width: value_dim }, scores, values, sums, true);
}

/// Writes the mean of the values under the weights.
fn apply(job: &Attention, task: &Task, sizes: Sizes, scratch: &Scratch, out: &Shards<f32>) {
    let (heads, width) = (job.shape.heads, job.shape.value_dim);
    for row in 0..sizes.rows {
        let token = task.tokens.start + row / sizes.group;
        let head = task.kv_head * sizes.group + row % sizes.group;
        // SAFETY: a (job, token, head) triple belongs to one task only.
        let place = unsafe { out.range(task.start + (token * heads + head) * width, width) };
        let total = scratch.total[row];
        let factor = if total == 0.0 { 0.0 } else { 1.0 / total };
        place.iter_mut().zip(&scratch.sums[row * sizes.value_dim..]).for_each(|(p, s)| *p = s * factor);
    }
}
