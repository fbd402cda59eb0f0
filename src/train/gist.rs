//! Word vectors distilled from a sentence encoder: what a word alone means to it, corrected so that weighted means come near
//! the encoder's vectors of whole texts.
//!
//! Words weigh a / (a + p) by their frequency p (Arora, Liang and Ma 2017). The basis is the principal components of the
//! texts' vectors, each scaled to the square root of its spread. The correction is ridge regression towards the words' own
//! vectors, by conjugate gradients.
#![allow(
    clippy::indexing_slicing,
    reason = "words are numbered by their place in the list that sizes every vector here"
)]

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::topics::Lookup;
use crate::classify::features::{Group, scan};
use crate::classify::gist::{DIMS, render};
use crate::classify::topics::VECTOR;

/// The `a` of a word's weight.
const RARE: f64 = 1e-3;
/// Share of a text's words that the most frequent one is, by Zipf's law: share / rank.
const ZIPF: f64 = 0.07;
/// A word that is not in the encoder's vocabulary must be in so many places.
const FEWEST: usize = 3;
/// Longer runs of letters are no words.
const LETTERS: usize = 24;
/// What a word's own vector counts against texts that it occurs in.
const RIDGE: f32 = 0.5;
/// Steps of the solver.
const STEPS: usize = 25;
/// Rounds of the search for principal components; their order is settled long before.
const ROUNDS: usize = 60;
/// One text in so many is enough for them.
const EVERY: usize = 3;

/// Numbers of a word or text.
type Row = [f32; DIMS];

/// A word of the table.
pub struct Word {
    /// As the encoder is asked.
    pub text: String,
    key: u32,
    weight: f32,
}

/// The words worth a row: the encoder's own in order of frequency, and others that the texts have often enough.
pub fn choose(common: &[String], texts: &[&str]) -> Vec<Word> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in texts {
        let folded = text.to_ascii_lowercase().replace('\'', "");
        for word in folded.split(|c: char| !c.is_alphanumeric()) {
            if (2..=LETTERS).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()) {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
    }
    let all: usize = counts.values().sum();
    let mut words: BTreeMap<u32, Word> = BTreeMap::new();
    let mut put = |text: &str, zipf: f64, count: usize| {
        let [key] = *keys(text) else { return };
        let share = (zipf + count as f64 / all.max(1) as f64) / 2.0;
        let word = Word { text: text.to_owned(), key, weight: (RARE / (RARE + share)) as f32 };
        words.entry(key).or_insert(word);
    };
    for (rank, text) in common.iter().enumerate() {
        put(text, ZIPF / (rank + 1) as f64, counts.remove(text).unwrap_or(0));
    }
    for (text, count) in counts.into_iter().filter(|(_, count)| *count >= FEWEST) {
        put(&text, 0.0, count);
    }
    words.into_values().collect()
}

/// Keys of a text's words as they come.
fn keys(text: &str) -> Vec<u32> {
    let mut all = Vec::new();
    scan(text, |group, batch| {
        if group == Group::Whole {
            all.extend_from_slice(batch);
        }
    });
    all
}

