//! [`simulate`]: a batch of logged queries through every policy at once. Pure.

use std::sync::Arc;

use super::case::Case;
use super::cost::{Cost, Tariff};
use super::decide::{Known, decide};
use super::offpolicy::Scored;
use super::partial::{GROUPS, Partial, Parting, Route, Slice, Tally};
use super::predictions::{Expected, Predictions};
use super::sketch::Bin;
use super::way::{Kept, Way};
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
        partial.evidence += f64::from(u8::from(case.evidence.is_some()));
        off_policy(&mut partial, case, kept);
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
    fn tally(&self, way: Way) -> Tally {
        let (w, s) = (self.weak, self.strong);
        let local = way == Way::Home;
        let mut t = Tally { n: 1.0, right: if local { w } else { s }, ..Tally::default() };
        t.local = f64::from(u8::from(local));
        t.attempts = f64::from(u8::from(way == Way::Both));
        if let Some((l, c)) = self.local.joules.zip(self.cloud.joules) {
            self.spent(&mut t, way, (l, c));
        }
        if let Some((l, c)) = self.local.usd.zip(self.cloud.usd) {
            let spent = match way {
                Way::Home => l,
                Way::Away => c,
                Way::Both => l + c,
            };
            (t.usd_n, t.usd) = (1.0, spent);
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

    /// Joules of local and cloud answers, low, mid and high.
    fn spent(&self, t: &mut Tally, way: Way, (l, c): ([f64; 3], [f64; 3])) {
        let ([l0, l1, l2], [c0, c1, c2]) = (l, c);
        t.energy_n = 1.0;
        if way != Way::Away {
            t.local_joules = l;
        }
        if way != Way::Home {
            t.cloud_joules = c;
            t.cloud_input = self.case.input_tokens;
            t.cloud_output = self.case.strong.output_tokens.unwrap_or(0.0);
        }
        match way {
            Way::Away => {}
            Way::Home => {
                // The two ends err on their own: least saved is the cheapest cloud against the dearest local answer.
                t.saved = [c0 - l2, c1 - l1, c2 - l0];
                t.wasted = l1 * (1.0 - self.weak);
            }
            Way::Both => {
                t.saved = [-l2, -l1, -l0];
                t.attempt_joules = l1;
            }
        }
    }

    /// Seconds of service under a route.
    fn seconds(&self, way: Way) -> Option<f64> {
        match way {
            Way::Home => self.local.seconds,
            Way::Away => self.cloud.seconds,
            Way::Both => self.local.seconds.zip(self.cloud.seconds).map(|(l, c)| l + c),
        }
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
    let tallies = [Way::Away, Way::Home, Way::Both].map(|way| seen.tally(way));
    let [away, home, both] = &tallies;
    let tally_of = |way: Way| match way {
        Way::Away => away,
        Way::Home => home,
        Way::Both => both,
    };
    let group = (seen.case.stem >> 32) as usize % GROUPS;
    let oracle = seen.weak >= seen.strong;
    let below = setup.predictions.domain_keeps(seen.case);
    let policies = (0..setup.policies.len()).map(|i| kept.by(i));
    let references = [false, true, oracle, below].map(Way::of);
    for (route, way) in partial.routes.iter_mut().zip(references.into_iter().chain(policies)) {
        let tally = tally_of(way);
        if let Some(domain) = route.domain(seen.case.domain_index) {
            domain.add(tally);
        }
        if let Some(slice) = route.groups.get_mut(group) {
            slice.add(&slice_of(tally), 1.0);
        }
        if let Some(seconds) = seen.seconds(way) {
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
        part(parting, seen.case, [kept.by(a), kept.by(b)].map(|way| (way == Way::Home, tally_of(way))));
    }
}

/// What the logged choice of this query says of every policy.
fn off_policy(partial: &mut Partial, case: &Case, kept: Kept) {
    if case.logged.is_none() {
        return;
    }
    partial.rewards.add(case);
    let Some(scored) = Scored::of(case) else { return };
    for (i, route) in partial.routes.iter_mut().skip(REFERENCES).enumerate() {
        // As a log tells it: what a check made of the choice does not count.
        route.off_policy.add(&scored, kept.by(i) != Way::Away);
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

fn part(parting: &mut Parting, case: &Case, [(a, first), (b, second)]: [(bool, &Tally); 2]) {
    let side = match [a, b] {
        [true, true] => {
            parting.both_local += 1.0;
            return;
        }
        [false, false] => {
            parting.both_cloud += 1.0;
            return;
        }
        [true, false] => {
            parting.first_local.iter_mut().zip([first, second]).for_each(|(sum, t)| sum.add(t));
            true
        }
        [false, true] => {
            parting.second_local.iter_mut().zip([first, second]).for_each(|(sum, t)| sum.add(t));
            false
        }
    };
    if parting.examples.len() < WORST {
        parting.examples.push((case.id.clone(), case.line, side));
    }
}
