//! What a call of the kernel did: solver iterations per head, rows that fell back, and cost by the published formulas.

use crate::lla::apply::sight;
use crate::lla::plan::{Task, corrected};
use crate::lla::ridge::Rho;
use crate::lla::{Attention, Shape};

/// Iterations per query head: how often the solver took 0, 1, 2, ... of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    heads: Vec<Vec<u64>>,
}

impl Histogram {
    /// Counts of a head: element `i` is how many rows took `i` iterations; empty where none was solved by iteration.
    pub fn head(&self, head: usize) -> &[u64] {
        self.heads.get(head).map_or(&[], Vec::as_slice)
    }

    /// Heads with a count.
    pub fn heads(&self) -> usize {
        self.heads.len()
    }

    /// Rows counted, over all heads.
    pub fn rows(&self) -> u64 {
        self.heads.iter().flatten().sum()
    }

    /// Iterations per row on average; 0 if there was none.
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    pub fn mean(&self) -> f64 {
        let all = self.heads.iter().flat_map(|counts| counts.iter().enumerate());
        let total: u64 = all.map(|(iterations, rows)| iterations as u64 * rows).sum();
        total as f64 / self.rows().max(1) as f64
    }

    /// Counts `rows` of a head that took `iterations`.
    pub(in crate::lla) fn add(&mut self, head: usize, iterations: usize, rows: u64) {
        if self.heads.len() <= head {
            self.heads.resize_with(head + 1, Vec::new);
        }
        if let Some(counts) = self.heads.get_mut(head) {
            if counts.len() <= iterations {
                counts.resize(iterations + 1, 0);
            }
            if let Some(count) = counts.get_mut(iterations) {
                *count += rows;
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        for (head, counts) in other.heads.iter().enumerate() {
            for (iterations, rows) in counts.iter().enumerate().filter(|(_, rows)| **rows > 0) {
                self.add(head, iterations, *rows);
            }
        }
    }
}

/// What a call did. Add up the reports of several with [`Report::merge`].
///
/// `flops` and `kv_bytes` are what the methods cost on paper, so that kernels can be compared; one that finds a way to
/// do less still reports these. Per row (query head of one token) over n visible keys of width d, values the same width:
/// softmax 4 n d; projection 8 n d; conjugate gradients with k iterations 4 n d (k + 2); covariance and Cholesky
/// n d (d + 1) + 8 n d + d^3/3 + 2 d^2. Bytes count each key and value once per key-value head and pass, however many
/// query heads share it: softmax and projection 2 n d numbers, conjugate gradients n d (k + 3), covariance 3 n d.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows, that is query heads x tokens.
    pub rows: u64,
    /// Iterations of the rows solved by conjugate gradients.
    pub iterations: Histogram,
    /// Rows solved through the covariance.
    pub factored: u64,
    /// Rows whose correction came out of range and was left away: their output is softmax attention's.
    pub fell_back: u64,
    /// Floating-point operations by the formulas above.
    pub flops: u64,
    /// Bytes of keys and values read by the formulas above.
    pub kv_bytes: u64,
}

impl Report {
    /// Adds another call's figures.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.iterations.merge(&other.iterations);
        self.factored += other.factored;
        self.fell_back += other.fell_back;
        self.flops += other.flops;
        self.kv_bytes += other.kv_bytes;
    }

    /// Counts a pass of softmax or a given projection.
    pub(in crate::lla) fn count_pass(&mut self, job: &Attention, task: &Task) {
        let Shape { heads, kv_heads, dim, value_dim } = job.shape;
        let group = heads / kv_heads;
        let own: Vec<usize> = (task.kv_head * group..(task.kv_head + 1) * group).collect();
        let heads = own.into_iter().filter(|head| !corrected(job, *head)).count();
        let seen = |token| sight(job, token).end.min(task.keys.end) - sight(job, token).start.max(task.keys.start);
        let pairs: usize = task.tokens.clone().map(seen).sum::<usize>() * heads;
        let probes = if matches!(job.rho, Rho::Projection(_)) { 2 } else { 1 };
        let rows = task.tokens.len() * heads;
        let first = task.part.is_none() || task.keys.start == sight(job, task.tokens.start).start;
        self.rows += if first { rows as u64 } else { 0 };
        self.flops += (probes * 2 * pairs * (dim + value_dim)) as u64;
        self.kv_bytes += (task.keys.len() * (dim + value_dim) * job.store.precision().bytes()) as u64;
    }

    /// Counts a solved token in one key-value head: its query heads with the iterations each took, `None` for the
    /// covariance.
    pub(in crate::lla) fn count_solve(
        &mut self,
        job: &Attention,
        seen: usize,
        heads: impl Iterator<Item = (usize, Option<usize>)>,
    ) {
        let Shape { dim, value_dim, .. } = job.shape;
        let mut numbers = 0;
        for (head, iterations) in heads {
            self.rows += 1;
            let (flops, read) = match iterations {
                Some(k) => (seen * (dim * (4 * k + 6) + 2 * value_dim), seen * (dim * (k + 2) + value_dim)),
                None => {
                    let factor = dim * dim * dim / 3 + 2 * dim * dim;
                    (seen * (dim * (dim + 1) + 6 * dim + 2 * value_dim) + factor, seen * (2 * dim + value_dim))
                }
            };
            match iterations {
                Some(iterations) => self.iterations.add(head, iterations, 1),
                None => self.factored += 1,
            }
            self.flops += flops as u64;
            numbers = numbers.max(read);
        }
        self.kv_bytes += (numbers * job.store.precision().bytes()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_add_up() {
        let mut a = Report { rows: 2, flops: 10, ..Report::default() };
        a.iterations.add(1, 3, 2);
        let mut b = Report { rows: 1, kv_bytes: 7, factored: 1, fell_back: 1, ..Report::default() };
        b.iterations.add(0, 0, 1);
        b.iterations.add(1, 3, 1);
        a.merge(&b);
        assert_eq!((a.rows, a.flops, a.kv_bytes, a.factored, a.fell_back), (3, 10, 7, 1, 1));
        assert_eq!((a.iterations.head(0), a.iterations.head(1)), (&[1][..], &[0, 0, 0, 3][..]));
        assert_eq!((a.iterations.rows(), a.iterations.heads()), (4, 2));
        assert!((a.iterations.mean() - 9.0 / 4.0).abs() < 1e-12);
        assert!(a.iterations.head(9).is_empty());
    }
}
