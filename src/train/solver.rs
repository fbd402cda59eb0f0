//! Multinomial logistic regression on hashed features for any number of labels, some of them under groups.
//!
//! The weight of a label is its own plus its group's, as in hierarchical regression: every example of the group moves the
//! group's weight, and only its own examples move the label's. A label with few examples so stays near its group. AdaGrad,
//! one example at a time, in a seeded order; groups are added up before the table is written.
#![allow(
    clippy::indexing_slicing,
    reason = "buckets come from the scanner, which bounds them by the table's bits; labels and groups from the taxonomy"
)]

use crate::classify::taxonomy::Taxonomy;
use crate::classify::topics::table::Table;

/// Places of a row are added so many at a time.
const STEP: usize = 8;

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

/// Weights and the sums of their squared slopes, one row per feature that is used.
struct Rows {
    /// Places per row: labels, then groups, rounded up.
    stride: usize,
    weights: Vec<f32>,
    slopes: Vec<f32>,
}

/// Labels and the groups they are under.
struct Order {
    labels: usize,
    parents: Vec<Option<usize>>,
}

impl Order {
    fn of(taxonomy: &Taxonomy) -> Self {
        let labels = taxonomy.labels.len();
        Self { labels, parents: (0..labels).map(|l| taxonomy.parent_of(l).map(|g| labels + g)).collect() }
    }

    /// Adds every group's number to its labels'.
    fn fold(&self, z: &mut [f32]) {
        for (label, parent) in self.parents.iter().enumerate() {
            if let Some(parent) = parent {
                z[label] += z[*parent];
            }
        }
    }

    /// Slope of the loss: of labels, then of groups.
    fn slope(&self, z: &mut [f32], label: usize, weight: f32) {
        self.fold(z);
        let top = z[..self.labels].iter().copied().fold(f32::MIN, f32::max);
        let total: f32 = z[..self.labels]
            .iter_mut()
            .map(|v| {
                *v = (*v - top).exp();
                *v
            })
            .sum();
        z[..self.labels].iter_mut().for_each(|v| *v *= weight / total);
        z[label] -= weight;
        z[self.labels..].fill(0.0);
        for (label, parent) in self.parents.iter().enumerate() {
            if let Some(parent) = parent {
                z[*parent] += z[label];
            }
        }
    }
}

/// Fits a table of `1 << bits` buckets. `tick` is called after every pass.
pub fn fit(docs: &[&Doc], taxonomy: &Taxonomy, bits: u32, settings: &Settings, tick: &(dyn Fn() + Sync)) -> Table {
    let order = Order::of(taxonomy);
    let squared = squared_idf(docs, bits, settings.min_docs);
    let mut places = vec![u32::MAX; 1 << bits];
    let mut used = 0u32;
    for (place, _) in places.iter_mut().zip(&squared).filter(|(_, q)| **q > 0) {
        *place = used;
        used += 1;
    }
    let stride = (order.labels + taxonomy.groups.len()).next_multiple_of(STEP);
    let count = used as usize * stride;
    let mut rows = Rows { stride, weights: vec![0.0; count], slopes: vec![0.0; count] };
    let mut bias = (vec![0f32; stride], vec![0f32; stride]);
    let mut turns: Vec<usize> = (0..docs.len()).collect();
    let mut rng = fastrand::Rng::with_seed(settings.seed);
    let (mut active, mut z): (Vec<(usize, f32)>, Vec<f32>) = (Vec::new(), vec![0.0; stride]);
    for pass in 0..settings.epochs {
        rng.shuffle(&mut turns);
        let rate = settings.rate / (1.0 + pass as f32 * 0.5);
        for &at in &turns {
            let doc = docs[at];
            active.clear();
            let known = doc.features.iter().map(|f| *f as usize).filter(|f| squared[*f] > 0);
            active.extend(known.map(|f| (places[f] as usize * stride, f32::from(squared[f]).sqrt())));
            let norm = active.iter().map(|a| a.1 * a.1).sum::<f32>().max(1.0).sqrt();
            active.iter_mut().for_each(|a| a.1 /= norm);
            z.copy_from_slice(&bias.0);
            for (row, x) in &active {
                add(&mut z, &rows.weights[*row..*row + stride], *x);
            }
            order.slope(&mut z, doc.label, doc.weight);
            step(&mut bias.0, &mut bias.1, &z, 0.2, rate, 0.0);
            for (row, x) in &active {
                let part = *row..*row + stride;
                step(&mut rows.weights[part.clone()], &mut rows.slopes[part], &z, *x, rate, settings.decay);
            }
        }
        tick();
    }
    quantise(rows, &order, &squared, &places, bits)
}

