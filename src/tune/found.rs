//! What a search found, and whether to take it.

use std::fmt;

use serde::Serialize;

use super::Goal;
use super::judge::{Interval, Limits, Sums};

/// What a key is set to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Setting {
    /// A number.
    Number(f64),
    /// Backends, the first one first.
    Order(Vec<String>),
    /// Nothing: the rule decides.
    Unset,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(x) => write!(f, "{x}"),
            Self::Order(names) => f.write_str(&names.join(" > ")),
            Self::Unset => f.write_str("none"),
        }
    }
}

/// A value that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Its key.
    pub key: String,
    /// As it was, or what counted where the file said nothing.
    pub old: Setting,
    /// As it is now.
    pub new: Setting,
}

/// One set of cases under both policies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Both {
    /// The policy as it was.
    pub old: Sums,
    /// The one that was found.
    pub new: Sums,
}

/// A point that nothing tried is better than in both regards.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// What the keys that were searched are set to, in their order.
    pub values: Vec<Setting>,
    /// On the cases that were searched.
    pub training: Sums,
    /// On those that were not.
    pub held_out: Sums,
}

/// Whether to take what was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// Better where it was not searched, beyond noise, and within its limits.
    Better,
    /// Not to be taken, and why.
    Refused(String),
}

/// The outcome of a search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// What differs from the old file.
    pub changes: Vec<Change>,
    /// The point that was found, as [`super::space::Space::text`] takes it.
    #[serde(skip)]
    pub values: Vec<f64>,
    /// What was minimised.
    pub goal: Goal,
    /// What had to hold.
    pub limits: Limits,
    /// Policies tried.
    pub tried: usize,
    /// Seconds hold the wait at the local device: the log tells when queries arrived, or arrivals were made up.
    pub waits: bool,
    /// On the cases that were searched.
    pub training: Both,
    /// On those that were not.
    pub held_out: Both,
    /// Share of the objective saved on the held-out cases.
    pub saved: Option<Interval>,
    /// Accuracy as a share of always-strong's, on the held-out cases.
    pub kept: Option<Interval>,
    /// Objective against accuracy.
    pub front: Vec<Point>,
    /// Whether to take it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Found {
    /// Whether to take it; `broken` is the first probe of the file that the new policy fails.
    pub fn judged(&self, broken: Option<String>) -> Verdict {
        let refused = |why: String| Verdict::Refused(why);
        if self.changes.is_empty() {
            return refused("the policy as it is was the best of all that were tried".to_owned());
        }
        if let Some(why) = broken {
            return refused(format!("every policy that keeps the limits fails a probe of the file: {why}"));
        }
        let missed = self.limits.shortfall(&self.held_out.new, 0.0);
        let near = self.limits.shortfall(&self.held_out.new, -2.0);
        if missed > 0.0 && near > 0.0 {
            return refused("it misses its limits on the queries that were held out, beyond noise".to_owned());
        }
        // An old policy that misses the limits is no measure of a gain: what counts is that the new one keeps them.
        let old_misses = self.limits.shortfall(&self.held_out.old, -2.0) > 0.0;
        match self.saved {
            _ if old_misses => Verdict::Better,
            None => refused("what is saved is not known on the queries that were held out".to_owned()),
            Some(saved) if saved.low <= 0.0 => refused(format!(
                "the gain is within noise on the queries that were held out: {:.1} % ({:.1} to {:.1})",
                100.0 * saved.value,
                100.0 * saved.low,
                100.0 * saved.high
            )),
            Some(_) => Verdict::Better,
        }
    }
}
