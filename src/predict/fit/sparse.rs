//! L2-regularised logistic regression on sparse rows of unit length, with soft labels and several targets at a time.
//!
//! The classifier's hashed features (words, pairs of words, characters) with their inverse document frequency. A feature that
//! fewer than [`MIN_DOCS`] rows have counts nothing. Pure.
#![allow(clippy::indexing_slicing, reason = "columns are numbered by the count that sizes every vector they index")]

use serde::{Deserialize, Serialize};

use super::descent;
use crate::classify::features::{CHAR_BITS, Group, Shape, WORD_BITS, scan};

/// Rows that must have a feature.
pub const MIN_DOCS: u32 = 2;
/// Buckets of words, then of characters.
pub const BUCKETS: usize = (1 << WORD_BITS) + (1 << CHAR_BITS);
/// Steps of the solver.
const STEPS: usize = 60;
/// Where it may stop: the slope's length beside that at the start.
const TOLERANCE: f64 = 1e-3;

/// Distinct buckets of a text.
pub fn buckets(text: &str) -> (Vec<u32>, Shape) {
    let mut found = Vec::new();
    let shape = scan(text, |group, batch| match group {
        Group::Word => found.extend_from_slice(batch),
        Group::Char => found.extend(batch.iter().map(|b| b + (1 << WORD_BITS))),
        Group::Whole => {}
    });
    (found, shape)
}

/// Inverse document frequencies of the buckets: natural logarithm, smoothed, plus 1; 0 for an unknown one.
pub fn frequencies<'a>(rows: impl Iterator<Item = &'a [u32]>) -> Vec<f32> {
    let mut counts = vec![0u32; BUCKETS];
    let mut n = 0u32;
    for row in rows {
        n += 1;
        row.iter().for_each(|b| counts[*b as usize] += 1);
    }
    let idf = |c: u32| if c < MIN_DOCS { 0.0 } else { ((1.0 + n as f32) / (1.0 + c as f32)).ln() + 1.0 };
    counts.into_iter().map(idf).collect()
}

/// Rows as columns and values, one after the other.
pub struct Matrix {
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
    /// Bucket of each column.
    pub buckets: Vec<u32>,
}

impl Matrix {
    /// Unit rows of the known features; both groups weigh the same where `chars` is on, else only words count.
    pub fn of<'a>(rows: impl Iterator<Item = &'a [u32]>, idf: &[f32], chars: f32) -> Self {
        let mut column = vec![u32::MAX; BUCKETS];
        let mut m = Self { starts: vec![0], columns: Vec::new(), values: Vec::new(), buckets: Vec::new() };
        for row in rows {
            for (bucket, value) in unit(row, idf, chars) {
                let at = &mut column[bucket as usize];
                if *at == u32::MAX {
                    *at = m.buckets.len() as u32;
                    m.buckets.push(bucket);
                }
                m.columns.push(*at);
                m.values.push(value);
            }
            m.starts.push(m.columns.len());
        }
        m
    }

    fn row(&self, i: usize) -> impl Iterator<Item = (usize, f64)> {
        let span = self.starts[i]..self.starts[i + 1];
        self.columns[span.clone()].iter().zip(&self.values[span]).map(|(c, v)| (*c as usize, f64::from(*v)))
    }
}

/// The features of a row with their values: the vector of each group has the length 1 (characters `chars`).
pub fn unit<'a>(row: &'a [u32], idf: &'a [f32], chars: f32) -> impl Iterator<Item = (u32, f32)> + 'a {
    let word = |b: u32| b < 1 << WORD_BITS;
    let square = |w: bool| row.iter().filter(move |b| word(**b) == w).map(|b| idf[*b as usize].powi(2)).sum::<f32>();
    let (w, c) = (1.0 / square(true).max(1e-9).sqrt(), chars / square(false).max(1e-9).sqrt());
    let kept = row.iter().filter(move |b| chars > 0.0 || word(**b));
    kept.map(move |b| (*b, idf[*b as usize] * if word(*b) { w } else { c })).filter(|f| f.1 != 0.0)
}

/// Weights per bucket and the intercept of one target.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Line {
    /// One per bucket.
    pub weights: Vec<f32>,
    /// Intercept, not regularised.
    pub bias: f64,
}

impl Line {
    /// The logit of a row.
    pub fn logit(&self, row: &[u32], idf: &[f32], chars: f32) -> f64 {
        self.bias + unit(row, idf, chars).map(|(b, v)| f64::from(self.weights[b as usize]) * f64::from(v)).sum::<f64>()
    }
}

/// Fits soft labels (0 to 1; a row with none counts nothing): least sum of log losses plus |w|^2 / (2 c).
pub fn fit(m: &Matrix, labels: &[Option<f64>], c: f64) -> Line {
    let width = m.buckets.len();
    let mut x = vec![0.0; width + 1];
    let (sum, n) = labels.iter().flatten().fold((0.0, 0.0), |(s, n), l| (s + l, n + 1.0));
    x[width] = logit((sum + 0.5) / (n + 1.0));
    descent::minimise(&mut x, STEPS, TOLERANCE, |x, slope| {
        let mut cost = 0.0;
        for (w, s) in x[..width].iter().zip(slope.iter_mut()) {
            cost += 0.5 * w * w / c;
            *s = w / c;
        }
        slope[width] = 0.0;
        for (i, label) in labels.iter().enumerate() {
            let Some(label) = label else { continue };
            let z = x[width] + m.row(i).map(|(j, v)| v * x[j]).sum::<f64>();
            cost += softplus(z) - label * z;
            let g = sigmoid(z) - label;
            slope[width] += g;
            m.row(i).for_each(|(j, v)| slope[j] += g * v);
        }
        cost
    });
    let mut weights = vec![0.0; BUCKETS];
    for (w, bucket) in x.iter().zip(&m.buckets) {
        weights[*bucket as usize] = *w as f32;
    }
    Line { weights, bias: x[width] }
}

/// ln(1 + e^z) without overflow.
pub fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// 1 / (1 + e^-z).
pub fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// The inverse of [`sigmoid`], bounded to ±7.
pub fn logit(p: f64) -> f64 {
    let p = p.clamp(1e-3, 1.0 - 1e-3);
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_tell_get_weight_and_unlabelled_rows_get_none() {
        let texts = ["red apple", "red cherry", "red apple pie", "blue sky", "blue sea", "blue sky high"];
        let rows: Vec<Vec<u32>> = texts.iter().map(|t| buckets(t).0).collect();
        let idf = frequencies(rows.iter().map(Vec::as_slice));
        let m = Matrix::of(rows.iter().map(Vec::as_slice), &idf, 0.0);
        let labels = [Some(1.0), Some(1.0), None, Some(0.0), Some(0.0), Some(0.0)];
        let line = fit(&m, &labels, 10.0);
        let z = |t: &str| line.logit(&buckets(t).0, &idf, 0.0);
        assert!(z("red") > 1.0 && z("blue") < -1.0, "{} {}", z("red"), z("blue"));
        assert!((sigmoid(z("unheard words")) - 0.4).abs() < 0.2);
    }

    #[test]
    fn softplus_and_logit_stay_finite() {
        assert!((softplus(800.0) - 800.0).abs() < 1e-9 && softplus(-800.0).abs() < 1e-9);
        assert!((sigmoid(logit(0.3)) - 0.3).abs() < 1e-12);
        assert!(logit(0.0).is_finite() && logit(1.0).is_finite());
    }
}
