//! What a part of a log gives, ready to be added to what other parts give.
//!
//! Merging is adding counts and sums, so any split and any order gives the same counts, and the same sums to rounding.

use serde::{Deserialize, Serialize};

use super::offpolicy::{Rewards, Sums};
use super::sketch::{Curve, Sketch};
use super::worst::{WORST, Worst};

/// Groups of queries that a bootstrap draws: queries are put into them by the hash of their stem.
pub const GROUPS: usize = 512;

/// Sums over queries that a route answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Queries.
    pub n: f64,
    /// Of those, answered locally.
    pub local: f64,
    /// Right, or the sum of grades.
    pub right: f64,
    /// Queries of which the joules of both sides are known; joules below are of these.
    pub energy_n: f64,
    /// Joules of local answers, low, mid and high.
    pub local_joules: [f64; 3],
    /// Joules of cloud answers.
    pub cloud_joules: [f64; 3],
    /// Joules that the strong model would have taken, minus these.
    pub saved: [f64; 3],
    /// Joules (mid) of local answers that were wrong.
    pub wasted: f64,
    /// Local answers that were not trusted and asked again in the cloud.
    pub attempts: f64,
    /// Joules (mid) of them.
    pub attempt_joules: f64,
    /// Queries of which the dollars of both sides are known.
    pub usd_n: f64,
    /// US dollars.
    pub usd: f64,
    /// Prompt tokens of cloud answers whose joules are known.
    pub cloud_input: f64,
    /// Output tokens of them.
    pub cloud_output: f64,
    /// Kept local: weak as good as strong, and right.
    pub true_local: f64,
    /// Kept local where the strong model does better.
    pub false_local: f64,
    /// Kept local where both are wrong.
    pub vain_local: f64,
    /// Sent to the cloud where only that one is right, or better.
    pub true_cloud: f64,
    /// Sent to the cloud where the weak model is as good and right.
    pub false_cloud: f64,
    /// Sent to the cloud where both are wrong.
    pub vain_cloud: f64,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, o: &Self) {
        let three = |a: &mut [f64; 3], b: &[f64; 3]| a.iter_mut().zip(b).for_each(|(x, y)| *x += y);
        self.n += o.n;
        self.local += o.local;
        self.right += o.right;
        self.energy_n += o.energy_n;
        three(&mut self.local_joules, &o.local_joules);
        three(&mut self.cloud_joules, &o.cloud_joules);
        three(&mut self.saved, &o.saved);
        self.wasted += o.wasted;
        self.attempts += o.attempts;
        self.attempt_joules += o.attempt_joules;
        self.usd_n += o.usd_n;
        self.usd += o.usd;
        self.cloud_input += o.cloud_input;
        self.cloud_output += o.cloud_output;
        self.true_local += o.true_local;
        self.false_local += o.false_local;
        self.vain_local += o.vain_local;
        self.true_cloud += o.true_cloud;
        self.false_cloud += o.false_cloud;
        self.vain_cloud += o.vain_cloud;
    }

    /// This much of it.
    #[must_use]
    pub fn times(&self, by: f64) -> Self {
        let three = |a: [f64; 3]| a.map(|x| x * by);
        Self {
            n: self.n * by,
            local: self.local * by,
            right: self.right * by,
            energy_n: self.energy_n * by,
            local_joules: three(self.local_joules),
            cloud_joules: three(self.cloud_joules),
            saved: three(self.saved),
            wasted: self.wasted * by,
            attempts: self.attempts * by,
            attempt_joules: self.attempt_joules * by,
            usd_n: self.usd_n * by,
            usd: self.usd * by,
            cloud_input: self.cloud_input * by,
            cloud_output: self.cloud_output * by,
            true_local: self.true_local * by,
            false_local: self.false_local * by,
            vain_local: self.vain_local * by,
            true_cloud: self.true_cloud * by,
            false_cloud: self.false_cloud * by,
            vain_cloud: self.vain_cloud * by,
        }
    }
}

/// Sums of one group of queries: what a bootstrap needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Queries.
    pub n: f64,
    /// Answered locally.
    pub local: f64,
    /// Right.
    pub right: f64,
    /// Joules, mid.
    pub joules: f64,
    /// Joules saved, mid.
    pub saved: f64,
    /// US dollars.
    pub usd: f64,
}

