//! What forward and backward share: a head's keys and values laid out for products, and a block's softmax weights.
#![allow(clippy::indexing_slicing, reason = "sizes come from the batch that `Batch::check` accepted")]

use crate::lla::backward::Batch;
use crate::lla::backward::product::{Left, Out, Sizes, multiply};
use crate::lla::simd::{Level, exp};

/// Rows of a block: its weights and three matrices like them stay in the second-level cache up to some 1,000 keys.
pub const ROWS: usize = 32;
/// Keys whose mean is the reference that keys are shifted by, for better rounding.
const REFERENCE_KEYS: usize = 16;

/// Keys and values of one key-value head of one sequence. Dimensions are padded to 16 with zeros.
pub struct Packed {
    /// Padded dk.
    pub dim: usize,
    /// Padded dv.
    pub value_dim: usize,
    /// Padded number of keys; an odd multiple of 16, so that columns do not collide in the cache.
    pub stride: usize,
    /// Keys less `reference`, `stride x dim`.
    pub keys: Vec<f32>,
    /// The same transposed, `dim x stride`.
    pub keys_turned: Vec<f32>,
    /// `stride x value_dim`.
    pub values: Vec<f32>,
    /// `value_dim x stride`; empty in the forward pass.
    pub values_turned: Vec<f32>,
    /// Mean of the first keys, padded.
    pub reference: Vec<f32>,
}

impl Packed {
    /// Lays out head `kv` of `sequence`.
    pub fn new(batch: &Batch, sequence: usize, kv: usize, backward: bool) -> Self {
        let (shape, tokens) = (batch.shape, batch.tokens());
        let (dim, value_dim) = (shape.dim.next_multiple_of(16), shape.value_dim.next_multiple_of(16));
        let stride = tokens.next_multiple_of(16) | 16;
        let row = |token: usize| (sequence * tokens + token) * shape.kv_heads + kv;
        let mut reference = vec![0.0; dim];
        let first = tokens.min(REFERENCE_KEYS);
        for token in 0..first {
            let key = &batch.keys[row(token) * shape.dim..(row(token) + 1) * shape.dim];
            reference.iter_mut().zip(key).for_each(|(c, k)| *c += k / first as f32);
        }
        let mut keys = vec![0.0; stride * dim];
        let mut values = vec![0.0; stride * value_dim];
        for token in 0..tokens {
            let key = &batch.keys[row(token) * shape.dim..(row(token) + 1) * shape.dim];
            let place = keys[token * dim..].iter_mut().zip(key).zip(&reference);
            place.for_each(|((p, k), c)| *p = k - c);
            let value = &batch.values[row(token) * shape.value_dim..(row(token) + 1) * shape.value_dim];
            values[token * value_dim..token * value_dim + shape.value_dim].copy_from_slice(value);
        }
        let keys_turned = turned(&keys, dim, stride);
        let values_turned = if backward { turned(&values, value_dim, stride) } else { Vec::new() };
        Self { dim, value_dim, stride, keys, keys_turned, values, values_turned, reference }
    }
}

fn turned(rows: &[f32], width: usize, stride: usize) -> Vec<f32> {
    let mut out = vec![0.0; width * stride];
    for (j, row) in rows.chunks_exact(width).enumerate() {
        row.iter().enumerate().for_each(|(i, x)| out[i * stride + j] = *x);
    }
    out
}

/// Tokens `first .. first + rows` of one query head.
#[derive(Clone, Copy)]
pub struct Place {
    pub sequence: usize,
    pub head: usize,
    pub first: usize,
    pub rows: usize,
}

impl Place {
    /// Index of a row of the block in arrays of (sequence, token, head).
    pub fn row(&self, batch: &Batch, row: usize) -> usize {
        (self.sequence * batch.tokens() + self.first + row) * batch.shape.heads + self.head
    }
}

/// Copies rows of a (sequence, token, head) array of `width` numbers into padded rows.
#[inline(always)]
pub fn gather(batch: &Batch, place: Place, from: &[f32], width: usize, into: &mut [f32]) {
    let padded = into.len() / ROWS;
    into.fill(0.0);
    for row in 0..place.rows {
        let at = place.row(batch, row) * width;
        into[row * padded..row * padded + width].copy_from_slice(&from[at..at + width]);
    }
}

