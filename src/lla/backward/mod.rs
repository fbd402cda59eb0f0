//! Training: attention of whole causal sequences in single precision, forward and backward, for all three corrections.
//!
//! [`forward`] computes what [`attend`](crate::lla::attend) would for sequences from position 0, and keeps per row the
//! correction vector, the largest score, the sum of weights and the mean key. [`backward`] turns the gradient of the
//! output into those of queries, keys, values, ridge and probe. For a solved correction that is one more solve per row
//! with the same matrix; the formulas are in [`reference::backward`](crate::lla::reference::backward).
//!
//! A task is one key-value head of one sequence; the gradients of its keys are summed by one thread in a fixed order, so
//! that results do not depend on the number of threads. Never here: caches, windows, half precision, the adaptive ridge
//! of a finite radius (its gradient is another one), optimisers.
//!
//! ```
//! use wattroute::lla::backward::{Batch, backward, forward};
//! use wattroute::lla::{Shape, pool::Pool, ridge::{Rho, Ridge}, simd::Level};
//!
//! let shape = Shape { heads: 2, kv_heads: 1, dim: 4, value_dim: 3 };
//! let (sequences, tokens) = (2, 5);
//! let draw = |n: usize| (0..n).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>();
//! let (queries, keys) = (draw(sequences * tokens * 2 * 4), draw(sequences * tokens * 4));
//! let values = draw(sequences * tokens * 3);
//! let ridge = Ridge::new(vec![1.0])?.with_tolerance(1e-5)?; // one lambda for all heads, or one per head
//! let batch = Batch {
//!     shape, sequences, scale: 0.5, queries: &queries, keys: &keys, values: &values, rho: Rho::Solve(&ridge),
//! };
//! let (pool, level) = (Pool::new(2), Level::detect());
//! let mut out = vec![0.0; sequences * tokens * 2 * 3]; // sequences x tokens x heads x value_dim
//! let saved = forward(&pool, level, &batch, &mut out)?;
//! let gradients = backward(&pool, level, &batch, &saved, &out)?; // of L = |out|^2 / 2
//! assert_eq!(gradients.keys.len(), keys.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[expect(clippy::module_inception, reason = "the two passes are named alike")]
mod backward;
mod block;
mod forward;
mod product;
mod solve;

use crate::lla::pool::{Pool, Shards};
use crate::lla::ridge::Rho;
use crate::lla::simd::Level;
use crate::lla::{AttendError, Shape};

/// Sequences of one length through one layer's attention; every token sees itself and those before it.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Heads.
    pub shape: Shape,
    /// Sequences in the batch, all of the same number of tokens.
    pub sequences: usize,
    /// Factor on every score, usually `1 / sqrt(dim)`.
    pub scale: f32,
    /// `sequences x tokens x heads x dim`.
    pub queries: &'a [f32],
    /// `sequences x tokens x kv_heads x dim`.
    pub keys: &'a [f32],
    /// `sequences x tokens x kv_heads x value_dim`.
    pub values: &'a [f32],
    /// What corrects the average; a projection is laid out like the queries. Always solved by conjugate gradients with
    /// the ridge's tolerance and cap: for gradients that agree with differences take a tolerance of 1e-5 or less.
    pub rho: Rho<'a>,
}

/// What [`backward`] needs to know again; one row per (sequence, token, head).
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// Correction vectors, `rows x dim`; zero where there is none.
    pub rho: Vec<f32>,
    /// `kbar`, relative to the mean of the sequence's first keys, `rows x dim`.
    pub key_means: Vec<f32>,
    /// Largest score of each row, of keys relative to the same mean.
    pub most: Vec<f32>,
    /// Sum of `exp(score - most)` of each row.
    pub total: Vec<f32>,
    /// Solver iterations of each row.
    pub iterations: Vec<u8>,
}

/// Gradients of a loss, laid out like what they belong to.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// Of the queries.
    pub queries: Vec<f32>,
    /// Of the keys.
    pub keys: Vec<f32>,
    /// Of the values.
    pub values: Vec<f32>,
    /// Of the ridge of each query head, summed over the batch; zeros where there is none.
    pub lambda: Vec<f32>,
    /// Of the projection, laid out like the queries; empty without one.
    pub rho: Vec<f32>,
}

/// Why a pass could not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrainError {
    /// Slices that do not fit, or a kernel that panicked.
    #[error(transparent)]
    Attend(#[from] AttendError),
    /// A ridge that adapts to the query.
    #[error("training: a ridge of finite radius has no gradient")]
    Radius,
}

