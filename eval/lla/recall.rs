//! Recall without training: random keys of RMS 1, values among random unit vectors, one query per stored pair that is
//! asked for. Runs through the kernel in single precision, as a model's decode would.

use serde_json::{Value, json};
use wattroute::lla::pool::Pool;
use wattroute::lla::ridge::{Rho, Ridge};
use wattroute::lla::simd::Level;
use wattroute::lla::store::{Precision, Store};
use wattroute::lla::{Attention, Shape, attend};

use crate::attention::Failed;
use crate::dense::{interval, normal};
use crate::mat::{dot, rms};

const DIM: usize = 64;
/// Values that an output is matched with.
const CANDIDATES: usize = 4096;
/// Queries per trial.
const QUERIES: usize = 64;
const RIDGES: [f32; 4] = [f32::INFINITY, 10.0, 1.0, 0.1];

/// One cell of the table.
pub struct Cell {
    pub pairs: usize,
    /// Factor on `1 / sqrt(d)`.
    pub inverse_temperature: f32,
    /// Standard deviation of the noise on each number of a query, before it is normed again.
    pub noise: f32,
    pub trials: u64,
}

fn draw(random: &mut fastrand::Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| normal(random) as f32).collect()
}

/// Squared error and accuracy for each ridge, over the trials.
pub fn run(cell: &Cell, seed: u64) -> Result<Value, Failed> {
    let pool = Pool::new(1);
    let mut all: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); RIDGES.len()];
    for trial in 0..cell.trials {
        for (ridge, (error, accuracy)) in one(cell, seed * 1000 + trial, &pool)?.into_iter().enumerate() {
            all[ridge].0.push(error);
            all[ridge].1.push(accuracy);
        }
    }
    let rows = RIDGES.iter().zip(&all).map(|(ridge, (errors, accuracies))| {
        let (error, accuracy) = (interval(errors), interval(accuracies));
        json!({
            "ridge": if ridge.is_finite() { json!(ridge) } else { json!("inf") },
            "squared_error": error.0, "half95": error.1, "accuracy": accuracy.0, "accuracy_half95": accuracy.1,
        })
    });
    Ok(json!({
        "part": "recall_without_training", "seed": seed, "dim": DIM, "pairs": cell.pairs, "candidates": CANDIDATES,
        "inverse_temperature": cell.inverse_temperature, "query_noise": cell.noise, "n_trials": cell.trials,
        "queries_per_trial": QUERIES.min(cell.pairs), "rows": rows.collect::<Vec<_>>(),
    }))
}

/// Mean squared error and share of right answers of one trial, for each ridge.
fn one(cell: &Cell, seed: u64, pool: &Pool) -> Result<Vec<(f64, f64)>, Failed> {
    let random = &mut fastrand::Rng::with_seed(seed);
    let unit = (DIM as f32).sqrt().recip();
    let candidates: Vec<f32> = rms(&draw(random, CANDIDATES * DIM), DIM).0.iter().map(|x| x * unit).collect();
    let keys = rms(&draw(random, cell.pairs * DIM), DIM).0;
    let owners = random.choose_multiple(0..CANDIDATES, cell.pairs);
    let value = |candidate: usize| &candidates[candidate * DIM..(candidate + 1) * DIM];
    let values: Vec<f32> = owners.iter().flat_map(|o| value(*o)).copied().collect();
    let shape = Shape { heads: 1, kv_heads: 1, dim: DIM, value_dim: DIM };
    let mut store = Store::new(shape, Precision::Full);
    store.append(&keys, &values)?;
    let asked = random.choose_multiple(0..cell.pairs, QUERIES.min(cell.pairs));
    let near = |pair: &usize| keys[pair * DIM..(pair + 1) * DIM].to_vec();
    let mut queries: Vec<f32> = asked.iter().flat_map(near).collect();
    let noise = draw(random, queries.len());
    queries.iter_mut().zip(noise).for_each(|(q, e)| *q += cell.noise * e);
    let queries = rms(&queries, DIM).0;
    let mut results = Vec::new();
    for lambda in RIDGES {
        let ridge = Ridge::new(vec![lambda])?.with_tolerance(1e-5)?.with_most_iterations(200)?;
        let jobs: Vec<Attention> = queries
            .chunks_exact(DIM)
            .map(|query| Attention {
                shape,
                scale: cell.inverse_temperature * unit,
                queries: query,
                first: cell.pairs - 1,
                store: &store,
                rho: Rho::Solve(&ridge),
                window: None,
            })
            .collect();
        let mut out = vec![0.0; queries.len()];
        attend(pool, Level::detect(), &jobs, &mut out)?;
        let (mut error, mut right) = (0.0, 0.0);
        for (out, pair) in out.chunks_exact(DIM).zip(&asked) {
            let truth = value(owners[*pair]);
            error += out.iter().zip(truth).map(|(o, v)| f64::from(o - v).powi(2)).sum::<f64>();
            let own = dot(out, truth);
            right += f64::from(u8::from(candidates.chunks_exact(DIM).all(|c| dot(out, c) <= own)));
        }
        results.push((error / asked.len() as f64, right / asked.len() as f64));
    }
    Ok(results)
}
