//! One pass over keys and values: everything the output needs, in a state that splits and merges.
#![allow(clippy::indexing_slicing, reason = "all vectors are sized by `Moments::empty`")]

use crate::lla::reference::Local;
use crate::lla::reference::matrix::{Cholesky, axpy, dot, ridged};

/// Softmax moments of a set of keys and values under one query.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Largest score seen; minus infinity for an empty set.
    pub most: f64,
    /// `Z = sum exp(s - most)`.
    pub total: f64,
    /// `kbar`, dk.
    pub key_mean: Vec<f64>,
    /// `vbar`, dv.
    pub value_mean: Vec<f64>,
    /// `C`, `dk x dk`.
    pub covariance: Vec<f64>,
    /// `G`, `dv x dk`.
    pub cross: Vec<f64>,
}

impl Moments {
    /// Of no keys.
    pub fn empty(dim: usize, value_dim: usize) -> Self {
        Self {
            most: f64::NEG_INFINITY,
            total: 0.0,
            key_mean: vec![0.0; dim],
            value_mean: vec![0.0; value_dim],
            covariance: vec![0.0; dim * dim],
            cross: vec![0.0; value_dim * dim],
        }
    }

    /// Of the keys of a problem with softmax weights, one after another.
    pub fn gather(local: &Local) -> Self {
        let mut all = Self::empty(local.dim(), local.value_dim);
        for (key, value) in local.keys.chunks_exact(local.dim()).zip(local.values.chunks_exact(local.value_dim)) {
            all.add(local.scale * dot(local.query, key), key, value);
        }
        all
    }

    /// Adds one key; a score of minus infinity adds nothing.
    pub fn add(&mut self, score: f64, key: &[f64], value: &[f64]) {
        let mut one = Self::empty(key.len(), value.len());
        if score > f64::NEG_INFINITY {
            (one.most, one.total) = (score, 1.0);
            one.key_mean.copy_from_slice(key);
            one.value_mean.copy_from_slice(value);
            self.merge(&one);
        }
    }

    /// Joins the moments of two disjoint sets: with `a`, `b` the shares of the total weight and `dk`, `dv` the
    /// differences of the means, `C = a C1 + b C2 + a b dk dk^T` and `G = a G1 + b G2 + a b dv dk^T`.
    pub fn merge(&mut self, other: &Self) {
        if other.total == 0.0 {
            return;
        }
        let most = self.most.max(other.most);
        let (mine, theirs) = (self.total * (self.most - most).exp(), other.total * (other.most - most).exp());
        let (a, b) = (mine / (mine + theirs), theirs / (mine + theirs));
        let difference = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| y - x).collect::<Vec<f64>>();
        let dk = difference(&self.key_mean, &other.key_mean);
        let dv = difference(&self.value_mean, &other.value_mean);
        blend(&mut self.covariance, &other.covariance, (a, b), (&dk, &dk));
        blend(&mut self.cross, &other.cross, (a, b), (&dv, &dk));
        axpy(&mut self.key_mean, b, &dk);
        axpy(&mut self.value_mean, b, &dv);
        (self.most, self.total) = (most, mine + theirs);
    }

    /// `rho = (C + lambda I)^-1 (kbar - q)`; zeros for infinite lambda, `None` where the matrix cannot be factored.
    pub fn solve(&self, query: &[f64], lambda: f64) -> Option<Vec<f64>> {
        if lambda == f64::INFINITY {
            return Some(vec![0.0; query.len()]);
        }
        let delta: Vec<f64> = self.key_mean.iter().zip(query).map(|(mean, q)| mean - q).collect();
        Some(Cholesky::new(&ridged(&self.covariance, query.len(), lambda), query.len())?.solve(&delta))
    }

    /// `o = vbar - G rho`.
    pub fn apply(&self, rho: &[f64]) -> Vec<f64> {
        let rows = self.cross.chunks_exact(rho.len());
        self.value_mean.iter().zip(rows).map(|(mean, row)| mean - dot(row, rho)).collect()
    }
}

/// `m = a m + b other + a b left right^T`.
fn blend(m: &mut [f64], other: &[f64], (a, b): (f64, f64), (left, right): (&[f64], &[f64])) {
    let d = right.len();
    for (i, l) in left.iter().enumerate() {
        for (j, r) in right.iter().enumerate() {
            m[i * d + j] = a * m[i * d + j] + b * other[i * d + j] + a * b * l * r;
        }
    }
}
