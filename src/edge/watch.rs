//! What the parts of one connection tell each other: the socket side, the request side and the task between them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;

use crate::clock::{self, Instant};

/// Shared by the parts of one connection; all of them run on one thread, so nothing is contended.
#[derive(Debug)]
pub struct Watch {
    opened: Instant,
    answering: AtomicUsize,
    requests: AtomicUsize,
    draining: AtomicBool,
    /// How often an HTTP/1 connection's task has been polled.
    turns: AtomicU64,
    /// When the last answer ended, in ms after `opened`.
    quiet_since: AtomicU64,
    /// The socket's reader, where it waits for an answer to end.
    reader: AtomicWaker,
    /// Of HTTP/2's streams: when each handed over a frame that the client has not taken, in ms after `opened`.
    owed: Mutex<Vec<Arc<AtomicU64>>>,
}

/// No frame is owed.
const NOT_OWED: u64 = u64::MAX;

impl Watch {
    /// For a connection that opens now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: clock::now(),
            answering: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            quiet_since: AtomicU64::new(0),
            reader: AtomicWaker::new(),
            owed: Mutex::new(Vec::new()),
        })
    }

    /// When the connection opened.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// A request was passed on: an answer is owed.
    pub fn asked(&self) {
        self.answering.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The owed answer is in the making; dropping the guard says that it has ended.
    pub fn answering(self: &Arc<Self>) -> Answering {
        Answering(self.clone())
    }

    /// Whether an answer is owed or running.
    pub fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed) > 0
    }

    /// Whether any request came.
    pub fn had_request(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// How long nothing has been asked.
    pub fn quiet(&self) -> Duration {
        if self.is_answering() { Duration::ZERO } else { clock::now().saturating_duration_since(self.quiet_since()) }
    }

    /// When the last answer ended, or the connection opened.
    pub fn quiet_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.quiet_since.load(Ordering::Relaxed))
    }

    /// Wakes this task when an answer ends.
    pub fn wake_at_end(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
    }

    /// No further request is wanted.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether no further request is wanted.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The task of an HTTP/1 connection is polled once more.
    pub fn begin_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Which turn this is; 0 where turns are not counted.
    pub fn turn(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// A place where an HTTP/2 stream notes what its client has not taken.
    pub fn stream(&self) -> Owed {
        let owed = Arc::new(AtomicU64::new(NOT_OWED));
        self.streams().push(owed.clone());
        Owed(owed)
    }

    /// The longest time that any stream's client has not taken a frame.
    pub fn longest_owed(&self) -> Duration {
        let mut streams = self.streams();
        streams.retain(|owed| Arc::strong_count(owed) > 1);
        let oldest = streams.iter().map(|owed| owed.load(Ordering::Relaxed)).min().unwrap_or(NOT_OWED);
        self.age().saturating_sub(Duration::from_millis(oldest))
    }

    fn streams(&self) -> MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn age(&self) -> Duration {
        clock::now().saturating_duration_since(self.opened)
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.age().as_millis()).unwrap_or(NOT_OWED - 1)
    }
}

/// One answer that is owed or running.
#[derive(Debug)]
pub struct Answering(Arc<Watch>);

impl Answering {
    /// Whose it is.
    pub fn watch(&self) -> &Watch {
        &self.0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
        self.0.quiet_since.store(self.0.age_ms(), Ordering::Relaxed);
        self.0.reader.wake();
    }
}

/// What one HTTP/2 stream's client has not taken.
#[derive(Debug)]
pub struct Owed(Arc<AtomicU64>);

impl Owed {
    /// A frame was handed over.
    pub fn gave(&self, watch: &Watch) {
        self.0.store(watch.age_ms(), Ordering::Relaxed);
    }

    /// The next frame is asked for: the last one was taken.
    pub fn taken(&self) {
        self.0.store(NOT_OWED, Ordering::Relaxed);
    }
}
