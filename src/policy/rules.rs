//! A policy as code uses it. `file` makes one from TOML.

use std::sync::Arc;

use super::bandit::Bandit;
use super::cascade::Verify;
use super::explore::Explore;
use super::probe::{Probe, StandIn};
use super::sticky::Sticky;
use super::types::{Candidate, Place};
use crate::classify::domain::{DOMAINS, Domain};

/// One policy. Immutable; a pure function of signals through [`Policy::decide`].
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name: letters, digits, `-` and `_`.
    pub name: Arc<str>,
    /// BLAKE3 of the file's bytes, first 16 hex digits.
    pub hash: Arc<str>,
    /// What it is for, one sentence.
    pub about: String,
    /// How it chooses.
    pub rule: Rule,
    /// Least P(correct) of each domain, whatever the rule is; 0 is none.
    pub floors: [f64; DOMAINS],
    /// No query under this policy leaves the machine.
    pub private: bool,
    /// Where to answer when figures that would decide are unknown.
    pub prefer: Place,
    /// Of the backends that are good enough, these come first, in this order, whatever the others cost: names of backends, with or
    /// without their place, or a place for all of it. Empty leaves it to the rule.
    pub order: Vec<Arc<str>>,
    /// Who may answer after the chosen backend failed before its first byte.
    pub fallback: Fallback,
    /// Decisions that are drawn, to learn what other backends are worth; none by default.
    pub explore: Explore,
    /// Whether judged answers correct P(correct); none by default.
    pub bandit: Option<Bandit>,
    /// US dollars per kWh: what a local answer costs when no price is set.
    pub electricity_usd_per_kwh: f64,
    /// Grams of CO2 equivalent per kWh where local and cloud backends run.
    pub grid_g_per_kwh: Grid,
    /// How local answers are checked before they are sent; none sends them as they come.
    pub verify: Option<Arc<Verify>>,
    /// Whether conversations stay where they were answered last; none decides each query by itself.
    pub sticky: Option<Sticky>,
    /// Backends that the probes choose among.
    pub stand_ins: Vec<StandIn>,
    /// Prompts with the place they must go to.
    pub probes: Vec<Probe>,
}

impl Policy {
    /// Least P(correct) that a domain asks for.
    pub fn floor(&self, domain: Domain) -> f64 {
        self.floors.get(domain.index()).copied().unwrap_or(0.0)
    }

    /// The place of a backend in the order that the file gives; those it does not name come after all others.
    pub fn turn(&self, candidate: &Candidate) -> usize {
        if self.order.is_empty() {
            return 0;
        }
        let (whole, place) = (&*candidate.backend, candidate.place.name());
        let name = whole.split_once('/').map_or(whole, |(_, name)| name);
        self.order.iter().position(|o| [whole, name, place].contains(&&**o)).unwrap_or(self.order.len())
    }
}

/// How a policy chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Every query stays local, at the backend most likely to be right.
    AllLocal,
    /// Every query goes to the cloud backend most likely to be right; local only while no cloud backend can answer.
    AllCloud,
    /// Local if the best local coverage of the query's domain reaches the threshold, else cloud (arXiv 2511.07885).
    CoverageThreshold(f64),
    /// The least of something among the backends that are good enough.
    Objective {
        /// Of what.
        minimise: Minimise,
        /// How much less than the best cloud backend's P(correct) is good enough.
        max_quality_loss: f64,
    },
}

/// What an objective minimises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Minimise {
    /// Joules.
    Energy,
    /// US dollars.
    Cost,
    /// Grams of CO2 equivalent.
    Carbon,
    /// Seconds to the last token.
    Latency,
    /// The chance of a wrong answer.
    Errors,
    /// A weighted sum.
    Sum(Weights),
}

/// Weights of a sum: what one unit of each is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weights {
    /// Of 1 kJ.
    pub energy: f64,
    /// Of 1 US dollar.
    pub cost: f64,
    /// Of 1 g CO2e.
    pub carbon: f64,
    /// Of 1 s.
    pub latency: f64,
    /// Of a certainly wrong answer.
    pub errors: f64,
}

/// Who may answer after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Any eligible backend.
    Any,
    /// Only backends at the place of the chosen one.
    SamePlace,
    /// Nobody.
    Never,
}

/// Carbon intensity by place, g CO2e per kWh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Where local backends run.
    pub local: f64,
    /// Where cloud backends run.
    pub cloud: f64,
}
