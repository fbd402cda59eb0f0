//! Test-time regression: no training, one layer, no projections. A stream of pairs (key, value) whose linear map changes
//! from segment to segment; every model predicts the value of the next key from all pairs before it.
//!
//! Segment: centre of norm 2 in a random direction, keys `centre + N(0, I/d)`, values `A k` with `A` of `N(0, 1/d)`
//! entries. Softmax and LLA weigh by `exp(-|q - k|^2 / 2h)`. MesaNet is the intercept-free ridge over the whole past,
//! DeltaNet one normalised step per pair. Every model's settings are chosen on draws of their own. Double precision.

use serde_json::{Value, json};

use crate::dense::{add, add_outer, dot, interval, normals, solve};

const LENGTH: usize = 1024;
const BANDWIDTHS: [f64; 8] = [0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2];
const RIDGES: [f64; 7] = [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1];
const MESA_RIDGES: [f64; 6] = [1e-4, 1e-2, 0.1, 1.0, 10.0, 100.0];
const STEPS: [f64; 7] = [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3];
/// Pairs with less than this share of the largest weight change nothing that is printed.
const SMALLEST_WEIGHT: f64 = 1e-13;

/// One cell of the table.
#[derive(Clone, Copy)]
pub struct Cell {
    pub dim: usize,
    pub segment: usize,
    /// Standard deviation of the noise on the values that are seen.
    pub noise: f64,
    pub draws: u64,
    pub tuning_draws: u64,
}

struct Stream {
    dim: usize,
    keys: Vec<f64>,
    /// What the models see.
    seen: Vec<f64>,
    /// What they are judged by.
    truth: Vec<f64>,
}

impl Stream {
    fn draw(cell: &Cell, seed: u64) -> Self {
        let d = cell.dim;
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut keys, mut truth) = (Vec::new(), Vec::new());
        let spread = (d as f64).sqrt().recip();
        for position in 0..LENGTH {
            if position % cell.segment == 0 {
                truth.extend(normals(&mut random, d * (d + 1), 1.0));
            }
            keys.extend(normals(&mut random, d, spread));
        }
        let maps = std::mem::take(&mut truth);
        for (position, key) in keys.chunks_exact_mut(d).enumerate() {
            let segment = &maps[position / cell.segment * d * (d + 1)..][..d * (d + 1)];
            let (centre, map) = segment.split_at(d);
            add(2.0 / dot(centre, centre).sqrt(), centre, key);
            truth.extend(map.chunks_exact(d).map(|row| dot(row, key) * spread));
        }
        let noise = normals(&mut random, truth.len(), cell.noise);
        let seen = truth.iter().zip(noise).map(|(t, e)| t + e).collect();
        Self { dim: d, keys, seen, truth }
    }

    fn key(&self, i: usize) -> &[f64] {
        &self.keys[i * self.dim..][..self.dim]
    }

    fn value(&self, i: usize) -> &[f64] {
        &self.seen[i * self.dim..][..self.dim]
    }

    fn error(&self, i: usize, output: &[f64]) -> f64 {
        let truth = &self.truth[i * self.dim..][..self.dim];
        truth.iter().zip(output).map(|(t, o)| (t - o).powi(2)).sum::<f64>() / self.dim as f64
    }

    /// Mean squared error of softmax, and of LLA at each ridge, for one bandwidth.
    fn attention(&self, bandwidth: f64, ridges: &[f64]) -> (f64, Vec<f64>) {
        let d = self.dim;
        let (mut softmax, mut local) = (0.0, vec![0.0; ridges.len()]);
        for i in 1..LENGTH {
            let query = self.key(i);
            let distance = |j| self.key(j).iter().zip(query).map(|(k, q)| (k - q).powi(2)).sum::<f64>();
            let scores: Vec<f64> = (0..i).map(|j| -distance(j) / (2.0 * bandwidth)).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let heavy: Vec<(usize, f64)> =
                scores.iter().map(|s| (s - most).exp()).enumerate().filter(|(_, w)| *w > SMALLEST_WEIGHT).collect();
            let total: f64 = heavy.iter().map(|(_, w)| w).sum();
            let (mut key_mean, mut value_mean) = (vec![0.0; d], vec![0.0; d]);
            for &(j, w) in &heavy {
                add(w / total, self.key(j), &mut key_mean);
                add(w / total, self.value(j), &mut value_mean);
            }
            softmax += self.error(i, &value_mean);
            if ridges.is_empty() {
                continue;
            }
            let centred: Vec<Vec<f64>> =
                heavy.iter().map(|&(j, _)| self.key(j).iter().zip(&key_mean).map(|(k, m)| k - m).collect()).collect();
            let mut covariance = vec![0.0; d * d];
            for (&(_, w), u) in heavy.iter().zip(&centred) {
                add_outer(w / total, u, &mut covariance);
            }
            let delta: Vec<f64> = key_mean.iter().zip(query).map(|(m, q)| m - q).collect();
            for (ridge, sum) in ridges.iter().zip(&mut local) {
                let rho = solve(&covariance, *ridge, &delta).unwrap_or_else(|| vec![0.0; d]);
                let mut output = value_mean.clone();
                for (&(j, w), u) in heavy.iter().zip(&centred) {
                    add(-w / total * dot(u, &rho), self.value(j), &mut output);
                }
                *sum += self.error(i, &output);
            }
        }
        let count = (LENGTH - 1) as f64;
        (softmax / count, local.iter().map(|x| x / count).collect())
    }

    fn mesa(&self, ridges: &[f64]) -> Vec<f64> {
        let d = self.dim;
        let (mut keys, mut cross) = (vec![0.0; d * d], vec![0.0; d * d]);
        let mut sums = vec![0.0; ridges.len()];
        for i in 1..LENGTH {
            add_outer(1.0, self.key(i - 1), &mut keys);
            for (row, v) in cross.chunks_exact_mut(d).zip(self.value(i - 1)) {
                add(*v, self.key(i - 1), row);
            }
            for (ridge, sum) in ridges.iter().zip(&mut sums) {
                let x = solve(&keys, *ridge, self.key(i)).unwrap_or_else(|| vec![0.0; d]);
                let output: Vec<f64> = cross.chunks_exact(d).map(|row| dot(row, &x)).collect();
                *sum += self.error(i, &output);
            }
        }
        sums.iter().map(|x| x / (LENGTH - 1) as f64).collect()
    }

    fn delta(&self, steps: &[f64]) -> Vec<f64> {
        let d = self.dim;
        let one = |step: f64| {
            let mut state = vec![0.0; d * d];
            let mut sum = 0.0;
            for i in 1..LENGTH {
                let key = self.key(i - 1);
                let rate = step / dot(key, key);
                for (row, v) in state.chunks_exact_mut(d).zip(self.value(i - 1)) {
                    let miss = v - dot(row, key);
                    add(rate * miss, key, row);
                }
                let output: Vec<f64> = state.chunks_exact(d).map(|row| dot(row, self.key(i))).collect();
                sum += self.error(i, &output);
            }
            sum / (LENGTH - 1) as f64
        };
        steps.iter().map(|s| one(*s)).collect()
    }
}

