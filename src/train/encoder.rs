//! The head of the encoder tier: a sentence vector to labels, and stacked on it the fast head's logits.
//!
//! The first layer is fitted on vectors alone, once without each part of the data; the second joins its logits for the part
//! that it did not see with the fast head's, so that neither is believed more than it is worth. Both are linear and are
//! multiplied out: what is kept is one head.
#![allow(clippy::indexing_slicing, reason = "inputs are the labels' logits and then VECTOR numbers, in every row")]

use rayon::prelude::*;

use super::dense::{self, Row, Scored, Settings};
use super::topics::FOLDS;
use crate::classify::topics::{Head, VECTOR};

/// L2 weight and L-BFGS steps of the first layer, on at most about so many rows. Set after one run on MMLU-Pro,
/// whose report has the dev and the test split; nothing was swept.
const VECTORS: (f64, u64, f32) = (200.0, 60, 24_000.0);
/// The same of the second.
const STACK: (f64, u64, f32) = (5.0, 60, 24_000.0);
/// The encoder is asked as seldom as keeps this part of what asking it always would gain, in right answers on the examples
/// that the margin is chosen on.
const KEPT_GAIN: f64 = 0.95;

/// An example as both tiers see it.
pub struct Seen {
    /// Logits of the fast head, then the sentence vector.
    pub row: Row,
    /// What the fast tier alone says: its margin, and whether it is right.
    pub fast: (f32, bool),
}

/// The head and the margin of `auto`; calibration and margin are chosen on `held`, which the fit does not see.
pub fn fit(kept: &[Row], held: &[Seen], labels: usize, seed: u64) -> Result<(Head, f32), String> {
    let of = |r: &Row| Row { x: r.x[labels..].to_vec(), ..*r };
    let vectors: Vec<Row> = kept.iter().map(of).collect();
    let first = |without: usize| {
        let rows: Vec<&Row> = vectors.iter().filter(|r| r.fold != without).collect();
        let (alpha, steps, rows_wanted) = VECTORS;
        dense::regress(&rows, labels, &Settings { alpha, steps, rows: rows_wanted, seed })
    };
    let layers: Vec<Head> = (0..=FOLDS).into_par_iter().map(first).collect::<Result<_, String>>()?;
    let joined = |(fast, own): (&Row, &Row)| {
        let layer = layers.get(own.fold)?;
        Some(Row { x: [&fast.x[..labels], &layer.logits(&own.x)].concat(), ..*own })
    };
    let rows: Vec<Row> = kept.iter().zip(&vectors).filter_map(joined).collect();
    let (alpha, steps, rows_wanted) = STACK;
    let rows: Vec<&Row> = rows.iter().collect();
    let second = dense::regress(&rows, labels, &Settings { alpha, steps, rows: rows_wanted, seed })?;
    let full = layers.last().ok_or("nothing to fit the encoder's head on")?;
    let mut head = multiplied(full, &second, labels);
    let scored: Vec<Scored> = held.iter().map(|s| (head.logits(&s.row.x), s.row.label, s.row.weight)).collect();
    dense::settle(&mut head, &scored);
    let right = |s: &Seen| head.sorted(head.logits(&s.row.x)).top == Some(s.row.label);
    let cases: Vec<(f32, bool, bool)> = held.iter().map(|s| (s.fast.0, s.fast.1, right(s))).collect();
    Ok((head, margin(&cases)))
}

/// The second layer on the fast logits and the first layer's, as one layer on the fast logits and the vector.
fn multiplied(first: &Head, second: &Head, labels: usize) -> Head {
    let (fast, own) = second.weights.split_at(labels * labels);
    let through = |logits: &[f32]| -> Vec<f32> {
        let mut out = vec![0.0; labels];
        for (z, row) in logits.iter().zip(own.chunks_exact(labels)) {
            out.iter_mut().zip(row).for_each(|(o, w)| *o += z * w);
        }
        out
    };
    let mut weights = fast.to_vec();
    weights.extend(first.weights.chunks_exact(labels).take(VECTOR).flat_map(through));
    let bias = through(&first.bias).iter().zip(&second.bias).map(|(a, b)| a + b).collect();
    Head { weights, bias, temperature: 1.0, threshold: 0.0 }
}

/// The smallest margin that keeps [`KEPT_GAIN`]; of each case its margin, and whether the fast and the other tier are right.
fn margin(cases: &[(f32, bool, bool)]) -> f32 {
    let right = |below: f32| cases.iter().filter(|(m, fast, other)| if *m < below { *other } else { *fast }).count();
    let steps = || (0..=50u8).map(|i| f32::from(i) / 50.0);
    let (fast, most) = (right(0.0) as f64, steps().map(right).max().unwrap_or(0) as f64);
    let enough = fast + KEPT_GAIN * (most - fast);
    steps().find(|below| right(*below) as f64 >= enough).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_is_where_the_gain_is() {
        // Below .3 the encoder repairs; above it, it spoils.
        let case = |i: u8| {
            let m = f32::from(i) / 100.0;
            (m, m >= 0.3, m < 0.3)
        };
        let found = margin(&(0..100).map(case).collect::<Vec<_>>());
        assert!((0.28..=0.32).contains(&found), "{found}");
        assert_eq!(margin(&[(0.1, true, true)]), 0.0, "nothing to gain: never ask");
    }

    #[test]
    fn two_layers_multiplied_out_say_the_same() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut head = |inputs: usize, labels: usize| Head {
            weights: (0..inputs * labels).map(|_| rng.f32() - 0.5).collect(),
            bias: (0..labels).map(|_| rng.f32()).collect(),
            temperature: 1.0,
            threshold: 0.0,
        };
        let (first, second) = (head(VECTOR, 3), head(6, 3));
        let x: Vec<f32> = (0..3 + VECTOR).map(|i| (i as f32 * 0.37).sin()).collect();
        let joined = [&x[..3], &first.logits(&x[3..])].concat();
        let (want, got) = (second.logits(&joined), multiplied(&first, &second, 3).logits(&x));
        assert!(want.iter().zip(&got).all(|(w, g)| (w - g).abs() < 1e-3), "{want:?} {got:?}");
    }
}
