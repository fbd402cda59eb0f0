//! Forward pass of one key-value head's group: outputs, and what the backward pass wants to know again.
#![allow(unsafe_code, reason = "tasks write disjoint rows; the wide variants are called where their instructions are")]
#![allow(clippy::indexing_slicing, reason = "sizes come from the batch that `Batch::check` accepted")]

use crate::lla::backward::Batch;
use crate::lla::backward::block::{Packed, Place, ROWS, Sides, dot, gather, seen, weigh};
use crate::lla::backward::product::{Left, Out, Sizes, multiply};
use crate::lla::backward::solve::Work;
use crate::lla::pool::Shards;
use crate::lla::ridge::Rho;
use crate::lla::simd::Level;

/// Where the rows of all tasks go; one row per (sequence, token, head).
pub struct Places<'a> {
    pub out: Shards<'a, f32>,
    pub rho: Shards<'a, f32>,
    pub key_means: Shards<'a, f32>,
    pub most: Shards<'a, f32>,
    pub total: Shards<'a, f32>,
    pub iterations: Shards<'a, u8>,
}

/// Buffers of a block.
struct Scratch {
    queries: Vec<f32>,
    weights: Vec<f32>,
    means: Vec<f32>,
    delta: Vec<f32>,
    rho: Vec<f32>,
    along: Vec<f32>,
    out: Vec<f32>,
    work: Work,
}

/// All blocks of the group of query heads that reads head `kv` of `sequence`.
pub fn group(level: Level, batch: &Batch, (sequence, kv): (usize, usize), places: &Places) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if level.runs_here() => {
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn wide(level: Level, batch: &Batch, at: (usize, usize), places: &Places) {
                blocks(level, batch, at, places);
            }
            // SAFETY: the level's instructions are here.
            unsafe { wide(level, batch, (sequence, kv), places) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.runs_here() => {
            #[target_feature(enable = "avx2,fma")]
            fn wide(level: Level, batch: &Batch, at: (usize, usize), places: &Places) {
                blocks(level, batch, at, places);
            }
            // SAFETY: the level's instructions are here.
            unsafe { wide(level, batch, (sequence, kv), places) }
        }
        _ => blocks(level, batch, (sequence, kv), places),
    }
}

#[inline(always)]
fn blocks(level: Level, batch: &Batch, (sequence, kv): (usize, usize), places: &Places) {
    let packed = Packed::new(batch, sequence, kv, false);
    let mut scratch = Scratch {
        queries: vec![0.0; ROWS * packed.dim],
        weights: vec![0.0; ROWS * packed.stride],
        means: vec![0.0; ROWS * packed.dim],
        delta: vec![0.0; ROWS * packed.dim],
        rho: vec![0.0; ROWS * packed.dim],
        along: vec![0.0; ROWS * packed.stride],
        out: vec![0.0; ROWS * packed.value_dim],
        work: Work::new(ROWS, packed.dim, packed.stride),
    };
    let (tokens, size) = (batch.tokens(), batch.shape.heads / batch.shape.kv_heads);
    for head in kv * size..(kv + 1) * size {
        for first in (0..tokens).step_by(ROWS) {
            let place = Place { sequence, head, first, rows: ROWS.min(tokens - first) };
            block(level, batch, &packed, place, &mut scratch, places);
        }
    }
}

#[inline(always)]
fn block(level: Level, batch: &Batch, packed: &Packed, place: Place, s: &mut Scratch, places: &Places) {
    let (dim, stride, seen) = (packed.dim, packed.stride, seen(place));
    gather(batch, place, batch.queries, batch.shape.dim, &mut s.queries);
    s.delta.iter_mut().zip(&s.queries).for_each(|(d, q)| *d = -q);
    s.queries.iter_mut().for_each(|q| *q *= batch.scale);
    s.weights.fill(0.0);
    let stats = weigh(level, packed, place, &s.queries, &mut s.weights);
    let rows = place.rows.next_multiple_of(8);
    let back = Sizes { rows, inner: seen, width: dim };
    let means = Out::fresh(&mut s.means, dim);
    multiply(level, back, Left::plain(&s.weights, stride), (&packed.keys, dim), means);
    let mut spent = [0_u8; ROWS];
    let corrected = match batch.rho {
        Rho::Zero => false,
        Rho::Projection(rho) => {
            gather(batch, place, rho, batch.shape.dim, &mut s.rho);
            true
        }
        Rho::Solve(ridge) if ridge.lambda(place.head) == f32::INFINITY => false,
        Rho::Solve(ridge) => {
            for (delta, mean) in s.delta.chunks_exact_mut(dim).zip(s.means.chunks_exact(dim)) {
                delta.iter_mut().zip(mean).zip(&packed.reference).for_each(|((d, m), c)| *d += m + c);
            }
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
            s.work.solve(&sides, &s.delta, (ridge, place.head), &mut s.rho, &mut spent);
            true
        }
    };
    if corrected {
        correct(level, packed, place, s);
    } else {
        s.rho.fill(0.0);
    }
    let sizes = Sizes { rows, inner: seen, width: packed.value_dim };
    let out = Out::fresh(&mut s.out, packed.value_dim);
    multiply(level, sizes, Left::plain(&s.weights, stride), (&packed.values, packed.value_dim), out);
    for (row, (most, total)) in stats.iter().enumerate().take(place.rows) {
        let (at, wide, deep) = (place.row(batch, row), batch.shape.value_dim, batch.shape.dim);
        let own = row * dim..row * dim + deep;
        // SAFETY: a (sequence, token, head) belongs to one task.
        unsafe {
            places.out.range(at * wide, wide).copy_from_slice(&s.out[row * packed.value_dim..][..wide]);
            places.rho.range(at * deep, deep).copy_from_slice(&s.rho[own.clone()]);
            places.key_means.range(at * deep, deep).copy_from_slice(&s.means[own]);
            places.most.range(at, 1).fill(*most);
            places.total.range(at, 1).fill(*total);
            places.iterations.range(at, 1).fill(spent[row]);
        }
    }
}

/// `p` becomes `p (1 - rho.u)`.
#[inline(always)]
fn correct(level: Level, packed: &Packed, place: Place, s: &mut Scratch) {
    let (dim, stride, seen) = (packed.dim, packed.stride, seen(place));
    let forth = Sizes { rows: place.rows.next_multiple_of(8), inner: dim, width: seen };
    let along = Out::fresh(&mut s.along, stride);
    multiply(level, forth, Left::plain(&s.rho, dim), (&packed.keys_turned, stride), along);
    for row in 0..place.rows {
        let own = row * dim..(row + 1) * dim;
        let offset = 1.0 + dot(&s.rho[own.clone()], &s.means[own]);
        let weights = &mut s.weights[row * stride..row * stride + seen];
        weights.iter_mut().zip(&s.along[row * stride..]).for_each(|(p, t)| *p *= offset - t);
    }
}
