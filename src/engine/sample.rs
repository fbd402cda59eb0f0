//! From logits to a token: temperature, nucleus, seed; and exact log-probabilities.
//!
//! Invariant: a value that is not finite is an error, never a token. Same logits, settings and seed give the same token.
//! Everything that looks at the whole vocabulary is a loop without branches, so that it costs little beside a step.

use std::cmp::Ordering;

use crate::api::query::Sampling;
use crate::engine::types::EngineError;
use crate::lla::simd::{Level, exp};

/// Draws tokens for one generation.
pub struct Sampler {
    temperature: f32,
    top_p: f64,
    rng: fastrand::Rng,
    weights: Vec<f32>,
    candidates: Vec<(u32, f32)>,
}

/// What one look at all logits tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scan {
    /// The most likely token; the lowest id of several.
    pub best: u32,
    /// Its logit.
    max: f32,
    /// Logarithm of the sum of e^logit over the full vocabulary.
    log_total: f64,
}

/// Nucleus candidates looked at first; doubled until they hold enough probability, so that few are sorted.
const FIRST_CANDIDATES: usize = 64;
/// Values summed in single precision before the sum goes into one of double precision.
const RUN: usize = 1024;

impl Sampler {
    /// Without a seed every generation draws differently.
    pub fn new(sampling: &Sampling) -> Self {
        let rng = sampling.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let (temperature, top_p) = (sampling.temperature, f64::from(sampling.top_p));
        Self { temperature, top_p, rng, weights: Vec::new(), candidates: Vec::new() }
    }

    /// Picks a token id.
    pub fn pick(&mut self, level: Level, scan: &Scan, logits: &[f32]) -> u32 {
        if self.temperature <= 0.0 {
            return scan.best;
        }
        let total = weigh(level, logits, scan.max, self.temperature, &mut self.weights);
        if self.top_p >= 1.0 {
            return draw((0..).zip(self.weights.iter().copied()), self.rng.f64() * total).unwrap_or(scan.best);
        }
        // All tokens below this weight together hold less than what the nucleus leaves out, so it needs none of them.
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a bound, lowered by a tenth")]
        let least = ((1.0 - self.top_p) * total / logits.len() as f64 * 0.9) as f32;
        self.candidates.clear();
        self.candidates.extend((0..).zip(self.weights.iter().copied()).filter(|(_, weight)| *weight >= least));
        let (kept, mass) = nucleus(&mut self.candidates, self.top_p * total);
        draw(kept.iter().copied(), self.rng.f64() * mass).unwrap_or(scan.best)
    }
}

