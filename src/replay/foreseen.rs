//! Query by query, out of fold: the live predictor's fit over a bounded, seeded sample of the log. Pure.
//!
//! Invariants: a query is predicted by the fit that left its fold out, and all queries of one stem share a fold, so that none is
//! predicted from its own label; what is kept of the log is at most [`TRAINED`] rows of hashed features, however long it is.

use std::collections::{BTreeMap, BinaryHeap};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::case::{Case, FOLDS, mixed};
use super::predictions::Expected;
use crate::policy::types::Chance;
use crate::predict::OUTPUT_TOKENS;
use crate::predict::fit::dense::DENSE;
use crate::predict::fit::model::{Model, Row, Seen};
use crate::predict::fit::{Place, joined, targets};
use crate::predict::success::lengths::Lengths;
use crate::tables::stats::wilson_share;

/// Labelled queries that are learned from, at most: a fit's time and memory grow with them, its worth hardly does beyond.
pub const TRAINED: usize = 20_000;

/// The queries with the smallest seeded hashes of their stems: a sample that does not depend on the log's order, and that takes
/// near-copies of a query together.
pub struct Sample {
    rows: BinaryHeap<Taken>,
    most: usize,
    seed: u64,
    /// Labelled queries that came by.
    pub offered: u64,
    /// Of those, without a prompt.
    pub blank: u64,
}

/// What is kept of a query to learn from.
struct Taken {
    key: (u64, u64),
    fold: usize,
    seen: Seen,
    place: Place,
    labels: [f64; 2],
    ease: Option<f64>,
    tokens: [Option<f64>; 2],
}

impl PartialEq for Taken {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Taken {}

impl PartialOrd for Taken {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Taken {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl Sample {
    /// Nothing yet.
    pub fn new(most: usize, seed: u64) -> Self {
        Self { rows: BinaryHeap::new(), most, seed, offered: 0, blank: 0 }
    }

    /// Takes a query with both labels, if its hash is among the smallest. `ease` is the mean label over all models of its row.
    pub fn offer(&mut self, case: &Case, ease: Option<f64>) {
        let (Some(weak), Some(strong)) = (case.weak.ok, case.strong.ok) else { return };
        let text = case.text.as_deref().unwrap_or_default();
        self.offered += 1;
        self.blank += u64::from(text.is_empty());
        let key = (mixed(case.stem ^ mixed(self.seed)), case.line);
        if self.rows.len() >= self.most {
            if self.rows.peek().is_some_and(|largest| largest.key <= key) {
                return;
            }
            self.rows.pop();
        }
        self.rows.push(Taken {
            key,
            fold: case.fold(),
            // Rows without a prompt are not all copies of one.
            seen: Seen::of(text).stemmed(case.stem),
            place: Place::labelled(&case.domain, None),
            labels: [weak, strong],
            ease,
            tokens: [case.weak.output_tokens, case.strong.output_tokens],
        });
    }

    /// Fits, one fold left out at a time. `scale` is a full grade.
    pub fn fit(self, scale: f64) -> Foreseer {
        let (seed, rows) = (self.seed, self.rows.into_sorted_vec());
        let folds: Vec<Fold> = (0..FOLDS).into_par_iter().map(|fold| Fold::fit(&rows, fold, scale, seed)).collect();
        Foreseer { folds, rows: rows.len(), offered: self.offered, blank: self.blank }
    }
}

/// Predictors of both sides, one pair per fold left out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Foreseer {
    folds: Vec<Fold>,
    /// Queries learned from, all folds together.
    pub rows: usize,
    /// Labelled queries that they were drawn from.
    pub offered: u64,
    /// Of those, without a prompt.
    pub blank: u64,
}

impl Foreseer {
    /// As it travels to other processes: a few megabytes.
    ///
    /// # Errors
    /// None that is expected.
    pub fn packed(&self) -> Result<Vec<u8>, String> {
        let bytes = postcard::to_allocvec(self).map_err(|e| e.to_string())?;
        // Most weights are of features that no prompt has.
        zstd::encode_all(bytes.as_slice(), 1).map_err(|e| e.to_string())
    }

