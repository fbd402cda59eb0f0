//! The attention kernel: grouped-query, causal, on plain slices; nothing else in the crate knows how attention is done.
//!
//! [`attend`] is one call per layer, for any number of sequences. Softmax attention, local linear attention and learned
//! probes are one kernel: a pass gathers *moments* of the keys and values under the softmax weights, a provider
//! ([`Rho`](ridge::Rho)) turns them into a correction vector per query, and *apply* writes
//! `vbar - G rho = sum p_j (1 - rho.(k_j - kbar)) v_j`. Softmax is the correction zero, and takes a path of its own.
//!
//! Defined outputs for odd input: a query that sees no key (a window of 0) gives zeros; a score of minus infinity weighs
//! nothing; finite input never gives NaN, even where scores overflow; NaN in what a row sees gives NaN for that row, and
//! what it does not see cannot spoil it.
//!
//! Never here: HTTP, candle, files, clocks.

mod aligned;
mod apply;
pub mod backward;
pub mod cuda;
mod gemm;
mod lanes;
mod lines;
mod moments;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pass;
mod plan;
pub mod pool;
mod record;
pub mod reference;
pub mod report;
pub mod ridge;
pub mod simd;
mod solve;
mod spread;
pub mod store;
mod weigh;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::cell::RefCell;

use crate::lla::aligned::Aligned;
use crate::lla::plan::Plan;
use crate::lla::pool::{Panicked, Pool, Shards};
use crate::lla::report::Report;
use crate::lla::ridge::Rho;
use crate::lla::simd::Level;
use crate::lla::store::Store;

/// Below this many multiplications a call runs on the caller alone: waking a worker would take longer.
const ALONE: usize = 40_000;
/// Largest number of values per head, and of heads: beyond it a file is damaged, and sizes below cannot overflow.
const MOST: usize = 1 << 16;

/// How heads are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Query heads; a multiple of `kv_heads`. Query heads `g * h` to `g * h + g - 1` read key-value head `h`.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Numbers per query and key.
    pub dim: usize,
    /// Numbers per value.
    pub value_dim: usize,
}

impl Shape {
    /// Query heads per key-value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// Whether the numbers can be those of a kernel: none zero, none absurd, heads a multiple of key-value heads.
    pub fn check(&self) -> Result<(), AttendError> {
        let all = [self.heads, self.kv_heads, self.dim, self.value_dim];
        let sane = all.iter().all(|n| (1..=MOST).contains(n)) && self.heads.is_multiple_of(self.kv_heads);
        if sane { Ok(()) } else { Err(AttendError::Shape("heads")) }
    }
}

/// One sequence's run of consecutive tokens in one layer.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Heads; the store's.
    pub shape: Shape,
    /// Factor on every score, usually `1 / sqrt(dim)`.
    pub scale: f32,
    /// Queries after position encoding: `tokens * heads * dim`.
    pub queries: &'a [f32],
    /// Position of the first query; query `i` sees the keys at positions `0..=first + i`, which the store must hold.
    pub first: usize,
    /// Keys and values of the sequence so far, those of the run included.
    pub store: &'a Store,
    /// What corrects the average.
    pub rho: Rho<'a>,
    /// How many of the latest keys a query sees, its own included; all if `None`.
    pub window: Option<usize>,
}

/// Why [`attend`] could not run. Nothing was written then, except after a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttendError {
    /// Slices do not fit the shape.
    #[error("attention: the {0} do not fit the shape")]
    Shape(&'static str),
    /// The scale is not a finite number.
    #[error("attention: the scale is not a finite number")]
    Scale,
    /// There are queries but no key.
    #[error("attention: there are no keys")]
    Empty,
    /// The run reaches past the keys.
    #[error("attention: the run ends at position {end}, but only {held} keys are held")]
    Overlong {
        /// Positions the run needs.
        end: usize,
        /// Positions held.
        held: usize,
    },
    /// A kernel panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// Attention of every query of every job over the keys it sees. `out` is the jobs' outputs one after another,
/// `tokens * heads * value_dim` numbers each.
///
/// Passes without a solver are one parallel region for all jobs; a single token's keys are shared among threads, so that
/// one sequence with few heads keeps all of them busy. A level that the machine lacks is replaced by the portable one.
pub fn attend(pool: &Pool, level: Level, jobs: &[Attention], out: &mut [f32]) -> Result<Report, AttendError> {
    let plan = Plan::of(jobs, out.len())?;
    let out = Shards::new(out);
    let mut report = Report::default();
    PARTS.with_borrow_mut(|parts| {
        parts.fit(plan.parts_len);
        let parts = Shards::new(parts.numbers());
        let gather = |index: usize| {
            if let Some((task, job)) = plan.tasks.get(index).and_then(|task| Some((task, jobs.get(task.job)?))) {
                pass::gather(level, job, task, &parts, &out);
            }
        };
        let join = |index: usize| {
            if let Some((split, job)) =
                plan.splits.get(index).and_then(|split| Some((split, jobs.get(split.whole.job)?)))
            {
                pass::join(job, split, &parts, &out);
            }
        };
        if plan.work < ALONE {
            (0..plan.tasks.len()).for_each(gather);
            (0..plan.splits.len()).for_each(join);
            return Ok(());
        }
        pool.run(plan.tasks.len(), &gather)?;
        pool.run(plan.splits.len(), &join)
    })?;
    let helpers = (plan.work >= ALONE).then_some(pool);
    report.merge(&solve::run(helpers, level, jobs, &plan.units, &out)?);
    for task in &plan.tasks {
        if let Some(job) = jobs.get(task.job) {
            report.count_pass(job, task);
        }
    }
    Ok(report)
}

thread_local! {
    /// Moments of the parts of a call; the caller's.
    static PARTS: RefCell<Aligned> = RefCell::default();
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests;
