//! From logits to a token: temperature, nucleus, seed; and exact log-probabilities.
//!
//! Invariant: a value that is not finite is an error, never a token. Same logits, settings and seed give the same token.

use std::cmp::Ordering;

use crate::api::query::Sampling;
use crate::engine::types::EngineError;

/// Draws tokens for one generation.
pub struct Sampler {
    temperature: f32,
    top_p: f64,
    rng: fastrand::Rng,
    weights: Vec<(u32, f64)>,
}

/// ln P over the full vocabulary at temperature 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the chosen token.
    pub chosen: f32,
    /// The most likely tokens, best first; ties go to the lower id.
    pub top: Vec<(u32, f32)>,
}

/// Nucleus candidates looked at first; doubled until they hold enough probability, so that the vocabulary is not sorted.
const FIRST_CANDIDATES: usize = 64;

impl Sampler {
    /// Without a seed every generation draws differently.
    pub fn new(sampling: &Sampling) -> Self {
        let rng = sampling.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self { temperature: sampling.temperature, top_p: f64::from(sampling.top_p), rng, weights: Vec::new() }
    }

    /// Picks a token id.
    pub fn pick(&mut self, logits: &[f32]) -> Result<u32, EngineError> {
        let (best, max) = check(logits)?;
        if self.temperature <= 0.0 {
            return Ok(best);
        }
        let scale = f64::from(self.temperature);
        self.weights.clear();
        self.weights.extend((0_u32..).zip(logits).map(|(id, logit)| (id, ((f64::from(*logit) - max) / scale).exp())));
        let total: f64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let (kept, mass) = if self.top_p < 1.0 {
            nucleus(&mut self.weights, self.top_p * total)
        } else {
            (self.weights.as_slice(), total)
        };
        let mut left = self.rng.f64() * mass;
        for (id, weight) in kept {
            left -= weight;
            if left < 0.0 {
                return Ok(*id);
            }
        }
        // Rounding can leave a remainder of the last bit: the draw then falls on the last candidate with any weight.
        Ok(kept.iter().rev().find(|(_, weight)| *weight > 0.0).map_or(best, |(id, _)| *id))
    }
}

/// Log-probability of `chosen` and of the `top` most likely tokens.
pub fn logprobs(logits: &[f32], chosen: u32, top: usize) -> Result<Logprobs, EngineError> {
    let (_, max) = check(logits)?;
    let total: f64 = logits.iter().map(|logit| (f64::from(*logit) - max).exp()).sum();
    let log_total = max + total.ln();
    #[expect(clippy::cast_possible_truncation, reason = "the API's precision is f32")]
    let ln_p = |logit: f32| (f64::from(logit) - log_total) as f32;
    let logit = usize::try_from(chosen).ok().and_then(|at| logits.get(at)).copied();
    let logit = logit.ok_or_else(|| EngineError::Step("a token outside the vocabulary was chosen".to_owned()))?;
    let mut order: Vec<(u32, f64)> = Vec::new();
    if top > 0 {
        order.extend((0_u32..).zip(logits).map(|(id, logit)| (id, f64::from(*logit))));
        best_first(&mut order, top);
    }
    #[expect(clippy::cast_possible_truncation, reason = "each came from an f32")]
    let top = order.iter().take(top).map(|(id, logit)| (*id, ln_p(*logit as f32))).collect();
    Ok(Logprobs { chosen: ln_p(logit), top })
}

/// The best id and its logit; an error when any value is not finite.
fn check(logits: &[f32]) -> Result<(u32, f64), EngineError> {
    let mut best: Option<(u32, f32)> = None;
    for (id, logit) in (0_u32..).zip(logits) {
        if !logit.is_finite() {
            return Err(EngineError::Step("the model computed a value that is not a number".to_owned()));
        }
        if best.is_none_or(|(_, highest)| *logit > highest) {
            best = Some((id, *logit));
        }
    }
    best.map(|(id, logit)| (id, f64::from(logit)))
        .ok_or_else(|| EngineError::Step("the model gave no logits".to_owned()))
}

