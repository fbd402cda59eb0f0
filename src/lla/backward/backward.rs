//! Backward pass of one key-value head's group; the formulas are in `reference::backward`.
//!
//! With `a = 1 - rho.u`, `e = gam - gbar` and `h = e - y.u` they shorten to `pi = gbar + h a`, and the direct parts of the
//! key's gradient to `-p a y - p h rho`, so that a block needs three matrices with a column per key: `p a`, `-p h`, `ds`.
#![allow(unsafe_code, reason = "tasks write disjoint rows; the wide variants are called where their instructions are")]
#![allow(clippy::indexing_slicing, reason = "sizes come from the batch that `Batch::check` accepted")]

use crate::lla::backward::block::{Packed, Place, ROWS, Sides, dot, gather, seen, weigh_again};
use crate::lla::backward::product::{Left, Out, Sizes, multiply};
use crate::lla::backward::solve::Work;
use crate::lla::backward::{Batch, Saved};
use crate::lla::pool::Shards;
use crate::lla::ridge::{Rho, Ridge};
use crate::lla::simd::Level;

/// Where the gradients of all tasks go.
pub struct Places<'a> {
    pub queries: Shards<'a, f32>,
    pub keys: Shards<'a, f32>,
    pub values: Shards<'a, f32>,
    /// Per (sequence, head).
    pub lambda: Shards<'a, f32>,
    pub rho: Shards<'a, f32>,
}

/// What a task reads besides the batch.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub batch: &'a Batch<'a>,
    pub saved: &'a Saved,
    /// `dL/do`, laid out like the output.
    pub upstream: &'a [f32],
}

/// Buffers of a block, and the group's sums.
struct Scratch {
    queries: Vec<f32>,
    scaled: Vec<f32>,
    upstream: Vec<f32>,
    means: Vec<f32>,
    rho: Vec<f32>,
    pull: Vec<f32>,
    y: Vec<f32>,
    weights: Vec<f32>,
    /// `gam`, then `e`, then `h`, then `-p h`.
    push: Vec<f32>,
    /// `rho.k`, then `a`, then `p a`.
    along: Vec<f32>,
    /// `p e`, then `y.k`, then `scale ds`.
    scores: Vec<f32>,
    /// `stride x dim`.
    keys: Vec<f32>,
    /// `stride x value_dim`.
    values: Vec<f32>,
    work: Work,
}

/// All blocks of the group of query heads that reads head `kv` of `sequence`.
pub fn group(level: Level, given: Given, at: (usize, usize), places: &Places) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if level.runs_here() => {
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn wide(level: Level, given: Given, at: (usize, usize), places: &Places) {
                blocks(level, given, at, places);
            }
            // SAFETY: the level's instructions are here.
            unsafe { wide(level, given, at, places) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.runs_here() => {
            #[target_feature(enable = "avx2,fma")]
            fn wide(level: Level, given: Given, at: (usize, usize), places: &Places) {
                blocks(level, given, at, places);
            }
            // SAFETY: the level's instructions are here.
            unsafe { wide(level, given, at, places) }
        }
        _ => blocks(level, given, at, places),
    }
}

#[inline(always)]
fn blocks(level: Level, given: Given, (sequence, kv): (usize, usize), places: &Places) {
    let batch = given.batch;
    let packed = Packed::new(batch, sequence, kv, true);
    let (deep, wide, long) = (|| vec![0.0; ROWS * packed.dim], packed.value_dim, || vec![0.0; ROWS * packed.stride]);
    let mut scratch = Scratch {
        queries: deep(),
        scaled: deep(),
        upstream: vec![0.0; ROWS * wide],
        means: deep(),
        rho: deep(),
        pull: deep(),
        y: deep(),
        weights: long(),
        push: long(),
        along: long(),
        scores: long(),
        keys: vec![0.0; packed.stride * packed.dim],
        values: vec![0.0; packed.stride * wide],
        work: Work::new(ROWS, packed.dim, packed.stride),
    };
    let (shape, tokens) = (batch.shape, batch.tokens());
    let size = shape.heads / shape.kv_heads;
    for head in kv * size..(kv + 1) * size {
        let mut lambda = 0.0;
        for first in (0..tokens).step_by(ROWS) {
            let place = Place { sequence, head, first, rows: ROWS.min(tokens - first) };
            lambda += block(level, given, &packed, place, &mut scratch, places);
        }
        // SAFETY: a (sequence, head) belongs to one task.
        unsafe { places.lambda.range(sequence * shape.heads + head, 1).fill(lambda) };
    }
    for token in 0..tokens {
        let at = (sequence * tokens + token) * shape.kv_heads + kv;
        // SAFETY: a (sequence, token, key-value head) belongs to one task.
        unsafe {
            places
                .keys
                .range(at * shape.dim, shape.dim)
                .copy_from_slice(&scratch.keys[token * packed.dim..][..shape.dim]);
            let value = &scratch.values[token * wide..][..shape.value_dim];
            places.values.range(at * shape.value_dim, shape.value_dim).copy_from_slice(value);
        }
    }
}

