//! A run of consecutive tokens with grouped heads, causal: every (token, query head) is one [`Local`] problem.
#![allow(
    clippy::indexing_slicing,
    reason = "offsets follow from the shape; a slice of wrong length is a caller's mistake"
)]

use crate::lla::reference::backward::{self, Gradients};
use crate::lla::reference::matrix::axpy;
use crate::lla::reference::{Local, forms, probe, solve};

/// What corrects the softmax average.
#[derive(Clone, Copy, Debug)]
pub enum Rho<'a> {
    /// Nothing: softmax attention.
    Zero,
    /// The ridge solution with lambda per query head; infinity is softmax attention.
    Solve(&'a [f64]),
    /// A given probe, `tokens x heads x dim`.
    Projection(&'a [f64]),
}

/// One sequence, one layer.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key-value heads; query heads `g h .. g h + g` read key-value head `h`.
    pub kv_heads: usize,
    /// Numbers per query and key.
    pub dim: usize,
    /// Numbers per value.
    pub value_dim: usize,
    /// Factor on the scores.
    pub scale: f64,
    /// `tokens x heads x dim`.
    pub queries: &'a [f64],
    /// `positions x kv_heads x dim`.
    pub keys: &'a [f64],
    /// `positions x kv_heads x value_dim`.
    pub values: &'a [f64],
    /// Position of the first query; query `i` sees the positions up to `first + i` that exist.
    pub first: usize,
    /// Sees only the last so many of them.
    pub window: Option<usize>,
    /// Correction.
    pub rho: Rho<'a>,
    /// Bound on it, in standard deviations of the values (see [`probe::guarded`]); infinity is off. Forward only.
    pub radius: f64,
}

/// Keys and values one query sees, copied out of the grouped layout.
struct Seen {
    from: usize,
    keys: Vec<f64>,
    values: Vec<f64>,
}

impl<'a> Job<'a> {
    /// Output of every token and head, `tokens x heads x value_dim`.
    pub fn forward(&self) -> Vec<f64> {
        let mut out = Vec::new();
        for row in 0..self.rows() {
            let seen = self.seen(row);
            if seen.keys.is_empty() {
                out.extend(std::iter::repeat_n(0.0, self.value_dim));
                continue;
            }
            let local = self.local(row, &seen);
            out.extend(match self.rho {
                Rho::Zero | Rho::Solve(_) => forms::centred(&local),
                Rho::Projection(rho) => probe::covariance_form(&local, &rho[row * self.dim..(row + 1) * self.dim]),
            });
        }
        out
    }

    /// Correction vector of every token and head, `tokens x heads x dim`; zeros where there is none.
    pub fn corrections(&self) -> Vec<f64> {
        let of_row = |row: usize| match self.rho {
            Rho::Projection(rho) => rho[row * self.dim..(row + 1) * self.dim].to_vec(),
            Rho::Solve(lambda) if lambda[row % self.heads] < f64::INFINITY => {
                let seen = self.seen(row);
                solve::cholesky(&self.local(row, &seen)).unwrap_or_else(|| vec![0.0; self.dim])
            }
            Rho::Zero | Rho::Solve(_) => vec![0.0; self.dim],
        };
        (0..self.rows()).flat_map(of_row).collect()
    }

    /// Gradients for `upstream`, laid out like the output: queries, keys, values, lambda per head, and the probe's.
    pub fn backward(&self, upstream: &[f64]) -> Gradients {
        let mut all = Gradients {
            query: vec![0.0; self.queries.len()],
            keys: vec![0.0; self.keys.len()],
            values: vec![0.0; self.values.len()],
            lambda: 0.0,
            rho: vec![0.0; self.queries.len()],
        };
        for (row, g) in upstream.chunks_exact(self.value_dim).enumerate() {
            let own = row * self.dim..(row + 1) * self.dim;
            let one = self.of_row(row, g);
            all.query[own.clone()].copy_from_slice(&one.1.query);
            all.rho[own].copy_from_slice(&one.1.rho);
            all.lambda += one.1.lambda;
            let kv = self.kv_head(row);
            for (j, (dk, dv)) in
                one.1.keys.chunks_exact(self.dim).zip(one.1.values.chunks_exact(self.value_dim)).enumerate()
            {
                let place = (one.0 + j) * self.kv_heads + kv;
                axpy(&mut all.keys[place * self.dim..(place + 1) * self.dim], 1.0, dk);
                axpy(&mut all.values[place * self.value_dim..(place + 1) * self.value_dim], 1.0, dv);
            }
        }
        all
    }

    /// Gradient of the ridge of each head.
    pub fn backward_lambda(&self, upstream: &[f64]) -> Vec<f64> {
        let mut lambda = vec![0.0; self.heads];
        for (row, g) in upstream.chunks_exact(self.value_dim).enumerate() {
            lambda[row % self.heads] += self.of_row(row, g).1.lambda;
        }
        lambda
    }

    fn of_row(&self, row: usize, upstream: &[f64]) -> (usize, Gradients) {
        let seen = self.seen(row);
        let local = self.local(row, &seen);
        let one = match self.rho {
            Rho::Zero | Rho::Solve(_) => backward::solved(&local, upstream),
            Rho::Projection(rho) => backward::projected(&local, upstream, &rho[row * self.dim..(row + 1) * self.dim]),
        };
        (seen.from, one)
    }

    fn rows(&self) -> usize {
        self.queries.len() / self.dim
    }

    fn kv_head(&self, row: usize) -> usize {
        row % self.heads / (self.heads / self.kv_heads)
    }

    fn seen(&self, row: usize) -> Seen {
        let existing = self.keys.len() / (self.kv_heads * self.dim);
        let to = existing.min(self.first + row / self.heads + 1);
        let from = self.window.map_or(0, |w| (self.first + row / self.heads + 1).saturating_sub(w)).min(to);
        let part = |rows: &[f64], width: usize| {
            let at = |j: usize| (j * self.kv_heads + self.kv_head(row)) * width;
            (from..to).flat_map(|j| rows[at(j)..at(j) + width].to_vec()).collect()
        };
        Seen { from, keys: part(self.keys, self.dim), values: part(self.values, self.value_dim) }
    }

    fn local<'b>(&self, row: usize, seen: &'b Seen) -> Local<'b>
    where
        'a: 'b,
    {
        let lambda = match self.rho {
            Rho::Solve(lambda) => lambda[row % self.heads],
            Rho::Zero | Rho::Projection(_) => f64::INFINITY,
        };
        let query = &self.queries[row * self.dim..(row + 1) * self.dim];
        let mut local = Local::softmax(query, &seen.keys, &seen.values, self.scale, lambda);
        local.value_dim = self.value_dim;
        if self.radius < f64::INFINITY {
            local.lambda = probe::guarded(lambda, &local.delta(), self.radius);
        }
        local
    }
}
