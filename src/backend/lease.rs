//! A place at a backend: the in-flight permit and the duty to tell the breaker how it went.
//!
//! Invariant: dropping a lease gives the permit back; a lease dropped without a report was a hang-up and counts neither
//! for nor against the backend.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::breaker::{Breaker, Phase};
use crate::clock::{self, Instant};
use crate::fault::{Blame, Fault, Kind};

/// Room and health of one backend, shared by all workers.
#[derive(Debug)]
pub struct Room {
    limit: usize,
    taken: AtomicUsize,
    breaker: Mutex<Breaker>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// All permits are out.
    Full,
    /// The breaker is open.
    Unhealthy,
}

/// How an answer went, for the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Complete.
    Good,
    /// The upstream refused this request (4xx, 429).
    Refused,
    /// The upstream failed.
    Failed,
}

/// One request's place. Hold it to the last byte.
pub struct Lease {
    room: Arc<Room>,
    reported: bool,
}

impl Room {
    /// Room for `limit` requests in flight; more are refused at once, nothing waits.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0), breaker: Mutex::default() })
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// Whether a request would get a place now; takes none.
    pub fn state(&self, now: Instant) -> Option<Closed> {
        if !self.breaker().ready(now) {
            return Some(Closed::Unhealthy);
        }
        (self.in_flight() >= self.limit).then_some(Closed::Full)
    }

    /// For the gauge: what the breaker lets through now.
    pub fn phase(&self, now: Instant) -> Phase {
        self.breaker().phase(now)
    }

    /// Takes a place.
    pub fn enter(self: &Arc<Self>, now: Instant) -> Result<Lease, Closed> {
        let free = |taken| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).map_err(|_| Closed::Full)?;
        if !self.breaker().allows(now) {
            self.taken.fetch_sub(1, Ordering::AcqRel);
            return Err(Closed::Unhealthy);
        }
        Ok(Lease { room: Arc::clone(self), reported: false })
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Tells the breaker, once; later reports are ignored. The permit stays taken until the lease is dropped.
    pub fn report(&mut self, report: Report) {
        if self.reported {
            return;
        }
        self.reported = true;
        let mut breaker = self.room.breaker();
        match report {
            Report::Good => breaker.succeeded(),
            Report::Refused => breaker.refused(),
            Report::Failed => breaker.failed(clock::now(), fastrand::f64()),
        }
    }

    /// What a fault says about the backend; nothing when it is not the backend's.
    pub fn fault(&mut self, fault: &Fault) {
        if fault.blame() == Blame::Upstream || fault.kind == Kind::Engine {
            self.report(Report::Failed);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.reported {
            self.room.breaker().unknown(clock::now());
        }
        self.room.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("reported", &self.reported).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_and_come_back() {
        let room = Room::new(2);
        let now = clock::now();
        let first = room.enter(now).unwrap();
        let _second = room.enter(now).unwrap();
        assert_eq!(room.enter(now).unwrap_err(), Closed::Full);
        assert_eq!(room.state(now), Some(Closed::Full));
        drop(first);
        assert_eq!(room.in_flight(), 1);
        assert!(room.enter(now).is_ok());
    }

    #[test]
    fn five_failures_close_the_room_and_the_clients_faults_do_not() {
        let room = Room::new(10);
        let now = clock::now();
        for _ in 0..50 {
            room.enter(now).unwrap().fault(&Fault::new(Kind::BadRequest, "no"));
            room.enter(now).unwrap().report(Report::Refused);
        }
        assert_eq!(room.state(now), None);
        for _ in 0..5 {
            room.enter(now).unwrap().fault(&Fault::new(Kind::UpstreamCut, "cut"));
        }
        assert_eq!(room.enter(now).unwrap_err(), Closed::Unhealthy);
        assert_eq!(room.in_flight(), 0);
        assert_eq!(room.phase(now), Phase::Open);
        // Rested: the next request is a probe, and while it is under way the state stays what it is.
        let later = now + std::time::Duration::from_secs(5);
        assert_eq!(room.phase(later), Phase::HalfOpen);
        let mut probe = room.enter(later).unwrap();
        assert_eq!(room.phase(later), Phase::HalfOpen);
        probe.report(Report::Good);
        assert_eq!(room.phase(later), Phase::Closed);
    }
}
