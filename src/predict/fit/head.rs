//! A dense logistic head: standardised inputs, L2, soft labels. What joins the parts of a prediction and calibrates it.
#![allow(clippy::indexing_slicing, reason = "all rows are as wide as the first; the solver's vector is one longer")]

use serde::{Deserialize, Serialize};

use super::descent;
use super::sparse::{logit, sigmoid, softplus};

/// Weights on raw inputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// One per input.
    pub weights: Vec<f64>,
    /// Intercept.
    pub bias: f64,
}

impl Head {
    /// The logit of an input.
    pub fn logit(&self, x: &[f32]) -> f64 {
        self.bias + x.iter().zip(&self.weights).map(|(x, w)| f64::from(*x) * w).sum::<f64>()
    }

    /// The probability.
    pub fn p(&self, x: &[f32]) -> f64 {
        sigmoid(self.logit(x))
    }

    /// Fits labels from 0 to 1. `l2` is the weight of each squared standardised coefficient, halved.
    pub fn fit(rows: &[(&[f32], f64)], l2: &[f64]) -> Self {
        let start = logit((rows.iter().map(|r| r.1).sum::<f64>() + 0.5) / (rows.len() as f64 + 1.0));
        solve(rows, l2, start, |z, label| (softplus(z) - label * z, sigmoid(z) - label))
    }
}

/// A line by least squares; `l2` is the weight of every squared standardised coefficient, halved.
pub fn least_squares(rows: &[(&[f32], f64)], l2: f64) -> Head {
    let mean = rows.iter().map(|r| r.1).sum::<f64>() / rows.len().max(1) as f64;
    let all = vec![l2; rows.first().map_or(0, |r| r.0.len())];
    solve(rows, &all, mean, |z, label| (0.5 * (z - label).powi(2), z - label))
}

/// Fits standardised inputs and folds the standardisation into the weights. `loss` gives value and slope at a logit.
fn solve(rows: &[(&[f32], f64)], l2: &[f64], start: f64, loss: impl Fn(f64, f64) -> (f64, f64)) -> Head {
    let width = rows.first().map_or(0, |r| r.0.len());
    let n = rows.len().max(1) as f64;
    let mean: Vec<f64> = (0..width).map(|j| rows.iter().map(|r| f64::from(r.0[j])).sum::<f64>() / n).collect();
    let spread = |j: usize| (rows.iter().map(|r| (f64::from(r.0[j]) - mean[j]).powi(2)).sum::<f64>() / n).sqrt();
    // A constant input says nothing, and dividing by nothing would make it shout.
    let scale: Vec<f64> = (0..width).map(spread).map(|s| if s > 1e-6 { 1.0 / s } else { 0.0 }).collect();
    let one = |r: &(&[f32], f64)| (0..width).map(|j| (f64::from(r.0[j]) - mean[j]) * scale[j]).collect::<Vec<_>>();
    let standard: Vec<f64> = rows.iter().flat_map(one).collect();
    let mut x = vec![0.0; width + 1];
    x[width] = start;
    descent::minimise(&mut x, 100, 1e-5, |x, slope| {
        let mut cost = 0.0;
        for j in 0..width {
            cost += 0.5 * l2[j] * x[j] * x[j];
            slope[j] = l2[j] * x[j];
        }
        slope[width] = 0.0;
        for (row, (_, label)) in standard.chunks_exact(width.max(1)).zip(rows) {
            let z = x[width] + row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
            let (value, g) = loss(z, *label);
            cost += value;
            slope[width] += g;
            row.iter().zip(slope.iter_mut()).for_each(|(a, s)| *s += g * a);
        }
        cost
    });
    let weights: Vec<f64> = (0..width).map(|j| x[j] * scale[j]).collect();
    let bias = x[width] - weights.iter().zip(&mean).map(|(w, m)| w * m).sum::<f64>();
    Head { weights, bias }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_slope_is_found_again_and_constants_are_ignored() {
        let mut rng = fastrand::Rng::with_seed(1);
        let rows: Vec<([f32; 2], f64)> = (0..4000)
            .map(|_| {
                let x = rng.f32() * 4.0 - 2.0;
                ([x, 3.0], f64::from(u8::from(rng.f64() < sigmoid(1.5 * f64::from(x) - 0.5))))
            })
            .collect();
        let given: Vec<(&[f32], f64)> = rows.iter().map(|(x, y)| (x.as_slice(), *y)).collect();
        let head = Head::fit(&given, &[0.1, 0.1]);
        assert!((head.weights[0] - 1.5).abs() < 0.2 && head.weights[1].abs() < 1e-12, "{head:?}");
        assert!((head.p(&[1.0, 3.0]) - sigmoid(1.0)).abs() < 0.05);
        assert!(Head::fit(&[], &[]).p(&[]).is_finite());
    }
}
