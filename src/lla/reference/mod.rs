//! Local linear attention in double precision, as its definition reads: the oracle of the kernel's tests. Slow on purpose.
//!
//! For one query `q` (dk numbers), `n` visible keys `k_j` (dk) and values `v_j` (dv) with weights `p_j` that sum to 1:
//!
//! ```text
//! kbar = sum p k   vbar = sum p v   u_j = k_j - kbar   C = sum p u u^T   G = sum p (v - vbar) u^T
//! o = vbar - G rho,   rho = (C + lambda I)^-1 (kbar - q)
//! ```
//!
//! which is the prediction at `q` of the affine map fitted to the visible pairs by weighted ridge regression (Local
//! Linear Attention, arXiv 2510.01450; the mean-centred form and lambda on normalised weights as in the released code).
//! The same number is computed here on several independent roads, so that a mistake must be made twice to stay unseen:
//!
//! - [`forms`]: the root (weighted least squares by Householder reflections, no normal equations), the mean-centred
//!   form, the query-centred form of the paper, and linear predictor + local average of residuals;
//! - [`solve`]: Cholesky, conjugate gradients, the dual (Woodbury) system;
//! - [`moments`]: one pass over the keys, and the merge of split passes;
//! - [`probe`]: a given rho (learned projection), the two-branch form, the Newton point, the trust bounds;
//! - [`backward`]: gradients for query, keys, values, lambda;
//! - [`job`]: whole causal runs of grouped heads, forward and backward; [`attention`]: the same for the kernel's jobs.
//!
//! Never here: single precision, threads, blocks. Slices of wrong length are a caller's mistake and may panic.

pub mod attention;
pub mod backward;
pub mod forms;
pub mod job;
pub mod matrix;
pub mod moments;
pub mod probe;
pub mod solve;

use self::matrix::{axpy, dot};

/// The regression problem of one query: points, weights, ridge.
#[derive(Clone, Debug)]
pub struct Local<'a> {
    /// Where the fitted map is evaluated: dk numbers.
    pub query: &'a [f64],
    /// `n x dk`, row by row.
    pub keys: &'a [f64],
    /// `n x value_dim`, row by row.
    pub values: &'a [f64],
    /// Numbers per value (dv).
    pub value_dim: usize,
    /// Factor on the scores; only what differentiates the weights needs it.
    pub scale: f64,
    /// Ridge on the normalised covariance; infinity is softmax attention.
    pub lambda: f64,
    /// Weight of each key; they sum to 1, or are all zero where nothing is visible.
    pub weights: Vec<f64>,
}

impl<'a> Local<'a> {
    /// Softmax weights `exp(scale q.k)`. A score of minus infinity weighs nothing, whatever its key and value hold.
    pub fn softmax(query: &'a [f64], keys: &'a [f64], values: &'a [f64], scale: f64, lambda: f64) -> Self {
        let scores: Vec<f64> = keys.chunks_exact(query.len()).map(|key| scale * dot(query, key)).collect();
        Self::scored(query, keys, values, &scores).with(scale, lambda)
    }

    /// Weights `exp(-|q - k|^2 / (2 h))` of bandwidth `h`; equals softmax of scale `1 / h` where all keys have one norm.
    pub fn gaussian(query: &'a [f64], keys: &'a [f64], values: &'a [f64], bandwidth: f64, lambda: f64) -> Self {
        let square = |key: &[f64]| key.iter().zip(query).map(|(k, q)| (k - q) * (k - q)).sum::<f64>();
        let scores: Vec<f64> = keys.chunks_exact(query.len()).map(|key| square(key) / (-2.0 * bandwidth)).collect();
        Self::scored(query, keys, values, &scores).with(1.0 / bandwidth, lambda)
    }

    /// Weights from scores of any origin, one per key; ridge infinite until [`Local::with`].
    pub fn scored(query: &'a [f64], keys: &'a [f64], values: &'a [f64], scores: &[f64]) -> Self {
        let weights = normalise(scores);
        let value_dim = if scores.is_empty() { 0 } else { values.len() / scores.len() };
        Self { query, keys, values, value_dim, scale: 1.0, lambda: f64::INFINITY, weights }
    }

    /// The same weights with another scale and ridge.
    pub fn with(self, scale: f64, lambda: f64) -> Self {
        Self { scale, lambda, ..self }
    }

    /// Key numbers (dk).
    pub fn dim(&self) -> usize {
        self.query.len()
    }

    /// Weight, key and value of every key that weighs anything: a masked key must not enter a moment, since zero times
    /// infinity is not zero.
    pub fn points(&self) -> impl Iterator<Item = (f64, &'a [f64], &'a [f64])> + '_ {
        let values = self.values.chunks_exact(self.value_dim.max(1));
        let keys = self.keys.chunks_exact(self.query.len());
        self.weights.iter().zip(keys.zip(values)).filter(|(p, _)| **p != 0.0).map(|(p, (k, v))| (*p, k, v))
    }

    /// Mean key under the weights.
    pub fn key_mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.dim()];
        self.points().for_each(|(p, key, _)| axpy(&mut mean, p, key));
        mean
    }

    /// Mean value under the weights: softmax attention.
    pub fn value_mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.value_dim];
        self.points().for_each(|(p, _, value)| axpy(&mut mean, p, value));
        mean
    }

    /// `kbar - q`: what the solvers are asked to invert.
    pub fn delta(&self) -> Vec<f64> {
        self.key_mean().iter().zip(self.query).map(|(mean, q)| mean - q).collect()
    }

    /// `C = sum p u u^T`, `dk x dk`.
    pub fn covariance(&self) -> Vec<f64> {
        let (mean, d) = (self.key_mean(), self.dim());
        let mut sum = vec![0.0; d * d];
        for (p, key, _) in self.points() {
            let u: Vec<f64> = key.iter().zip(&mean).map(|(k, m)| k - m).collect();
            sum.chunks_exact_mut(d).zip(&u).for_each(|(row, x)| axpy(row, p * x, &u));
        }
        sum
    }

    /// `G = sum p (v - vbar) u^T`, `dv x dk`.
    pub fn cross_covariance(&self) -> Vec<f64> {
        let (key_mean, value_mean, d) = (self.key_mean(), self.value_mean(), self.dim());
        let mut sum = vec![0.0; d * self.value_dim];
        for (p, key, value) in self.points() {
            let u: Vec<f64> = key.iter().zip(&key_mean).map(|(k, m)| k - m).collect();
            for ((row, v), mean) in sum.chunks_exact_mut(d).zip(value).zip(&value_mean) {
                axpy(row, p * (v - mean), &u);
            }
        }
        sum
    }
}

/// `exp(s - max) / sum`; all zero where no score is above minus infinity.
pub fn normalise(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return vec![0.0; scores.len()];
    }
    let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}
