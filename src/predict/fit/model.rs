//! One fit: sparse lines, cells and heads of several targets over the same rows. See the module's head for the parts.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cells::{Cells, Place};
use super::dense::{DENSE, dense};
use super::head::Head;
use super::sparse::{self, BUCKETS, Line, Matrix};

/// Inner folds: the head sees every row through parts that did not see it.
const INNER: u32 = 4;
/// Inverse regularisation of a line on one model's outcomes, and on ease. Chosen on the three smaller published tables.
const LINE_C: (f64, f64) = (0.3, 1.0);
/// L2 of the head's coefficients on parts, and on the shape of the prompt.
const HEAD_L2: (f64, f64) = (2.0, 50.0);
/// Dense inputs that only training can tell: the share of known features, and their mean inverse frequency.
pub const KNOWN: usize = 2;
/// Characters add nothing that words do not on the published tables, so only words are used.
const CHARS: f32 = 0.0;

/// What a text gives: hashed features, shape, and the hash of its stem.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Distinct buckets, see [`sparse::buckets`].
    pub buckets: Vec<u32>,
    /// See [`dense`].
    pub dense: [f32; DENSE],
    stem: [u8; 32],
}

impl Seen {
    /// Reads a text.
    pub fn of(text: &str) -> Self {
        let mut letters = String::with_capacity(text.len());
        stem(text, |letter| letters.push(letter));
        let stem = blake3::hash(letters.as_bytes());
        Self { buckets: sparse::buckets(text).0, dense: dense(text), stem: *stem.as_bytes() }
    }

    /// The same, with another's word on which rows are near-copies: those of one `stem`.
    #[must_use]
    pub fn stemmed(mut self, stem: u64) -> Self {
        self.stem = *blake3::hash(&stem.to_le_bytes()).as_bytes();
        self
    }

    /// The fold of the text: of its letters and digits alone, so that spacing, case and marks do not part duplicates.
    pub fn fold(&self, folds: u32, seed: u64) -> u32 {
        let mixed = blake3::keyed_hash(&self.stem, &seed.to_le_bytes());
        let part = mixed.as_bytes().first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
        part % folds.max(1)
    }
}

/// Gives the stem of a text away, letter by letter: its letters and digits in lower case, without answer options. The same question with
/// other spacing, case and marks, or with its options in another order, is a duplicate.
pub fn stem(text: &str, mut give: impl FnMut(char)) {
    let first = ["\nA. ", "\nA) "].iter().filter_map(|mark| text.find(mark)).filter(|at| *at > 0).min();
    let question = first.and_then(|at| text.get(..at)).unwrap_or(text);
    for letter in question.chars().filter(|c| c.is_alphanumeric()) {
        if letter.is_ascii() {
            give(letter.to_ascii_lowercase());
        } else {
            letter.to_lowercase().for_each(&mut give);
        }
    }
}

/// A row to learn from.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Its text.
    pub seen: &'a Seen,
    /// Where it belongs.
    pub place: &'a Place,
    /// A value from 0 to 1 for each target; none where it is not known.
    pub targets: Vec<Option<f64>>,
    /// Mean value over all models.
    pub ease: Option<f64>,
}

impl Row<'_> {
    /// The value of a target; the one after the last is ease.
    fn value(&self, target: usize) -> Option<f64> {
        if target == self.targets.len() { self.ease } else { self.targets.get(target).copied().flatten() }
    }
}

/// What a head joins, before it does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parts {
    /// Inverse document frequency per bucket.
    pub idf: Vec<f32>,
    /// One per target, then ease.
    pub lines: Vec<Line>,
    /// One per target, then ease.
    pub cells: Vec<Cells>,
}

impl Parts {
    fn fit(rows: &[&Row]) -> Self {
        let targets = rows.first().map_or(0, |r| r.targets.len());
        let texts = || rows.iter().map(|r| r.seen.buckets.as_slice());
        let idf = sparse::frequencies(texts());
        let matrix = Matrix::of(texts(), &idf, CHARS);
        let line = |t: usize| {
            let labels: Vec<Option<f64>> = rows.iter().map(|r| r.value(t)).collect();
            sparse::fit(&matrix, &labels, if t == targets { LINE_C.1 } else { LINE_C.0 })
        };
        let cell = |t: usize| Cells::fit(rows.iter().filter_map(|r| Some((r.place, r.value(t)?))));
        Self { lines: (0..=targets).into_par_iter().map(line).collect(), cells: (0..=targets).map(cell).collect(), idf }
    }