impl Scan {
    /// ln P of a token over the full vocabulary, at temperature 1.
    pub fn logprob(&self, logits: &[f32], id: u32) -> f32 {
        let logit = usize::try_from(id).ok().and_then(|at| logits.get(at)).copied();
        logit.map_or(f32::NEG_INFINITY, |logit| self.ln(logit))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the API's precision is f32")]
    fn ln(&self, logit: f32) -> f32 {
        // Rounding of the sum must not make a token likelier than certain.
        (f64::from(logit) - self.log_total).min(0.0) as f32
    }
}

/// The `count` most likely tokens with their ln P, best first; ties go to the lower id.
pub fn top(scan: &Scan, logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    if count == 0 {
        return Vec::new();
    }
    let mut order: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    best_first(&mut order, count);
    order.iter().take(count).map(|(id, logit)| (*id, scan.ln(*logit))).collect()
}

/// Looks at all logits; an error when any is not finite, or there are none.
pub fn scan(level: Level, logits: &[f32]) -> Result<Scan, EngineError> {
    let (max, finite) = wide(level, || highest(logits));
    if !finite {
        return Err(EngineError::Step("the model computed a value that is not a number".to_owned()));
    }
    let best = logits.iter().position(|logit| *logit == max).and_then(|at| u32::try_from(at).ok());
    let best = best.ok_or_else(|| EngineError::Step("the model gave no logits".to_owned()))?;
    let total = wide(level, || total(logits, max));
    Ok(Scan { best, max, log_total: f64::from(max) + total.ln() })
}

/// The weight of every token, relative to the best one, and their sum.
fn weigh(level: Level, logits: &[f32], max: f32, temperature: f32, weights: &mut Vec<f32>) -> f64 {
    weights.resize(logits.len(), 0.0);
    let fill = |weights: &mut [f32]| {
        weights.iter_mut().zip(logits).for_each(|(w, logit)| *w = exp((*logit - max) / temperature));
    };
    wide(level, || fill(weights));
    weights.chunks(RUN).map(|run| f64::from(run.iter().sum::<f32>())).sum()
}

/// The token on which `left` falls when the weights lie side by side.
fn draw(weights: impl Iterator<Item = (u32, f32)>, mut left: f64) -> Option<u32> {
    let mut last = None;
    for (id, weight) in weights.filter(|(_, weight)| *weight > 0.0) {
        left -= f64::from(weight);
        // Rounding can leave a remainder of the last bit: the draw then falls on the last token with any weight.
        last = Some(id);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// The fewest most likely tokens that hold `mass`, best first, and what they hold.
fn nucleus(weights: &mut [(u32, f32)], mass: f64) -> (&[(u32, f32)], f64) {
    let mut look = FIRST_CANDIDATES;
    loop {
        best_first(weights, look);
        let mut held = 0.0;
        for (at, (_, weight)) in weights.iter().enumerate().take(look) {
            held += f64::from(*weight);
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
fn best_first(values: &mut [(u32, f32)], count: usize) {
    let order = |a: &(u32, f32), b: &(u32, f32)| -> Ordering { b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)) };
    if count < values.len() {
        values.select_nth_unstable_by(count, order);
    }
    let count = count.min(values.len());
    if let Some(front) = values.get_mut(..count) {
        front.sort_unstable_by(order);
    }
}

/// The largest logit, and whether all are finite.
fn highest(logits: &[f32]) -> (f32, bool) {
    let (mut most, mut zeros) = ([f32::NEG_INFINITY; 16], [0.0_f32; 16]);
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for ((m, z), x) in most.iter_mut().zip(&mut zeros).zip(chunk) {
            *m = if *x > *m { *x } else { *m };
            // Zero times what is not finite is not a number.
            *z += *x * 0.0;
        }
    }
    let max = most.iter().chain(rest).fold(f32::NEG_INFINITY, |m, x| if *x > m { *x } else { m });
    (max, zeros.iter().all(|z| *z == 0.0) && rest.iter().all(|x| x.is_finite()))
}

/// The sum of e^(logit - max), in the same order at every level.
fn total(logits: &[f32], max: f32) -> f64 {
    let mut total = 0.0;
    for run in logits.chunks(RUN) {
        let mut sums = [0.0_f32; 16];
        let (chunks, rest) = run.as_chunks::<16>();
        for chunk in chunks {
            sums.iter_mut().zip(chunk).for_each(|(s, x)| *s += exp(*x - max));
        }
        total += sums.iter().map(|s| f64::from(*s)).sum::<f64>();
        total += rest.iter().map(|x| f64::from(exp(*x - max))).sum::<f64>();
    }
    total
}

/// Runs a loop compiled for wide registers: what is inlined into these functions may use their instructions.
#[allow(unsafe_code, reason = "calls code compiled for instructions that were checked for")]
fn wide<R>(level: Level, work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn avx512<R>(work: impl FnOnce() -> R) -> R {
        work()
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn avx2<R>(work: impl FnOnce() -> R) -> R {
        work()
    }
    match level {
        // SAFETY: `runs_here` said that this machine has the instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if level.runs_here() => unsafe { avx512(work) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.runs_here() => unsafe { avx2(work) },
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampling(temperature: f32, top_p: f32, seed: u64) -> Sampling {
        Sampling { temperature, top_p, max_tokens: None, stop: Vec::new(), seed: Some(seed), logprobs: None }
    }

    fn levels() -> impl Iterator<Item = Level> {
        Level::all().into_iter().filter(|level| level.runs_here())
    }

    fn pick(sampler: &mut Sampler, logits: &[f32]) -> u32 {
        let level = Level::detect();
        sampler.pick(level, &scan(level, logits).unwrap(), logits)
    }

    #[test]
    fn greedy_takes_the_highest_and_the_lower_id_on_a_tie() {
        let mut sampler = Sampler::new(&sampling(0.0, 1.0, 1));
        assert_eq!(pick(&mut sampler, &[0.0, 3.0, 3.0, -1.0]), 1);
    }

    #[test]
    fn not_a_number_is_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 1, 15, 16, 33, 39] {
                let mut logits = vec![0.5; 40];
                logits[place] = bad;
                for level in levels() {
                    assert!(matches!(scan(level, &logits), Err(EngineError::Step(_))), "{bad} at {place}");
                }
            }
        }
        assert!(scan(Level::Portable, &[]).is_err());
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let mut sampler = Sampler::new(&sampling(1.0, 1.0, 7));
        let logits = [0.0, 3.0_f32.ln(), 6.0_f32.ln()];
        let mut seen = [0_u32; 3];
        for _ in 0..20_000 {
            seen[pick(&mut sampler, &logits) as usize] += 1;
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
        let drawn: Vec<u32> = (0..5000).map(|_| pick(&mut sampler, &logits)).collect();
        assert!(drawn.iter().all(|id| (*id as usize) < allowed));
        assert!(drawn.iter().any(|id| (*id as usize) > allowed / 2));
    }

    #[test]
    fn log_probabilities_are_exact_and_ordered() {
        let logits = [1.0_f32, 2.0, 3.0, 2.0];
        let seen = scan(Level::Portable, &logits).unwrap();
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        assert!((f64::from(seen.logprob(&logits, 0)) - (1.0 - total.ln())).abs() < 1e-6);
        assert_eq!(top(&seen, &logits, 3).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 1, 3]);
        assert_eq!(top(&seen, &logits, 0), []);
        assert_eq!(top(&seen, &logits, 9).len(), 4);
        assert_eq!(seen.logprob(&logits, 9), f32::NEG_INFINITY);
    }

    #[test]
    fn log_probabilities_are_exact_over_a_large_vocabulary() {
        let mut random = fastrand::Rng::with_seed(4);
        for (size, spread) in [(49_152, 20.0), (151_936, 4.0), (1000, 0.0)] {
            let logits: Vec<f32> = (0..size).map(|_| (random.f32() - 0.5) * spread + 11.0).collect();
            let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            let scans: Vec<Scan> = levels().map(|level| scan(level, &logits).unwrap()).collect();
            assert!(scans.iter().all(|scan| *scan == scans[0]), "levels differ: {scans:?}");
            for id in [0, 7, size as u32 - 1] {
                let want = f64::from(logits[id as usize]) - total.ln();
                let got = f64::from(scans[0].logprob(&logits, id));
                assert!((got - want).abs() < 2e-6 * want.abs().max(1.0), "{got} for {want}");
            }
        }
    }

    proptest! {
        #[test]
        fn same_seed_same_tokens(logits in prop::collection::vec(-20.0_f32..20.0, 1..300), seed: u64,
                                 temperature in 0.0_f32..2.0, top_p in 0.01_f32..1.0) {
            let draw = || {
                let mut sampler = Sampler::new(&sampling(temperature, top_p, seed));
                (0..20).map(|_| pick(&mut sampler, &logits)).collect::<Vec<_>>()
            };
            prop_assert_eq!(draw(), draw());
        }

        #[test]
        fn probabilities_sum_to_one(logits in prop::collection::vec(-30.0_f32..30.0, 1..200)) {
            let seen = scan(Level::detect(), &logits).unwrap();
            let sum: f64 = top(&seen, &logits, logits.len()).iter().map(|(_, p)| f64::from(*p).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4);
        }
    }
}
