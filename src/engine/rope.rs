//! Rotary position encoding.
#![allow(clippy::indexing_slicing, reason = "all indices are below the head's dimension, which `Arch` checked")]

use crate::engine::arch::{Arch, Pairs};

/// Turns of each pair per position, and how values are paired.
pub struct Rope {
    /// Radians per position, one per pair: of ordinary layers, then, if there are any, of sliding ones.
    frequencies: Vec<f64>,
    /// Pairs per head.
    count: usize,
    pairs: Pairs,
    dim: usize,
}

impl Rope {
    /// For an architecture; `factors` (possibly empty) divide the frequencies of ordinary layers.
    pub fn new(arch: &Arch, factors: &[f32]) -> Self {
        let count = arch.rotated / 2;
        #[expect(clippy::cast_precision_loss, reason = "a head has at most 1024 values")]
        let power = |i: usize| -((2 * i) as f64) / arch.rotated as f64;
        let factor = |i: usize| factors.get(i).map_or(1.0, |f| f64::from(*f)) * f64::from(arch.stretch);
        let ordinary = (0..count).map(|i| f64::from(arch.base).powf(power(i)) / factor(i));
        let sliding = arch.sliding.map(|s| (0..count).map(move |i| f64::from(s.base).powf(power(i))));
        let frequencies = ordinary.chain(sliding.into_iter().flatten()).collect();
        Self { frequencies, count, pairs: arch.pairs, dim: arch.heads.dim }
    }

    /// Sine and cosine of every pair at a position, for both kinds of layers.
    pub fn at(&self, position: usize, turns: &mut Vec<(f32, f32)>) {
        turns.clear();
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "positions are below 2^32")]
        turns.extend(self.frequencies.iter().map(|f| {
            let (sin, cos) = (f * position as f64).sin_cos();
            (sin as f32, cos as f32)
        }));
    }

    /// Turns every head of a row by what [`Rope::at`] gave for its position.
    pub fn turn(&self, row: &mut [f32], turns: &[(f32, f32)], sliding: bool) {
        let n = self.count;
        let turns = &turns[if sliding { n } else { 0 }..][..n];
        for head in row.chunks_exact_mut(self.dim) {
            for (i, (sin, cos)) in turns.iter().enumerate() {
                let (a, b) = match self.pairs {
                    Pairs::Neighbours => (2 * i, 2 * i + 1),
                    Pairs::Halves => (i, i + n),
                };
                let (x, y) = (head[a], head[b]);
                head[a] = x * cos - y * sin;
                head[b] = x * sin + y * cos;
            }
        }
    }
}