/// One block; returns its part of the ridge's gradient.
#[inline(always)]
fn block(level: Level, given: Given, packed: &Packed, place: Place, s: &mut Scratch, places: &Places) -> f32 {
    let (batch, dim, stride, seen) = (given.batch, packed.dim, packed.stride, seen(place));
    let rows = place.rows.next_multiple_of(8);
    load(level, given, packed, place, s);
    let forth = |inner: usize| Sizes { rows, inner, width: seen };
    let back = Sizes { rows, inner: seen, width: dim };
    let upstream = Left::plain(&s.upstream, packed.value_dim);
    multiply(
        level,
        forth(packed.value_dim),
        upstream,
        (&packed.values_turned, stride),
        Out::fresh(&mut s.push, stride),
    );
    centre(place, (stride, seen), &s.weights, &mut s.push, &mut s.scores);
    let mut lambda = 0.0;
    s.y.fill(0.0);
    let (ridge, probed) = correction(&batch.rho, place.head);
    if ridge.is_some() || probed {
        multiply(level, back, Left::plain(&s.scores, stride), (&packed.keys, dim), Out::fresh(&mut s.pull, dim));
    }
    if let Some(ridge) = ridge {
        let sides = Sides {
            level,
            rows: place.rows,
            dim,
            stride,
            seen,
            keys: &packed.keys,
            turned: &packed.keys_turned,
            means: &s.means,
            weights: &s.weights,
        };
        s.work.solve(&sides, &s.pull, (ridge, place.head), &mut s.y, &mut [0; ROWS]);
        lambda = dot(&s.rho[..place.rows * dim], &s.y[..place.rows * dim]);
        multiply(
            level,
            forth(dim),
            Left::plain(&s.y, dim),
            (&packed.keys_turned, stride),
            Out::fresh(&mut s.scores, stride),
        );
    }
    if ridge.is_some() || probed {
        multiply(
            level,
            forth(dim),
            Left::plain(&s.rho, dim),
            (&packed.keys_turned, stride),
            Out::fresh(&mut s.along, stride),
        );
    }
    for row in 0..place.rows {
        combine(batch.scale, row, (ridge.is_some(), ridge.is_some() || probed), packed, seen, s);
    }
    multiply(level, back, Left::plain(&s.scores, stride), (&packed.keys, dim), Out::fresh(&mut s.means, dim));
    scatter(batch, place, packed, s, places);
    accumulate(level, packed, place, ridge.is_some() || probed, s);
    lambda
}

/// The ridge of a head if it has a finite one, and whether a learned probe corrects instead.
fn correction<'a>(rho: &Rho<'a>, head: usize) -> (Option<&'a Ridge>, bool) {
    match rho {
        Rho::Solve(ridge) => (Some(*ridge).filter(|r| r.lambda(head) < f32::INFINITY), false),
        Rho::Zero => (None, false),
        Rho::Projection(_) => (None, true),
    }
}

/// Queries, upstream, saved rows and the weights of the block.
#[inline(always)]
fn load(level: Level, given: Given, packed: &Packed, place: Place, s: &mut Scratch) {
    let (batch, saved) = (given.batch, given.saved);
    gather(batch, place, batch.queries, batch.shape.dim, &mut s.queries);
    s.scaled.iter_mut().zip(&s.queries).for_each(|(s, q)| *s = q * batch.scale);
    gather(batch, place, given.upstream, batch.shape.value_dim, &mut s.upstream);
    gather(batch, place, &saved.key_means, batch.shape.dim, &mut s.means);
    gather(batch, place, &saved.rho, batch.shape.dim, &mut s.rho);
    let mut stats = [(0.0, 0.0); ROWS];
    for (row, stat) in stats.iter_mut().enumerate().take(place.rows) {
        let at = place.row(batch, row);
        *stat = (saved.most[at], saved.total[at]);
    }
    for long in [&mut s.weights, &mut s.push, &mut s.along, &mut s.scores] {
        long.fill(0.0);
    }
    weigh_again(level, packed, place, &s.scaled, &stats, &mut s.weights);
}