impl Slice {
    /// Adds another, this many times.
    pub fn add(&mut self, o: &Self, times: f64) {
        self.n += o.n * times;
        self.local += o.local * times;
        self.right += o.right * times;
        self.joules += o.joules * times;
        self.saved += o.saved * times;
        self.usd += o.usd * times;
    }
}

/// What one route (a policy or a reference) made of a part of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Route {
    /// Sums by domain index.
    pub domains: Vec<Tally>,
    /// Sums by group.
    pub groups: Vec<Slice>,
    /// Seconds of service, without waiting.
    pub service: Sketch,
    /// Local answers that should have gone to the cloud.
    pub false_local: Worst,
    /// Cloud answers that the weak model had right.
    pub false_cloud: Worst,
    /// What logged choices say of it; nothing for references.
    pub off_policy: Sums,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            groups: vec![Slice::default(); GROUPS],
            service: Sketch::default(),
            false_local: Worst::default(),
            false_cloud: Worst::default(),
            off_policy: Sums::default(),
        }
    }
}

impl Route {
    /// The sums of a domain, made when first asked for.
    pub fn domain(&mut self, index: usize) -> Option<&mut Tally> {
        if self.domains.len() <= index {
            self.domains.resize(index + 1, Tally::default());
        }
        self.domains.get_mut(index)
    }

    /// Takes all of another.
    pub fn merge(&mut self, other: &Self) {
        for (index, tally) in other.domains.iter().enumerate() {
            if let Some(own) = self.domain(index) {
                own.add(tally);
            }
        }
        self.groups.iter_mut().zip(&other.groups).for_each(|(a, b)| a.add(b, 1.0));
        self.service.merge(&other.service);
        self.false_local.merge(&other.false_local);
        self.false_cloud.merge(&other.false_cloud);
        self.off_policy.merge(&other.off_policy);
    }

    /// Over all domains.
    pub fn total(&self) -> Tally {
        let mut all = Tally::default();
        self.domains.iter().for_each(|t| all.add(t));
        all
    }
}

/// Where two policies part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Parting {
    /// Queries that both keep local.
    pub both_local: f64,
    /// That both send to the cloud.
    pub both_cloud: f64,
    /// Sums of the first policy over queries that it keeps and the other sends, and the other's over the same.
    pub first_local: [Tally; 2],
    /// The same the other way round.
    pub second_local: [Tally; 2],
    /// First few queries on which they part: key, line, whether the first keeps it.
    pub examples: Vec<(Box<str>, u64, bool)>,
}

impl Parting {
    fn merge(&mut self, other: &Self) {
        self.both_local += other.both_local;
        self.both_cloud += other.both_cloud;
        self.first_local.iter_mut().zip(&other.first_local).for_each(|(a, b)| a.add(b));
        self.second_local.iter_mut().zip(&other.second_local).for_each(|(a, b)| a.add(b));
        self.examples.extend(other.examples.iter().cloned());
        self.examples.sort_by_key(|e| e.1);
        self.examples.truncate(WORST);
    }
}

/// What a part of a log gives.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Partial {
    /// Queries replayed.
    pub n: f64,
    /// Queries left out because one side has no label.
    pub unlabelled: f64,
    /// Queries whose weak answer can be checked.
    pub evidence: f64,
    /// One per route, references first.
    pub routes: Vec<Route>,
    /// Queries by predicted gain, by predicted failure of the weak model, and by the true gain.
    pub curves: [Curve; 3],
    /// Where two policies part, if asked.
    pub parting: Option<Parting>,
    /// What the live policy earned, where the log tells.
    pub rewards: Rewards,
}

impl Partial {
    /// Nothing yet, for so many routes.
    pub fn new(routes: usize, diff: bool) -> Self {
        Self {
            routes: (0..routes).map(|_| Route::default()).collect(),
            parting: diff.then(Parting::default),
            ..Self::default()
        }
    }

    /// Takes all of another.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.unlabelled += other.unlabelled;
        self.evidence += other.evidence;
        self.routes.iter_mut().zip(&other.routes).for_each(|(a, b)| a.merge(b));
        self.rewards.merge(&other.rewards);
        self.curves.iter_mut().zip(&other.curves).for_each(|(a, b)| a.merge(b));
        if let (Some(a), Some(b)) = (&mut self.parting, &other.parting) {
            a.merge(b);
        }
    }
}
