//! What local linear attention is good for, and where it is not: recall and piecewise-linear regression without training,
//! against figures measured once. Fewer trials than there, so a figure passes that lies within a fifth of the mean
//! plus two standard errors (and half a unit of the figure's last digit).

use crate::lla::properties::support::{Sample, exact, normals, run};
use crate::lla::reference::matrix::{dot, norm};
use crate::lla::reference::{Local, forms};
use crate::lla::ridge::{Rho, Solver};
use crate::lla::store::Precision;
use crate::lla::{Shape, simd::Level};

/// A mean and its standard error.
#[derive(Clone, Copy, Debug)]
struct Mean {
    mean: f64,
    error: f64,
}

impl Mean {
    fn of(all: &[f64]) -> Self {
        let n = all.len() as f64;
        let mean = all.iter().sum::<f64>() / n;
        let variance = all.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
        Self { mean, error: (variance / n).sqrt() }
    }

    #[track_caller]
    fn is(self, figure: f64, last_digit: f64, about: &str) {
        let allowed = 0.2 * figure + 2.0 * self.error + 0.5 * last_digit;
        assert!((self.mean - figure).abs() <= allowed, "{about}: {self:?}, measured then: {figure}");
    }
}

/// Key length `sqrt(64)`, as normed keys have.
const D: usize = 64;
/// Queries per draw of keys.
const ASKED: usize = 16;

fn normed(x: &[f64]) -> Vec<f64> {
    let length = norm(x) / (x.len() as f64).sqrt();
    x.iter().map(|x| x / length).collect()
}

/// Squared errors and hits of recalling values by (noisy) stored keys, for each ridge.
fn recall(n: usize, draws: u64, noise: f64, temperature: f32, lambdas: &[f32]) -> Vec<(Vec<f64>, f64)> {
    let mut results = vec![(Vec::new(), 0.0); lambdas.len()];
    for seed in 0..draws {
        let mut random = fastrand::Rng::with_seed(seed);
        let single = |rows: &[f64]| rows.iter().map(|x| *x as f32).collect::<Vec<f32>>();
        let keys: Vec<Vec<f64>> = (0..n).map(|_| normed(&normals(&mut random, D))).collect();
        let candidates: Vec<Vec<f64>> = (0..4096)
            .map(|_| {
                let v = normals(&mut random, D);
                v.iter().map(|x| x / norm(&v)).collect()
            })
            .collect();
        let chosen: Vec<usize> = (0..n).map(|_| random.usize(..4096)).collect();
        let asked: Vec<usize> = (0..ASKED).map(|_| random.usize(..n)).collect();
        let query = |j: &usize, random: &mut fastrand::Rng| {
            let noisy: Vec<f64> = keys[*j].iter().zip(normals(random, D)).map(|(k, e)| k + noise * e).collect();
            normed(&noisy)
        };
        let sample = Sample {
            shape: Shape { heads: ASKED, kv_heads: 1, dim: D, value_dim: D },
            scale: temperature / 8.0,
            first: n - 1,
            queries: asked.iter().flat_map(|j| single(&query(j, &mut random))).collect(),
            keys: keys.iter().flat_map(|k| single(k)).collect(),
            values: chosen.iter().flat_map(|c| single(&candidates[*c])).collect(),
        };
        let store = sample.store(Precision::Full);
        for (lambda, (errors, hits)) in lambdas.iter().zip(&mut results) {
            let ridge = exact(&[*lambda], Solver::Auto).with_tolerance(1e-4).unwrap();
            let out = run(Level::detect(), &sample.job(&store, Rho::Solve(&ridge)));
            for (got, j) in out.chunks_exact(D).zip(&asked) {
                let got: Vec<f64> = got.iter().map(|x| f64::from(*x)).collect();
                let want = &candidates[chosen[*j]];
                errors.push(got.iter().zip(want).map(|(g, w)| (g - w) * (g - w)).sum());
                let score = |c: &usize| dot(&got, &candidates[*c]);
                let best = (0..4096).max_by(|a, b| score(a).total_cmp(&score(b)));
                *hits += f64::from(u8::from(best == Some(chosen[*j]))) / (draws as usize * ASKED) as f64;
            }
        }
    }
    results
}

const RIDGES: [f32; 4] = [f32::INFINITY, 10.0, 1.0, 0.1];

fn check(results: &[(Vec<f64>, f64)], figures: [f64; 4], last_digit: f64, about: &str) {
    for (((errors, _), figure), lambda) in results.iter().zip(figures).zip(RIDGES) {
        Mean::of(errors).is(figure, last_digit, &format!("{about}, lambda {lambda}"));
    }
}

