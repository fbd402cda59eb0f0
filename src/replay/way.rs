//! Who is asked about a logged query: one side, or one after the other. Pure.

use serde::{Deserialize, Serialize};

/// One query's decisions, a bit for each policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The local side is asked first.
    pub local: u64,
    /// Its answer is not trusted, and the cloud is asked after it.
    pub escalated: u64,
}

impl Kept {
    /// Who answers.
    pub fn by(self, policy: usize) -> Way {
        match (self.local >> policy & 1, self.escalated >> policy & 1) {
            (0, _) => Way::Away,
            (_, 0) => Way::Home,
            _ => Way::Both,
        }
    }
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The cloud.
    Away,
    /// The local side.
    Home,
    /// The local side, whose answer is thrown away, then the cloud.
    Both,
}

impl Way {
    /// One of two.
    pub fn of(local: bool) -> Self {
        if local { Self::Home } else { Self::Away }
    }
}
