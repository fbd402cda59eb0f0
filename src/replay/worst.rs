//! The worst mistakes of a policy, by key.

use serde::{Deserialize, Serialize};

/// Worst mistakes kept.
pub const WORST: usize = 20;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// The query's key.
    pub id: Box<str>,
    /// Its line in the log.
    pub line: u64,
    /// Its domain.
    pub domain: Box<str>,
    /// How bad: for a false local, how sure the policy could be that the weak model suffices (its P(correct) minus the strong
    /// one's); for a false cloud, joules that staying local would have saved (else the same difference).
    pub badness: f64,
    /// P(correct) of both sides as predicted.
    pub p_weak: f64,
    /// Of the strong one.
    pub p_strong: f64,
}

/// The worst few.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Worst {
    rows: Vec<Mistake>,
}

impl Worst {
    /// Whether a mistake of this badness would be kept.
    pub fn takes(&self, badness: f64) -> bool {
        self.rows.len() < WORST || self.rows.last().is_some_and(|m| badness >= m.badness)
    }

    /// Takes one.
    pub fn add(&mut self, mistake: Mistake) {
        let after =
            |m: &Mistake| m.badness.total_cmp(&mistake.badness).reverse().then_with(|| m.line.cmp(&mistake.line));
        let at = self.rows.partition_point(|m| after(m).is_lt());
        self.rows.insert(at, mistake);
        self.rows.truncate(WORST);
    }

    /// Takes all of another.
    pub fn merge(&mut self, other: &Self) {
        for m in &other.rows {
            if self.takes(m.badness) {
                self.add(m.clone());
            }
        }
    }

    /// Worst first.
    pub fn rows(&self) -> &[Mistake] {
        &self.rows
    }
}
