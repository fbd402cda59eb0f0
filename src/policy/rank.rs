//! The order in which a rule would take the backends.

use super::eligible::Verdict;
use super::rules::{Minimise, Policy, Rule, Weights};
use super::sticky;
use super::types::{Candidate, Place, Signals};
use crate::classify::domain::Domain;

const JOULES_PER_KWH: f64 = 3.6e6;

/// What every comparison of one decision needs.
pub struct Bench<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The signals.
    pub signals: &'a Signals,
    /// One per candidate.
    pub verdicts: &'a [Verdict],
    /// Most likely domain.
    pub domain: Domain,
    /// Least P(correct) that is good enough.
    pub bar: f64,
}

/// One backend in a ranking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Index of the candidate.
    pub index: usize,
    /// 0 is what the rule asks for; higher is what is left when that is missing.
    pub class: u8,
    figure: f64,
}

impl<'a> Bench<'a> {
    /// Sets up the bar: the best able cloud backend's P(correct) (without one, the best of all) minus the loss allowed,
    /// and at least the domain's floor.
    pub fn new(policy: &'a Policy, signals: &'a Signals, verdicts: &'a [Verdict], domain: Domain) -> Self {
        let able = |place: Option<Place>| {
            let each = signals.candidates.iter().zip(verdicts).enumerate();
            let fits = each.filter(move |(_, (c, v))| v.able() && place.is_none_or(|p| c.place == p));
            best_by_chance(fits.map(|(i, (c, _))| (i, c)))
        };
        let reference = able(Some(Place::Cloud)).or_else(|| able(None)).and_then(|i| signals.candidates.get(i));
        let loss = match policy.rule {
            Rule::Objective { max_quality_loss, .. } => max_quality_loss,
            _ => 1.0,
        };
        let bar = reference.map_or(0.0, |c| c.chance.mean - loss).max(policy.floor(domain)).max(0.0);
        Self { policy, signals, verdicts, domain, bar }
    }

    /// Candidates that `takes` lets in, best first: by class, by the file's own order, by what the rule minimises. Ties go to fewer
    /// joules, then to configuration order.
    pub fn rank(&self, takes: impl Fn(&Verdict) -> bool) -> Vec<Ranked> {
        let each = self.signals.candidates.iter().zip(self.verdicts).enumerate();
        let mut inside: Vec<(&Candidate, Ranked)> =
            each.filter(|(_, (_, v))| takes(v)).map(|(i, (c, _))| (c, self.ranked(i, c))).collect();
        // One unknown figure makes the comparison impossible, and unknown is not 0: then the preferred place decides.
        let blind = inside.iter().any(|(_, r)| r.class == 0 && r.figure.is_nan());
        let away = |c: &Candidate, r: &Ranked| blind && r.class == 0 && c.place != self.policy.prefer;
        inside.sort_by(|(a, x), (b, y)| {
            let (p, q) = (figure_or_last(x.figure), figure_or_last(y.figure));
            let turn = |c: &Candidate, r: &Ranked| if r.class == 0 { self.policy.turn(c) } else { 0 };
            (x.class.cmp(&y.class))
                .then(turn(a, x).cmp(&turn(b, y)))
                .then(away(a, x).cmp(&away(b, y)))
                .then(p.total_cmp(&q))
                .then(joules_or_last(a).total_cmp(&joules_or_last(b)))
                .then(x.index.cmp(&y.index))
        });
        inside.into_iter().map(|(_, r)| r).collect()
    }

    fn ranked(&self, index: usize, c: &Candidate) -> Ranked {
        let wrong = 1.0 - c.chance.mean;
        let good = c.chance.mean >= self.bar;
        let (class, figure) = match self.policy.rule {
            Rule::AllLocal => (u8::from(!good), wrong),
            Rule::AllCloud => (if c.place == Place::Cloud { 0 } else { 1 }, wrong),
            Rule::CoverageThreshold(threshold) => match c.place {
                Place::Local if c.chance.mean >= threshold && good => (0, figure(self.policy, Minimise::Energy, c)),
                Place::Cloud => (1, wrong),
                Place::Local => (2, wrong),
            },
            Rule::Objective { minimise, .. } if good => (0, figure(self.policy, minimise, c)),
            Rule::Objective { .. } => (1, wrong),
        };
        Ranked { index, class, figure: figure * sticky::factor(self.policy.sticky, self.signals, c) }
    }
}

/// The most likely to be right; ties go to fewer joules, then to configuration order.
pub fn best_by_chance<'a>(each: impl Iterator<Item = (usize, &'a Candidate)>) -> Option<usize> {
    let order = |a: &(usize, &Candidate), b: &(usize, &Candidate)| {
        (b.1.chance.mean.total_cmp(&a.1.chance.mean))
            .then(joules_or_last(a.1).total_cmp(&joules_or_last(b.1)))
            .then(a.0.cmp(&b.0))
    };
    each.min_by(order).map(|(i, _)| i)
}

/// What an objective minimises, of one candidate; not a number where it is unknown.
pub fn figure(policy: &Policy, minimise: Minimise, c: &Candidate) -> f64 {
    let joules = c.joules.mid.unwrap_or(f64::NAN);
    match minimise {
        Minimise::Energy => joules,
        Minimise::Cost => cost(policy, c),
        Minimise::Carbon => carbon(policy, c),
        Minimise::Latency => c.seconds.unwrap_or(f64::NAN),
        Minimise::Errors => 1.0 - c.chance.mean,
        Minimise::Sum(w) => sum(policy, w, c),
    }
}

/// US dollars: the price, or for a local backend without one the electricity.
fn cost(policy: &Policy, c: &Candidate) -> f64 {
    let electricity = || match (c.place, c.joules.mid) {
        (Place::Local, Some(j)) => j / JOULES_PER_KWH * policy.electricity_usd_per_kwh,
        _ => f64::NAN,
    };
    c.usd.unwrap_or_else(electricity)
}

fn carbon(policy: &Policy, c: &Candidate) -> f64 {
    let assumed = match c.place {
        Place::Local => policy.grid_g_per_kwh.local,
        Place::Cloud => policy.grid_g_per_kwh.cloud,
    };
    let grams = c.grid_g_per_kwh.unwrap_or(assumed);
    c.joules.mid.map_or(f64::NAN, |j| j / JOULES_PER_KWH * grams)
}

/// A weight of 0 leaves its figure out, known or not.
fn sum(policy: &Policy, w: Weights, c: &Candidate) -> f64 {
    let parts = [
        (w.energy, c.joules.mid.map_or(f64::NAN, |j| j / 1e3)),
        (w.cost, cost(policy, c)),
        (w.carbon, carbon(policy, c)),
        (w.latency, c.seconds.unwrap_or(f64::NAN)),
        (w.errors, 1.0 - c.chance.mean),
    ];
    parts.into_iter().filter(|(weight, _)| *weight > 0.0).map(|(weight, value)| weight * value).sum()
}

fn figure_or_last(figure: f64) -> f64 {
    if figure.is_nan() { f64::INFINITY } else { figure }
}

fn joules_or_last(c: &Candidate) -> f64 {
    c.joules.mid.unwrap_or(f64::INFINITY)
}
