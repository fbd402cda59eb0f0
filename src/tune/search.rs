//! The search over a unit cube: a grid where it has one or two sides, a particle swarm where it has more.
//!
//! Invariant: the same seed and the same scores give the same tries in the same order. A score says how far a point misses its
//! limits before it says what it costs, so that a cheap point that breaks a limit never passes for a good one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use argmin::core::{CostFunction, Error, Executor};
use argmin::solver::particleswarm::ParticleSwarm;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// Points of a side in the first round of a grid: with one side, and with two.
const ROUND: [usize; 2] = [101, 21];
/// Rounds; each lies around the best point of the one before, within one step of its grid.
const ROUNDS: usize = 3;
/// Particles of a swarm; its own authors' setting for up to about ten sides.
const PARTICLES: usize = 40;
/// Steps of a swarm.
const STEPS: u64 = 40;
/// What a point that misses a limit costs at the least; costs of the others are shares of what the old policy costs.
const BEYOND: f64 = 1e6;

/// What a point is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Less is better; not a number where it is unknown.
    pub objective: f64,
    /// By how much limits are missed, added up; 0 where all are kept.
    pub shortfall: f64,
}

/// A point that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// Where, each from 0 to 1.
    pub point: Vec<f64>,
    /// What it is worth.
    pub score: Score,
}

/// Scores of values that were tried: values are rounded and orders are few, so that many points stand for the same policy.
#[derive(Default)]
pub struct Scores(Mutex<HashMap<Vec<u64>, Score>>);

impl Scores {
    /// The score of these values; `new` is asked where it is not known.
    pub fn score(&self, values: &[f64], new: impl Fn(&[f64]) -> Score) -> Score {
        let key: Vec<u64> = values.iter().map(|value| value.to_bits()).collect();
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let score = before.unwrap_or_else(|| new(values));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, score);
        score
    }
}

impl Score {
    /// One figure to order points by.
    pub fn cost(&self) -> f64 {
        match self.objective {
            x if x.is_nan() => f64::MAX,
            _ if self.shortfall > 0.0 => BEYOND * (1.0 + self.shortfall),
            x => x,
        }
    }
}

/// How many points a search of so many sides tries, for a progress bar.
pub fn planned(sides: usize) -> usize {
    match sides {
        0 => 0,
        1 => ROUND[0] * ROUNDS,
        2 => ROUND[1] * ROUND[1] * ROUNDS,
        _ => PARTICLES * (usize::try_from(STEPS).unwrap_or(0) + 1),
    }
}

/// Tries points of a cube with so many sides, beginning with `now`; all of them, in order.
///
/// # Errors
/// What the optimiser says.
pub fn search(
    now: &[f64],
    seed: u64,
    score: &(dyn Fn(&[f64]) -> Score + Sync),
    tell: &(dyn Fn() + Sync),
) -> Result<Vec<Tried>, String> {
    let tries = Tries { tried: Mutex::new(Vec::new()), score, tell };
    if now.is_empty() {
        return Ok(Vec::new());
    }
    tries.take(now);
    match now.len() {
        1 => grid(&tries, now.len(), ROUND[0]),
        2 => grid(&tries, now.len(), ROUND[1]),
        sides => swarm(&tries, sides, seed).map_err(|e| format!("the search failed: {e}"))?,
    }
    Ok(tries.tried.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The best of them: the first of the cheapest.
pub fn best(tried: &[Tried]) -> Option<&Tried> {
    tried.iter().min_by(|a, b| a.score.cost().total_cmp(&b.score.cost()))
}

struct Tries<'a> {
    tried: Mutex<Vec<Tried>>,
    score: &'a (dyn Fn(&[f64]) -> Score + Sync),
    tell: &'a (dyn Fn() + Sync),
}

impl Tries<'_> {
    fn take(&self, point: &[f64]) -> f64 {
        let score = (self.score)(point);
        (self.tell)();
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).push(Tried { point: point.to_vec(), score });
        score.cost()
    }

    fn best(&self) -> Option<Vec<f64>> {
        best(&self.tried.lock().unwrap_or_else(PoisonError::into_inner)).map(|t| t.point.clone())
    }
}

fn grid(tries: &Tries<'_>, sides: usize, points: usize) {
    let (mut low, mut high) = (vec![0.0; sides], vec![1.0; sides]);
    for _ in 0..ROUNDS {
        let step: Vec<f64> = low.iter().zip(&high).map(|(l, h)| (h - l) / as_f64(points - 1)).collect();
        for index in 0..points.pow(u32::try_from(sides).unwrap_or(1)) {
            let mut rest = index;
            let point: Vec<f64> = (low.iter().zip(&high).zip(&step))
                .map(|((l, h), s)| {
                    let at = (l + as_f64(rest % points) * s).min(*h);
                    rest /= points;
                    at
                })
                .collect();
            tries.take(&point);
        }
        let Some(centre) = tries.best() else { return };
        low = centre.iter().zip(&step).map(|(c, s)| (c - s).max(0.0)).collect();
        high = centre.iter().zip(&step).map(|(c, s)| (c + s).min(1.0)).collect();
    }
}

impl CostFunction for &Tries<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, point: &Self::Param) -> Result<f64, Error> {
        Ok(self.take(point))
    }
}

fn swarm(tries: &Tries<'_>, sides: usize, seed: u64) -> Result<(), Error> {
    let bounds = (vec![0.0; sides], vec![1.0; sides]);
    let random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let solver = ParticleSwarm::new(bounds, PARTICLES).with_rng_generator(random);
    Executor::new(tries, solver).configure(|state| state.max_iters(STEPS)).run()?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred points")]
fn as_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bowl(at: &[f64]) -> impl Fn(&[f64]) -> Score + Sync + use<> {
        let at = at.to_vec();
        move |point| {
            let objective = point.iter().zip(&at).map(|(a, b)| (a - b) * (a - b)).sum();
            Score { objective, shortfall: 0.0 }
        }
    }

    #[test]
    fn the_lowest_point_is_found_with_one_two_and_five_sides() {
        for at in [vec![0.3137], vec![0.71, 0.052], vec![0.2, 0.9, 0.5, 0.33, 0.61]] {
            let now = vec![0.5; at.len()];
            let tried = search(&now, 7, &bowl(&at), &|| ()).unwrap();
            let found = best(&tried).unwrap();
            let far = found.point.iter().zip(&at).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(far < 0.02, "{found:?} for {at:?}");
            assert_eq!(tried[0].point, now, "the policy as it is comes first");
            assert_eq!(tried, search(&now, 7, &bowl(&at), &|| ()).unwrap(), "the same seed, the same tries");
        }
    }

    #[test]
    fn a_cheap_point_that_misses_a_limit_never_wins() {
        let score = |p: &[f64]| Score { objective: p[0], shortfall: (0.4 - p[0]).max(0.0) };
        let tried = search(&[0.9], 1, &score, &|| ()).unwrap();
        let found = best(&tried).unwrap();
        assert!(found.score.shortfall <= 0.0 && (found.point[0] - 0.4).abs() < 1e-3, "{found:?}");
        let unknown = |p: &[f64]| Score { objective: if p[0] < 0.5 { f64::NAN } else { 1.0 }, shortfall: 0.0 };
        assert!(best(&search(&[0.1], 1, &unknown, &|| ()).unwrap()).unwrap().point[0] >= 0.5);
    }

    #[test]
    fn nothing_to_choose_is_nothing_tried() {
        assert!(search(&[], 1, &|_| Score { objective: 0.0, shortfall: 0.0 }, &|| ()).unwrap().is_empty());
    }
}
