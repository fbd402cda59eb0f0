//! The circuit breaker of one backend: pure state, time and chance come in as arguments.
//!
//! Invariant: it opens only on the backend's own failures, never on a client's fault, a 4xx, a 429 or a hang-up. While
//! it is open exactly one real request at a time is let through as a probe, after a penalty that grows with jitter.

use std::time::Duration;

use crate::clock::Instant;

/// Failures in a row that open it. Low enough to open within a second at a few requests per second.
pub const FAILURES_TO_OPEN: u32 = 5;
/// Wait before the first probe.
const FIRST_PENALTY: Duration = Duration::from_millis(500);
/// Longest wait between probes before jitter: with jitter a healed backend is back within 5 s.
const MAX_PENALTY: Duration = Duration::from_secs(4);

/// State of one backend's breaker.
#[derive(Debug, Default)]
pub struct Breaker {
    state: State,
}

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Every request.
    Closed,
    /// None.
    Open,
    /// One probe: it is under way, or the next request is it.
    HalfOpen,
}

#[derive(Debug)]
enum State {
    /// Requests pass; failures in a row so far.
    Closed(u32),
    /// Requests are refused until `until`, then one probe passes.
    Open { until: Instant, penalty: Duration },
    /// A probe is under way.
    Probing { penalty: Duration },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed(0)
    }
}

impl Breaker {
    /// Whether a request would pass now; changes nothing.
    pub fn ready(&self, now: Instant) -> bool {
        match self.state {
            State::Closed(_) => true,
            State::Open { until, .. } => now >= until,
            State::Probing { .. } => false,
        }
    }

    /// For the gauge; changes nothing.
    pub fn phase(&self, now: Instant) -> Phase {
        match self.state {
            State::Closed(_) => Phase::Closed,
            State::Open { until, .. } if now < until => Phase::Open,
            State::Open { .. } | State::Probing { .. } => Phase::HalfOpen,
        }
    }

    /// Takes the right to send one request; `false` while open. Every `true` is followed by one of
    /// [`succeeded`](Self::succeeded), [`failed`](Self::failed) or [`unknown`](Self::unknown).
    pub fn allows(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed(_) => true,
            State::Open { until, penalty } if now >= until => {
                self.state = State::Probing { penalty };
                true
            }
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// The backend answered well.
    pub fn succeeded(&mut self) {
        match self.state {
            State::Closed(_) | State::Probing { .. } => self.state = State::Closed(0),
            // An answer that began before the breaker opened says nothing about now.
            State::Open { .. } => {}
        }
    }

    /// The backend answered that the request, not the backend, is at fault: alive, but no proof of health.
    pub fn refused(&mut self) {
        if matches!(self.state, State::Probing { .. }) {
            self.state = State::Closed(0);
        }
    }

    /// The backend failed. `draw` in [0, 1) spreads the probes of many processes.
    pub fn failed(&mut self, now: Instant, draw: f64) {
        match self.state {
            State::Closed(before) if before + 1 < FAILURES_TO_OPEN => self.state = State::Closed(before + 1),
            State::Closed(_) => self.open(now, FIRST_PENALTY, draw),
            State::Probing { penalty } => self.open(now, (penalty * 2).min(MAX_PENALTY), draw),
            State::Open { .. } => {}
        }
    }

    /// The client went away before the backend could show how it is: a probe's place is free again.
    pub fn unknown(&mut self, now: Instant) {
        if let State::Probing { penalty } = self.state {
            self.state = State::Open { until: now, penalty };
        }
    }

    fn open(&mut self, now: Instant, penalty: Duration, draw: f64) {
        let spread = 0.75 + 0.5 * draw.clamp(0.0, 1.0);
        self.state = State::Open { until: now + penalty.mul_f64(spread), penalty };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    fn opened(at: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_TO_OPEN {
            assert!(breaker.allows(at));
            breaker.failed(at, 0.5);
        }
        breaker
    }

    #[test]
    fn opens_after_five_failures_in_a_row() {
        let at = now();
        let breaker = opened(at);
        assert!(!breaker.ready(at));
        assert!(breaker.ready(at + FIRST_PENALTY));
    }

    #[test]
    fn a_success_between_keeps_it_closed() {
        let at = now();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            for _ in 0..FAILURES_TO_OPEN - 1 {
                breaker.failed(at, 0.0);
            }
            breaker.succeeded();
        }
        assert!(breaker.ready(at));
    }

    #[test]
    fn refusals_neither_open_nor_reset() {
        let at = now();
        let mut breaker = Breaker::default();
        for _ in 0..1000 {
            breaker.refused();
        }
        assert!(breaker.ready(at));
        for _ in 0..FAILURES_TO_OPEN {
            breaker.refused();
            breaker.failed(at, 0.0);
        }
        assert!(!breaker.ready(at));
    }

    #[test]
    fn one_probe_at_a_time_and_a_growing_penalty() {
        let mut at = now();
        let mut breaker = opened(at);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let opened_at = at;
            while !breaker.allows(at) {
                at += Duration::from_millis(10);
            }
            waits.push(at - opened_at);
            assert!(!breaker.allows(at), "a second probe must wait");
            breaker.failed(at, 0.5);
        }
        assert!(waits.windows(2).all(|w| w[1] >= w[0]), "{waits:?}");
        assert!(waits.iter().all(|w| *w <= Duration::from_secs(5)), "{waits:?}");
    }

    #[test]
    fn a_good_probe_closes_and_a_lost_probe_frees_its_place() {
        let at = now();
        let later = at + Duration::from_secs(1);
        let mut breaker = opened(at);
        assert!(breaker.allows(later));
        breaker.unknown(later);
        assert!(breaker.allows(later));
        breaker.succeeded();
        assert!(breaker.allows(later) && breaker.allows(later));
    }

    #[test]
    fn the_longest_penalty_with_jitter_is_five_seconds() {
        let mut at = now();
        let mut breaker = opened(at);
        for _ in 0..10 {
            at += Duration::from_secs(6);
            assert!(breaker.allows(at));
            breaker.failed(at, 1.0);
        }
        assert!(breaker.ready(at + Duration::from_secs(5)));
    }
}
