//! The queue in front of the engine's thread: bounded; one more is refused, and a job given up leaves at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items that wait for one taker. Full means: refuse.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    bound: usize,
}

struct State<T> {
    waiting: VecDeque<(u64, T)>,
    next: u64,
    busy: bool,
    closed: bool,
}

impl<T> State<T> {
    fn room(&self, bound: usize) -> usize {
        bound.saturating_add(usize::from(!self.busy)).saturating_sub(self.waiting.len())
    }
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The bound is reached.
    Full,
    /// No taker will come.
    Closed,
}

impl<T> Queue<T> {
    /// `bound` items may wait while the taker is busy; one can always be handed to an idle taker.
    pub fn new(bound: usize) -> Self {
        let state = State { waiting: VecDeque::new(), next: 0, busy: false, closed: false };
        Self { state: Mutex::new(state), ready: Condvar::new(), bound }
    }

    /// Adds an item and names its place.
    pub fn push(&self, item: T) -> Result<u64, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.room(self.bound) == 0 {
            return Err(Refused::Full);
        }
        let place = state.next;
        state.next += 1;
        state.waiting.push_back((place, item));
        self.ready.notify_one();
        Ok(place)
    }

    /// Waits for the next item; none once the queue is closed.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        state.busy = false;
        loop {
            if state.closed {
                return None;
            }
            if let Some((_, item)) = state.waiting.pop_front() {
                state.busy = true;
                return Some(item);
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a waiting item back.
    pub fn remove(&self, place: u64) -> Option<T> {
        let mut state = self.lock();
        let at = state.waiting.iter().position(|(p, _)| *p == place)?;
        state.waiting.remove(at).map(|(_, item)| item)
    }

    /// Ends it: waiting items are dropped, and the taker gets none.
    pub fn close(&self) {
        let dropped = {
            let mut state = self.lock();
            state.closed = true;
            self.ready.notify_all();
            std::mem::take(&mut state.waiting)
        };
        drop(dropped);
    }

    /// Whether [`Queue::close`] was called.
    pub fn closed(&self) -> bool {
        self.lock().closed
    }

    /// Items that wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether the taker works on an item.
    pub fn busy(&self) -> bool {
        self.lock().busy
    }

    /// Whether one more item would be refused.
    pub fn full(&self) -> bool {
        let state = self.lock();
        state.closed || state.room(self.bound) == 0
    }

    /// Items that may wait while the taker is busy.
    pub fn bound(&self) -> usize {
        self.bound
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_the_bound_is_refused_and_leaving_makes_room() {
        let queue = Queue::new(2);
        assert_eq!(queue.push('a'), Ok(0));
        assert_eq!(queue.pop(), Some('a'));
        assert_eq!((queue.push('b'), queue.push('c')), (Ok(1), Ok(2)));
        assert_eq!(queue.push('d'), Err(Refused::Full));
        assert_eq!(queue.remove(1), Some('b'));
        assert_eq!(queue.remove(1), None);
        assert_eq!(queue.push('d'), Ok(3));
        assert_eq!((queue.waiting(), queue.busy()), (2, true));
    }

    #[test]
    fn an_idle_taker_gets_one_even_when_nothing_may_wait() {
        let queue = Queue::new(0);
        assert_eq!(queue.push(1), Ok(0));
        assert_eq!(queue.push(2), Err(Refused::Full));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.push(2), Err(Refused::Full));
    }

    #[test]
    fn closing_drops_what_waits() {
        let queue = Queue::new(4);
        queue.push(1).unwrap();
        queue.close();
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.push(2), Err(Refused::Closed));
    }
}
