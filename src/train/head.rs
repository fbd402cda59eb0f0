//! The dense head by linfa's multinomial logistic regression, then temperature and threshold.
#![allow(clippy::indexing_slicing, reason = "columns are counted by INPUTS and classes by DOMAINS, both array lengths")]

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2};

use crate::classify::artifact::INPUTS;
use crate::classify::domain::{DOMAINS, Domain, Posterior};
use crate::classify::{abstain, soften};

/// Inputs of the head for one example.
pub struct Row {
    /// Scores of models that did not see the example, and its shape.
    pub x: [f32; INPUTS],
    /// Index of its domain.
    pub label: usize,
    /// How many times it counts, on average 1.
    pub weight: f32,
}

/// Weights and intercepts on the raw inputs.
pub struct Head {
    /// One row of domains per input.
    pub weights: Vec<[f32; DOMAINS]>,
    /// Intercepts.
    pub bias: [f32; DOMAINS],
}

/// L2 weight of the head; chosen on the dev split.
const ALPHA: f64 = 1.0;
/// Upper bound of L-BFGS steps; the loss is flat long before.
const STEPS: u64 = 60;
/// About so many rows are enough for the few weights of the head; more only take longer.
const ROWS: f32 = 12_000.0;

/// Fits the head on standardised inputs and folds the standardisation into its weights.
pub fn fit(rows: &[Row], seed: u64) -> Result<Head, String> {
    let (mean, spread) = moments(rows);
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    let share = (ROWS / rows.iter().map(|r| r.weight).sum::<f32>().max(1.0)).min(1.0);
    for row in rows {
        // linfa's solver has no example weights, so an example is repeated by its weight, fractions by chance.
        for _ in 0..(row.weight * share + rng.f32()) as u32 {
            values.extend((0..INPUTS).map(|i| (f64::from(row.x[i]) - mean[i]) / spread[i]));
            labels.push(row.label);
        }
    }
    let records = Array2::from_shape_vec((labels.len(), INPUTS), values).map_err(|e| e.to_string())?;
    let data = DatasetBase::new(records, Array1::from(labels));
    let fitted = MultiLogisticRegression::default()
        .alpha(ALPHA)
        .max_iterations(STEPS)
        .fit(&data)
        .map_err(|e| format!("the head could not be fitted: {e}"))?;
    let mut head = Head { weights: vec![[0.0; DOMAINS]; INPUTS], bias: [-30.0; DOMAINS] };
    for (column, class) in fitted.classes().iter().enumerate() {
        let mut bias = fitted.intercept()[column];
        for i in 0..INPUTS {
            let w = fitted.params()[[i, column]] / spread[i];
            head.weights[i][*class] = w as f32;
            bias -= w * mean[i];
        }
        head.bias[*class] = bias as f32;
    }
    Ok(head)
}

fn moments(rows: &[Row]) -> ([f64; INPUTS], [f64; INPUTS]) {
    let n = rows.len().max(1) as f64;
    let (mut mean, mut spread) = ([0f64; INPUTS], [0f64; INPUTS]);
    for i in 0..INPUTS {
        mean[i] = rows.iter().map(|r| f64::from(r.x[i])).sum::<f64>() / n;
        let square = rows.iter().map(|r| (f64::from(r.x[i]) - mean[i]).powi(2)).sum::<f64>() / n;
        spread[i] = square.sqrt().max(1e-3);
    }
    (mean, spread)
}

/// The temperature with the least log loss, by golden section between 0.2 and 5.
pub fn temperature(scored: &[([f32; DOMAINS], usize, f32)]) -> f32 {
    let loss = |t: f32| -> f64 {
        scored.iter().map(|(z, label, w)| f64::from(*w) * -f64::from(soften(z, t).0[*label].max(1e-9)).ln()).sum()
    };
    let (mut low, mut high) = (0.2f32.ln(), 5f32.ln());
    for _ in 0..40 {
        let (a, b) = (low + (high - low) * 0.382, low + (high - low) * 0.618);
        if loss(a.exp()) < loss(b.exp()) { high = b } else { low = a }
    }
    ((low + high) / 2.0).exp()
}

/// The threshold with the best sum of right answers minus half the wrong ones, abstention counting nothing.
pub fn threshold(posteriors: &[(Posterior, usize, f32)]) -> f32 {
    let value = |t: f32| -> f32 {
        let one = |p: &Posterior, label: usize| match abstain(*p, t).top().0 {
            said if said.index() == label => 1.0,
            said if said == Domain::NONE => 0.0,
            _ => -0.5,
        };
        posteriors.iter().map(|(p, label, w)| w * one(p, *label)).sum()
    };
    let steps = (0..=60u8).map(|i| f32::from(i) / 100.0);
    steps.map(|t| (t, value(t))).fold((0.0, f32::MIN), |best, next| if next.1 > best.1 { next } else { best }).0
}
