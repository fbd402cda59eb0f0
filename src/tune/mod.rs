//! Tuning: searches what a policy file declares as tunable on logged queries, and believes the result only where it was not searched.
//!
//! Cases come from [`crate::replay`]; every one is decided by the same [`Policy::decide`] as a live query. Invariants: the held-out
//! cases are never looked at by the search; a policy whose gain is within noise, or that misses its limits where it was not
//! searched, is refused with the figures; a policy that is returned still passes its own probes.

pub mod cases;
mod found;
mod front;
pub mod judge;
pub mod search;
pub mod space;
mod wait;
pub mod write;

use rayon::prelude::*;
use serde::Serialize;

pub use self::found::{Both, Change, Found, Point, Setting, Verdict};
use crate::classify::domain::{Domain, Posterior};
use crate::policy::types::{Place, Signals};
use crate::policy::{Minimise, Policy, parse, run_probes};
use crate::replay::decide::distrusts;
use crate::verify::Evidence;
use judge::{Limits, Row};
use search::{Score, Scores};
use space::Space;

/// Standard errors that the search keeps from the limit of accuracy.
const DISTANCE: f64 = 1.0;
/// What a broken probe adds to what a policy misses: more than any limit can.
const BROKEN: f64 = 10.0;

/// A logged query with what each backend made of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What a policy may look at; the order of its candidates is that of `answers`.
    pub signals: Signals,
    /// What each candidate's answer came to.
    pub answers: Vec<Known>,
    /// The backend that limits are relative to.
    pub strong: usize,
    /// Searched on, else held out.
    pub training: bool,
    /// What the first candidate's answer shows of itself, where the log tells: a cascade's check is played on it.
    pub evidence: Option<Evidence>,
    /// When it arrived, seconds on the clock of its part of the log; not a number where unknown.
    pub arrival_s: f64,
}

/// What one backend's answer to one query came to. Not a number where unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// 1 right, 0 wrong, or a grade between.
    pub quality: f64,
    /// Joules, middle assumption.
    pub joules: f64,
    /// US dollars.
    pub usd: f64,
    /// Grams of CO2e.
    pub grams: f64,
    /// Seconds to the last token.
    pub seconds: f64,
}

impl Known {
    /// This answer is thrown away and another one is asked for: both are paid, the other counts.
    fn then(self, other: &Self) -> Self {
        Self {
            quality: other.quality,
            joules: self.joules + other.joules,
            usd: self.usd + other.usd,
            grams: self.grams + other.grams,
            seconds: self.seconds + other.seconds,
        }
    }
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Joules.
    Energy,
    /// US dollars.
    Cost,
    /// Grams of CO2e.
    Carbon,
    /// Seconds to the last token.
    Latency,
}

/// What to tune, and to what end.
pub struct Task<'a> {
    /// The policy file's text.
    pub text: &'a str,
    /// What errors call it.
    pub file: &'a str,
    /// What is minimised.
    pub goal: Goal,
    /// What must hold.
    pub limits: Limits,
    /// Queries that the local device works on at a time.
    pub seats: usize,
    /// Of the swarm and of the intervals.
    pub seed: u64,
    /// The posterior of a probe's prompt.
    pub classify: &'a (dyn Fn(&str) -> Posterior + Sync),
}

impl Goal {
    /// Its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Energy => "J",
            Self::Cost => "USD",
            Self::Carbon => "g CO2e",
            Self::Latency => "s",
        }
    }

    fn of(self, known: &Known) -> f64 {
        match self {
            Self::Energy => known.joules,
            Self::Cost => known.usd,
            Self::Carbon => known.grams,
            Self::Latency => known.seconds,
        }
    }

    /// The objective of a policy that minimises the same.
    pub fn rule(self) -> Minimise {
        match self {
            Self::Energy => Minimise::Energy,
            Self::Cost => Minimise::Cost,
            Self::Carbon => Minimise::Carbon,
            Self::Latency => Minimise::Latency,
        }
    }
}

