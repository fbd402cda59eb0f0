//! The writer's thread: takes groups off the queue, writes each in one transaction, keeps the file small.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::oneshot;

use super::feedback::{self, Fate};
use super::file::{self, JournalError};
use super::prune::{PRUNE_ROWS, prune};
use super::record::Record;
use super::rows::{self, Words};
use super::schema::{ID_BITS, id_floor};
use super::{Refusals, Shared, State, Tap};
use crate::clock::{self, Instant};
use crate::config::checked;

/// Entries of one transaction; a fuller queue is written without waiting for [`COLLECT`].
pub const GROUP: usize = 512;
/// How long the first entry of a group waits for others.
const COLLECT: Duration = Duration::from_millis(50);
/// Written entries reach the disk itself, by a checkpoint, at least this often.
pub const SYNC: Duration = Duration::from_secs(5);
/// Pause between looks at age and size.
const PRUNE: Duration = Duration::from_secs(60);
/// After a failure the pause doubles from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Until the handle is dropped.
pub fn run(shared: &Shared, config: &checked::Journal, tap: Option<Tap>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return shared.failed(&format!("the writer's runtime did not start: {}", e.kind())),
    };
    let mut writer = Writer::new(shared, config, tap);
    loop {
        let (group, stop) = writer.collect();
        let done = runtime.block_on(writer.write(group));
        if stop && (!done || shared.lock().is_empty()) {
            return runtime.block_on(writer.end());
        }
        if done {
            runtime.block_on(writer.upkeep());
        } else {
            writer.pause();
        }
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    config: &'a checked::Journal,
    tap: Option<Tap>,
    db: Option<SqliteConnection>,
    /// Taken off the queue and not yet on disk.
    pending: Vec<(i64, Box<Record>)>,
    refusals: Refusals,
    ids: Ids,
    words: Words,
    pause: Duration,
    synced: Instant,
    pruned: Option<Instant>,
    dirty: bool,
}

impl<'a> Writer<'a> {
    fn new(shared: &'a Shared, config: &'a checked::Journal, tap: Option<Tap>) -> Self {
        Self {
            shared,
            config,
            tap,
            db: None,
            pending: Vec::new(),
            refusals: Refusals::new(),
            ids: Ids::new(),
            words: Words::default(),
            pause: PAUSES.0,
            synced: clock::now(),
            pruned: None,
            dirty: false,
        }
    }

