//! The queue in front of the engine's thread: bounded; one more is refused, and a job given up leaves at once.
//!
//! Invariant: items are taken in the order in which they came, never more at a time than there are streams.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items that wait for one taker with several streams. Full means: refuse.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    bound: usize,
    streams: usize,
}

struct State<T> {
    waiting: VecDeque<(u64, T)>,
    next: u64,
    running: usize,
    closed: bool,
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
    /// `bound` items may wait while `streams` run; a stream that is free can always be handed one more.
    pub fn new(bound: usize, streams: usize) -> Self {
        let state = State { waiting: VecDeque::new(), next: 0, running: 0, closed: false };
        Self { state: Mutex::new(state), ready: Condvar::new(), bound, streams: streams.max(1) }
    }

    /// Adds an item and names its place.
    pub fn push(&self, item: T) -> Result<u64, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if self.room(&state) == 0 {
            return Err(Refused::Full);
        }
        let place = state.next;
        state.next += 1;
        state.waiting.push_back((place, item));
        self.ready.notify_one();
        Ok(place)
    }

    /// Waits for the next item; none once the queue is closed. For a taker that runs nothing.
    pub fn wait(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(item) = self.first(&mut state, &|_| true) {
                return Some(item);
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next item, if there is one, a stream is free, and `fits` says that it may begin now. None is skipped.
    pub fn take(&self, fits: &dyn Fn(&T) -> bool) -> Option<T> {
        self.first(&mut self.lock(), fits)
    }

    /// One item that was taken has ended.
    pub fn done(&self) {
        let mut state = self.lock();
        state.running = state.running.saturating_sub(1);
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

    /// Items taken and not done.
    pub fn running(&self) -> usize {
        self.lock().running
    }

    /// Whether one more item would be refused.
    pub fn full(&self) -> bool {
        let state = self.lock();
        state.closed || self.room(&state) == 0
    }

    /// Items that may wait while all streams run.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Items that may run at a time.
    pub fn streams(&self) -> usize {
        self.streams
    }

    fn room(&self, state: &State<T>) -> usize {
        let free = self.streams.saturating_sub(state.running);
        self.bound.saturating_add(free).saturating_sub(state.waiting.len())
    }

    fn first(&self, state: &mut State<T>, fits: &dyn Fn(&T) -> bool) -> Option<T> {
        if state.closed || state.running >= self.streams || !state.waiting.front().is_some_and(|(_, item)| fits(item)) {
            return None;
        }
        state.running += 1;
        state.waiting.pop_front().map(|(_, item)| item)
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
        let queue = Queue::new(2, 1);
        assert_eq!(queue.push('a'), Ok(0));
        assert_eq!(queue.wait(), Some('a'));
        assert_eq!((queue.push('b'), queue.push('c')), (Ok(1), Ok(2)));
        assert_eq!(queue.push('d'), Err(Refused::Full));
        assert_eq!(queue.take(&|_| true), None);
        assert_eq!(queue.remove(1), Some('b'));
        assert_eq!(queue.remove(1), None);
        assert_eq!(queue.push('d'), Ok(3));
        assert_eq!((queue.waiting(), queue.running()), (2, 1));
        queue.done();
        assert_eq!(queue.take(&|_| true), Some('c'));
    }

    #[test]
    fn a_free_stream_gets_one_even_when_nothing_may_wait() {
        let queue = Queue::new(0, 2);
        assert_eq!((queue.push(1), queue.push(2)), (Ok(0), Ok(1)));
        assert_eq!(queue.push(3), Err(Refused::Full));
        assert_eq!((queue.wait(), queue.full()), (Some(1), true));
        assert_eq!(queue.take(&|_| true), Some(2));
        assert_eq!(queue.push(3), Err(Refused::Full));
        queue.done();
        assert!(!queue.full());
        assert_eq!(queue.push(3), Ok(2));
    }

    #[test]
    fn nothing_overtakes_an_item_that_does_not_fit_yet() {
        let queue = Queue::new(4, 4);
        assert_eq!((queue.push(9), queue.push(1)), (Ok(0), Ok(1)));
        assert_eq!(queue.take(&|item| *item < 5), None);
        assert_eq!((queue.waiting(), queue.running()), (2, 0));
        assert_eq!(queue.take(&|item| *item < 10), Some(9));
        assert_eq!(queue.take(&|item| *item < 5), Some(1));
    }

    #[test]
    fn closing_drops_what_waits() {
        let queue = Queue::new(4, 1);
        queue.push(1).unwrap();
        queue.close();
        assert_eq!((queue.wait(), queue.take(&|_| true)), (None, None));
        assert_eq!(queue.push(2), Err(Refused::Closed));
    }
}
