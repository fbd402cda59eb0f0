//! Weights of the check of local answers, learned from profile records: linfa's logistic regression, judged by
//! cross-validation.
//!
//! Invariant: every probability that is reported of a record comes from a model, a prior and an expected length that did not
//! see it. A feature that few records have is not learned; it keeps its shipped weight.
#![allow(clippy::indexing_slicing, reason = "columns are counted by FEATURES, an array length, and rows by the rows")]

use std::collections::BTreeMap;

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};

use crate::verify::evidence::FEATURES;
use crate::verify::{Evidence, Expected, Model};

/// One answered and graded question.
#[derive(Clone, Debug)]
pub struct Row {
    /// Question, the same for all models.
    pub key: String,
    /// Which model answered.
    pub model: String,
    /// What its prior and length are expected by: suite and domain.
    pub group: String,
    /// Graded right.
    pub correct: bool,
    /// What the answer shows; prior and expected length are filled in here.
    pub seen: Evidence,
    /// What it took.
    pub joules: f64,
}

/// A row outside of its own fold.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The evidence with prior and expected length of the other folds.
    pub evidence: Evidence,
    /// P(right) by weights learned on the other folds.
    pub learned: f64,
    /// P(right) by the shipped weights.
    pub shipped: f64,
    /// P(right) before the answer: prior and prompt length only.
    pub before: f64,
}

/// L2 weight on standardised features: a handful of positive rows must not fit a dozen weights freely.
const ALPHA: f64 = 3.0;
/// Upper bound of solver steps; the loss is flat long before.
const STEPS: u64 = 200;
/// A feature is learned if at least so many rows differ from its usual value.
const SEEN: usize = 20;
/// Rows of its model that a group's mean is shrunk by.
const SHRINK: f64 = 20.0;
/// What is known before the answer.
const BEFORE: [&str; 2] = ["prior", "prompt"];

/// Mean of 0s and 1s and of lengths by model and group, shrunk to the model's.
struct Means(BTreeMap<(String, String), [f64; 3]>, BTreeMap<String, [f64; 3]>);

impl Means {
    fn of<'a>(rows: impl Iterator<Item = &'a Row>) -> Self {
        let mut means = Self(BTreeMap::new(), BTreeMap::new());
        for row in rows {
            let one = [1.0, f64::from(u8::from(row.correct)), f64::from(row.seen.tokens)];
            for sums in [
                means.0.entry((row.model.clone(), row.group.clone())).or_default(),
                means.1.entry(row.model.clone()).or_default(),
            ] {
                sums.iter_mut().zip(one).for_each(|(sum, x)| *sum += x);
            }
        }
        means
    }

    /// The row's evidence with its expectations.
    fn expect(&self, row: &Row) -> Evidence {
        let [n, right, tokens] = self.1.get(&row.model).copied().unwrap_or([1.0, 0.5, f64::from(row.seen.tokens)]);
        let [own, own_right, own_tokens] =
            self.0.get(&(row.model.clone(), row.group.clone())).copied().unwrap_or_default();
        let shrunk = |sum: f64, all: f64| (sum + SHRINK * all / n.max(1.0)) / (own + SHRINK);
        let prior = shrunk(own_right, right);
        Evidence { expected: Expected { prior, tokens: shrunk(own_tokens, tokens), ..row.seen.expected }, ..row.seen }
    }
}

/// Learns weights from all rows.
///
/// # Errors
/// All rows are right or all are wrong, or the solver fails.
pub fn learn(rows: &[Row]) -> Result<Model, String> {
    let all: Vec<&Row> = rows.iter().collect();
    // Priors of a row must not hold its own outcome: they come from folds here too.
    let evidence = expectations(&all, &folds(rows, 10, 0));
    fit(&all, &evidence, &FEATURES)
}