/// The bytes of the table. Texts and words without a vector teach nothing.
pub fn fit(words: &[Word], texts: &[&str], vectors: &Lookup) -> Result<Vec<u8>, String> {
    let seen: Vec<(&str, Vec<f32>)> = texts.iter().filter_map(|t| Some((*t, vectors(t)?))).collect();
    if seen.len() <= DIMS {
        return Err(format!("{} texts with vectors are too few", seen.len()));
    }
    let basis = Basis::of(&seen.iter().step_by(EVERY).map(|s| s.1.as_slice()).collect::<Vec<_>>());
    let own: Vec<Option<Vec<f32>>> = words.iter().map(|w| vectors(&w.text)).collect();
    let middle = mean(&own.iter().flatten().map(Vec::as_slice).collect::<Vec<_>>());
    let start: Vec<Row> = own.iter().map(|v| v.as_ref().map_or([0.0; DIMS], |v| basis.reduce(v, &middle))).collect();
    let index: HashMap<u32, usize> = words.iter().enumerate().map(|(at, w)| (w.key, at)).collect();
    let (mut parts, mut wanted) = (Vec::new(), Vec::new());
    for (text, vector) in &seen {
        let known: Vec<usize> = keys(text).iter().filter_map(|k| index.get(k).copied()).collect();
        let total: f32 = known.iter().map(|at| words[*at].weight).sum();
        if total > 0.0 {
            parts.push(known.into_iter().map(|at| (at, words[at].weight / total)).collect());
            wanted.push(basis.reduce(vector, &basis.middle));
        }
    }
    let rows = corrected(start, &parts, &wanted);
    Ok(bytes(words, &rows))
}

/// Where texts are told apart most.
struct Basis {
    middle: Vec<f32>,
    /// One direction of [`VECTOR`] numbers per place, scaled.
    directions: Vec<Vec<f32>>,
}

impl Basis {
    fn of(vectors: &[&[f32]]) -> Self {
        let middle = mean(vectors);
        let parts = vectors.par_chunks(512).map(|part| {
            let mut sum = vec![0f32; VECTOR * VECTOR];
            for vector in part {
                let centred: Vec<f32> = vector.iter().zip(&middle).map(|(x, m)| x - m).collect();
                for (row, x) in sum.chunks_exact_mut(VECTOR).zip(&centred) {
                    row.iter_mut().zip(&centred).for_each(|(s, y)| *s += x * y);
                }
            }
            sum
        });
        let parts: Vec<Vec<f32>> = parts.collect();
        let spread: Vec<f64> = (0..VECTOR * VECTOR)
            .map(|at| parts.iter().map(|p| f64::from(p[at])).sum::<f64>() / vectors.len().max(1) as f64)
            .collect();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut all: Vec<Vec<f64>> = (0..DIMS).map(|_| (0..VECTOR).map(|_| rng.f64() - 0.5).collect()).collect();
        orthogonal(&mut all);
        let turned = |v: &Vec<f64>| -> Vec<f64> { spread.chunks_exact(VECTOR).map(|row| dot(row, v)).collect() };
        for _ in 0..ROUNDS {
            all = all.par_iter().map(turned).collect();
            orthogonal(&mut all);
        }
        let scaled = |v: &Vec<f64>| -> Vec<f32> {
            let deviation = dot(&turned(v), v).max(1e-12).sqrt();
            v.iter().map(|x| (x / deviation.sqrt()) as f32).collect()
        };
        let directions = all.iter().map(scaled).collect();
        Self { middle, directions }
    }

    fn reduce(&self, vector: &[f32], middle: &[f32]) -> Row {
        let centred: Vec<f32> = vector.iter().zip(middle).map(|(x, m)| x - m).collect();
        let mut out = [0.0; DIMS];
        for (to, direction) in out.iter_mut().zip(&self.directions) {
            *to = direction.iter().zip(&centred).map(|(d, x)| d * x).sum();
        }
        out
    }
}

