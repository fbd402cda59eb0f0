//! Dense heads for any number of labels: linfa's multinomial logistic regression, or three numbers that all labels share.
#![allow(clippy::indexing_slicing, reason = "columns are counted by the rows' own length, labels by the taxonomy")]

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::{MultiFittedLogisticRegression, MultiLogisticRegression};
use ndarray::{Array1, Array2, ArrayView1, Axis, concatenate};

use crate::classify::topics::{Head, Sorted, soften};

/// Inputs of a head for one example.
#[derive(Clone)]
pub struct Row {
    /// Scores of models that did not see the example, and what else there is; all rows have as many.
    pub x: Vec<f32>,
    /// Index of its label.
    pub label: usize,
    /// How many times it counts.
    pub weight: f32,
    /// Part of the data it belongs to.
    pub fold: usize,
}

/// How linfa is asked.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// L2 weight.
    pub alpha: f64,
    /// Upper bound of L-BFGS steps.
    pub steps: u64,
    /// About so many rows are used; more only take longer.
    pub rows: f32,
    /// Which ones.
    pub seed: u64,
}

/// Examples that come in two forms weigh half; so often counted, each form is there once.
const MOST_TIMES: f32 = 2.0;

/// The optimiser is started so often at most.
const STARTS: usize = 6;
/// Another start is worth it while one lowers the objective by this part.
const WORTH: f64 = 1e-3;

type Records = DatasetBase<Array2<f64>, Array1<usize>>;
type Fitted = MultiFittedLogisticRegression<f64, usize>;

/// Fits linfa's model on standardised inputs and folds the standardisation into its weights. Numbers that are not finite
/// are an error that names the input.
pub fn regress(rows: &[&Row], labels: usize, settings: &Settings) -> Result<Head, String> {
    let inputs = rows.first().map_or(0, |r| r.x.len());
    if let Some(at) = rows.iter().flat_map(|r| r.x.iter().enumerate()).find(|(_, v)| !v.is_finite()).map(|(at, _)| at) {
        return Err(format!("input {at} of the head is not a finite number"));
    }
    let (mean, spread) = moments(rows, inputs);
    let mut rng = fastrand::Rng::with_seed(settings.seed);
    let (mut values, mut answers) = (Vec::new(), Vec::new());
    let share = (settings.rows / rows.iter().map(|r| r.weight).sum::<f32>().max(1.0)).min(MOST_TIMES);
    for row in rows {
        // linfa's solver has no example weights, so an example is repeated by its weight, fractions by chance.
        for _ in 0..(row.weight * share + rng.f32()) as u32 {
            values.extend((0..inputs).map(|i| (f64::from(row.x[i]) - mean[i]) / spread[i]));
            answers.push(row.label);
        }
    }
    let mut head =
        Head { weights: vec![0.0; inputs * labels], bias: vec![-30.0; labels], temperature: 1.0, threshold: 0.0 };
    let records = Array2::from_shape_vec((answers.len(), inputs), values).map_err(|e| e.to_string())?;
    let data = DatasetBase::new(records, Array1::from(answers));
    let fitted = settled(&data, settings).map_err(|e| format!("the head could not be fitted: {e}"))?;
    for (column, label) in fitted.classes().iter().enumerate() {
        let mut bias = fitted.intercept()[column];
        for i in 0..inputs {
            let w = fitted.params()[[i, column]] / spread[i];
            head.weights[i * labels + label] = w as f32;
            bias -= w * mean[i];
        }
        head.bias[*label] = bias as f32;
    }
    Ok(head)
}

/// linfa's fit, started again where it stopped: its line search may fail long before the loss is flat, and says nothing.
fn settled(data: &Records, settings: &Settings) -> linfa_logistic::error::Result<Fitted> {
    let model = || MultiLogisticRegression::default().alpha(settings.alpha).max_iterations(settings.steps);
    let objective = |fitted: &Fitted| {
        let p = fitted.predict_probabilities(data.records());
        let place = |label: &usize| fitted.classes().binary_search(label).ok();
        let of = |(p, label): (ArrayView1<f64>, &usize)| -place(label).map_or(0.0, |at| p[at].max(1e-300).ln());
        let misfit: f64 = p.rows().into_iter().zip(data.targets()).map(of).sum();
        misfit + settings.alpha / 2.0 * fitted.params().iter().map(|w| w * w).sum::<f64>()
    };
    let mut best = model().fit(data)?;
    let mut low = objective(&best);
    for _ in 1..STARTS {
        let from = concatenate![Axis(0), best.params().view(), best.intercept().view().insert_axis(Axis(0))];
        let again = model().initial_params(from).fit(data)?;
        let value = objective(&again);
        let worth = value < low * (1.0 - WORTH);
        if value < low {
            (best, low) = (again, value);
        }
        if !worth {
            break;
        }
    }
    Ok(best)
}