/// The fewest most likely tokens that hold `mass`, best first, and what they hold.
fn nucleus(weights: &mut [(u32, f64)], mass: f64) -> (&[(u32, f64)], f64) {
    let mut look = FIRST_CANDIDATES;
    loop {
        best_first(weights, look);
        let mut held = 0.0;
        for (at, (_, weight)) in weights.iter().enumerate().take(look) {
            held += weight;
            if held >= mass {
                return (weights.get(..=at).unwrap_or_default(), held);
            }
        }
        if look >= weights.len() {
            return (weights, held);
        }
        look = look.saturating_mul(2);
    }
}

/// Puts the `count` highest in front, in order.
fn best_first(values: &mut [(u32, f64)], count: usize) {
    let order = |a: &(u32, f64), b: &(u32, f64)| -> Ordering { b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)) };
    if count < values.len() {
        values.select_nth_unstable_by(count, order);
    }
    let count = count.min(values.len());
    if let Some(front) = values.get_mut(..count) {
        front.sort_unstable_by(order);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampling(temperature: f32, top_p: f32, seed: u64) -> Sampling {
        Sampling { temperature, top_p, max_tokens: None, stop: Vec::new(), seed: Some(seed), logprobs: None }
    }

    #[test]
    fn greedy_takes_the_highest_and_the_lower_id_on_a_tie() {
        let mut sampler = Sampler::new(&sampling(0.0, 1.0, 1));
        assert_eq!(sampler.pick(&[0.0, 3.0, 3.0, -1.0]).unwrap(), 1);
    }

    #[test]
    fn not_a_number_is_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut sampler = Sampler::new(&sampling(1.0, 1.0, 1));
            assert!(matches!(sampler.pick(&[0.0, bad]), Err(EngineError::Step(_))));
            assert!(logprobs(&[0.0, bad], 0, 1).is_err());
        }
        assert!(Sampler::new(&sampling(1.0, 1.0, 1)).pick(&[]).is_err());
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let mut sampler = Sampler::new(&sampling(1.0, 1.0, 7));
        let logits = [0.0, 3.0_f32.ln(), 6.0_f32.ln()];
        let mut seen = [0_u32; 3];
        for _ in 0..20_000 {
            seen[sampler.pick(&logits).unwrap() as usize] += 1;
        }
        for (count, share) in seen.iter().zip([0.1, 0.3, 0.6]) {
            assert!((f64::from(*count) / 20_000.0 - share).abs() < 0.015, "{seen:?}");
        }
    }

    #[test]
    fn a_nucleus_never_draws_from_outside() {
        let logits: Vec<f32> = (0..1000).map(|i| -(i as f32) * 0.01).collect();
        let mut sampler = Sampler::new(&sampling(1.0, 0.5, 3));
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let mut held = 0.0;
        let allowed = logits
            .iter()
            .take_while(|l| {
                let more = held < 0.5 * total;
                held += f64::from(**l).exp();
                more
            })
            .count();
        let drawn: Vec<u32> = (0..5000).map(|_| sampler.pick(&logits).unwrap()).collect();
        assert!(drawn.iter().all(|id| (*id as usize) < allowed));
        assert!(drawn.iter().any(|id| (*id as usize) > allowed / 2));
    }

    #[test]
    fn log_probabilities_are_exact_and_ordered() {
        let logits = [1.0_f32, 2.0, 3.0, 2.0];
        let got = logprobs(&logits, 0, 3).unwrap();
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        assert!((f64::from(got.chosen) - (1.0 - total.ln())).abs() < 1e-6);
        assert_eq!(got.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 1, 3]);
        assert_eq!(logprobs(&logits, 3, 0).unwrap().top, []);
        assert_eq!(logprobs(&logits, 3, 9).unwrap().top.len(), 4);
    }

    proptest! {
        #[test]
        fn same_seed_same_tokens(logits in prop::collection::vec(-20.0_f32..20.0, 1..300), seed: u64,
                                 temperature in 0.0_f32..2.0, top_p in 0.01_f32..1.0) {
            let draw = || {
                let mut sampler = Sampler::new(&sampling(temperature, top_p, seed));
                (0..20).map(|_| sampler.pick(&logits).unwrap()).collect::<Vec<_>>()
            };
            prop_assert_eq!(draw(), draw());
        }

        #[test]
        fn probabilities_sum_to_one(logits in prop::collection::vec(-30.0_f32..30.0, 1..200)) {
            let all = logprobs(&logits, 0, logits.len()).unwrap();
            let sum: f64 = all.top.iter().map(|(_, p)| f64::from(*p).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4);
        }
    }
}
