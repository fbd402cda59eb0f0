//! The head of the encoder tier: the fast head's logits and a sentence vector to the labels.

use super::dense::{self, Row, Scored, Settings};
use crate::classify::topics::{Head, VECTOR};

/// Texts that are encoded for it at most: each costs milliseconds, and the head has few weights.
const TEXTS: usize = 3_000;
/// Part of the data that the head never sees: strength and calibration are chosen on it.
const HELD: usize = 0;
/// L2 weights that are tried.
const ALPHAS: [f64; 3] = [10.0, 60.0, 300.0];
/// Upper bound of L-BFGS steps.
const STEPS: u64 = 60;
/// Texts that are encoded in one call.
const AT_ONCE: usize = 64;

/// Texts to their sentence vectors.
pub type Vectors<'a> = dyn Fn(&[&str]) -> Result<Vec<Vec<f32>>, String> + 'a;

/// An example as the fast tier sees it.
pub struct Seen<'a> {
    /// The text.
    pub text: &'a str,
    /// Logits of the fast head, from tables that did not see the text.
    pub logits: Vec<f32>,
    /// Index of its label.
    pub label: usize,
    /// How many times it counts.
    pub weight: f32,
    /// Part of the data it belongs to.
    pub fold: usize,
}

/// Fits the head; `tick` is called per text of `of(all.len())`.
pub fn fit(all: Vec<Seen>, labels: usize, seed: u64, vectors: &Vectors, tick: &dyn Fn()) -> Result<Head, String> {
    let mut all = all;
    fastrand::Rng::with_seed(seed).shuffle(&mut all);
    all.truncate(TEXTS);
    let mut rows: Vec<Row> = Vec::with_capacity(all.len());
    for part in all.chunks(AT_ONCE) {
        let texts: Vec<&str> = part.iter().map(|s| s.text).collect();
        for (seen, vector) in part.iter().zip(vectors(&texts)?) {
            if vector.len() != VECTOR {
                return Err(format!("the encoder gave {} numbers, not {VECTOR}", vector.len()));
            }
            let x = [seen.logits.as_slice(), vector.as_slice()].concat();
            rows.push(Row { x, label: seen.label, weight: seen.weight, fold: seen.fold });
            tick();
        }
    }
    let (held, kept): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|r| r.fold == HELD);
    let mut best: Option<(Head, Vec<Scored>, f64)> = None;
    for alpha in ALPHAS {
        let settings = Settings { alpha, steps: STEPS, rows: TEXTS as f32, seed };
        let head = dense::regress(&kept, labels, &settings)?;
        let scored: Vec<Scored> = held.iter().map(|r| (head.logits(&r.x), r.label, r.weight)).collect();
        let loss = dense::loss(&scored, 1.0);
        if best.as_ref().is_none_or(|b| loss < b.2) {
            best = Some((head, scored, loss));
        }
    }
    let (mut head, scored, _) = best.ok_or("nothing to fit the encoder's head on")?;
    dense::settle(&mut head, &scored);
    Ok(head)
}

/// How many texts are encoded of so many.
pub fn of(all: usize) -> usize {
    all.min(TEXTS)
}
