//! Threads of the kernels: one caller and its workers share the tasks of one region at a time.
//!
//! A decode step has about 150 regions of a few microseconds each, so workers spin for a short while before they park.
//! Tasks are claimed one by one from a single counter: a worker that the system has put aside delays nobody, and no
//! worker has to check in for a region to end. A panic in a task becomes an error of [`Pool::run`].
#![allow(
    unsafe_code,
    reason = "a region's closure is lent to threads that outlive it; each block says why it is sound"
)]

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Turns of the wait loop before a worker parks: some 50 microseconds, longer than any serial part between regions.
const SPINS: u32 = 2_000;
/// Turns of the wait loop before a caller lets others run: a worker inside a task may have been put aside.
const CALLER_SPINS: u32 = 20_000;
/// Tasks in one region at most; the counter keeps them in its low half.
const MAX_TASKS: usize = u32::MAX as usize;

/// A task panicked; the region's output is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a kernel task panicked")]
pub struct Panicked;

type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// A fixed set of threads. `run` is for one caller at a time (others wait); a task must not call `run` itself.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    turn: Mutex<u32>,
}

struct Shared {
    /// High half: number of the region, so that a stale claim cannot succeed. Low half: tasks not yet claimed.
    open: AtomicU64,
    /// Tasks finished in this region.
    done: AtomicUsize,
    /// Workers that are parked or about to park.
    parked: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// The region's closure; valid while a claimed task of the region is unfinished.
    work: UnsafeCell<Option<*const Work<'static>>>,
}

// SAFETY: `work` is written only by the caller that holds `turn` while no task is open or running, and read only by a
// thread that has claimed a task (claim = acquire of the counter that was released after the write).
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer is only dereferenced under the protocol above; the closure behind it is `Sync`.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads, the caller included; 0 is one per core.
    pub fn new(threads: usize) -> Self {
        let wanted = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n.min(256),
        };
        let shared = Arc::new(Shared {
            open: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            work: UnsafeCell::new(None),
        });
        let mut workers = Vec::new();
        for index in 1..wanted {
            let own = Arc::clone(&shared);
            // A machine that refuses a thread still computes, on those it gave.
            if let Ok(handle) = std::thread::Builder::new().name(format!("kernel-{index}")).spawn(move || own.serve()) {
                workers.push(handle);
            }
        }
        Self { shared, workers, turn: Mutex::new(0) }
    }

    /// Threads that share the work, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(0)` to `work(tasks - 1)`, each once, on any thread and in any order; returns when all have ended.
    pub fn run(&self, tasks: usize, work: &Work<'_>) -> Result<(), Panicked> {
        if self.workers.is_empty() || tasks <= 1 || tasks > MAX_TASKS {
            return catch_unwind(AssertUnwindSafe(|| (0..tasks).for_each(work))).map_err(|_| Panicked);
        }
        let mut region = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        *region = region.wrapping_add(1);
        let shared = &*self.shared;
        shared.done.store(0, Ordering::Relaxed);
        shared.panicked.store(false, Ordering::Relaxed);
        // SAFETY: only the lifetime changes. The closure is used by claimed tasks alone, and this function returns only
        // after `done` has counted every one of them, so no use outlives the borrow.
        let forever: *const Work<'static> = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        // SAFETY: the previous region has ended (all its tasks were counted before its `run` gave `turn` back), so no
        // thread can read `work` now.
        unsafe { *shared.work.get() = Some(forever) };
        shared.open.store(u64::from(*region) << 32 | tasks as u64, Ordering::Release);
        // Pairs with the fence in `serve`: either the worker sees the open tasks or we see it parked.
        fence(Ordering::SeqCst);
        if shared.parked.load(Ordering::Relaxed) > 0 {
            for worker in &self.workers {
                worker.thread().unpark();
            }
        }
        while shared.claim_one() {}
        let mut spins = 0;
        while shared.done.load(Ordering::Acquire) < tasks {
            spins += 1;
            if spins < CALLER_SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        if shared.panicked.load(Ordering::Relaxed) { Err(Panicked) } else { Ok(()) }
    }
}

