//! The layers: attention of every token of a text to all of its tokens, feed-forward, norms after each.
#![allow(
    clippy::indexing_slicing,
    reason = "every buffer has `rows * WIDTH` or `rows * INNER` numbers, rows counted from the texts' own pieces"
)]
#![allow(unsafe_code, reason = "tasks write disjoint rows; each block says why it is sound")]

use std::ops::Range;

use super::{Encoder, HEADS, INNER, Layer, Linear, Norm, WIDTH};
use crate::engine::acts::{Acts, Kinds};
use crate::engine::matmul::{Product, matmul};
use crate::engine::types::EngineError;
use crate::lla::pool::{Panicked, Shards};
use crate::lla::simd::{Level, exp};

/// Numbers of a head.
const HEAD: usize = WIDTH / HEADS;
/// Added to a variance, from the model's configuration.
const EPSILON: f32 = 1e-12;
/// Rows that one task takes.
const ROWS_PER_TASK: usize = 8;

/// Working memory of a batch.
#[derive(Default)]
struct Scratch {
    acts: Acts,
    stream: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    inner: Vec<f32>,
}

impl Encoder {
    /// Vectors of texts that go through the layers together.
    pub(super) fn batch(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.layered(texts).map_err(|e| EngineError::Step(e.to_string()))
    }

    fn layered(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Panicked> {
        let mut s = Scratch::default();
        let mut spans = Vec::with_capacity(texts.len());
        for tokens in texts {
            let first = s.stream.len() / WIDTH;
            for (position, token) in tokens.iter().enumerate() {
                let word = &self.words[*token as usize * WIDTH..][..WIDTH];
                let place = &self.positions[position * WIDTH..][..WIDTH];
                s.stream.extend(word.iter().zip(place).map(|(w, p)| w + p));
            }
            spans.push(first..s.stream.len() / WIDTH);
        }
        let rows = s.stream.len() / WIDTH;
        for buffer in [&mut s.query, &mut s.key, &mut s.value, &mut s.attended] {
            buffer.resize(rows * WIDTH, 0.0);
        }
        s.inner.resize(rows * INNER, 0.0);
        self.norm(&mut s.stream, &self.norm)?;
        for layer in &self.layers {
            self.attention(layer, &spans, &mut s)?;
            self.feed_forward(layer, &mut s)?;
        }
        Ok(spans.into_iter().map(|span| mean(&s.stream[span.start * WIDTH..span.end * WIDTH])).collect())
    }

    fn attention(&self, layer: &Layer, spans: &[Range<usize>], s: &mut Scratch) -> Result<(), Panicked> {
        self.quantised(&mut s.acts, &s.stream, WIDTH, &layer.query)?;
        let of = |linear: &'_ Linear, out: &mut [f32]| fill(out, &linear.bias);
        of(&layer.query, &mut s.query);
        of(&layer.key, &mut s.key);
        of(&layer.value, &mut s.value);
        let product = |linear, out| add(linear, out, WIDTH);
        let mut products =
            [product(&layer.query, &mut s.query), product(&layer.key, &mut s.key), product(&layer.value, &mut s.value)];
        matmul(&self.pool, self.level, &s.acts, &mut products)?;
        let out = Shards::new(&mut s.attended);
        let (query, key, value) = (&s.query, &s.key, &s.value);
        self.pool.run(spans.len() * HEADS, &|task| {
            let (span, head) = (&spans[task / HEADS], task % HEADS);
            let part = span.start * WIDTH..span.end * WIDTH;
            let from = [&query[part.clone()], &key[part.clone()], &value[part.clone()]];
            let mut rows = vec![0.0; span.len() * HEAD];
            at(self.level, || attend(from, head * HEAD, &mut rows));
            for (row, values) in rows.chunks_exact(HEAD).enumerate() {
                // SAFETY: this task alone has this head of this text's rows.
                let place = unsafe { out.range(part.start + row * WIDTH + head * HEAD, HEAD) };
                place.copy_from_slice(values);
            }
        })?;
        self.quantised(&mut s.acts, &s.attended, WIDTH, &layer.joined)?;
        bias(&mut s.stream, &layer.joined.bias);
        matmul(&self.pool, self.level, &s.acts, &mut [add(&layer.joined, &mut s.stream, WIDTH)])?;
        self.norm(&mut s.stream, &layer.attention_norm)
    }

    fn feed_forward(&self, layer: &Layer, s: &mut Scratch) -> Result<(), Panicked> {
        self.quantised(&mut s.acts, &s.stream, WIDTH, &layer.up)?;
        fill(&mut s.inner, &layer.up.bias);
        matmul(&self.pool, self.level, &s.acts, &mut [add(&layer.up, &mut s.inner, INNER)])?;
        s.acts.reset(s.inner.len() / INNER, INNER, Kinds::of([&layer.down.weights]));
        let (inner, level) = (&s.inner, self.level);
        let activate = |row: usize, out: &mut [f32]| {
            at(level, || gelu(&inner[row * INNER..(row + 1) * INNER], out));
        };
        s.acts.fill(&self.pool, level, INNER, &activate)?;
        bias(&mut s.stream, &layer.down.bias);
        matmul(&self.pool, self.level, &s.acts, &mut [add(&layer.down, &mut s.stream, WIDTH)])?;
        self.norm(&mut s.stream, &layer.norm)
    }

    /// Rows as the kernels read them.
    fn quantised(&self, acts: &mut Acts, rows: &[f32], width: usize, next: &Linear) -> Result<(), Panicked> {
        acts.reset(rows.len() / width, width, Kinds::of([&next.weights]));
        let copy = |row: usize, out: &mut [f32]| out.copy_from_slice(&rows[row * width..(row + 1) * width]);
        acts.fill(&self.pool, self.level, width, &copy)
    }

    /// Layer norm of every row, in place.
    fn norm(&self, stream: &mut [f32], norm: &Norm) -> Result<(), Panicked> {
        let rows = stream.len() / WIDTH;
        let all = Shards::new(stream);
        self.pool.run(rows.div_ceil(ROWS_PER_TASK), &|task| {
            for row in task * ROWS_PER_TASK..rows.min((task + 1) * ROWS_PER_TASK) {
                // SAFETY: every row belongs to one task.
                let row = unsafe { all.range(row * WIDTH, WIDTH) };
                at(self.level, || norm_row(row, norm));
            }
        })
    }
}

fn add<'a>(linear: &'a Linear, out: &'a mut [f32], stride: usize) -> Product<'a> {
    Product { weights: &linear.weights, out, stride, add: true }
}

fn fill(out: &mut [f32], bias: &[f32]) {
    out.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias));
}