    /// Back again.
    ///
    /// # Errors
    /// It was packed by another version.
    pub fn unpacked(packed: &[u8]) -> Result<Self, String> {
        let bytes = zstd::decode_all(packed).map_err(|e| e.to_string())?;
        let own: Self = postcard::from_bytes(&bytes).map_err(|e| e.to_string())?;
        let whole = own.folds.len() == FOLDS && own.folds.iter().all(|f| f.model.parts.whole());
        if whole { Ok(own) } else { Err("its weights are not of this version's features".to_owned()) }
    }

    /// What is expected of this query, by the fit that did not see it. Uses its text, domain and stem.
    pub fn of(&self, case: &Case) -> Option<Expected> {
        self.folds.get(case.fold()).map(|fold| fold.of(case))
    }

    /// How it was learned, in words.
    pub fn told(&self) -> String {
        let (rows, offered) = (self.rows, self.offered);
        let drawn = if (rows as u64) < offered {
            format!("{rows} labelled queries (the most that are taken, a seeded sample by stem of the first {offered})")
        } else {
            format!("{rows} labelled queries")
        };
        let blank = match self.blank {
            0 => String::new(),
            n if n == offered => "; the log has no prompts, so it knows no more than domains".to_owned(),
            n => format!("; {n} of {offered} have no prompt"),
        };
        format!(
            "predictions: per query, from its words, shape and domain, learned from {drawn}, five folds by the prompt's stem: no \
             query sees its own label{blank}"
        )
    }
}

/// One fit.
#[derive(Debug, Serialize, Deserialize)]
struct Fold {
    model: Model,
    lengths: [Option<Length>; 2],
    /// Queries learned from in each domain.
    counts: BTreeMap<Box<str>, u32>,
}

impl Fold {
    fn fit(rows: &[Taken], fold: usize, scale: f64, seed: u64) -> Self {
        let grade = |label: f64| (label / scale).clamp(0.0, 1.0);
        let others = || rows.iter().filter(|r| r.fold != fold);
        let learned: Vec<Row<'_>> = others()
            .map(|r| {
                let [weak, strong] = r.labels.map(grade);
                let ease = r.ease.map(grade).or(Some(f64::midpoint(weak, strong)));
                Row { seen: &r.seen, place: &r.place, targets: targets(Some(weak), Some(strong)), ease }
            })
            .collect();
        let lengths = [0, 1].map(|side: usize| {
            let known = others().filter_map(|r| Some((r, r.tokens.get(side).copied().flatten()?)));
            Length::fit(&known.collect::<Vec<_>>())
        });
        let mut counts: BTreeMap<Box<str>, u32> = BTreeMap::new();
        for (domain, _) in others().flat_map(|r| &r.place.domains) {
            *counts.entry(Box::from(&**domain)).or_default() += 1;
        }
        Self { model: Model::fit(&learned.iter().collect::<Vec<_>>(), seed), lengths, counts }
    }

    fn of(&self, case: &Case) -> Expected {
        let seen = Seen::of(case.text.as_deref().unwrap_or_default());
        let place = Place::labelled(&case.domain, None);
        let [weak, strong] = joined(&self.model.chances(&seen, &place)).map(f64::from);
        let n = self.counts.get(&case.domain).copied().unwrap_or(0);
        let chance = |mean: f64| {
            let (low, high) = wilson_share(mean, f64::from(n.max(1)));
            Chance { mean, low: low.min(mean), high: high.max(mean), n, source: "predictor" }
        };
        let [weak_tokens, strong_tokens] =
            self.lengths.each_ref().map(|l| l.as_ref().map_or(OUTPUT_TOKENS, |l| l.of(&seen.dense, &case.domain)));
        Expected { weak: chance(weak), strong: chance(strong), weak_tokens, strong_tokens }
    }
}

/// Tokens of one side's answers: by the prompt's shape, and by what its domain's answers have beyond that.
#[derive(Debug, Serialize, Deserialize)]
struct Length {
    shape: Lengths,
    factors: BTreeMap<Box<str>, f64>,
}

impl Length {
    fn fit(rows: &[(&Taken, f64)]) -> Option<Self> {
        /// Answers of a usual length that a domain's are shrunk by.
        const PULL: f64 = 20.0;
        let shape = Lengths::fit(&rows.iter().map(|(r, t)| (r.seen.dense, *t)).collect::<Vec<([f32; DENSE], f64)>>())?;
        let usual = rows.iter().map(|(_, t)| t).sum::<f64>() / rows.len().max(1) as f64;
        let mut sums: BTreeMap<Box<str>, [f64; 2]> = BTreeMap::new();
        for (row, tokens) in rows {
            for (domain, _) in &row.place.domains {
                let [seen, expected] = sums.entry(Box::from(&**domain)).or_insert([PULL * usual; 2]);
                *seen += tokens;
                *expected += shape.of(&row.seen.dense).mean;
            }
        }
        let factors = sums.into_iter().map(|(domain, [seen, expected])| (domain, seen / expected.max(1e-9))).collect();
        Some(Self { shape, factors })
    }