    /// Whether there is a weight for every feature, as there is after a fit.
    pub fn whole(&self) -> bool {
        self.idf.len() == BUCKETS && self.lines.iter().all(|l| l.weights.len() == BUCKETS)
    }

    /// Inputs of a head: logits of the lines, logits of the cells by subject and by domain, shape, what is known.
    pub fn inputs(&self, seen: &Seen, place: &Place) -> Vec<f32> {
        let mut x = Vec::with_capacity(3 * self.lines.len() + DENSE + KNOWN);
        x.extend(self.lines.iter().map(|l| l.logit(&seen.buckets, &self.idf, CHARS) as f32));
        for c in &self.cells {
            x.extend([sparse::logit(c.at(place)) as f32, sparse::logit(c.of_domain(place)) as f32]);
        }
        x.extend(seen.dense);
        x.extend(known(&seen.buckets, &self.idf));
        x
    }

    /// L2 of each input of a head.
    fn weights(&self) -> Vec<f64> {
        let mut l2 = vec![HEAD_L2.0; 3 * self.lines.len()];
        l2.resize(3 * self.lines.len() + DENSE + KNOWN, HEAD_L2.1);
        l2
    }
}

/// The share of a text's features that training knew, and their mean inverse frequency over 4.
pub fn known(buckets: &[u32], idf: &[f32]) -> [f32; KNOWN] {
    let of = |b: &u32| idf.get(*b as usize).copied().unwrap_or(0.0);
    let found = buckets.iter().filter(|b| of(b) > 0.0).count() as f32;
    let sum: f32 = buckets.iter().map(of).sum();
    [found / buckets.len().max(1) as f32, sum / found.max(1.0) / 4.0]
}

/// A fit of all targets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    /// What the heads join.
    pub parts: Parts,
    /// One per target.
    pub heads: Vec<Head>,
}

impl Model {
    /// Fits. Deterministic for a seed.
    pub fn fit(rows: &[&Row], seed: u64) -> Self {
        let targets = rows.first().map_or(0, |r| r.targets.len());
        let inner: Vec<u32> = rows.iter().map(|r| r.seen.fold(INNER, seed ^ INNER_SEED)).collect();
        let of = |wanted: &dyn Fn(u32) -> bool| -> Vec<&Row> {
            rows.iter().zip(&inner).filter(|(_, p)| wanted(**p)).map(|(r, _)| *r).collect()
        };
        let (unseen, parts) = rayon::join(
            || -> Vec<(Vec<f32>, &Row)> {
                let one = |fold: u32| {
                    let parts = Parts::fit(&of(&|p| p != fold));
                    of(&|p| p == fold).into_iter().map(|r| (parts.inputs(r.seen, r.place), r)).collect::<Vec<_>>()
                };
                (0..INNER).flat_map(one).collect()
            },
            || Parts::fit(rows),
        );
        let width = parts.weights().len();
        let head = |t: usize| {
            // A fold whose complement is empty has no parts to see a row through.
            let given: Vec<(&[f32], f64)> = unseen
                .iter()
                .filter(|(x, _)| x.len() == width)
                .filter_map(|(x, r)| Some((x.as_slice(), r.value(t)?)))
                .collect();
            Head::fit(&given, &parts.weights())
        };
        let heads = (0..targets).into_par_iter().map(head).collect();
        Self { parts, heads }
    }

    /// The probability of each target.
    pub fn chances(&self, seen: &Seen, place: &Place) -> Vec<f64> {
        let x = self.parts.inputs(seen, place);
        self.heads.iter().map(|h| h.p(&x)).collect()
    }
}

/// Parts the inner folds from the outer ones.
const INNER_SEED: u64 = 0x1a2b_3c4d_5e6f;