    /// Sleeps until there is something to do, gives a group a moment to fill, and takes it.
    fn collect(&mut self) -> (VecDeque<Box<Record>>, bool) {
        let shared = self.shared;
        let mut queue = shared.lock();
        let idle = queue.is_empty() && queue.flushes.is_empty() && !queue.stop;
        if idle && self.pending.is_empty() && self.refusals.is_empty() && self.db.is_some() {
            let nap = if self.dirty { SYNC } else { PRUNE };
            queue = shared.wake.wait_timeout(queue, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
        let hurry = |q: &super::Queue| q.stop || !q.flushes.is_empty() || q.records.len() >= GROUP;
        if !queue.is_empty() && !hurry(&queue) {
            let waited = shared.wake.wait_timeout_while(queue, COLLECT, |q| !hurry(q));
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        for (code, n) in std::mem::take(&mut queue.refusals) {
            *self.refusals.entry(code).or_default() += n;
        }
        let room = GROUP.saturating_sub(self.pending.len()).min(queue.records.len());
        (queue.records.drain(..room).collect(), queue.stop)
    }

    /// One attempt for everything pending. True: it is on disk.
    async fn write(&mut self, group: VecDeque<Box<Record>>) -> bool {
        for record in group {
            self.pending.push((self.ids.next(), record));
        }
        let result = self.attempt().await;
        let done = result.is_ok();
        match result {
            Ok(()) => self.pause = PAUSES.0,
            Err(error) => {
                self.shared.failed(&error.to_string());
                self.db = None;
                if matches!(error, JournalError::Damaged(_)) {
                    self.set_aside();
                }
            }
        }
        self.grade(done).await;
        let mut queue = self.shared.lock();
        if !done || queue.is_empty() {
            let flushes = std::mem::take(&mut queue.flushes);
            drop(queue);
            answer(flushes, done);
        }
        done
    }

    async fn attempt(&mut self) -> Result<(), JournalError> {
        let path = self.config.path.as_path();
        let db = match &mut self.db {
            Some(db) => db,
            none => none.insert(file::open(path).await?),
        };
        if self.pending.is_empty() && self.refusals.is_empty() {
            self.shared.set_state(State::Writing);
            return Ok(());
        }
        let sql = |e: sqlx::Error| JournalError::of(path, &e);
        insert_all(db, &self.pending, &self.refusals, &mut self.words).await.map_err(sql)?;
        self.shared.wrote(self.pending.len() as u64);
        if let Some(tap) = &mut self.tap {
            self.pending.iter().for_each(|(_, record)| tap(record));
        }
        self.pending.clear();
        self.refusals.clear();
        self.dirty = true;
        Ok(())
    }

    /// Keeps the scores that wait, after the entries that they may be about.
    async fn grade(&mut self, ready: bool) {
        let waiting = std::mem::take(&mut self.shared.lock().feedback);
        for given in waiting {
            let kept = match self.db.as_mut().filter(|_| ready) {
                Some(db) => feedback::keep(db, &given).await.unwrap_or(Fate::Refused),
                None => Fate::Refused,
            };
            // Who asked may have gone.
            let _ = given.tell.send(kept);
        }
    }

    fn set_aside(&self) {
        match file::set_aside(&self.config.path, clock::unix_ms()) {
            Ok(aside) => tracing::error!(file = %aside.display(), "the damaged journal was moved aside"),
            Err(error) => self.shared.failed(&error.to_string()),
        }
    }

    /// Waits out a failure, unless the handle goes away.
    fn pause(&mut self) {
        let queue = self.shared.lock();
        drop(self.shared.wake.wait_timeout_while(queue, self.pause, |q| !q.stop && q.flushes.is_empty()));
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    /// Checkpoint and retention, each in its time. A failure here is counted like one in writing.
    async fn upkeep(&mut self) {
        let Some(db) = &mut self.db else { return };
        let now = clock::now();
        let mut result = Ok(());
        if self.dirty && now.duration_since(self.synced) >= SYNC {
            result = sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut *db).await.map(drop);
            self.synced = now;
            self.dirty = false;
        }
        if result.is_ok() && self.pruned.is_none_or(|last| now.duration_since(last) >= PRUNE) {
            match prune(db, self.config, clock::unix_ms()).await {
                // More to remove: come back after the next group.
                Ok(removed) => self.pruned = (removed < PRUNE_ROWS as u64).then_some(now),
                Err(e) => result = Err(e),
            }
        }
        if let Err(e) = result {
            self.shared.failed(&JournalError::of(&self.config.path, &e).to_string());
            self.db = None;
        }
    }

    /// What could not be written is counted; nobody waits for it any more.
    async fn end(&mut self) {
        let left = self.give_up();
        if left > 0 {
            self.shared.drop_count(left as u64);
            tracing::error!(entries = left, "the journal ended with entries that could not be written");
        }
        let Some(db) = self.db.take() else { return };
        if let Err(e) = db.close().await {
            self.shared.failed(&JournalError::of(&self.config.path, &e).to_string());
        }
    }

    /// Empties the queue; returns how many entries are lost.
    fn give_up(&self) -> usize {
        let mut queue = self.shared.lock();
        let left = self.pending.len() + queue.records.len();
        queue.records.clear();
        queue.feedback.clear();
        let flushes = std::mem::take(&mut queue.flushes);
        drop(queue);
        answer(flushes, left == 0);
        left
    }
}

/// Tells those who wait for a flush; one who went away meanwhile is no matter.
fn answer(flushes: Vec<oneshot::Sender<bool>>, done: bool) {
    for tell in flushes {
        let _ = tell.send(done);
    }
}

async fn insert_all(
    db: &mut SqliteConnection,
    entries: &[(i64, Box<Record>)],
    refusals: &Refusals,
    words: &mut Words,
) -> Result<(), sqlx::Error> {
    let mut tx = db.begin_with("BEGIN IMMEDIATE").await?;
    rows::insert(&mut tx, entries, words).await?;
    rows::count(&mut tx, refusals, clock::unix_ms()).await?;
    tx.commit().await
}

/// Ids that sort by time, never repeat in a process, and almost never between processes on one file.
struct Ids {
    last: i64,
    mark: i64,
}

impl Ids {
    /// Low bits that a process may count within a millisecond; the ten above them mark the process.
    const COUNT_BITS: u32 = 12;

    fn new() -> Self {
        Self { last: 0, mark: i64::from(fastrand::u16(0..1 << (ID_BITS - Self::COUNT_BITS))) << Self::COUNT_BITS }
    }

    /// The wall clock may jump back; ids do not.
    fn next(&mut self) -> i64 {
        self.last = (id_floor(clock::unix_ms()) + self.mark).max(self.last + 1);
        self.last
    }
}
