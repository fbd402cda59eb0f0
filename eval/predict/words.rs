//! The baseline to beat: term frequency by inverse document frequency, and logistic regression, as scikit-learn does by default.
//!
//! `TfidfVectorizer(ngram_range=(1, 2), min_df=2)`: tokens of two or more letters, digits or underscores in lower case, raw
//! counts, smoothed inverse document frequencies, rows of length 1. `LogisticRegression(C=1)`: least sum of log losses plus
//! |w|²/2, the intercept free. Exact terms, no hashing; fitted on the training folds alone.
#![allow(clippy::indexing_slicing, reason = "terms are numbered by the vocabulary that sizes the weights")]

use std::collections::{BTreeMap, HashMap};

use wattroute::predict::fit::descent::minimise;

/// Texts that must have a term.
const MIN_DF: u32 = 2;
/// Steps of the solver; scikit-learn's default is 100.
const STEPS: usize = 100;

/// A fitted baseline.
pub struct Words {
    terms: HashMap<String, usize>,
    idf: Vec<f64>,
    weights: Vec<f64>,
}

impl Words {
    /// Fits texts with a yes or no each.
    pub fn fit(rows: &[(&str, bool)]) -> Self {
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for (text, _) in rows {
            for term in counted(text).into_keys() {
                *seen.entry(term).or_default() += 1;
            }
        }
        let n = rows.len() as f64;
        let kept: Vec<(String, u32)> = seen.into_iter().filter(|t| t.1 >= MIN_DF).collect();
        let idf = kept.iter().map(|t| ((1.0 + n) / (1.0 + f64::from(t.1))).ln() + 1.0).collect();
        let terms = kept.into_iter().enumerate().map(|(i, t)| (t.0, i)).collect();
        let mut made = Self { terms, idf, weights: Vec::new() };
        let vectors: Vec<(Vec<(usize, f64)>, f64)> =
            rows.iter().map(|(text, yes)| (made.vector(text), f64::from(u8::from(*yes)))).collect();
        let width = made.idf.len();
        let mut x = vec![0.0; width + 1];
        minimise(&mut x, STEPS, 1e-4, |x, slope| {
            let mut cost = 0.5 * x[..width].iter().map(|w| w * w).sum::<f64>();
            slope[..width].copy_from_slice(&x[..width]);
            slope[width] = 0.0;
            for (row, label) in &vectors {
                let z = x[width] + row.iter().map(|(j, v)| x[*j] * v).sum::<f64>();
                cost += z.max(0.0) + (-z.abs()).exp().ln_1p() - label * z;
                let g = 1.0 / (1.0 + (-z).exp()) - label;
                slope[width] += g;
                row.iter().for_each(|(j, v)| slope[*j] += g * v);
            }
            cost
        });
        made.weights = x;
        made
    }

    /// The logit of a text.
    pub fn score(&self, text: &str) -> f64 {
        self.weights[self.idf.len()] + self.vector(text).iter().map(|(j, v)| self.weights[*j] * v).sum::<f64>()
    }

    fn vector(&self, text: &str) -> Vec<(usize, f64)> {
        let known = counted(text).into_iter().filter_map(|(term, n)| Some((*self.terms.get(&term)?, n)));
        let mut row: Vec<(usize, f64)> = known.map(|(j, n)| (j, f64::from(n) * self.idf[j])).collect();
        row.sort_unstable_by_key(|f| f.0);
        let length = row.iter().map(|f| f.1 * f.1).sum::<f64>().sqrt().max(1e-12);
        row.iter_mut().for_each(|f| f.1 /= length);
        row
    }
}

/// Words and pairs of words with their counts.
fn counted(text: &str) -> HashMap<String, u32> {
    let lower = text.to_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| w.chars().nth(1).is_some()).collect();
    let mut counts = HashMap::new();
    for word in &words {
        *counts.entry((*word).to_owned()).or_insert(0) += 1;
    }
    for pair in words.windows(2) {
        *counts.entry(pair.join(" ")).or_insert(0) += 1;
    }
    counts
}