impl Shared {
    /// Claims and runs one task; `false` when none is open.
    fn claim_one(&self) -> bool {
        let claimed = self
            .open
            .fetch_update(Ordering::Acquire, Ordering::Acquire, |open| (open & 0xffff_ffff != 0).then(|| open - 1));
        let Ok(before) = claimed else { return false };
        let index = (before & 0xffff_ffff) as usize - 1;
        // SAFETY: a claim succeeded, so the region is live: its closure was written before the counter was released,
        // and its `run` waits for this task's `done` before the closure can go.
        let work = unsafe { (*self.work.get()).map(|work| &*work) };
        if let Some(work) = work
            && catch_unwind(AssertUnwindSafe(|| work(index))).is_err()
        {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.done.fetch_add(1, Ordering::Release);
        true
    }

    fn serve(&self) {
        let mut idle = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if self.claim_one() {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < SPINS {
                std::hint::spin_loop();
                continue;
            }
            self.parked.fetch_add(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.open.load(Ordering::Relaxed) & 0xffff_ffff == 0 && !self.stop.load(Ordering::Relaxed) {
                std::thread::park();
            }
            self.parked.fetch_sub(1, Ordering::Relaxed);
            idle = 0;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker never unwinds (tasks are caught), so there is nothing to learn from the result.
            let _ = worker.join();
        }
    }
}

/// A slice that the tasks of one region write in disjoint parts.
pub struct Shards<'a, T> {
    start: *mut T,
    len: usize,
    _borrow: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `range`, whose callers promise disjoint ranges; `T: Send` values may be written anywhere.
unsafe impl<T: Send> Sync for Shards<'_, T> {}

impl<'a, T> Shards<'a, T> {
    /// Takes the slice for the length of a region.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), _borrow: std::marker::PhantomData }
    }

    /// Where element `from` is, for parts that are no range; beyond the end it is the end.
    pub fn pointer(&self, from: usize) -> *mut T {
        self.start.wrapping_add(from.min(self.len))
    }

    /// A part of the slice; parts that reach beyond the end are cut off.
    ///
    /// # Safety
    /// No two parts that are alive at the same time may overlap.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub unsafe fn range(&self, from: usize, len: usize) -> &mut [T] {
        let from = from.min(self.len);
        let len = len.min(self.len - from);
        // SAFETY: `from + len` lies within the borrowed slice; the caller promises that no other part overlaps.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 7, 100] {
                for _ in 0..50 {
                    let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(tasks, &|i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    })
                    .unwrap();
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        assert_eq!(pool.run(10, &|i| assert!(i != 5)), Err(Panicked));
        assert_eq!(pool.run(1, &|_| panic!("alone")), Err(Panicked));
        let sum = AtomicUsize::new(0);
        pool.run(10, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(sum.load(Ordering::Relaxed), 45);
    }

    #[test]
    fn parked_workers_wake_up() {
        let pool = Pool::new(2);
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let sum = AtomicUsize::new(0);
            pool.run(64, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            })
            .unwrap();
            assert_eq!(sum.load(Ordering::Relaxed), 64 * 63 / 2);
        }
    }

    #[test]
    fn shards_are_written_in_place() {
        let pool = Pool::new(2);
        let mut values = vec![0_usize; 100];
        let shards = Shards::new(&mut values);
        pool.run(10, &|i| {
            // SAFETY: each task has its own ten values.
            let part = unsafe { shards.range(i * 10, 10) };
            part.iter_mut().enumerate().for_each(|(j, v)| *v = i * 10 + j);
        })
        .unwrap();
        assert!(values.iter().enumerate().all(|(i, v)| *v == i));
    }
}
