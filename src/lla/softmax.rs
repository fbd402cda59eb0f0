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

use half::slice::HalfFloatSliceExt;

use crate::lla::pool::Shards;
use crate::lla::simd::Level;
use crate::lla::{Attention, Rows, tile};

/// Keys per tile: a transposed tile of keys and one of values fit the first-level cache at 64 values per head.
pub const KEYS: usize = 64;
/// From this many rows on it pays to transpose a tile of keys.
const TRANSPOSE_ROWS: usize = 8;

/// Working memory of one block; kept per thread so that a decode step allocates nothing.
#[derive(Default)]
struct Scratch {
    /// Scaled queries, `rows * dim`.
    queries: Vec<f32>,
    /// Keys of the tile, `KEYS * dim`.
    keys: Vec<f32>,
    /// The same transposed, `dim * KEYS`.
    turned: Vec<f32>,
    /// Values of the tile, `KEYS * dim`.
    values: Vec<f32>,
    /// Scores, then weights, `rows * KEYS`.
    scores: Vec<f32>,
    /// Weighted sums of values, `rows * dim`.
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
    /// Values per head rounded up to sixteen; the added ones are zero.
    dim: usize,
    /// Query heads per key-value head.
    group: usize,
}

/// Attends for `tokens` of the job and the query heads of `kv_head`.
pub fn block(level: Level, job: &Attention, kv_head: usize, tokens: Range<usize>, out: &Shards<f32>) {
    let group = job.shape.heads / job.shape.kv_heads;
    let rows = tokens.len() * group;
    let sizes = Sizes { rows, padded: rows.next_multiple_of(4), dim: job.shape.dim.next_multiple_of(16), group };
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.reset(job, kv_head, &tokens, sizes);
        let existing = job.keys.len() / (job.shape.kv_heads * job.shape.dim);
        let visible = existing.min(job.first + tokens.end);
        for start in (0..visible).step_by(KEYS) {
            let keys = start..visible.min(start + KEYS);
            load(job.keys, job, kv_head, keys.clone(), sizes.dim, &mut scratch.keys);
            load(job.values, job, kv_head, keys.clone(), sizes.dim, &mut scratch.values);
            gather(level, scratch, sizes, job.first + tokens.start, keys);
        }
        apply(job, kv_head, tokens, sizes, scratch, out);
    });
}

impl Scratch {
    fn reset(&mut self, job: &Attention, kv_head: usize, tokens: &Range<usize>, sizes: Sizes) {
        let Sizes { rows, padded, dim, group } = sizes;
        let set = |v: &mut Vec<f32>, n: usize, x: f32| {
            v.clear();
            v.resize(n, x);
        };
        set(&mut self.queries, padded * dim, 0.0);
        set(&mut self.sums, padded * dim, 0.0);
        set(&mut self.most, padded, f32::NEG_INFINITY);
        set(&mut self.total, padded, 0.0);
        self.scores.resize(padded * KEYS, 0.0);
        for v in [&mut self.keys, &mut self.turned, &mut self.values] {
            v.resize(KEYS * dim, 0.0);
        }
        let (heads, width) = (job.shape.heads, job.shape.dim);
        for row in 0..rows {
            let from = ((tokens.start + row / group) * heads + kv_head * group + row % group) * width;
            let place = &mut self.queries[row * dim..row * dim + width];
            place.iter_mut().zip(&job.queries[from..from + width]).for_each(|(p, q)| *p = q * job.scale);
        }
    }
}

/// Copies a tile of one head into rows of `dim` single-precision values; what the tile lacks is zero.
fn load(rows: Rows, job: &Attention, kv_head: usize, keys: Range<usize>, dim: usize, tile: &mut [f32]) {
    let (width, count) = (job.shape.dim, keys.len());
    for (place, key) in tile.chunks_exact_mut(dim).zip(keys) {
        let from = (key * job.shape.kv_heads + kv_head) * width;
        match rows {
            Rows::Half(rows) => rows[from..from + width].convert_to_f32_slice(&mut place[..width]),
            Rows::Full(rows) => place[..width].copy_from_slice(&rows[from..from + width]),
        }
        place[width..].fill(0.0);
    }
    tile[count * dim..].fill(0.0);
}

/// Adds a tile to the moments of every row. `position` is that of the block's first token.
fn gather(level: Level, scratch: &mut Scratch, sizes: Sizes, position: usize, keys: Range<usize>) {
    let Sizes { rows, padded, dim, group } = sizes;
    let Scratch { queries, keys: tile_keys, turned, values, scores, sums, most, total } = scratch;
    if rows < TRANSPOSE_ROWS {
        tile::dots(level, &queries[..rows * dim], tile_keys, dim, scores);
    } else {
        for (d, row) in turned.chunks_exact_mut(KEYS).enumerate() {
            row.iter_mut().zip(tile_keys[d..].iter().step_by(dim)).for_each(|(t, k)| *t = *k);
        }
        tile::multiply(level, tile::Sizes { rows: padded, inner: dim, width: KEYS }, queries, turned, scores, false);
    }
    for row in 0..rows {
        let seen = (position + row / group + 1).saturating_sub(keys.start).min(keys.len());
        let line = &mut scores[row * KEYS..(row + 1) * KEYS];
        line[seen..].fill(f32::NEG_INFINITY);
        let shrink = tile::weigh(level, line, &mut most[row], &mut total[row]);
        if shrink != 1.0 {
            sums[row * dim..(row + 1) * dim].iter_mut().for_each(|s| *s *= shrink);
        }
    }
    scores[rows * KEYS..padded * KEYS].fill(0.0);
    tile::multiply(level, tile::Sizes { rows: padded, inner: KEYS, width: dim }, scores, values, sums, true);
}

/// Writes the mean of the values under the weights.
fn apply(job: &Attention, kv_head: usize, tokens: Range<usize>, sizes: Sizes, scratch: &Scratch, out: &Shards<f32>) {
    let (heads, width) = (job.shape.heads, job.shape.dim);
    for row in 0..sizes.rows {
        let token = tokens.start + row / sizes.group;
        let head = kv_head * sizes.group + row % sizes.group;
        // SAFETY: a (token, head) pair belongs to one block only.
        let place = unsafe { out.range((token * heads + head) * width, width) };
        let total = scratch.total[row];
        let factor = if total == 0.0 { 0.0 } else { 1.0 / total };
        place.iter_mut().zip(&scratch.sums[row * sizes.dim..]).for_each(|(p, s)| *p = s * factor);
    }
}