fn mean(vectors: &[&[f32]]) -> Vec<f32> {
    let mut sum = vec![0f64; VECTOR];
    for vector in vectors {
        sum.iter_mut().zip(*vector).for_each(|(s, x)| *s += f64::from(*x));
    }
    sum.into_iter().map(|s| (s / vectors.len().max(1) as f64) as f32).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Gram and Schmidt, in place.
fn orthogonal(all: &mut [Vec<f64>]) {
    for at in 0..all.len() {
        let (before, rest) = all.split_at_mut(at);
        let Some(own) = rest.first_mut() else { return };
        for other in before {
            let along = dot(own, other);
            own.iter_mut().zip(other).for_each(|(x, o)| *x -= along * *o);
        }
        let length = dot(own, own).sqrt().max(1e-12);
        own.iter_mut().for_each(|x| *x /= length);
    }
}

/// Ridge regression towards `start`: least sum of |A w - wanted|^2 + RIDGE |w - start|^2.
fn corrected(start: Vec<Row>, parts: &[Vec<(usize, f32)>], wanted: &[Row]) -> Vec<Row> {
    let means = |rows: &[Row]| -> Vec<Row> { parts.par_iter().map(|part| weighted(part, rows)).collect() };
    // The transposed of `means`, and the ridge.
    let back = |texts: &[Row], rows: Option<&[Row]>| -> Vec<Row> {
        let mut out = vec![[0.0; DIMS]; start.len()];
        for (part, text) in parts.iter().zip(texts) {
            for (at, weight) in part {
                out[*at].iter_mut().zip(text).for_each(|(o, t)| *o += weight * t);
            }
        }
        if let Some(rows) = rows {
            out.iter_mut().zip(rows).for_each(|(o, r)| o.iter_mut().zip(r).for_each(|(o, r)| *o += RIDGE * r));
        }
        out
    };
    let less = |a: &[Row], b: &[Row]| -> Vec<Row> {
        a.iter().zip(b).map(|(a, b)| std::array::from_fn(|i| a[i] - b[i])).collect()
    };
    let mut off = vec![[0f32; DIMS]; start.len()];
    let mut rest = back(&less(wanted, &means(&start)), None);
    let mut way = rest.clone();
    let mut size = products(&rest, &rest);
    for _ in 0..STEPS {
        let pushed = back(&means(&way), Some(&way));
        let along = products(&way, &pushed);
        let step: [f64; DIMS] = std::array::from_fn(|i| size[i] / along[i].max(1e-30));
        for ((o, r), (w, p)) in off.iter_mut().zip(&mut rest).zip(way.iter().zip(&pushed)) {
            for i in 0..DIMS {
                o[i] += step[i] as f32 * w[i];
                r[i] -= step[i] as f32 * p[i];
            }
        }
        let next = products(&rest, &rest);
        for (w, r) in way.iter_mut().zip(&rest) {
            for i in 0..DIMS {
                w[i] = r[i] + (next[i] / size[i].max(1e-30)) as f32 * w[i];
            }
        }
        size = next;
    }
    start.iter().zip(&off).map(|(s, o)| std::array::from_fn(|i| s[i] + o[i])).collect()
}

fn weighted(part: &[(usize, f32)], rows: &[Row]) -> Row {
    let mut out = [0.0; DIMS];
    for (at, weight) in part {
        out.iter_mut().zip(&rows[*at]).for_each(|(o, x)| *o += weight * x);
    }
    out
}

fn products(a: &[Row], b: &[Row]) -> [f64; DIMS] {
    let mut out = [0.0; DIMS];
    for (a, b) in a.iter().zip(b) {
        for i in 0..DIMS {
            out[i] += f64::from(a[i]) * f64::from(b[i]);
        }
    }
    out
}

/// Rows times their words' weights as bytes; the largest 0.1 % of the numbers are clipped.
fn bytes(words: &[Word], rows: &[Row]) -> Vec<u8> {
    let heavy: Vec<Row> = words.iter().zip(rows).map(|(w, r)| r.map(|x| x * w.weight)).collect();
    let mut sizes: Vec<f32> = heavy.iter().flatten().map(|x| x.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let limit = sizes.get(sizes.len() - sizes.len() / 1000 - usize::from(!sizes.is_empty())).copied().unwrap_or(1.0);
    let scale = limit.max(1e-9) / 127.0;
    let rows: Vec<[i8; DIMS]> =
        heavy.iter().map(|r| r.map(|x| (x / scale).round().clamp(-127.0, 127.0) as i8)).collect();
    render(&words.iter().map(|w| w.key).collect::<Vec<_>>(), &rows)
}