impl Batch<'_> {
    /// Tokens of each sequence.
    pub fn tokens(&self) -> usize {
        self.queries.len() / (self.sequences * self.shape.heads * self.shape.dim).max(1)
    }

    fn rows(&self) -> usize {
        self.sequences * self.tokens() * self.shape.heads
    }

    fn check(&self, out: usize) -> Result<(), TrainError> {
        let Shape { kv_heads, dim, value_dim, .. } = self.shape;
        self.shape.check()?;
        let positions = self.sequences * self.tokens();
        let fits = |part, got: usize, want: usize| if got == want { Ok(()) } else { Err(AttendError::Shape(part)) };
        fits("queries", self.queries.len(), self.rows() * dim)?;
        fits("keys", self.keys.len(), positions * kv_heads * dim)?;
        fits("values", self.values.len(), positions * kv_heads * value_dim)?;
        fits("outputs", out, self.rows() * value_dim)?;
        match self.rho {
            Rho::Zero => Ok(()),
            Rho::Projection(rho) => Ok(fits("projections", rho.len(), self.queries.len())?),
            Rho::Solve(ridge) if ridge.radius() < f32::INFINITY => Err(TrainError::Radius),
            Rho::Solve(ridge) => Ok(ridge.check(self.shape.heads)?),
        }
    }
}

/// Attention of the batch into `out` (`sequences x tokens x heads x value_dim`).
pub fn forward(pool: &Pool, level: Level, batch: &Batch, out: &mut [f32]) -> Result<Saved, TrainError> {
    batch.check(out.len())?;
    let (rows, dim) = (batch.rows(), batch.shape.dim);
    let mut saved = Saved {
        rho: vec![0.0; rows * dim],
        key_means: vec![0.0; rows * dim],
        most: vec![0.0; rows],
        total: vec![0.0; rows],
        iterations: vec![0; rows],
    };
    let places = forward::Places {
        out: Shards::new(out),
        rho: Shards::new(&mut saved.rho),
        key_means: Shards::new(&mut saved.key_means),
        most: Shards::new(&mut saved.most),
        total: Shards::new(&mut saved.total),
        iterations: Shards::new(&mut saved.iterations),
    };
    let heads = batch.shape.kv_heads;
    let task = |index: usize| forward::group(level, batch, (index / heads, index % heads), &places);
    pool.run(batch.sequences * heads, &task).map_err(AttendError::from)?;
    Ok(saved)
}

/// Gradients for `upstream = dL/do`, laid out like the output; `saved` is what [`forward`] gave for the same batch.
pub fn backward(
    pool: &Pool,
    level: Level,
    batch: &Batch,
    saved: &Saved,
    upstream: &[f32],
) -> Result<Gradients, TrainError> {
    batch.check(upstream.len())?;
    let (rows, dim, heads) = (batch.rows(), batch.shape.dim, batch.shape.heads);
    let rest = [saved.most.len(), saved.total.len()];
    if [saved.rho.len(), saved.key_means.len()] != [rows * dim; 2] || rest != [rows; 2] {
        return Err(AttendError::Shape("saved rows").into());
    }
    let probed = matches!(batch.rho, Rho::Projection(_));
    let mut gradients = Gradients {
        queries: vec![0.0; batch.queries.len()],
        keys: vec![0.0; batch.keys.len()],
        values: vec![0.0; batch.values.len()],
        lambda: vec![0.0; heads],
        rho: vec![0.0; if probed { rows * dim } else { 0 }],
    };
    let mut lambda = vec![0.0; batch.sequences * heads];
    let places = backward::Places {
        queries: Shards::new(&mut gradients.queries),
        keys: Shards::new(&mut gradients.keys),
        values: Shards::new(&mut gradients.values),
        lambda: Shards::new(&mut lambda),
        rho: Shards::new(&mut gradients.rho),
    };
    let (given, kv_heads) = (backward::Given { batch, saved, upstream }, batch.shape.kv_heads);
    let task = |index: usize| backward::group(level, given, (index / kv_heads, index % kv_heads), &places);
    pool.run(batch.sequences * kv_heads, &task).map_err(AttendError::from)?;
    for sequence in lambda.chunks_exact(heads) {
        gradients.lambda.iter_mut().zip(sequence).for_each(|(sum, l)| *sum += l);
    }
    Ok(gradients)
}
