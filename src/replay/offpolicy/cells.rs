//! Sums by domain, fold and side. Pure.

use serde::{Deserialize, Serialize};

use crate::replay::case::FOLDS;

/// Rewards of a side's own mean that a domain's are shrunk by.
const PULL: f64 = 20.0;

/// Rewards of one side in one domain and fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// Rewards.
    pub n: f64,
    /// Their sum.
    pub sum: f64,
}

impl Mean {
    /// Both.
    pub fn plus(self, o: Self) -> Self {
        Self { n: self.n + o.n, sum: self.sum + o.sum }
    }

    /// Without a part of it.
    pub fn minus(self, o: Self) -> Self {
        Self { n: self.n - o.n, sum: self.sum - o.sum }
    }

    /// Pulled to a parent.
    pub fn near(self, parent: f64, pull: f64) -> f64 {
        (self.sum + pull * parent) / (self.n + pull)
    }
}

/// Sums over queries where the policy takes one side, in one domain and fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Queries.
    pub n: f64,
    /// Sum of weights.
    pub w: f64,
    /// Of weight times reward.
    pub wr: f64,
    /// Of squared weights.
    pub ww: f64,
    /// Of squared weight times reward.
    pub wwr: f64,
    /// Of the square of weight times reward.
    pub wwrr: f64,
}

impl Cell {
    /// Adds another.
    pub fn add(&mut self, o: &Self) {
        self.n += o.n;
        self.w += o.w;
        self.wr += o.wr;
        self.ww += o.ww;
        self.wwr += o.wwr;
        self.wwrr += o.wwrr;
    }
}

/// A side's expected reward in a domain: its mean there, pulled to its mean everywhere.
pub fn pulled(sides: &[Mean; 2], means: &[f64; 2], i: usize) -> f64 {
    let mean = means.get(i).copied().unwrap_or(0.5);
    sides.get(i).map_or(mean, |side| side.near(mean, PULL))
}

/// The cell of a domain, fold and side, made when first asked for.
pub fn at<C: Clone + Default + Copy>(
    cells: &mut Vec<[[C; 2]; FOLDS]>,
    domain: usize,
    fold: usize,
    local: bool,
) -> Option<&mut C> {
    if cells.len() <= domain {
        cells.resize(domain + 1, Default::default());
    }
    cells.get_mut(domain)?.get_mut(fold)?.get_mut(usize::from(local))
}

/// Adds cell by cell.
pub fn merge<C: Clone + Default + Copy>(
    into: &mut Vec<[[C; 2]; FOLDS]>,
    from: &[[[C; 2]; FOLDS]],
    add: impl Fn(&mut C, &C),
) {
    if into.len() < from.len() {
        into.resize(from.len(), Default::default());
    }
    let each = into.iter_mut().flatten().flatten().zip(from.iter().flatten().flatten());
    each.for_each(|(a, b)| add(a, b));
}
