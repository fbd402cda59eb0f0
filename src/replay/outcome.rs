//! The result of a replay: every figure that the terminal, `--json` and a page show.
//!
//! Keys are stable. Joules and dollars are sums over the queries of which both sides' figures are known (`energy_n`, `usd_n`);
//! accuracy is the mean grade where labels are grades.

use serde::{Deserialize, Serialize};

use super::figures::Point;
use super::front::{Diff, ParetoPoint};
use super::offpolicy::estimate::{Estimate, OffPolicy};
use super::queue::Load;
use super::sketch::Spread;
use super::worst::Mistake;

/// Low, mid and high; null where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Three {
    /// Lower end of the stated assumptions.
    pub low: Option<f64>,
    /// Middle.
    pub mid: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Three {
    /// Known figures.
    pub fn of([low, mid, high]: [f64; 3]) -> Self {
        Self { low: Some(low), mid: Some(mid), high: Some(high) }
    }
}

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Version of these keys; 1.
    pub schema: u32,
    /// False when the run was stopped before the log's end: all figures are of the part that was read.
    pub complete: bool,
    /// What was read.
    pub log: Log,
    /// The model that stands for the local side.
    pub weak: String,
    /// The model that stands for the cloud.
    pub strong: String,
    /// Who predicted what a policy saw.
    pub predictor: &'static str,
    /// Seed of draws and intervals.
    pub seed: u64,
    /// One per policy, named ones first, then references.
    pub policies: Vec<PolicyFigures>,
    /// What no policy of the list beats in accuracy and joules together, cheapest first.
    pub pareto: Vec<ParetoPoint>,
    /// Quality over the share of strong calls when queries go by predicted gain: at most 101 points.
    pub curve: Vec<Point>,
    /// What that order is worth.
    pub worth: super::figures::Worth,
    /// What the policy that was live earned; absent where the log has no choices of known odds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
    /// Where two policies part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<Diff>,
    /// Everything assumed, in words.
    pub assumptions: Vec<String>,
    /// What a reader must know before he quotes a figure.
    pub warnings: Vec<String>,
}

/// What the policy that was live earned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Live {
    /// Logged choices with a reward.
    pub scored: u64,
    /// Without one.
    pub unscored: u64,
    /// Share of the scored ones that were drawn: the live policy could have gone the other way.
    pub drawn: f64,
    /// Mean reward.
    pub reward: Estimate,
}

/// What was read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Log {
    /// The file.
    pub file: String,
    /// Its format.
    pub format: String,
    /// What it says it is of.
    pub dataset: String,
    /// Its licence, if stated.
    pub licence: String,
    /// Lines read.
    pub lines: u64,
    /// Queries replayed.
    pub replayed: u64,
    /// Queries left out because a side has no label.
    pub unlabelled: u64,
    /// Lines without a query, not in `lines`: a header, entries of a journal that no backend was asked about.
    pub passed_over: u64,
    /// Lines that could not be used.
    pub bad: u64,
    /// The first ten of them.
    pub first_bad: Vec<BadLine>,
    /// Queries whose key was seen before; left out and in `bad` too.
    pub duplicates: u64,
    /// Queries that arrived before an earlier line.
    pub clock_backwards: u64,
    /// Domains.
    pub domains: usize,
    /// Labels are `right or wrong` or `grades`.
    pub labels: String,
    /// Seconds that the replay took, and queries per second.
    pub seconds: f64,
}

