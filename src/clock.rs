//! Time and tasks: the only place that reads a clock or starts a detached task.
//!
//! Everything else takes `now` as an argument or asks here, so that a paused clock in a test pauses all of it, and so
//! that a drain can wait for every task there is.

use std::future::Future;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

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