fn bias(out: &mut [f32], bias: &[f32]) {
    out.chunks_exact_mut(bias.len()).for_each(|row| row.iter_mut().zip(bias).for_each(|(x, b)| *x += b));
}

/// Mean of rows, scaled to unit length.
fn mean(rows: &[f32]) -> Vec<f32> {
    let mut sum = vec![0.0f32; WIDTH];
    for row in rows.chunks_exact(WIDTH) {
        sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
    }
    let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    sum.iter_mut().for_each(|x| *x /= length);
    sum
}

/// Runs code that is inlined, compiled for the instructions of a level.
fn at(level: Level, body: impl FnOnce()) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2(body: impl FnOnce()) {
            body();
        }
        if level >= Level::Avx2 && Level::Avx2.runs_here() {
            // SAFETY: this machine has AVX2 and FMA.
            unsafe { with_avx2(body) }
            return;
        }
    }
    let _ = level;
    body();
}

/// One head of one text: `softmax(q k^T / sqrt(HEAD)) v`. The head's part of a row begins at `from`.
#[inline(always)]
fn attend([query, key, value]: [&[f32]; 3], from: usize, out: &mut [f32]) {
    let tokens = query.len() / WIDTH;
    // Keys lie with tokens side by side, so that one query meets eight of them at once.
    let mut turned = vec![0.0f32; HEAD * tokens];
    for (token, row) in key.chunks_exact(WIDTH).enumerate() {
        for (at, x) in row[from..from + HEAD].iter().enumerate() {
            turned[at * tokens + token] = *x;
        }
    }
    let scale = 1.0 / (HEAD as f32).sqrt();
    let mut scores = vec![0.0f32; tokens];
    for (query, out) in query.chunks_exact(WIDTH).zip(out.chunks_exact_mut(HEAD)) {
        scores.fill(0.0);
        for (q, keys) in query[from..from + HEAD].iter().zip(turned.chunks_exact(tokens)) {
            scores.iter_mut().zip(keys).for_each(|(s, k)| *s += q * k);
        }
        let top = scores.iter().fold(f32::MIN, |m, s| if *s > m { *s } else { m });
        scores.iter_mut().for_each(|s| *s = exp((*s - top) * scale));
        let total: f32 = scores.iter().sum();
        out.fill(0.0);
        for (p, value) in scores.iter().zip(value.chunks_exact(WIDTH)) {
            let p = p / total;
            out.iter_mut().zip(&value[from..from + HEAD]).for_each(|(o, v)| *o += p * v);
        }
    }
}

#[inline(always)]
fn norm_row(row: &mut [f32], norm: &Norm) {
    let sum = |of: &dyn Fn(f32) -> f32, row: &[f32]| row.iter().map(|x| of(*x)).sum::<f32>() / WIDTH as f32;
    let mean = sum(&|x| x, row);
    let factor = 1.0 / (sum(&|x| (x - mean) * (x - mean), row) + EPSILON).sqrt();
    for ((x, w), b) in row.iter_mut().zip(&norm.weight).zip(&norm.bias) {
        *x = (*x - mean) * factor * w + b;
    }
}

/// `x * P(N(0, 1) < x)`, the error function by Abramowitz and Stegun 7.1.26 (absolute error below 1.5e-7).
#[inline(always)]
fn gelu(x: &[f32], out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / (1.0 + 0.327_591_1 * z);
        let series = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
        let erf = 1.0 - series * exp(-z * z);
        *o = 0.5 * x * (1.0 + if *x < 0.0 { -erf } else { erf });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_the_exact_one() {
        let x = [-4.0f32, -1.0, -0.1, 0.0, 0.5, 1.0, 3.0];
        let mut got = [0.0; 7];
        gelu(&x, &mut got);
        // x * Phi(x) by tables of the normal distribution.
        let want = [-0.000_126_68, -0.158_655, -0.046_017, 0.0, 0.345_731, 0.841_345, 2.995_95];
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 2e-6), "{got:?}");
    }

    #[test]
    fn equal_keys_share_and_a_strong_one_takes_all() {
        let row = |x: f32| vec![x; WIDTH];
        let value = [row(1.0), row(3.0)].concat();
        let mut out = vec![0.0; 2 * HEAD];
        attend([&[row(1.0), row(1.0)].concat(), &[row(2.0), row(2.0)].concat(), &value], HEAD, &mut out);
        assert!(out.iter().all(|x| (x - 2.0).abs() < 1e-5));
        attend([&[row(1.0), row(1.0)].concat(), &[row(0.0), row(9.0)].concat(), &value], 0, &mut out);
        assert!(out.iter().all(|x| (x - 3.0).abs() < 1e-5));
    }
}
