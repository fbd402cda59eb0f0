//! Time and tasks: the only place that reads a clock or starts a detached task.
//!
//! Everything else takes `now` as an argument or asks here, so that a paused clock in a test pauses all of it, and so
//! that a drain can wait for every task there is.

use std::cell::RefCell;
use std::future::Future;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::{Builder, Uuid};

pub use tokio::time::Instant;

static RUNNING: AtomicUsize = AtomicUsize::new(0);
static ENDED: LazyLock<Notify> = LazyLock::new(Notify::new);

/// Monotonic now; follows tokio's paused clock in tests.
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the Unix epoch, for records only: deadlines never use wall time.
#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)).unwrap_or(0)
}

/// Now as RFC 3339 in UTC, for records only.
pub fn rfc3339() -> String {
    let ms = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map(|at| at.to_string()).unwrap_or_default()
}

/// A new UUIDv7: sorts by time. Its random part comes from a generator of this thread that the system seeds once, because
/// asking the system for every request costs more than the rest of the id.
pub fn id() -> Uuid {
    thread_local! {
        static RANDOM: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::with_seed(Uuid::now_v7().as_u64_pair().1));
    }
    let mut bytes = [0; 10];
    RANDOM.with_borrow_mut(|random| random.fill(&mut bytes));
    Builder::from_unix_timestamp_millis(unix_ms(), &bytes).into_uuid()
}

/// Starts a detached task that [`idle`] waits for. Work done for a caller belongs in the caller's future instead.
#[expect(clippy::disallowed_methods, reason = "the one place that may spawn")]
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let seat = Running::enter();
    tokio::spawn(async move {
        let _seat = seat;
        task.await
    })
}

/// Resolves once no task started by [`spawn`] is left.
pub async fn idle() {
    loop {
        let ended = ENDED.notified();
        if RUNNING.load(Ordering::Acquire) == 0 {
            return;
        }
        ended.await;
    }
}

struct Running;

impl Running {
    fn enter() -> Self {
        RUNNING.fetch_add(1, Ordering::AcqRel);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if RUNNING.fetch_sub(1, Ordering::AcqRel) == 1 {
            ENDED.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_version_7_and_differ_between_threads() {
        let some = || (0..10_000).map(|_| id()).collect::<Vec<_>>();
        let there = std::thread::spawn(some);
        let mut all: BTreeSet<Uuid> = some().into_iter().collect();
        all.extend(there.join().unwrap());
        assert_eq!(all.len(), 20_000);
        assert!(all.iter().all(|id| id.get_version_num() == 7));
    }
}