/// What the solver needs to know of a block.
pub struct Sides<'a> {
    pub level: Level,
    /// Rows in use.
    pub rows: usize,
    /// Padded dk.
    pub dim: usize,
    /// Row length of everything that has a column per key.
    pub stride: usize,
    /// Columns in use, padded.
    pub seen: usize,
    /// `stride x dim`.
    pub keys: &'a [f32],
    /// `dim x stride`.
    pub turned: &'a [f32],
    /// `kbar` of each row, relative to the reference; `rows x dim`.
    pub means: &'a [f32],
    /// `p`, `rows x stride`; zero where a row sees no key.
    pub weights: &'a [f32],
}

/// `weights = softmax(scale q.k)` of the block's rows, each over the keys up to its own token; `most` and `total` per row.
#[inline(always)]
pub fn weigh(level: Level, packed: &Packed, place: Place, queries: &[f32], weights: &mut [f32]) -> [(f32, f32); ROWS] {
    let mut stats = [(f32::NEG_INFINITY, 0.0); ROWS];
    score(level, packed, place, queries, weights);
    for row in 0..place.rows {
        let line = &mut weights[row * packed.stride..(row + 1) * packed.stride];
        let most = highest(&line[..place.first + row + 1]);
        let total = exponents(line, place.first + row + 1, most);
        divide(line, total);
        stats[row] = (most, total);
    }
    stats
}

/// The same from the row statistics of the forward pass.
#[inline(always)]
pub fn weigh_again(
    level: Level,
    packed: &Packed,
    place: Place,
    queries: &[f32],
    stats: &[(f32, f32); ROWS],
    weights: &mut [f32],
) {
    score(level, packed, place, queries, weights);
    for (row, (most, total)) in stats.iter().enumerate().take(place.rows) {
        let line = &mut weights[row * packed.stride..(row + 1) * packed.stride];
        exponents(line, place.first + row + 1, *most);
        divide(line, *total);
    }
}

/// Columns that a block's rows see, padded to 16.
pub fn seen(place: Place) -> usize {
    (place.first + place.rows).next_multiple_of(16)
}

/// Scores of already scaled queries; rows beyond the block's stay zero because their queries are.
#[inline(always)]
fn score(level: Level, packed: &Packed, place: Place, queries: &[f32], weights: &mut [f32]) {
    let sizes = Sizes { rows: place.rows.next_multiple_of(8), inner: packed.dim, width: seen(place) };
    let out = Out::fresh(weights, packed.stride);
    multiply(level, sizes, Left::plain(queries, packed.dim), (&packed.keys_turned, packed.stride), out);
}

#[inline(always)]
fn highest(line: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = line.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(m, s)| *m = if *s > *m { *s } else { *m });
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, s| if *s > m { *s } else { m })
}

/// Turns scores into `exp(s - most)`, the columns from `seen` on into zero; returns the sum.
#[inline(always)]
fn exponents(line: &mut [f32], seen: usize, most: f32) -> f32 {
    line[seen..].fill(0.0);
    if most == f32::NEG_INFINITY {
        // Nothing weighs anything; a score that is not a number must not vanish, though.
        let odd = line[..seen].iter().any(|s| s.is_nan());
        line.fill(0.0);
        return if odd { f32::NAN } else { 0.0 };
    }
    let mut sums = [0.0_f32; 16];
    let (chunks, rest) = line[..seen].as_chunks_mut::<16>();
    for chunk in chunks {
        for (sum, s) in sums.iter_mut().zip(chunk) {
            *s = exp(*s - most);
            *sum += *s;
        }
    }
    for s in rest {
        *s = exp(*s - most);
        sums[0] += *s;
    }
    sums.iter().sum()
}

#[inline(always)]
fn divide(line: &mut [f32], total: f32) {
    let factor = if total == 0.0 { 0.0 } else { 1.0 / total };
    line.iter_mut().for_each(|p| *p *= factor);
}

/// Inner product in sixteen lanes.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (x, y) in a.iter().zip(b) {
        lanes.iter_mut().zip(x.iter().zip(y)).for_each(|(s, (x, y))| *s += x * y);
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}
