//! Tokens of an answer from the shape of its prompt: a ridge line on their logarithm, with the spread around it. Pure.

use serde::{Deserialize, Serialize};

use crate::predict::fit::dense::DENSE;
use crate::predict::fit::head;

/// Pull of the coefficients towards 0, in rows.
const L2: f64 = 20.0;
/// Quantiles that are kept.
const SHARES: [f64; 3] = [0.1, 0.5, 0.9];

/// A line on ln(1 + tokens).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// Weights of the shape of the prompt.
    pub dense: [f32; DENSE],
    /// Intercept.
    pub bias: f32,
    /// Quantiles .1, .5 and .9 of what the line misses, as factors.
    pub factors: [f32; 3],
    /// Mean of these factors: what makes a mean of the line's median.
    pub mean: f32,
}

/// Tokens to expect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Mean.
    pub mean: f64,
    /// Quantiles .1, .5 and .9.
    pub quantiles: [f64; 3],
}

impl Lengths {
    /// Fits prompts and the tokens of their answers; none without any.
    pub fn fit(rows: &[([f32; DENSE], f64)]) -> Option<Self> {
        let usable = |t: f64| t.is_finite() && t >= 0.0;
        let given: Vec<(&[f32], f64)> =
            rows.iter().filter(|r| usable(r.1)).map(|(x, t)| (x.as_slice(), t.ln_1p())).collect();
        if given.is_empty() {
            return None;
        }
        let line = head::least_squares(&given, L2);
        let mut missed: Vec<f64> = given.iter().map(|(x, y)| (y - line.logit(x)).exp()).collect();
        missed.sort_by(f64::total_cmp);
        let mean = missed.iter().sum::<f64>() / missed.len() as f64;
        let at = |share: f64| missed.get((share * (missed.len() - 1) as f64).round() as usize).copied().unwrap_or(1.0);
        let mut dense = [0.0; DENSE];
        dense.iter_mut().zip(&line.weights).for_each(|(to, w)| *to = *w as f32);
        Some(Self { dense, bias: line.bias as f32, factors: SHARES.map(|s| at(s) as f32), mean: mean as f32 })
    }

    /// Tokens to expect of a prompt of this shape.
    pub fn of(&self, dense: &[f32; DENSE]) -> Expected {
        let z = self.bias + dense.iter().zip(&self.dense).map(|(x, w)| x * w).sum::<f32>();
        // Nothing in the data says that an answer has more than a few hundred thousand tokens.
        let middle = f64::from(z.clamp(0.0, 12.0)).exp();
        let tokens = |factor: f32| (middle * f64::from(factor) - 1.0).max(1.0);
        Expected { mean: tokens(self.mean), quantiles: self.factors.map(tokens) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::fit::dense::dense;

    #[test]
    fn longer_prompts_with_longer_answers_are_told_and_quantiles_cover() {
        let mut rng = fastrand::Rng::with_seed(4);
        let mut row = |words: usize| {
            let text = "word ".repeat(words);
            (dense(&text), 5.0 * words as f64 * (0.5 + rng.f64()))
        };
        let rows: Vec<_> = (0..600).map(|i| row(5 + i % 60)).collect();
        let lengths = Lengths::fit(&rows).unwrap();
        let (short, long) = (lengths.of(&rows[0].0), lengths.of(&rows[59].0));
        assert!(long.mean > 3.0 * short.mean, "{short:?} {long:?}");
        let inside = rows.iter().filter(|(x, t)| {
            let q = lengths.of(x).quantiles;
            q[0] <= *t && *t <= q[2]
        });
        let share = inside.count() as f64 / rows.len() as f64;
        assert!((share - 0.8).abs() < 0.08, "{share}");
        assert_eq!(Lengths::fit(&[]), None);
        assert_eq!(Lengths::fit(&[(rows[0].0, f64::NAN)]), None);
    }
}
