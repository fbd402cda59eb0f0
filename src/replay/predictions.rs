//! What each side is expected to make of a query, before it is asked: the one seam between replay and prediction.
//!
//! Invariant: out of fold. A query in fold f is predicted from the queries of the other folds alone, and all queries of one
//! stem are in one fold, so that no query is predicted from its own label.

use serde::{Deserialize, Serialize};

use super::case::{Case, FOLDS};
use crate::policy::types::Chance;
use crate::tables::stats::{strength, wilson_share};

/// Both sides of a query.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// P(correct) of the weak model.
    pub weak: Chance,
    /// P(correct) of the strong one.
    pub strong: Chance,
    /// Output tokens of the weak model.
    pub weak_tokens: f64,
    /// Output tokens of the strong one.
    pub strong_tokens: f64,
}

/// Who predicts.
#[derive(Clone, Debug)]
pub enum Predictions {
    /// Shrunk coverage of the query's domain, both sides.
    Domain(Domains),
    /// Each query carries what was foreseen of it from its words, its shape and its domain; the domain rule stays that of domains.
    Query(Domains),
    /// Tables of both sides, under the classifier's distribution: each query carries what they expect. With it, what they expect
    /// of a query of which nothing is known.
    Tables(Expected),
}

impl Predictions {
    /// What is expected of this query.
    pub fn of(&self, case: &Case) -> Expected {
        match self {
            Self::Domain(domains) => domains.of(case.domain_index, case.fold()),
            Self::Query(domains) => case.expected.unwrap_or_else(|| domains.of(case.domain_index, case.fold())),
            Self::Tables(unknown) => case.expected.unwrap_or(*unknown),
        }
    }

    /// The plain domain rule: local where the query's domain gains less from the strong model than the log as a whole.
    pub fn domain_keeps(&self, case: &Case) -> bool {
        let gain = |e: Expected| e.strong.mean - e.weak.mean;
        match self {
            Self::Domain(domains) | Self::Query(domains) => {
                gain(domains.of(case.domain_index, case.fold())) < gain(self.mean(case)) - 1e-9
            }
            Self::Tables(_) => gain(self.of(case)) < gain(self.mean(case)) - 1e-9,
        }
    }

    /// What is expected of a query of which nothing is known, by the same folds.
    pub fn mean(&self, case: &Case) -> Expected {
        match self {
            // The last row is that of no domain.
            Self::Domain(domains) | Self::Query(domains) => domains.of(usize::MAX, case.fold()),
            Self::Tables(unknown) => *unknown,
        }
    }

    /// Whether equal domain, fold and prompt tokens give equal predictions, so that a decision can be used again.
    pub fn by_domain_alone(&self) -> bool {
        matches!(self, Self::Domain(_))
    }

    /// The word in output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Domain(_) => "domain",
            Self::Query(_) => "query",
            Self::Tables(_) => "tables",
        }
    }
}

/// Sums of one domain in one fold.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    n: f64,
    weak: f64,
    strong: f64,
    tokens_n: f64,
    weak_tokens: f64,
    strong_tokens: f64,
}

impl Cell {
    fn plus(&mut self, other: &Self) {
        self.n += other.n;
        self.weak += other.weak;
        self.strong += other.strong;
        self.tokens_n += other.tokens_n;
        self.weak_tokens += other.weak_tokens;
        self.strong_tokens += other.strong_tokens;
    }

    fn minus(mut self, other: &Self) -> Self {
        self.n -= other.n;
        self.weak -= other.weak;
        self.strong -= other.strong;
        self.tokens_n -= other.tokens_n;
        self.weak_tokens -= other.weak_tokens;
        self.strong_tokens -= other.strong_tokens;
        self
    }
}

/// Counts by domain and fold, while they are gathered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    cells: Vec<[Cell; FOLDS]>,
}

