//! Random problems and comparisons. Everything is a function of a seed.

use crate::lla::reference::attention::wide;
use crate::lla::reference::job::{Job, Rho};
use crate::lla::{Shape, simd::Level};

/// Levels this machine can run.
pub fn levels() -> impl Iterator<Item = Level> {
    Level::all().into_iter().filter(|level| level.runs_here())
}

/// A standard normal number (Box and Muller).
pub fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

/// `n` standard normal numbers.
pub fn normals(random: &mut fastrand::Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| normal(random)).collect()
}

/// The same in single precision.
pub fn floats(random: &mut fastrand::Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| normal(random) as f32).collect()
}

/// A sequence from position 0, or a run that ends it.
pub struct Sample {
    pub shape: Shape,
    pub scale: f32,
    pub first: usize,
    pub queries: Vec<f32>,
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

impl Sample {
    /// Standard normal queries, keys and values: `tokens` queries at the end of `positions` keys.
    pub fn new(seed: u64, shape: Shape, tokens: usize, positions: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            shape,
            scale: 1.0 / (shape.dim as f32).sqrt(),
            first: positions - tokens,
            queries: floats(&mut random, tokens * shape.heads * shape.dim),
            keys: floats(&mut random, positions * shape.kv_heads * shape.dim),
            values: floats(&mut random, positions * shape.kv_heads * shape.value_dim),
        }
    }

    /// The reference's view of sequence `index` of `sequences`, with a correction, handed to `read`.
    pub fn oracle<T>(&self, (index, sequences): (usize, usize), rho: Rho, read: impl FnOnce(&Job) -> T) -> T {
        let part = |rows: &[f32]| {
            let length = rows.len() / sequences;
            wide(&rows[index * length..(index + 1) * length])
        };
        read(&Job {
            heads: self.shape.heads,
            kv_heads: self.shape.kv_heads,
            dim: self.shape.dim,
            value_dim: self.shape.value_dim,
            scale: f64::from(self.scale),
            queries: &part(&self.queries),
            keys: &part(&self.keys),
            values: &part(&self.values),
            first: self.first / sequences,
            window: None,
            rho,
            radius: f64::INFINITY,
        })
    }
}

/// Largest difference relative to the largest number wanted.
pub fn worst(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(1e-30_f64, |m, x| m.max(x.abs()));
    let far = |(g, w): (&f32, &f64)| if g.is_finite() { (f64::from(*g) - w).abs() } else { f64::INFINITY };
    got.iter().zip(want).map(far).fold(0.0, f64::max) / size
}

/// Asserts that `got` is within `tolerance` of `want`, relative to the largest number wanted.
#[track_caller]
pub fn close(got: &[f64], want: &[f64], tolerance: f64, about: &str) {
    assert_eq!(got.len(), want.len(), "{about}");
    let size = want.iter().fold(1.0_f64, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * size, "{about}: {g} for {w} at {i}");
    }
}