/// Searches, then looks at the held-out cases once. `tell` is called for every policy tried, with the number of keys searched.
///
/// # Errors
/// The policy file has problems or nothing to tune, one of the two sets is empty, or no policy tried has a known objective.
pub fn tune(task: &Task<'_>, cases: &[Case], tell: &(dyn Fn(usize) + Sync)) -> Result<(Found, Space), String> {
    let old = parse(task.text, task.file).map_err(|e| e.to_string())?;
    let space = Space::of(task.text, &domains(cases)).map_err(|e| format!("{}: {e}", task.file))?;
    if let Some(check) = space.parameters.iter().find(|p| p.path.first().is_some_and(|part| part == "verify"))
        && cases.iter().all(|c| c.evidence.is_none())
    {
        return Err(format!(
            "{}: {} cannot be tuned on this log: a check needs `mean_logprob`, `min_logprob` and `out_tokens` of the weak model's \
             answers; leave it out of the policy's [tune] table",
            task.file,
            check.key()
        ));
    }
    let (training, held): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|c| c.training);
    if training.is_empty() || held.is_empty() {
        return Err(format!("{} queries to search on and {} held out: both are needed", training.len(), held.len()));
    }
    let known = Scores::default();
    let score = |point: &[f64]| known.score(&space.values(point), |values| scored(task, &space, &training, values));
    let sides = space.parameters.len();
    let tried = search::search(&space.now(), task.seed, &score, &|| tell(sides))?;
    let Some(best) = search::best(&tried).filter(|t| t.score.objective.is_finite()) else {
        return Err(format!("the {} of these queries is not known, so nothing can be made of it", task.goal.unit()));
    };
    let values = space.values(&best.point);
    let new = policy(&space, &values, task.file)?;
    let at = |policy: &Policy, cases: &[&Case]| rows(policy, cases, task);
    let (before, after) = (at(&old, &held), at(&new, &held));
    let both = |cases: &[&Case], old_rows: &[Row], new_rows: &[Row]| {
        let sums = |rows| judge::sums(rows, &task.limits).ok_or_else(|| format!("none of {} queries", cases.len()));
        Ok::<_, String>(Both { old: sums(old_rows)?, new: sums(new_rows)? })
    };
    let searched = both(&training, &at(&old, &training), &at(&new, &training))?;
    let held_out = both(&held, &before, &after)?;
    let changes: Vec<Change> = (space.parameters.iter().zip(&values))
        .filter(|(p, new)| (*new - p.now).abs() > 1e-12)
        .map(|(p, new)| Change { key: p.key(), old: p.setting(p.now), new: p.setting(*new) })
        .collect();
    let (saved, kept) = (judge::saved(&after, &before, task.seed), judge::kept(&after, task.seed));
    let mut found = Found {
        changes,
        values,
        goal: task.goal,
        limits: task.limits,
        tried: tried.len(),
        waits: wait::known(&before),
        training: searched,
        held_out,
        saved,
        kept,
        front: front::front(task, &space, &tried, &training, &held)?,
        verdict: Verdict::Better,
    };
    found.verdict = found.judged(broken(&new, task));
    Ok((found, space))
}

/// The domains that these cases are in most likely, in the taxonomy's order, where they have enough cases to tune a floor.
fn domains(cases: &[Case]) -> Vec<Domain> {
    /// A coverage of so many queries is known to about 7 points at 95 %.
    const ENOUGH: usize = 200;
    let top = |d: Domain| cases.iter().filter(|c| c.training && c.signals.posterior.top().0 == d).count();
    Domain::all().filter(|d| top(*d) >= ENOUGH).collect()
}

fn policy(space: &Space, values: &[f64], name: &str) -> Result<Policy, String> {
    parse(&space.text(values), name).map_err(|e| e.to_string())
}

/// What a policy does with these cases.
pub fn rows(policy: &Policy, cases: &[&Case], task: &Task<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> = cases.par_iter().filter_map(|case| row(policy, case, task.goal)).collect();
    wait::add(&mut rows, task.seats, task.goal);
    rows
}

fn row(policy: &Policy, case: &Case, goal: Goal) -> Option<Row> {
    let decision = policy.decide(&case.signals);
    // A query that no backend may answer stays unanswered: wrong, and free.
    let nothing = Known { quality: 0.0, joules: 0.0, usd: 0.0, grams: 0.0, seconds: 0.0 };
    let first = decision.chosen.and_then(|i| case.answers.get(i)).copied().unwrap_or(nothing);
    let mut chosen = first;
    let place = decision.chosen.and_then(|i| case.signals.candidates.get(i)).map(|c| c.place);
    let escalated = distrusts(&decision, &case.signals, case.evidence.filter(|_| decision.chosen == Some(0)));
    if let Some(strong) = decision.cascade.as_ref().filter(|_| escalated).and_then(|c| case.answers.get(c.strong)) {
        chosen = chosen.then(strong);
    }
    Some(Row {
        objective: goal.of(&chosen),
        quality: chosen.quality,
        strong: case.answers.get(case.strong)?.quality,
        seconds: chosen.seconds,
        local: place == Some(Place::Local) && !escalated,
        arrival_s: case.arrival_s,
        work: if place == Some(Place::Local) { first.seconds } else { 0.0 },
    })
}

fn scored(task: &Task<'_>, space: &Space, cases: &[&Case], values: &[f64]) -> Score {
    let unusable = Score { objective: f64::NAN, shortfall: 0.0 };
    let Ok(policy) = policy(space, values, task.file) else { return unusable };
    let rows = rows(&policy, cases, task);
    let probes = if broken(&policy, task).is_some() { BROKEN } else { 0.0 };
    judge::sums(&rows, &task.limits).map_or(unusable, |sums| Score {
        objective: sums.objective.unwrap_or(f64::NAN),
        shortfall: task.limits.shortfall(&sums, DISTANCE) + probes,
    })
}

/// The first probe that a policy no longer keeps.
fn broken(policy: &Policy, task: &Task<'_>) -> Option<String> {
    run_probes(policy, task.classify).into_iter().find(|probe| !probe.ok).map(|probe| probe.text)
}