impl Counts {
    /// Takes one query whose both labels are known; `weak` and `strong` from 0 to 1.
    pub fn add(&mut self, case: &Case, weak: f64, strong: f64) {
        while self.cells.len() <= case.domain_index {
            self.cells.push(Default::default());
        }
        let mut one = Cell { n: 1.0, weak, strong, ..Cell::default() };
        if let Some((w, s)) = case.weak.output_tokens.zip(case.strong.output_tokens) {
            (one.tokens_n, one.weak_tokens, one.strong_tokens) = (1.0, w, s);
        }
        if let Some(cell) = self.cells.get_mut(case.domain_index).and_then(|row| row.get_mut(case.fold())) {
            cell.plus(&one);
        }
    }

    /// Queries taken.
    pub fn n(&self) -> f64 {
        self.cells.iter().flatten().map(|c| c.n).sum()
    }

    /// Shrinks them.
    pub fn domains(&self) -> Domains {
        let folds = std::array::from_fn(|fold| self.without(fold));
        Domains { folds }
    }

    /// Expectations by domain from all folds but one; last, those of a domain that was not seen.
    fn without(&self, fold: usize) -> Vec<Expected> {
        let rows: Vec<Cell> = self
            .cells
            .iter()
            .map(|row| {
                let mut all = Cell::default();
                row.iter().for_each(|c| all.plus(c));
                row.get(fold).map_or(all, |own| all.minus(own))
            })
            .collect();
        let mut all = Cell::default();
        rows.iter().for_each(|c| all.plus(c));
        let strengths = [|c: &Cell| c.weak, |c: &Cell| c.strong].map(|of| {
            let mu = if all.n > 0.0 { of(&all) / all.n } else { 0.5 };
            let shares = rows.iter().filter(|c| c.n > 0.0).map(|c| (of(c) / c.n, c.n));
            (mu, strength(mu, shares))
        });
        rows.iter().chain(std::iter::once(&Cell::default())).map(|c| expected(c, &all, strengths)).collect()
    }
}

/// Domains that hardly differ are pooled, and thin ones are pulled towards the overall share.
fn expected(cell: &Cell, all: &Cell, [weak, strong]: [(f64, f64); 2]) -> Expected {
    let chance = |right: f64, (mu, m): (f64, f64)| {
        let mean = (right + mu * m) / (cell.n + m);
        let (low, high) = wilson_share(mean, cell.n + m);
        Chance { mean, low, high, n: cell.n.round() as u32, source: if cell.n > 0.0 { "predictor" } else { "prior" } }
    };
    let tokens = |own: f64, total: f64| {
        let mean = if all.tokens_n > 0.0 { total / all.tokens_n } else { crate::predict::OUTPUT_TOKENS };
        // As many queries of the whole log as are needed to know a mean length.
        const M: f64 = 20.0;
        (own + mean * M) / (cell.tokens_n + M)
    };
    Expected {
        weak: chance(cell.weak, weak),
        strong: chance(cell.strong, strong),
        weak_tokens: tokens(cell.weak_tokens, all.weak_tokens),
        strong_tokens: tokens(cell.strong_tokens, all.strong_tokens),
    }
}

/// Shrunk coverage by domain, one set per fold left out.
#[derive(Clone, Debug)]
pub struct Domains {
    folds: [Vec<Expected>; FOLDS],
}

impl Domains {
    fn of(&self, domain: usize, fold: usize) -> Expected {
        let all = self.folds.get(fold).or(self.folds.first());
        let found = all.and_then(|rows| rows.get(domain.min(rows.len().saturating_sub(1))));
        let unknown = Chance { mean: 0.5, low: 0.0, high: 1.0, n: 0, source: "prior" };
        let tokens = crate::predict::OUTPUT_TOKENS;
        found.copied().unwrap_or(Expected {
            weak: unknown,
            strong: unknown,
            weak_tokens: tokens,
            strong_tokens: tokens,
        })
    }
}