/// Every row judged by models that did not see it; `k` folds, drawn by `seed`, the same for all models of a question.
///
/// # Errors
/// As [`learn`].
pub fn cross_validate(rows: &[Row], k: usize, seed: u64) -> Result<Vec<Held>, String> {
    let fold = folds(rows, k, seed);
    let mut held: Vec<Option<Held>> = vec![None; rows.len()];
    for at in 0..k {
        let inside: Vec<usize> = (0..rows.len()).filter(|i| fold[*i] != at).collect();
        let train: Vec<&Row> = inside.iter().map(|i| &rows[*i]).collect();
        let parts: Vec<usize> = inside.iter().map(|i| fold[*i]).collect();
        let evidence = expectations(&train, &parts);
        let (learned, before) = (fit(&train, &evidence, &FEATURES)?, fit(&train, &evidence, &BEFORE)?);
        let means = Means::of(train.iter().copied());
        for (i, row) in rows.iter().enumerate().filter(|(i, _)| fold[*i] == at) {
            let evidence = means.expect(row);
            held[i] = Some(Held {
                evidence,
                learned: learned.p(&evidence),
                shipped: Model::shipped().p(&evidence),
                before: before.p(&evidence),
            });
        }
    }
    held.into_iter().collect::<Option<Vec<Held>>>().ok_or_else(|| "fewer rows than folds".to_owned())
}

/// Fold of each row, by its question.
fn folds(rows: &[Row], k: usize, seed: u64) -> Vec<usize> {
    let mut keys: Vec<&str> = rows.iter().map(|r| r.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    fastrand::Rng::with_seed(seed).shuffle(&mut keys);
    let place: BTreeMap<&str, usize> = keys.into_iter().enumerate().map(|(i, key)| (key, i % k.max(1))).collect();
    rows.iter().map(|r| place.get(r.key.as_str()).copied().unwrap_or(0)).collect()
}

/// Evidence of each row with expectations of the other folds.
fn expectations(rows: &[&Row], fold: &[usize]) -> Vec<Evidence> {
    let parts: std::collections::BTreeSet<usize> = fold.iter().copied().collect();
    let means: BTreeMap<usize, Means> = parts
        .into_iter()
        .map(|at| (at, Means::of(rows.iter().zip(fold).filter(|(_, f)| **f != at).map(|(r, _)| *r))))
        .collect();
    rows.iter().zip(fold).map(|(row, at)| means[at].expect(row)).collect()
}

fn fit(rows: &[&Row], evidence: &[Evidence], names: &[&str]) -> Result<Model, String> {
    let features: Vec<[f64; FEATURES.len()]> = evidence.iter().map(Evidence::features).collect();
    let wanted = |name: &&str| names.contains(name) && *name != "bias";
    let columns: Vec<usize> = (0..FEATURES.len()).filter(|i| wanted(&FEATURES[*i]) && varied(&features, *i)).collect();
    let scales: Vec<(f64, f64)> = columns.iter().map(|i| moments(&features, *i)).collect();
    let mut values = Vec::with_capacity(rows.len() * columns.len());
    for x in &features {
        values.extend(columns.iter().zip(&scales).map(|(i, (mean, spread))| (x[*i] - mean) / spread));
    }
    let x = Array2::from_shape_vec((rows.len(), columns.len()), values).map_err(|e| e.to_string())?;
    let y: Array1<bool> = rows.iter().map(|r| r.correct).collect();
    let fitted = LogisticRegression::default()
        .alpha(ALPHA)
        .max_iterations(STEPS)
        .fit(&DatasetBase::new(x, y))
        .map_err(|e| format!("the weights could not be fitted: {e}"))?;
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let mut model = if names.len() == FEATURES.len() { rare() } else { Model { weights: [0.0; FEATURES.len()] } };
    let mut bias = sign * fitted.intercept();
    let mut unknown = 0.0;
    for ((i, (mean, spread)), w) in columns.iter().zip(&scales).zip(fitted.params()) {
        let weight = sign * w / spread;
        model.weights[*i] = weight;
        bias -= weight * mean;
        if FEATURES[*i].ends_with("_logprob") {
            unknown += weight * mean;
        }
    }
    model.set("bias", bias);
    if names.contains(&"unknown_logprob") {
        // A backend that tells none is taken for a usual one.
        model.set("unknown_logprob", unknown);
    }
    Ok(model)
}

/// The shipped weights of what is too rare to be learned.
fn rare() -> Model {
    let mut model = Model::shipped();
    for name in ["bias", "prior", "mean_logprob", "min_logprob", "unknown_logprob", "length", "prompt"] {
        model.set(name, 0.0);
    }
    model
}

fn varied(features: &[[f64; FEATURES.len()]], i: usize) -> bool {
    let usual = {
        let mut column: Vec<f64> = features.iter().map(|x| x[i]).collect();
        column.sort_by(f64::total_cmp);
        column.get(column.len() / 2).copied().unwrap_or(0.0)
    };
    features.iter().filter(|x| (x[i] - usual).abs() > 1e-9).count() >= SEEN
}

/// Mean and standard deviation of a column.
fn moments(features: &[[f64; FEATURES.len()]], i: usize) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "a few thousand rows")]
    let n = features.len().max(1) as f64;
    let mean = features.iter().map(|x| x[i]).sum::<f64>() / n;
    let variance = features.iter().map(|x| (x[i] - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt().max(1e-6))
}