/// A line that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadLine {
    /// Its number.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// One policy's figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PolicyFigures {
    /// Its name.
    pub name: String,
    /// A shipped or own policy, or a reference that no policy file can be (`oracle`, `random`).
    pub reference: bool,
    /// What it does.
    pub about: String,
    /// Queries.
    pub n: u64,
    /// Share answered locally.
    pub local_share: f64,
    /// Share right.
    pub accuracy: f64,
    /// Share right with everything at the strong model.
    pub accuracy_strong: f64,
    /// Share right with everything at the weak model.
    pub accuracy_weak: f64,
    /// Share right if the better one had always been chosen.
    pub accuracy_oracle: f64,
    /// Share right of a coin that keeps the same share local.
    pub accuracy_random: f64,
    /// `accuracy_oracle` minus `accuracy`.
    pub regret: f64,
    /// Share of the gap between weak and strong that is recovered; null where they are equal.
    pub gap_recovered: Option<f64>,
    /// Joules of all answers, low, mid and high.
    pub joules: Three,
    /// Joules that everything in the cloud would take, minus these.
    pub saved_joules: Three,
    /// `saved_joules.mid` over the joules of everything in the cloud.
    pub saved_share: Option<f64>,
    /// Queries behind the joules.
    pub energy_n: u64,
    /// US dollars.
    pub usd: Option<f64>,
    /// US dollars of everything in the cloud.
    pub usd_strong: Option<f64>,
    /// Queries behind the dollars.
    pub usd_n: u64,
    /// Grams of CO2e; null without both regions.
    pub gco2e: Three,
    /// Mean gap recovered by the order in which this policy would give queries to the cloud; null for a policy without one.
    pub apgr: Option<f64>,
    /// Share of strong calls for half the gap.
    pub cpt50: Option<f64>,
    /// For four fifths.
    pub cpt80: Option<f64>,
    /// Area under the hull of quality over joules; null where joules are unknown.
    pub aiq: Option<f64>,
    /// The same of a coin.
    pub aiq_coin: Option<f64>,
    /// Right and wrong decisions.
    pub confusion: Confusion,
    /// Joules spent for nothing.
    pub wasted: Wasted,
    /// Bootstrap intervals at 95 %.
    pub ci: Intervals,
    /// Seconds of service, without waiting.
    pub service_s: Option<Spread>,
    /// Waiting and load of the local device; null without arrival times.
    pub load: Option<Load>,
    /// Queries per second that the local device could take at this policy's share, all queries counted.
    pub capacity_per_s: Option<f64>,
    /// Savings under other assumptions about the cloud.
    pub savings_by_batch: Vec<Saving>,
    /// By domain of the log.
    pub by_domain: Vec<DomainFigures>,
    /// Local answers that were wrong where the cloud's was right, worst first.
    pub worst_false_local: Vec<Mistake>,
    /// Cloud answers that the weak model had right too.
    pub worst_false_cloud: Vec<Mistake>,
    /// What it would have earned by the log's own choices and rewards; null where the log has none.
    pub off_policy: Option<OffPolicy>,
}

/// Decisions by what would have been best. Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Confusion {
    /// Kept local, and the weak model was as good.
    pub true_local: u64,
    /// Kept local where the strong model does better: quality lost.
    pub false_local: u64,
    /// Kept local where both are wrong.
    pub vain_local: u64,
    /// Sent to the cloud where it does better.
    pub true_cloud: u64,
    /// Sent to the cloud where the weak model was as good: saving missed.
    pub false_cloud: u64,
    /// Sent to the cloud where both are wrong.
    pub vain_cloud: u64,
}

/// Joules spent for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Wasted {
    /// Local attempts thrown away and asked again in the cloud: none for policies that decide before they ask.
    pub attempts: u64,
    /// Their joules.
    pub attempt_joules: f64,
    /// Joules (mid) of local answers that were wrong; null where joules are unknown.
    pub wrong_local_joules: Option<f64>,
}

/// Intervals at 95 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Intervals {
    /// Of `local_share`.
    pub local_share: Option<[f64; 2]>,
    /// Of `accuracy`.
    pub accuracy: Option<[f64; 2]>,
    /// Of `accuracy` minus `accuracy_strong`, paired.
    pub accuracy_minus_strong: Option<[f64; 2]>,
    /// Of `accuracy` minus `accuracy_random`, paired: above 0 the policy knows something.
    pub accuracy_minus_random: Option<[f64; 2]>,
    /// Of `regret`, paired.
    pub regret: Option<[f64; 2]>,
    /// Of `joules.mid`.
    pub joules_mid: Option<[f64; 2]>,
    /// Of `saved_joules.mid`, paired.
    pub saved_joules_mid: Option<[f64; 2]>,
    /// Of `usd`.
    pub usd: Option<[f64; 2]>,
}

/// Savings under one batch and PUE of the cloud, at the middle of the local assumption.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Saving {
    /// Queries that the cloud's server works on at a time.
    pub batch: u32,
    /// Power usage effectiveness.
    pub pue: f64,
    /// Joules of everything in the cloud.
    pub strong_joules: f64,
    /// Joules saved; negative where the local device is the dearer.
    pub saved_joules: f64,
    /// Of `strong_joules`.
    pub saved_share: f64,
}

/// One domain's figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DomainFigures {
    /// As the log names it.
    pub domain: String,
    /// Queries.
    pub n: u64,
    /// Share answered locally.
    pub local_share: f64,
    /// Share right.
    pub accuracy: f64,
    /// Share right at the strong model.
    pub accuracy_strong: f64,
    /// Share right at the weak model.
    pub accuracy_weak: f64,
    /// Share right of the better of the two.
    pub accuracy_oracle: f64,
    /// Joules, mid; null where unknown.
    pub joules_mid: Option<f64>,
    /// Joules saved, mid.
    pub saved_joules_mid: Option<f64>,
}
