//! Histograms that merge: quantiles of seconds, and the curve of a router's score.

use serde::{Deserialize, Serialize};

/// Bits of a number that its bin leaves out. The others are its exponent and five bits of its fraction: 32 bins of one width between two
/// powers of two, whose middle is off by at most 1.6 %, and no logarithm.
const REST: u32 = 52 - 5;
/// Lower end of the first bin, seconds: 2^-14.
const LEAST: f64 = 1.0 / 16384.0;
/// Bins: up to 2^30 seconds.
const BINS: usize = 44 * 32;

/// Quantiles of positive numbers to within 2 %. Merging is adding, so any order gives the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sketch {
    counts: Vec<u64>,
    n: u64,
    sum: f64,
    most: f64,
}

/// What a sketch tells, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Sketch {
    /// Takes one number.
    pub fn add(&mut self, x: f64) {
        if !x.is_finite() || x < 0.0 {
            return;
        }
        if self.counts.is_empty() {
            self.counts = vec![0; BINS];
        }
        let bin = ((x.max(LEAST).to_bits() - LEAST.to_bits()) >> REST) as usize;
        if let Some(cell) = self.counts.get_mut(bin.min(BINS - 1)) {
            *cell += 1;
        }
        self.n += 1;
        self.sum += x;
        self.most = self.most.max(x);
    }

    /// Takes all of another.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
        } else {
            self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        }
        self.n += other.n;
        self.sum += other.sum;
        self.most = self.most.max(other.most);
    }

    /// The number that a share `p` is at most.
    pub fn quantile(&self, p: f64) -> Option<f64> {
        let wanted = (p * self.n as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bin, count) in (0..).zip(&self.counts) {
            seen += count;
            if seen >= wanted && self.n > 0 {
                let edge = |bin: u64| f64::from_bits(LEAST.to_bits() + (bin << REST));
                return Some(f64::midpoint(edge(bin), edge(bin + 1)).min(self.most));
            }
        }
        None
    }

    /// All of it; none of nothing.
    pub fn spread(&self) -> Option<Spread> {
        let q = |p| self.quantile(p);
        Some(Spread { mean: self.sum / self.n as f64, p50: q(0.5)?, p95: q(0.95)?, p99: q(0.99)?, max: self.most })
    }
}

/// Bins of a score from -1 to 1; an odd number, so that 0 lies within one.
const SCORES: usize = 4097;

/// One bin of a curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Queries.
    pub n: f64,
    /// Right by the weak model.
    pub weak: f64,
    /// Right by the strong one.
    pub strong: f64,
    /// Joules of the weak one, where both are known.
    pub weak_joules: f64,
    /// Joules of the strong one.
    pub strong_joules: f64,
}

/// Queries by a score that says how much the strong model is expected to help.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Curve {
    bins: Vec<Bin>,
}

impl Curve {
    /// Takes one query.
    pub fn add(&mut self, score: f64, one: &Bin) {
        if self.bins.is_empty() {
            self.bins = vec![Bin::default(); SCORES];
        }
        let at = ((score.clamp(-1.0, 1.0) + 1.0) / 2.0 * (SCORES - 1) as f64).round() as usize;
        if let Some(bin) = self.bins.get_mut(at) {
            bin.add(one);
        }
    }

    /// Takes all of another.
    pub fn merge(&mut self, other: &Self) {
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
        } else {
            self.bins.iter_mut().zip(&other.bins).for_each(|(a, b)| a.add(b));
        }
    }

    /// Bins with queries, those that the strong model helps most first.
    pub fn falling(&self) -> Vec<Bin> {
        self.bins.iter().rev().filter(|b| b.n > 0.0).copied().collect()
    }
}

impl Bin {
    fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.weak += other.weak;
        self.strong += other.strong;
        self.weak_joules += other.weak_joules;
        self.strong_joules += other.strong_joules;
    }
}
