//! The journal: one durable entry per request, whatever happened to it. Never prompt or answer text.
//!
//! [`Journal::offer`] puts an entry into a bounded queue and returns; one thread writes the queue to SQLite in groups.
//! Invariants: the request path never waits for the disk; a full queue drops the new entry and counts it; an entry is
//! written at most once, and exactly once unless it was counted as dropped; a disk that fails is tried again with
//! growing pauses while serving goes on.
//!
//! What a crash costs: a killed process loses what was offered in its last 50 ms, and entries of local answers that wait
//! for the machine's meters, at most two seconds (`energy::ledger`); a power cut loses what was
//! written since the last checkpoint, at most [`writer::SYNC`] old.

pub mod days;
pub mod export;
pub mod feedback;
mod file;
mod packed;
mod prune;
pub mod record;
mod rows;
pub mod schema;
pub mod shadow;
pub mod stats;
pub mod stream;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::Serialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::clock;
use crate::config::checked;
use feedback::{Fate, Given, WAITING};

pub use file::JournalError;
pub use record::{Outcome, Record};

/// A handle; clones share one queue and one writer. When the last one is dropped the writer empties the queue and ends.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

/// Sees each entry after it was written. What it takes, the next group waits for: it must not block.
pub type Tap = Box<dyn FnMut(&Record) + Send>;

/// What `/readyz`, `/metrics` and `check` tell about the journal.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// What the writer is doing.
    pub state: State,
    /// Entries written by this process.
    pub written: u64,
    /// Entries dropped because the queue was full.
    pub dropped: u64,
    /// Failed attempts to open or write.
    pub errors: u64,
    /// Entries that wait.
    pub waiting: usize,
}

/// What the writer is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// `journal.enabled = false`.
    Off,
    /// Nothing was written yet.
    Opening,
    /// All is well.
    Writing,
    /// The last attempt failed; entries wait for the next one. The text says why.
    Failing(String),
}

impl Journal {
    /// Starts the writer. Never fails: a file that cannot be opened is tried again, and [`Journal::health`] says why.
    pub fn open(config: &checked::Journal) -> Self {
        Self::open_with(config, None)
    }

    /// The same; `tap` sees each entry after it was written, on the writer's thread.
    pub fn open_with(config: &checked::Journal, tap: Option<Tap>) -> Self {
        let shared = Arc::new(Shared::new(config));
        if !config.enabled {
            shared.set_state(State::Off);
            return Self { inner: Arc::new(Inner { shared, writer: Mutex::new(None) }) };
        }
        let theirs = Arc::clone(&shared);
        let settings = config.clone();
        let started =
            std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer::run(&theirs, &settings, tap));
        let writer = match started {
            Ok(handle) => Some(handle),
            Err(e) => {
                shared.failed(&format!("the writer's thread did not start: {}", e.kind()));
                None
            }
        };
        Self { inner: Arc::new(Inner { shared, writer: Mutex::new(writer) }) }
    }

    /// Queues one entry. Never blocks and never waits; when the queue is full the entry is dropped and counted.
    pub fn offer(&self, record: Record) {
        self.inner.shared.offer(record);
    }

    /// Counts a request that was refused before it was a query: it has no entry, because nothing is known of it that an entry
    /// would say, and because whoever sends garbage must not fill the disk. Counted by code and hour, on disk with the
    /// next group.
    pub fn refused(&self, code: &'static str) {
        self.inner.shared.refused(code);
    }

    /// Keeps what `tenant` thought of an answer, by its decision's id. Waits for the writer, at most as long as one group takes.
    pub async fn feedback(&self, decision: Uuid, tenant: &str, score: f64) -> Fate {
        let (tell, told) = oneshot::channel();
        let at_ms = clock::unix_ms();
        let given = Given { decision, tenant: tenant.to_owned(), score, at_ms, tell };
        if self.inner.shared.give(given) { told.await.unwrap_or(Fate::Refused) } else { Fate::Refused }
    }

    /// Waits until everything offered so far is on disk. False: it is not, and [`Journal::health`] says why.
    pub async fn flush(&self) -> bool {
        match self.inner.shared.ask_flush() {
            Some(done) => done.await.unwrap_or(false),
            None => true,
        }
    }

    /// Counts and state.
    pub fn health(&self) -> Health {
        self.inner.shared.health()
    }
}

struct Inner {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    /// Waits for the writer, which tries each remaining entry once more and then ends.
    fn drop(&mut self) {
        self.shared.stop();
        let handle = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if handle.is_some_and(|h| h.join().is_err()) {
            tracing::error!("the journal's writer panicked");
        }
    }
}

/// What handle and writer share.
pub(in crate::journal) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    capacity: usize,
    enabled: bool,
    written: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
    state: Mutex<State>,
}

/// How often each code was the answer to what was no query.
pub(in crate::journal) type Refusals = BTreeMap<&'static str, u64>;

/// Entries that wait, bounded by `journal.queue`: the newest is dropped when it is full.
#[derive(Default)]
pub(in crate::journal) struct Queue {
    pub records: VecDeque<Box<Record>>,
    /// Refusals by code: as many rows as there are codes.
    pub refusals: Refusals,
    pub flushes: Vec<oneshot::Sender<bool>>,
    /// Scores, at most [`WAITING`].
    pub feedback: Vec<Given>,
    pub stop: bool,
}

impl Queue {
    /// Nothing waits to be written.
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.refusals.is_empty() && self.feedback.is_empty()
    }
}

impl Shared {
    fn new(config: &checked::Journal) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            capacity: config.queue,
            enabled: config.enabled,
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            state: Mutex::new(State::Opening),
        }
    }

    fn offer(&self, record: Record) {
        if !self.enabled {
            return;
        }
        let record = Box::new(record);
        let mut queue = self.lock();
        if queue.records.len() >= self.capacity {
            drop(queue);
            self.drop_count(1);
            return;
        }
        queue.records.push_back(record);
        let waiting = queue.records.len();
        drop(queue);
        // The writer sleeps until the first entry and then collects a group: only these two need to wake it.
        if waiting == 1 || waiting == writer::GROUP {
            self.wake.notify_one();
        }
    }

    fn refused(&self, code: &'static str) {
        if !self.enabled {
            return;
        }
        let mut queue = self.lock();
        let first = queue.refusals.is_empty();
        *queue.refusals.entry(code).or_default() += 1;
        drop(queue);
        if first {
            self.wake.notify_one();
        }
    }

    /// False when too many wait.
    fn give(&self, given: Given) -> bool {
        let mut queue = self.lock();
        let room = self.enabled && !queue.stop && queue.feedback.len() < WAITING;
        if room {
            queue.feedback.push(given);
            drop(queue);
            self.wake.notify_one();
        }
        room
    }

    fn ask_flush(&self) -> Option<oneshot::Receiver<bool>> {
        if !self.enabled {
            return None;
        }
        let (tell, done) = oneshot::channel();
        self.lock().flushes.push(tell);
        self.wake.notify_one();
        Some(done)
    }

    fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    fn health(&self) -> Health {
        Health {
            state: self.state.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            written: self.written.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            waiting: self.lock().records.len(),
        }
    }

    /// Held for a push or a swap only, never across IO.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn drop_count(&self, n: u64) {
        self.dropped.fetch_add(n, Ordering::Relaxed);
    }

    fn wrote(&self, n: u64) {
        self.written.fetch_add(n, Ordering::Relaxed);
        self.set_state(State::Writing);
    }

    fn failed(&self, why: &str) {
        let count = self.errors.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(error = %why, count, "journal attempt failed; serving goes on");
        self.set_state(State::Failing(why.to_owned()));
    }
}
