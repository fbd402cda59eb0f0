//! The retry budget: how many extra attempts fall-backs may add. Pure; time comes in as an argument.
//!
//! Invariant: over any stretch, extra attempts are at most 20 % of requests plus three a second.

use crate::clock::Instant;

/// Extra attempts per request.
const SHARE: f64 = 0.2;
/// Extra attempts per second that are always there, so that a quiet service may still fall back.
const FLOOR_PER_S: f64 = 3.0;
/// Unused share is kept for at most this many attempts.
const MAX_SAVED: f64 = 50.0;

/// One process's budget.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    floor: f64,
    filled: Instant,
}

impl Budget {
    /// A budget with its floor full.
    pub fn new(now: Instant) -> Self {
        Self { share: 0.0, floor: FLOOR_PER_S, filled: now }
    }

    /// Counts one request from a client.
    pub fn request(&mut self) {
        self.share = (self.share + SHARE).min(MAX_SAVED);
    }

    /// Takes one extra attempt; `false` when the budget is spent.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.floor = (self.floor + elapsed * FLOOR_PER_S).min(FLOOR_PER_S);
        self.filled = self.filled.max(now);
        // Summing 0.2 five times may end a hair under 1.
        let whole = 1.0 - 1e-9;
        if self.share >= whole {
            self.share -= 1.0;
        } else if self.floor >= whole {
            self.floor -= 1.0;
        } else {
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::now;

    #[test]
    fn a_failing_upstream_costs_at_most_a_fifth_more() {
        let start = now();
        let mut budget = Budget::new(start);
        let mut extra = 0;
        for i in 0..2000_u32 {
            budget.request();
            let at = start + Duration::from_millis(5) * i;
            extra += u32::from(budget.take(at));
        }
        // 2,000 requests in 10 s: 400 from the share, 3 x 10 + 3 from the floor.
        assert!((400..=434).contains(&extra), "{extra}");
    }

    #[test]
    fn a_quiet_service_has_its_floor() {
        let start = now();
        let mut budget = Budget::new(start);
        budget.request();
        assert!((0..3).all(|_| budget.take(start)));
        assert!(!budget.take(start));
        assert!(budget.take(start + Duration::from_secs(1)));
    }
}