#[cfg(test)]
mod tests {
    use super::super::front::auc;
    use super::*;

    /// Right with P = 1 / (1 + e^-(2 + 4 mean)), whatever the prompt.
    fn rows(n: usize) -> Vec<Row> {
        let mut rng = fastrand::Rng::with_seed(3);
        let row = |i: usize| {
            let mean = -rng.f64();
            let p = 1.0 / (1.0 + (-(2.0 + 4.0 * mean)).exp());
            let seen = Evidence {
                expected: Expected { prior: 0.5, tokens: 1.0, prompt: 10.0 + 500.0 * rng.f64() },
                tokens: 20 + rng.u32(0..30),
                whole: true,
                mean_logprob: Some(mean),
                min_logprob: Some(mean - 2.0 * rng.f64()),
                cut: false,
                empty: false,
                refuses: i == 0,
                loops: false,
                stated: None,
            };
            Row {
                key: format!("q{i}"),
                model: "m".into(),
                group: format!("g{}", i % 3),
                correct: rng.f64() < p,
                seen,
                joules: 1.0,
            }
        };
        (0..n).map(row).collect()
    }

    #[test]
    fn what_tells_right_from_wrong_is_found_and_what_does_not_is_left() {
        let rows = rows(1500);
        let model = learn(&rows).unwrap();
        let weight = |name: &str| model.weights[FEATURES.iter().position(|f| *f == name).unwrap()];
        assert!(weight("mean_logprob") > 2.5, "{model:?}");
        assert!(weight("prompt").abs() < 0.3 && weight("min_logprob").abs() < 1.0, "{model:?}");
        assert_eq!(weight("refuses"), -3.0, "one refusal in a thousand is not learned from");
        let held = cross_validate(&rows, 5, 7).unwrap();
        let truth: Vec<bool> = rows.iter().map(|r| r.correct).collect();
        let after = auc(&held.iter().map(|h| h.learned).collect::<Vec<_>>(), &truth);
        let before = auc(&held.iter().map(|h| h.before).collect::<Vec<_>>(), &truth);
        assert!(after > 0.72 && before < 0.58, "{before} {after}");
        // Calibrated: what is called likely is.
        let sure: Vec<bool> = held.iter().zip(&truth).filter(|(h, _)| h.learned > 0.7).map(|(_, t)| *t).collect();
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let share = sure.iter().filter(|t| **t).count() as f64 / sure.len() as f64;
        assert!((share - 0.78).abs() < 0.1, "{share} of {}", sure.len());
    }

    #[test]
    fn answers_that_are_all_alike_teach_nothing() {
        let alike: Vec<Row> = rows(50).into_iter().map(|r| Row { correct: true, ..r }).collect();
        assert!(learn(&alike).is_err());
    }
}
