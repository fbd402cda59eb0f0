//! [`simulate`]: a batch of logged queries through every policy at once. Pure.

use std::sync::Arc;

use super::case::Case;
use super::cost::{Cost, Tariff};
use super::decide::{Known, decide};
use super::partial::{GROUPS, Partial, Parting, Route, Slice, Tally};
use super::predictions::{Expected, Predictions};
use super::sketch::Bin;
use super::worst::{Mistake, WORST};
use crate::classify::domain::Domain;
use crate::policy::Policy;

/// Routes before the policies: everything to the strong model, everything to the weak one, an oracle, and a domain rule.
pub const REFERENCES: usize = 4;
/// Everything that a simulation needs beside the queries.
pub struct Setup {
    /// The policies, at most 64.
    pub policies: Vec<Arc<Policy>>,
    /// Who predicts.
    pub predictions: Predictions,
    /// What a local answer costs.
    pub local: Tariff,
    /// What a cloud answer costs.
    pub cloud: Tariff,
    /// Name of the weak backend, `local/NAME`.
    pub weak: Arc<str>,
    /// Name of the strong backend, `cloud/NAME`.
    pub strong: Arc<str>,
    /// What a full grade is; 1 where labels are right and wrong.
    pub scale: f64,
    /// Seed of draws.
    pub seed: u64,
    /// Indices of two policies to be compared query by query.
    pub diff: Option<(usize, usize)>,
    /// Domain of the taxonomy for each domain of the log.
    pub taxonomy: Vec<Domain>,
    /// Decisions on queries that look the same, to be used again.
    pub known: Known,
}

/// One query's decisions: bit i is set where policy i keeps it local.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept(pub u64);

impl Kept {
    /// Whether a policy keeps the query.
    pub fn by(self, policy: usize) -> bool {
        self.0 >> policy & 1 == 1
    }
}

/// Decides and counts a batch. With it come the decisions, in the order of the queries; none where a label is missing.
pub fn simulate(setup: &Setup, cases: &[Case]) -> (Partial, Vec<Option<Kept>>) {
    let mut partial = Partial::new(REFERENCES + setup.policies.len(), setup.diff.is_some());
    let mut decided = Vec::with_capacity(cases.len());
    for case in cases {
        let (Some(weak), Some(strong)) = (case.weak.ok, case.strong.ok) else {
            partial.unlabelled += 1.0;
            decided.push(None);
            continue;
        };
        let grade = |x: f64| (x / setup.scale).clamp(0.0, 1.0);
        let seen = Seen::of(setup, case, grade(weak), grade(strong));
        let kept = decide(setup, case, &seen.expected);
        partial.n += 1.0;
        count(setup, &mut partial, &seen, kept);
        decided.push(Some(kept));
    }
    (partial, decided)
}

/// A query with everything that is counted of it.
struct Seen<'a> {
    case: &'a Case,
    weak: f64,
    strong: f64,
    expected: Expected,
    local: Cost,
    cloud: Cost,
}

impl<'a> Seen<'a> {
    fn of(setup: &Setup, case: &'a Case, weak: f64, strong: f64) -> Self {
        let (w, s) = (case.weak, case.strong);
        Self {
            case,
            weak,
            strong,
            expected: setup.predictions.of(case),
            local: setup.local.cost(case.input_tokens, w.output_tokens, w.usd, w.seconds),
            cloud: setup.cloud.cost(case.input_tokens, s.output_tokens, s.usd, s.seconds),
        }
    }

    /// What one route's choice adds to its sums.
    fn tally(&self, local: bool) -> Tally {
        let (w, s) = (self.weak, self.strong);
        let mut t = Tally { n: 1.0, right: if local { w } else { s }, ..Tally::default() };
        t.local = f64::from(u8::from(local));
        if let Some((l, c)) = self.local.joules.zip(self.cloud.joules) {
            t.energy_n = 1.0;
            if local {
                let ([l0, l1, l2], [c0, c1, c2]) = (l, c);
                t.local_joules = l;
                // The two ends err on their own: least saved is the cheapest cloud against the dearest local answer.
                t.saved = [c0 - l2, c1 - l1, c2 - l0];
                t.wasted = l1 * (1.0 - w);
            } else {
                t.cloud_joules = c;
                t.cloud_input = self.case.input_tokens;
                t.cloud_output = self.case.strong.output_tokens.unwrap_or(0.0);
            }
        }
        if let Some((l, c)) = self.local.usd.zip(self.cloud.usd) {
            (t.usd_n, t.usd) = (1.0, if local { l } else { c });
        }
        let cell = match (local, w < s, w > 0.0) {
            (true, true, _) => &mut t.false_local,
            (true, false, true) => &mut t.true_local,
            (true, false, false) => &mut t.vain_local,
            (false, true, _) => &mut t.true_cloud,
            (false, false, true) => &mut t.false_cloud,
            (false, false, false) => &mut t.vain_cloud,
        };
        *cell = 1.0;
        t
    }