fn moments(rows: &[&Row], inputs: usize) -> (Vec<f64>, Vec<f64>) {
    let n = rows.len().max(1) as f64;
    let mean: Vec<f64> = (0..inputs).map(|i| rows.iter().map(|r| f64::from(r.x[i])).sum::<f64>() / n).collect();
    let spread =
        |i: usize| (rows.iter().map(|r| (f64::from(r.x[i]) - mean[i]).powi(2)).sum::<f64>() / n).sqrt().max(1e-3);
    let spread = (0..inputs).map(spread).collect();
    (mean, spread)
}

/// A head of three numbers: how much word scores, character scores and the labels' shares count. For data too small for
/// weights of its own per label; `x` begins with the scores of both tables.
pub fn shared(rows: &[&Row], labels: usize) -> Head {
    let mut shares = vec![1f32; labels];
    rows.iter().for_each(|r| shares[r.label] += r.weight);
    let total: f32 = shares.iter().sum();
    let prior: Vec<f32> = shares.iter().map(|s| (s / total).ln()).collect();
    let inputs = rows.first().map_or(2 * labels, |r| r.x.len());
    let build = |k: [f32; 3]| {
        let mut weights = vec![0.0; inputs * labels];
        for label in 0..labels {
            weights[label * labels + label] = k[0];
            weights[(labels + label) * labels + label] = k[1];
        }
        let bias = prior.iter().map(|p| p * k[2]).collect();
        Head { weights, bias, temperature: 1.0, threshold: 0.0 }
    };
    let loss = |k: [f32; 3]| -> f64 {
        let one = |row: &&Row| {
            let z: Vec<f32> =
                (0..labels).map(|l| k[0] * row.x[l] + k[1] * row.x[labels + l] + k[2] * prior[l]).collect();
            f64::from(row.weight) * surprise(z, row.label, 1.0)
        };
        rows.iter().map(one).sum()
    };
    let mut best = [1.0f32, 1.0, 0.5];
    for _ in 0..3 {
        for at in 0..3 {
            let with = |v: f32| {
                let mut k = best;
                k[at] = v;
                k
            };
            best[at] = lowest(0.02, 30.0, |v| loss(with(v)));
        }
    }
    build(best)
}

/// Where a function between `low` and `high` is lowest, by golden section on a logarithmic scale.
fn lowest(low: f32, high: f32, of: impl Fn(f32) -> f64) -> f32 {
    let (mut low, mut high) = (low.ln(), high.ln());
    for _ in 0..25 {
        let (a, b) = (low + (high - low) * 0.382, low + (high - low) * 0.618);
        if of(a.exp()) < of(b.exp()) { high = b } else { low = a }
    }
    ((low + high) / 2.0).exp()
}

fn surprise(mut z: Vec<f32>, label: usize, temperature: f32) -> f64 {
    soften(&mut z, temperature);
    -f64::from(z[label].max(1e-9)).ln()
}

/// Logits, label and weight of examples that the head did not see.
pub type Scored = (Vec<f32>, usize, f32);

/// Mean log loss.
pub fn loss(scored: &[Scored], temperature: f32) -> f64 {
    let weight: f64 = scored.iter().map(|s| f64::from(s.2)).sum();
    let all = scored.iter().map(|(z, label, w)| f64::from(*w) * surprise(z.clone(), *label, temperature));
    all.sum::<f64>() / weight.max(1e-9)
}

/// Sets temperature (least log loss) and threshold (best sum of right answers minus half the wrong ones).
pub fn settle(head: &mut Head, scored: &[Scored]) {
    if scored.is_empty() {
        return;
    }
    head.temperature = lowest(0.1, 10.0, |t| loss(scored, t));
    let sorted: Vec<(Sorted, usize, f32)> =
        scored.iter().map(|(z, label, w)| (head.sorted(z.clone()), *label, *w)).collect();
    let value = |t: f32| -> f32 {
        let one = |s: &Sorted, label: usize| {
            let p = s.top.map_or(0.0, |top| s.p[top]);
            if p < t {
                0.0
            } else if s.top == Some(label) {
                1.0
            } else {
                -0.5
            }
        };
        sorted.iter().map(|(s, label, w)| w * one(s, *label)).sum()
    };
    let steps = (0..=60u8).map(|i| f32::from(i) / 100.0);
    head.threshold =
        steps.map(|t| (t, value(t))).fold((0.0, f32::MIN), |best, next| if next.1 > best.1 { next } else { best }).0;
}
