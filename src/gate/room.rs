//! A bounded number of seats: taken or refused, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fault::{Fault, Kind};

/// When a shed caller may come back: about the time a short answer takes to free a seat.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Seats.
#[derive(Debug)]
pub struct Room {
    taken: AtomicUsize,
    seats: usize,
}

/// One that is taken, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Room>);

impl Room {
    /// Empty.
    pub fn new(seats: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), seats })
    }

    /// Takes a seat, or refuses with this message.
    pub fn take(self: &Arc<Self>, full: &str) -> Result<Place, Fault> {
        let one_more = |taken: usize| (taken < self.seats).then_some(taken + 1);
        match self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Place(self.clone())),
            Err(_) => Err(Fault::new(Kind::Overloaded, full).retry_after(RETRY_AFTER)),
        }
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether the next one would be refused.
    pub fn is_full(&self) -> bool {
        self.taken() >= self.seats
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}