#[inline]
fn add(z: &mut [f32], row: &[f32], x: f32) {
    for (z, row) in z.as_chunks_mut::<STEP>().0.iter_mut().zip(row.as_chunks::<STEP>().0) {
        for (zc, w) in z.iter_mut().zip(row) {
            *zc += w * x;
        }
    }
}

#[inline]
fn step(row: &mut [f32], seen: &mut [f32], slope: &[f32], x: f32, rate: f32, decay: f32) {
    let parts = row.as_chunks_mut::<STEP>().0.iter_mut().zip(seen.as_chunks_mut::<STEP>().0);
    for ((row, seen), slope) in parts.zip(slope.as_chunks::<STEP>().0) {
        for ((w, s), g) in row.iter_mut().zip(seen).zip(slope) {
            let g = g * x + decay * *w;
            *s += g * g;
            *w -= rate * g / (*s + 1e-6).sqrt();
        }
    }
}

/// Adds groups up, folds the inverse document frequency in and rounds to bytes; the largest 0.05 % are clipped.
fn quantise(mut rows: Rows, order: &Order, squared: &[u8], places: &[u32], bits: u32) -> Table {
    let used = || squared.iter().zip(places).enumerate().filter(|(_, (q, _))| **q > 0);
    let mut sizes: Vec<f32> = Vec::new();
    for (_, (q, place)) in used() {
        let row = &mut rows.weights[*place as usize * rows.stride..][..rows.stride];
        order.fold(row);
        row.iter_mut().for_each(|w| *w *= f32::from(*q).sqrt());
        sizes.extend(row[..order.labels].iter().map(|w| w.abs()));
    }
    sizes.sort_by(f32::total_cmp);
    let limit = sizes.get(sizes.len() - sizes.len() / 2000 - usize::from(!sizes.is_empty())).copied().unwrap_or(1.0);
    let scale = limit.max(1e-6) / 127.0;
    let mut table = Table::new(bits, order.labels, scale);
    for (bucket, (q, place)) in used() {
        let row = &rows.weights[*place as usize * rows.stride..][..order.labels];
        let mut bytes: Vec<i8> = row.iter().map(|w| (w / scale).round().clamp(-127.0, 127.0) as i8).collect();
        bytes.push(i8::try_from(*q).unwrap_or(i8::MAX));
        table.put(bucket, &bytes);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::topics::table::Sums;

    const TEXT: &str = "name = \"t\"\n[[group]]\nname = \"g\"\n[[label]]\nname = \"a\"\nparent = \"g\"\n[[label]]\nname = \"thin\"\nparent = \"g\"\n[[label]]\nname = \"b\"\n";

    /// Feature 1 speaks for the group, 2 for `b`; `thin` has three examples, without feature 3.
    #[test]
    fn a_label_with_three_examples_is_drawn_to_its_group() {
        let taxonomy = Taxonomy::parse(TEXT).unwrap();
        let doc = |features: &[u32], label| Doc { features: features.to_vec(), label, weight: 1.0 };
        let mut docs: Vec<Doc> =
            (0..200).map(|i| doc(if i % 2 == 0 { &[1, 3] } else { &[2] }, if i % 2 == 0 { 0 } else { 2 })).collect();
        docs.extend((0..3).map(|_| doc(&[4, 5], 1)));
        let settings = Settings { epochs: 8, rate: 0.5, decay: 1e-3, min_docs: 2, seed: 3 };
        let table = fit(&docs.iter().collect::<Vec<_>>(), &taxonomy, 6, &settings, &|| ());
        let mut sums = Sums::default();
        sums.add(&table, &[1]);
        let mut scores = Vec::new();
        sums.scores(&table, &mut scores);
        assert!(
            scores[0] > scores[1] && scores[1] > scores[2],
            "the group's word speaks for its thin label too: {scores:?}"
        );
    }
}
