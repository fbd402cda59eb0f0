//! What a call has to do: jobs checked and cut into tasks that threads take one by one.
//!
//! How a job is cut depends on the job alone, not on the threads or on the other jobs, so its output is the same bits in
//! any company.

use std::ops::Range;

use crate::lla::record::Record;
use crate::lla::ridge::Rho;
use crate::lla::{AttendError, Attention, Shape, apply};

/// Rows (query heads x tokens) that share a pass over the keys, about: enough to pay for laying out the tile.
const ROWS_PER_PASS: usize = 96;
/// Tokens of a block at least, unless the job has fewer: a pass over a handful of rows walks the keys in longer tiles, and
/// where a prompt was cut must not show in the last bits.
const LEAST_TOKENS: usize = 8;
/// Keys per part of a single token's attention. A part's keys and values (64 KiB at 64 numbers per head in half
/// precision) are work for some microseconds, against a tenth of one to hand it out.
const PART_KEYS: usize = 256;

/// One unit of work: a key-value head's query heads, for some tokens of a job and some keys.
#[derive(Clone, Debug)]
pub struct Task {
    /// Index of the job.
    pub job: usize,
    /// Key-value head.
    pub kv_head: usize,
    /// Tokens of the job.
    pub tokens: Range<usize>,
    /// Positions of the keys.
    pub keys: Range<usize>,
    /// Where the job's output starts.
    pub start: usize,
    /// Where its moments go, if it has only a part of the keys.
    pub part: Option<usize>,
}

/// The parts of one token's attention in one key-value head.
#[derive(Clone, Debug)]
pub struct Split {
    /// The task they came from; its `part` is the first one's place.
    pub whole: Task,
    /// How many there are.
    pub parts: usize,
}

/// A key-value head of a job with a ridge.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Index of the job.
    pub job: usize,
    /// Key-value head.
    pub kv_head: usize,
    /// Where the job's output starts.
    pub start: usize,
}

/// Everything a call has to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Passes that need no solver, longest first.
    pub tasks: Vec<Task>,
    /// Tokens whose keys were cut.
    pub splits: Vec<Split>,
    /// Numbers that the moments of all parts take.
    pub parts_len: usize,
    /// Heads that need a solver.
    pub units: Vec<Unit>,
    /// Multiplications, about.
    pub work: usize,
}

impl Plan {
    /// Checks jobs and cuts them; `out` is the length of the output.
    pub fn of(jobs: &[Attention], out: usize) -> Result<Self, AttendError> {
        let (mut plan, mut start) = (Self::default(), 0_usize);
        for (index, job) in jobs.iter().enumerate() {
            let tokens = check(job)?;
            let Shape { heads, kv_heads, dim, value_dim } = job.shape;
            for kv_head in 0..if tokens == 0 { 0 } else { kv_heads } {
                let group = kv_head * job.shape.group()..(kv_head + 1) * job.shape.group();
                if group.clone().any(|head| corrected(job, head)) {
                    plan.units.push(Unit { job: index, kv_head, start });
                }
                if group.into_iter().any(|head| !corrected(job, head)) {
                    plan.cut(job, Task { job: index, kv_head, tokens: 0..tokens, keys: 0..0, start, part: None });
                }
            }
            plan.work = plan.work.saturating_add(tokens * (job.first + tokens) * heads * (dim + value_dim));
            start = start.saturating_add(tokens * heads * value_dim);
        }
        if start != out {
            return Err(AttendError::Shape("outputs"));
        }
        // Later tokens see more keys; longest first keeps all threads busy to the end.
        plan.tasks.sort_by_key(|task| std::cmp::Reverse(task.tokens.len() * task.keys.len()));
        Ok(plan)
    }

    /// Cuts a key-value head of a job: many tokens into blocks of about as many rows, one token into parts of its keys.
    fn cut(&mut self, job: &Attention, whole: Task) {
        let tokens = whole.tokens.len();
        let seen = apply::sight(job, 0).start..job.first + tokens;
        if tokens == 1 && seen.len() > PART_KEYS {
            let record = Record::of(job).len * job.shape.group();
            let first = self.parts_len;
            for start in (seen.start / PART_KEYS * PART_KEYS..seen.end).step_by(PART_KEYS) {
                let keys = start.max(seen.start)..seen.end.min(start + PART_KEYS);
                self.tasks.push(Task { keys, part: Some(self.parts_len), ..whole.clone() });
                self.parts_len += record;
            }
            let parts = (self.parts_len - first) / record;
            self.splits.push(Split { whole: Task { part: Some(first), ..whole }, parts });
            return;
        }
        let block = (ROWS_PER_PASS / job.shape.group()).max(1);
        let mut to = 0;
        while to < tokens {
            let from = to;
            to = if tokens - from < block + LEAST_TOKENS { tokens } else { from + block };
            let keys = apply::sight(job, from).start..job.first + to;
            self.tasks.push(Task { tokens: from..to, keys, ..whole.clone() });
        }
    }
}

/// Whether a solver corrects a query head's average.
pub fn corrected(job: &Attention, head: usize) -> bool {
    matches!(job.rho, Rho::Solve(ridge) if ridge.lambda(head).is_finite())
}

/// Tokens of a job whose parts fit.
fn check(job: &Attention) -> Result<usize, AttendError> {
    job.shape.check()?;
    if job.shape != job.store.shape() {
        return Err(AttendError::Shape("store"));
    }
    let width = job.shape.heads * job.shape.dim;
    if !job.queries.len().is_multiple_of(width) {
        return Err(AttendError::Shape("queries"));
    }
    if !job.scale.is_finite() {
        return Err(AttendError::Scale);
    }
    match job.rho {
        Rho::Projection(rho) if rho.len() != job.queries.len() => return Err(AttendError::Shape("projections")),
        Rho::Solve(ridge) => ridge.check(job.shape.heads)?,
        Rho::Zero | Rho::Projection(_) => {}
    }
    let (tokens, held) = (job.queries.len() / width, job.store.len());
    let end = job.first.saturating_add(tokens);
    match tokens {
        0 => Ok(0),
        _ if held == 0 => Err(AttendError::Empty),
        _ if end > held => Err(AttendError::Overlong { end, held }),
        _ => Ok(tokens),
    }
}