    fn mistake(&self, badness: f64) -> Mistake {
        Mistake {
            id: self.case.id.clone(),
            line: self.case.line,
            domain: self.case.domain.clone(),
            badness,
            p_weak: self.expected.weak.mean,
            p_strong: self.expected.strong.mean,
        }
    }
}

fn count(setup: &Setup, partial: &mut Partial, seen: &Seen<'_>, kept: Kept) {
    let tallies = [seen.tally(false), seen.tally(true)];
    let [away, home] = &tallies;
    let group = (seen.case.stem >> 32) as usize % GROUPS;
    let oracle = seen.weak >= seen.strong;
    let below = setup.predictions.domain_keeps(seen.case);
    let policies = (0..setup.policies.len()).map(|i| kept.by(i));
    for (route, local) in partial.routes.iter_mut().zip([false, true, oracle, below].into_iter().chain(policies)) {
        let tally = if local { home } else { away };
        if let Some(domain) = route.domain(seen.case.domain_index) {
            domain.add(tally);
        }
        if let Some(slice) = route.groups.get_mut(group) {
            slice.add(&slice_of(tally), 1.0);
        }
        if let Some(seconds) = if local { seen.local.seconds } else { seen.cloud.seconds } {
            route.service.add(seconds);
        }
        mistakes(route, seen, tally);
    }
    // Each fold was predicted from the others, whose means lie on the other side of its own: scores are told from their fold's
    // mean, or the order of a log with one domain would be worse than a coin for no reason.
    let mean = setup.predictions.mean(seen.case);
    let (w, s) = (seen.expected.weak.mean - mean.weak.mean, seen.expected.strong.mean - mean.strong.mean);
    let joules = seen.local.joules.zip(seen.cloud.joules);
    let one = Bin {
        n: 1.0,
        weak: seen.weak,
        strong: seen.strong,
        weak_joules: joules.map_or(0.0, |([_, j, _], _)| j),
        strong_joules: joules.map_or(0.0, |(_, [_, j, _])| j),
    };
    for (curve, score) in partial.curves.iter_mut().zip([s - w, -w, seen.strong - seen.weak]) {
        curve.add(score, &one);
    }
    if let (Some((a, b)), Some(parting)) = (setup.diff, &mut partial.parting) {
        part(parting, seen.case, [kept.by(a), kept.by(b)], &tallies);
    }
}

fn slice_of(t: &Tally) -> Slice {
    let [_, local, _] = t.local_joules;
    let [_, cloud, _] = t.cloud_joules;
    let [_, saved, _] = t.saved;
    Slice { n: 1.0, local: t.local, right: t.right, joules: local + cloud, saved, usd: t.usd }
}

fn mistakes(route: &mut Route, seen: &Seen<'_>, tally: &Tally) {
    let sure = seen.expected.weak.mean - seen.expected.strong.mean;
    if tally.false_local > 0.0 && route.false_local.takes(sure) {
        route.false_local.add(seen.mistake(sure));
    }
    if tally.false_cloud > 0.0 {
        let lost = seen.local.joules.zip(seen.cloud.joules).map(|([_, l, _], [_, c, _])| c - l);
        let badness = lost.unwrap_or(sure);
        if route.false_cloud.takes(badness) {
            route.false_cloud.add(seen.mistake(badness));
        }
    }
}

fn part(parting: &mut Parting, case: &Case, kept: [bool; 2], [away, home]: &[Tally; 2]) {
    let side = match kept {
        [true, true] => {
            parting.both_local += 1.0;
            return;
        }
        [false, false] => {
            parting.both_cloud += 1.0;
            return;
        }
        [true, false] => {
            parting.first_local.iter_mut().zip([home, away]).for_each(|(sum, t)| sum.add(t));
            true
        }
        [false, true] => {
            parting.second_local.iter_mut().zip([away, home]).for_each(|(sum, t)| sum.add(t));
            false
        }
    };
    if parting.examples.len() < WORST {
        parting.examples.push((case.id.clone(), case.line, side));
    }
}
