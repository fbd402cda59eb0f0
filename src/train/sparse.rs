//! Multinomial logistic regression on hashed features: AdaGrad, one example at a time, in a seeded order.
#![allow(
    clippy::indexing_slicing,
    reason = "buckets come from the scanner, which bounds them by the table's bits; folds by their count"
)]

use crate::classify::artifact::{LANES, Weights};
use crate::classify::domain::DOMAINS;

/// A document for one table: distinct buckets, label, weight.
pub struct Doc {
    /// Distinct buckets.
    pub features: Vec<u32>,
    /// Index of its domain or label.
    pub label: usize,
    /// Weight of its loss.
    pub weight: f32,
}

/// Settings of the solver.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Passes over the data.
    pub epochs: u32,
    /// AdaGrad step.
    pub rate: f32,
    /// Pull towards 0 at each touch of a weight, relative to the step.
    pub decay: f32,
    /// A feature must occur in so many documents.
    pub min_docs: u32,
    /// Order of examples.
    pub seed: u64,
}

/// Squared inverse document frequency per bucket, a whole number of at most 127; 0 for features seen too rarely.
pub fn squared_idf(docs: &[&Doc], bits: u32, min_docs: u32) -> Vec<u8> {
    let mut counts = vec![0u32; 1 << bits];
    for feature in docs.iter().flat_map(|d| &d.features) {
        counts[*feature as usize] += 1;
    }
    let all = docs.len() as f32;
    let squared = |n: u32| {
        let idf = ((1.0 + all) / (1.0 + n as f32)).ln() + 1.0;
        (idf * idf).round().clamp(1.0, 127.0) as u8
    };
    counts.into_iter().map(|n| if n < min_docs { 0 } else { squared(n) }).collect()
}

/// Fits a table. `tick` is called after every pass.
pub fn fit(docs: &[&Doc], bits: u32, settings: &Settings, tick: &(dyn Fn() + Sync)) -> Weights {
    let squared = squared_idf(docs, bits, settings.min_docs);
    let mut rows = vec![[0f32; LANES]; 1 << bits];
    let mut slopes = vec![[0f32; LANES]; 1 << bits];
    let mut bias = ([0f32; LANES], [0f32; LANES]);
    let mut order: Vec<usize> = (0..docs.len()).collect();
    let mut rng = fastrand::Rng::with_seed(settings.seed);
    let mut active: Vec<(usize, f32)> = Vec::new();
    for pass in 0..settings.epochs {
        rng.shuffle(&mut order);
        let rate = settings.rate / (1.0 + pass as f32 * 0.5);
        for &at in &order {
            let doc = docs[at];
            active.clear();
            let known = doc.features.iter().map(|f| *f as usize).filter(|f| squared[*f] > 0);
            active.extend(known.map(|f| (f, f32::from(squared[f]).sqrt())));
            let norm = active.iter().map(|a| a.1 * a.1).sum::<f32>().max(1.0).sqrt();
            active.iter_mut().for_each(|a| a.1 /= norm);
            let mut z = bias.0;
            for (f, x) in &active {
                for (zc, w) in z.iter_mut().zip(&rows[*f]) {
                    *zc += w * x;
                }
            }
            let gradient = slope(&z, doc.label, doc.weight);
            step(&mut bias.0, &mut bias.1, &gradient, 0.2, rate, 0.0);
            for (f, x) in &active {
                step(&mut rows[*f], &mut slopes[*f], &gradient, *x, rate, settings.decay);
            }
        }
        tick();
    }
    quantise(&rows, &squared)
}

fn slope(z: &[f32; LANES], label: usize, weight: f32) -> [f32; LANES] {
    let top = z[..DOMAINS].iter().copied().fold(f32::MIN, f32::max);
    let mut p = [0f32; LANES];
    for (pc, zc) in p[..DOMAINS].iter_mut().zip(z) {
        *pc = (zc - top).exp();
    }
    let total: f32 = p.iter().sum();
    p.iter_mut().for_each(|v| *v *= weight / total);
    p[label] -= weight;
    p
}

#[inline]
fn step(row: &mut [f32; LANES], seen: &mut [f32; LANES], slope: &[f32; LANES], x: f32, rate: f32, decay: f32) {
    for ((w, s), g) in row.iter_mut().zip(seen).zip(slope) {
        let g = g * x + decay * *w;
        *s += g * g;
        *w -= rate * g / (*s + 1e-6).sqrt();
    }
}

/// Folds the inverse document frequency into the weights and rounds them to bytes; the largest 0.05 % are clipped.
fn quantise(rows: &[[f32; LANES]], squared: &[u8]) -> Weights {
    let mut sizes: Vec<f32> = Vec::new();
    let folded = |row: &[f32; LANES], q: u8| row.map(|w| w * f32::from(q).sqrt());
    for (row, q) in rows.iter().zip(squared).filter(|(_, q)| **q > 0) {
        sizes.extend(folded(row, *q)[..DOMAINS].iter().map(|w| w.abs()));
    }
    sizes.sort_by(f32::total_cmp);
    let limit = sizes.get(sizes.len() - sizes.len() / 2000 - usize::from(!sizes.is_empty())).copied().unwrap_or(1.0);
    let scale = limit.max(1e-6) / 127.0;
    let rows = rows.iter().zip(squared).map(|(row, q)| {
        let mut bytes = folded(row, *q).map(|w| (w / scale).round().clamp(-127.0, 127.0) as i8);
        if *q == 0 {
            bytes = [0; LANES];
        }
        bytes[DOMAINS] = i8::try_from(*q).unwrap_or(i8::MAX);
        bytes
    });
    Weights { scale, rows: rows.collect() }
}