/// Settings chosen on draws that are not used again.
struct Chosen {
    softmax: f64,
    local: (f64, f64),
    mesa: f64,
    delta: f64,
}

fn choose(streams: &[Stream]) -> Chosen {
    let mean = |of: &dyn Fn(&Stream) -> Vec<f64>| {
        let mut total: Vec<f64> = Vec::new();
        for one in streams.iter().map(of) {
            total.resize(one.len(), 0.0);
            add(1.0, &one, &mut total);
        }
        total
    };
    let least = |errors: &[f64]| {
        errors.iter().enumerate().fold((0, f64::INFINITY), |best, (i, e)| if *e < best.1 { (i, *e) } else { best })
    };
    let mut softmax = (0.0, f64::INFINITY);
    let mut local = ((0.0, 0.0), f64::INFINITY);
    for bandwidth in BANDWIDTHS {
        let errors = mean(&|s: &Stream| {
            let (soft, mut all) = s.attention(bandwidth, &RIDGES);
            all.push(soft);
            all
        });
        let (ridge, soft) = (least(&errors[..RIDGES.len()]), errors[RIDGES.len()]);
        if soft < softmax.1 {
            softmax = (bandwidth, soft);
        }
        if ridge.1 < local.1 {
            local = ((bandwidth, RIDGES[ridge.0]), ridge.1);
        }
    }
    Chosen {
        softmax: softmax.0,
        local: local.0,
        mesa: MESA_RIDGES[least(&mean(&|s: &Stream| s.mesa(&MESA_RIDGES))).0],
        delta: STEPS[least(&mean(&|s: &Stream| s.delta(&STEPS))).0],
    }
}

/// Runs one cell: chooses settings, then measures on fresh draws.
pub fn run(cell: &Cell, seed: u64) -> Value {
    let tuning: Vec<Stream> = (0..cell.tuning_draws).map(|i| Stream::draw(cell, seed + 1_000_000 + i)).collect();
    let chosen = choose(&tuning);
    let mut errors: [Vec<f64>; 4] = Default::default();
    for i in 0..cell.draws {
        let stream = Stream::draw(cell, seed + i);
        let (bandwidth, ridge) = chosen.local;
        errors[0].push(stream.attention(chosen.softmax, &[]).0);
        errors[1].push(stream.attention(bandwidth, &[ridge]).1[0]);
        errors[2].push(stream.mesa(&[chosen.mesa])[0]);
        errors[3].push(stream.delta(&[chosen.delta])[0]);
    }
    let settings = [
        json!({ "bandwidth": chosen.softmax }),
        json!({ "bandwidth": chosen.local.0, "ridge": chosen.local.1 }),
        json!({ "ridge": chosen.mesa }),
        json!({ "step": chosen.delta }),
    ];
    let models = ["softmax", "lla", "mesanet", "deltanet"].iter().zip(&errors).zip(settings).map(|((name, e), s)| {
        let (mean, half) = interval(e);
        json!({ "model": name, "settings": s, "mse": mean, "half95": half, "draws": e })
    });
    let ratios: Vec<f64> = errors[0].iter().zip(&errors[1]).map(|(s, l)| s / l).collect();
    // What an error against the noisy values would be: the noise is independent of every prediction.
    let floor = cell.noise.powi(2);
    let (softmax, local) = (interval(&errors[0]).0, interval(&errors[1]).0);
    json!({
        "part": "regression", "seed": seed, "length": LENGTH, "dim": cell.dim, "segment": cell.segment,
        "noise": cell.noise, "n_draws": cell.draws, "tuning_draws": cell.tuning_draws,
        "models": models.collect::<Vec<_>>(),
        "softmax_over_lla": softmax / local, "softmax_over_lla_noisy_target": (softmax + floor) / (local + floor),
        "ratio_per_draw": ratios,
    })
}
