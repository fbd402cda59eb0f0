//! Where conversations were answered last, so that a policy can keep them there: a model that has read the beginning of a
//! conversation need not read it again.
//!
//! Bounded: the oldest is forgotten when [`MOST`] are known. Holds hashes and backends' names, no text. Time comes in.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Instant;

/// Conversations known at a time: about 2 MB.
pub const MOST: usize = 16_384;

/// The memory.
#[derive(Default)]
pub struct Sticky(Mutex<Known>);

#[derive(Default)]
struct Known {
    places: HashMap<u64, (Arc<str>, Instant)>,
    /// In order of their answers; one that was answered again has an older line too.
    order: VecDeque<(u64, Instant)>,
}

impl Sticky {
    /// The backend that answered a conversation last, if that was no longer than `keep` ago.
    pub fn last(&self, conversation: u64, now: Instant, keep: Duration) -> Option<Arc<str>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (backend, at) = known.places.get(&conversation)?;
        (now.saturating_duration_since(*at) <= keep).then(|| Arc::clone(backend))
    }

    /// A conversation is answered by this backend.
    pub fn note(&self, conversation: u64, backend: &Arc<str>, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.places.insert(conversation, (Arc::clone(backend), now));
        known.order.push_back((conversation, now));
        while known.order.len() > MOST {
            let Some((oldest, at)) = known.order.pop_front() else { break };
            if known.places.get(&oldest).is_some_and(|(_, last)| *last == at) {
                known.places.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_conversation_is_known_for_its_time_and_by_its_last_answer() {
        let (sticky, now) = (Sticky::default(), clock::now());
        let (a, b): (Arc<str>, Arc<str>) = ("local/a".into(), "cloud/b".into());
        let keep = Duration::from_secs(60);
        assert_eq!(sticky.last(7, now, keep), None);
        sticky.note(7, &a, now);
        assert_eq!(sticky.last(7, now + keep, keep), Some(a));
        assert_eq!(sticky.last(7, now + keep * 2, keep), None);
        sticky.note(7, &b, now + keep);
        assert_eq!(sticky.last(7, now + keep, keep), Some(b));
        assert_eq!(sticky.last(8, now, keep), None);
    }

    #[test]
    fn the_oldest_is_forgotten_and_memory_stays_bounded() {
        let (sticky, now) = (Sticky::default(), clock::now());
        let (a, keep): (Arc<str>, _) = ("local/a".into(), Duration::from_secs(3600));
        let at = |n: usize| now + Duration::from_micros(n as u64);
        for n in 0..MOST + 10 {
            sticky.note(n as u64, &a, at(n));
            // One that is answered again and again stays.
            sticky.note(u64::MAX, &a, at(n));
        }
        let known = sticky.0.lock().unwrap();
        assert!(known.order.len() <= MOST && known.places.len() <= MOST);
        drop(known);
        assert_eq!(sticky.last(0, at(0), keep), None);
        assert!(sticky.last(u64::MAX, at(MOST), keep).is_some() && sticky.last(MOST as u64, at(MOST), keep).is_some());
    }
}