#[test]
fn recall_of_stored_keys_needs_the_correction_where_keys_are_many() {
    check(&recall(512, 4, 0.0, 1.0, &RIDGES), [0.048, 0.014, 0.001, 0.0], 1e-3, "512 keys");
    check(&recall(4096, 2, 0.0, 1.0, &RIDGES), [0.48, 0.12, 0.009, 0.002], 1e-3, "4096 keys");
    let blurred = recall(4096, 2, 0.0, 0.5, &RIDGES);
    check(&blurred, [0.98, 0.87, 0.56, 0.39], 1e-2, "4096 keys at half the inverse temperature");
    assert!((0.4..0.99).contains(&blurred[0].1), "softmax names most values, not all: {}", blurred[0].1);
    assert!(blurred[1..].iter().all(|(_, hits)| *hits > 0.99), "local linear attention finds all");
}

/// With noise on the query a fit to about as many keys as dimensions loses: it has variance where softmax has bias.
#[test]
fn noisy_recall_gains_with_many_keys_and_loses_with_few() {
    check(&recall(4096, 2, 0.5, 1.0, &RIDGES), [0.70, 0.32, 0.086, 0.056], 1e-3, "4096 keys, noise");
    let few = recall(64, 6, 0.5, 1.0, &RIDGES);
    check(&few, [0.006, 0.010, 0.019, 0.041], 1e-3, "64 keys, noise");
    let means: Vec<f64> = few.iter().map(|(errors, _)| Mean::of(errors).mean).collect();
    assert!(means.is_sorted(), "a smaller ridge is worse here: {means:?}");
}

/// A sequence of segments, each linear with a map of its own: `k = centre + N(0, I / d)` with `|centre| = 2`, `v = A k`,
/// segments of `8 d`; the query is the next key.
struct Piecewise {
    d: usize,
    keys: Vec<f64>,
    values: Vec<f64>,
}

impl Piecewise {
    const LENGTH: usize = 1024;

    fn new(seed: u64, d: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let root = (d as f64).sqrt();
        for start in (0..Self::LENGTH).step_by(8 * d) {
            let centre = normals(&mut random, d);
            let map: Vec<f64> = normals(&mut random, d * d).iter().map(|a| a / root).collect();
            for _ in start..Self::LENGTH.min(start + 8 * d) {
                let away = normals(&mut random, d);
                let key: Vec<f64> = centre.iter().zip(&away).map(|(c, e)| 2.0 * c / norm(&centre) + e / root).collect();
                values.extend(map.chunks_exact(d).map(|row| dot(row, &key)));
                keys.extend(key);
            }
        }
        Self { d, keys, values }
    }

    /// Squared errors per number of softmax and the local fit at random positions.
    fn errors(&self, settings: &Settings, random: &mut fastrand::Rng) -> Vec<(f64, f64)> {
        let d = self.d;
        let asked: Vec<usize> = (0..48).map(|_| random.usize(1..Self::LENGTH)).collect();
        let of = |i: usize, bandwidth: f64, lambda: f64| {
            let query = &self.keys[i * d..(i + 1) * d];
            let local = Local::gaussian(query, &self.keys[..i * d], &self.values[..i * d], bandwidth, lambda);
            let given = forms::centred(&local);
            given.iter().zip(&self.values[i * d..]).map(|(o, v)| (o - v) * (o - v)).sum::<f64>() / d as f64
        };
        let both = |i| (of(i, settings.bandwidth, f64::INFINITY), of(i, settings.local.0, settings.local.1));
        asked.into_iter().map(both).collect()
    }
}

/// Bandwidths and ridge that were best on other draws, and the mean squared errors measured with their likes.
struct Settings {
    d: usize,
    draws: u64,
    bandwidth: f64,
    local: (f64, f64),
    softmax: f64,
    fit: f64,
}

const SETTINGS: [Settings; 4] = [
    Settings { d: 8, draws: 16, bandwidth: 0.15, local: (0.15, 1e-2), softmax: 0.097, fit: 0.092 },
    Settings { d: 16, draws: 12, bandwidth: 0.08, local: (0.15, 1e-3), softmax: 0.040, fit: 0.015 },
    Settings { d: 32, draws: 8, bandwidth: 0.08, local: (0.08, 1e-5), softmax: 0.022, fit: 0.004 },
    Settings { d: 64, draws: 5, bandwidth: 0.08, local: (0.08, 1e-7), softmax: 0.012, fit: 0.0013 },
];

#[test]
fn piecewise_linear_streams_are_fitted_better_the_more_dimensions_they_have() {
    let mut ratios = Vec::new();
    for settings in &SETTINGS {
        let mut random = fastrand::Rng::with_seed(settings.d as u64);
        let draw = |seed| Piecewise::new(seed, settings.d).errors(settings, &mut random);
        let (softmax, fit): (Vec<f64>, Vec<f64>) = (0..settings.draws).flat_map(draw).unzip();
        let (softmax, fit) = (Mean::of(&softmax), Mean::of(&fit));
        softmax.is(settings.softmax, 1e-3, &format!("softmax, {} dimensions", settings.d));
        fit.is(settings.fit, 1e-4, &format!("local linear, {} dimensions", settings.d));
        ratios.push(softmax.mean / fit.mean);
    }
    assert!(ratios.is_sorted() && ratios[3] > 5.0, "softmax's error over the fit's: {ratios:?}");
}
