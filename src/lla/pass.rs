//! Tasks of softmax and of given projections: gathering moments, joining those of a split, writing rows.
#![allow(unsafe_code, reason = "tasks write disjoint rows of one output; each block says why it is sound")]

use crate::lla::moments::{Gather, SCRATCH};
use crate::lla::plan::{Split, Task, corrected};
use crate::lla::pool::Shards;
use crate::lla::record::Record;
use crate::lla::simd::Level;
use crate::lla::{Attention, apply, lanes};

/// Runs one task, into its rows of `out` or its place in `parts`.
pub fn gather(level: Level, job: &Attention, task: &Task, parts: &Shards<f32>, out: &Shards<f32>) {
    SCRATCH.with_borrow_mut(|scratch| {
        lanes::run(level, Gather { job, task, scratch });
        let record = Record::of(job).len;
        let rows = task.tokens.len() * job.shape.group();
        let moments = scratch.moments.numbers();
        if let Some(place) = task.part {
            // SAFETY: every part has a place of its own.
            let to = unsafe { parts.range(place, rows * record) };
            to.iter_mut().zip(moments).for_each(|(to, from)| *to = *from);
            return;
        }
        for (row, record) in moments.chunks_exact(record).take(rows).enumerate() {
            place(job, task, row, record, out);
        }
    });
}

/// Joins the parts of one token's attention and writes its rows.
pub fn join(job: &Attention, split: &Split, parts: &Shards<f32>, out: &Shards<f32>) {
    let (record, group) = (Record::of(job).len, job.shape.group());
    let first = split.whole.part.unwrap_or(0);
    // SAFETY: a split's places are its own, and all of its parts are done.
    let all = unsafe { parts.range(first, split.parts * group * record) };
    for row in 0..group {
        let mut rows: Vec<&mut [f32]> = all.chunks_exact_mut(record).skip(row).step_by(group).collect();
        apply::join(&mut rows);
        if let Some(joined) = rows.first() {
            place(job, &split.whole, row, joined, out);
        }
    }
}

/// Writes a row of a task, unless a solver will.
fn place(job: &Attention, task: &Task, row: usize, record: &[f32], out: &Shards<f32>) {
    let (group, width) = (job.shape.group(), job.shape.value_dim);
    let (token, head) = (task.tokens.start + row / group, task.kv_head * group + row % group);
    if corrected(job, head) {
        return;
    }
    // SAFETY: a (job, token, head) triple belongs to one task or split only.
    let to = unsafe { out.range(task.start + (token * job.shape.heads + head) * width, width) };
    apply::write(job, token, head, record, to);
}