/// `gam` becomes `e = gam - gbar`, and `scores = p e`.
#[inline(always)]
fn centre(place: Place, (stride, seen): (usize, usize), weights: &[f32], push: &mut [f32], scores: &mut [f32]) {
    for row in 0..place.rows {
        let line = row * stride..row * stride + seen;
        let (p, e) = (&weights[line.clone()], &mut push[line.clone()]);
        let mean = dot(p, e);
        e.iter_mut().for_each(|e| *e -= mean);
        scores[line].iter_mut().zip(p.iter().zip(&*e)).for_each(|(s, (p, e))| *s = p * e);
    }
}

/// Leaves `p a` in `along`, `-p h` in `push` and `scale ds` in `scores` for one row.
#[inline(always)]
fn combine(scale: f32, row: usize, (solved, corrected): (bool, bool), packed: &Packed, seen: usize, s: &mut Scratch) {
    let own = row * packed.dim..(row + 1) * packed.dim;
    let line = row * packed.stride..row * packed.stride + seen;
    let (p, push) = (&s.weights[line.clone()], &mut s.push[line.clone()]);
    let (along, scores) = (&mut s.along[line.clone()], &mut s.scores[line]);
    if solved {
        let offset = dot(&s.y[own.clone()], &s.means[own.clone()]);
        push.iter_mut().zip(&*scores).for_each(|(e, t)| *e -= t - offset);
    }
    if corrected {
        let offset = 1.0 + dot(&s.rho[own.clone()], &s.means[own]);
        along.iter_mut().for_each(|t| *t = offset - *t);
    } else {
        along.fill(1.0);
    }
    scores.iter_mut().zip(push.iter().zip(&*along)).for_each(|(s, (h, a))| *s = h * a);
    let mean = dot(p, scores);
    scores.iter_mut().zip(p).for_each(|(s, p)| *s = scale * p * (*s - mean));
    push.iter_mut().zip(p).for_each(|(h, p)| *h *= -p);
    along.iter_mut().zip(p).for_each(|(a, p)| *a *= p);
}

/// Writes `dq = y + scale sum ds k` (the sum is in `means`) and `drho`.
#[inline(always)]
fn scatter(batch: &Batch, place: Place, packed: &Packed, s: &Scratch, places: &Places) {
    let deep = batch.shape.dim;
    for row in 0..place.rows {
        let at = place.row(batch, row) * deep;
        let own = row * packed.dim..row * packed.dim + deep;
        // SAFETY: a (sequence, token, head) belongs to one task.
        let (query, rho) = unsafe { (places.queries.range(at, deep), places.rho.range(at, deep)) };
        query.iter_mut().zip(s.means[own.clone()].iter().zip(&s.y[own.clone()])).for_each(|(q, (sum, y))| *q = sum + y);
        if matches!(batch.rho, Rho::Projection(_)) {
            rho.iter_mut().zip(&s.pull[own]).for_each(|(r, pull)| *r = -pull);
        }
    }
}

/// `dv += (p a)^T g` and `dk += (p a)^T (-y) + (-p h)^T rho + ds^T q`.
#[inline(always)]
fn accumulate(level: Level, packed: &Packed, place: Place, corrected: bool, s: &mut Scratch) {
    let (dim, wide, stride) = (packed.dim, packed.value_dim, packed.stride);
    let over = |width: usize| Sizes { rows: seen(place), inner: place.rows, width };
    let values = Out { data: &mut s.values, row: wide, add: true };
    multiply(level, over(wide), Left::turned(&s.along, stride), (&s.upstream, wide), values);
    let mut keys = |left: &[f32], right: &[f32]| {
        let out = Out { data: &mut s.keys, row: dim, add: true };
        multiply(level, over(dim), Left::turned(left, stride), (right, dim), out);
    };
    keys(&s.scores, &s.queries);
    if corrected {
        s.y.iter_mut().for_each(|y| *y = -*y);
        keys(&s.along, &s.y);
        keys(&s.push, &s.rho);
    }
}