    fn of(&self, dense: &[f32; DENSE], domain: &str) -> f64 {
        self.shape.of(dense).mean * self.factors.get(domain).copied().unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Arm, stem};
    use super::*;

    fn cases(n: u64) -> Vec<Case> {
        let mut random = fastrand::Rng::with_seed(2);
        (0..n)
            .map(|line| {
                let hard = random.bool();
                let text = format!("{} of thing {line} in the garden", if hard { "prove it" } else { "name it" });
                let arm = |right: bool| Arm { ok: Some(f64::from(u8::from(right))), ..Arm::default() };
                let weak = random.f64() < if hard { 0.15 } else { 0.95 };
                let stem = stem(&text);
                let text = Some(text.into());
                Case { line, stem, text, weak: arm(weak), strong: arm(random.f64() < 0.9), ..Case::default() }
            })
            .collect()
    }

    fn fitted(cases: &[Case], most: usize) -> Foreseer {
        let mut sample = Sample::new(most, 1);
        cases.iter().for_each(|c| sample.offer(c, None));
        sample.fit(1.0)
    }

    #[test]
    fn words_within_one_domain_are_told_apart_and_an_own_label_changes_nothing() {
        let mut cases = cases(400);
        let before = fitted(&cases, 1000);
        let gain = |e: &Expected| e.strong.mean - e.weak.mean;
        let of = |hard: bool| {
            let some: Vec<f64> = cases
                .iter()
                .filter(|c| c.text.as_deref().unwrap().starts_with("prove") == hard)
                .map(|c| gain(&before.of(c).unwrap()))
                .collect();
            some.iter().sum::<f64>() / some.len() as f64
        };
        assert!(of(true) > 0.5 && of(false) < 0.2, "{} {}", of(true), of(false));
        let first = before.of(&cases[7]).unwrap().weak.mean;
        cases[7].weak.ok = cases[7].weak.ok.map(|ok| 1.0 - ok);
        let other = cases.iter().position(|c| c.fold() != cases[7].fold()).unwrap();
        let after = fitted(&cases, 1000);
        assert_eq!(after.of(&cases[7]).unwrap().weak.mean.to_bits(), first.to_bits());
        assert_ne!(after.of(&cases[other]).unwrap().weak.mean, before.of(&cases[other]).unwrap().weak.mean);
    }

    #[test]
    fn the_sample_is_bounded_and_does_not_depend_on_the_order() {
        let cases = cases(300);
        let backwards: Vec<Case> = cases.iter().rev().cloned().collect();
        let (a, b) = (fitted(&cases, 120), fitted(&backwards, 120));
        assert_eq!((a.rows, a.offered, a.blank), (120, 300, 0));
        let p = |f: &Foreseer| cases.iter().map(|c| f.of(c).unwrap().weak.mean).collect::<Vec<_>>();
        assert_eq!(p(&a), p(&b));
    }

    #[test]
    fn nothing_to_learn_from_is_a_coin() {
        let none = fitted(&[], 10);
        let e = none.of(&cases(1)[0]).unwrap();
        assert_eq!((e.weak.mean, e.strong.mean, e.weak.n), (0.5, 0.5, 0));
    }
}
