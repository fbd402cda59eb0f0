//! Local linear attention: the correction solves `(C + lambda I) rho = kbar - q`, `C` the covariance of the visible keys
//! under the query's own softmax weights.
//!
//! One token is solved in phases over parts of its keys ([`state`], [`sweep`]), many tokens in blocks that keep their
//! weights ([`block`]). With enough heads each is one task; with few, all threads share every phase.
#![allow(unsafe_code, reason = "tasks write disjoint ranges; each block says why it is sound")]

mod block;
mod descent;
mod factor;
mod state;
mod sweep;
mod tiles;

use std::sync::{Mutex, PoisonError};

use crate::lla::aligned::Aligned;
use crate::lla::lanes;
use crate::lla::plan::Unit;
use crate::lla::pool::{Panicked, Pool, Shards};
use crate::lla::report::Report;
use crate::lla::ridge::{Rho, Ridge};
use crate::lla::simd::Level;
use crate::lla::solve::block::Block;
use crate::lla::solve::state::{Phase, State};
use crate::lla::solve::sweep::{LENT, Sweep};
use crate::lla::{Attention, Shape};

/// One token's solve with its memory.
struct Solve<'a> {
    state: State<'a>,
    weights: Aligned,
    results: Aligned,
    report: Report,
    /// Where the rows of the unit's query heads start, and how long they are.
    out: (usize, usize),
}

/// Solves all units, writing the rows of heads with a finite ridge. `pool` is `None` for little work.
pub fn run(
    pool: Option<&Pool>,
    level: Level,
    jobs: &[Attention],
    units: &[Unit],
    out: &Shards<f32>,
) -> Result<Report, Panicked> {
    let (mut solves, mut blocks) = (Vec::new(), Vec::new());
    for unit in units {
        let Some((job, ridge)) = jobs.get(unit.job).and_then(|job| Some((job, ridge(job)?))) else { continue };
        let Shape { heads, dim, value_dim, .. } = job.shape;
        let tokens = job.queries.len() / (heads * dim);
        if tokens > 1 {
            blocks.extend(Block::cut(job, ridge, unit, tokens));
        } else if let Some(state) = State::new(job, ridge, unit) {
            let (weights, results) = Default::default();
            let rows = job.shape.group() * value_dim;
            let out = (unit.start + unit.kv_head * rows, rows);
            solves.push(Solve { state, weights, results, report: Report::default(), out });
        } else {
            block::blank(job, unit, 0..1, out);
        }
    }
    let total = Mutex::new(Report::default());
    let add = |report: &Report| total.lock().unwrap_or_else(PoisonError::into_inner).merge(report);
    let solve = |index: usize| {
        if let Some(block) = blocks.get(index) {
            add(&block.solve(level, out));
        }
    };
    match pool {
        None => {
            (0..blocks.len()).for_each(solve);
            solves.iter_mut().for_each(|one| one.alone(level, out));
        }
        Some(pool) => {
            pool.run(blocks.len(), &solve)?;
            if solves.len() >= 2 * pool.threads() {
                let count = solves.len();
                let shards = Shards::new(&mut solves);
                pool.run(count, &|index| {
                    // SAFETY: every solve is one task.
                    unsafe { shards.range(index, 1) }.iter_mut().for_each(|one| one.alone(level, out));
                })?;
            } else {
                together(pool, level, &mut solves, out)?;
            }
        }
    }
    solves.iter().for_each(|one| add(&one.report));
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn ridge<'a>(job: &Attention<'a>) -> Option<&'a Ridge> {
    match job.rho {
        Rho::Solve(ridge) => Some(ridge),
        Rho::Zero | Rho::Projection(_) => None,
    }
}

impl Solve<'_> {
    /// Runs all phases on this thread.
    fn alone(&mut self, level: Level, out: &Shards<f32>) {
        while self.state.phase != Phase::Over {
            let len = self.open();
            let weights = Shards::new(self.weights.numbers());
            let results = Shards::new(self.results.numbers());
            for part in 0..self.state.parts() {
                sweep(level, &self.state, part, len, &weights, &results);
            }
            self.close(level, out);
        }
    }

    /// Makes room for the next phase; returns the length of a part's result.
    fn open(&mut self) -> usize {
        let len = self.state.result_len();
        self.weights.fit(self.state.sizes.rows * self.state.sizes.weights_row);
        self.results.fit(len * self.state.parts());
        len
    }

    fn close(&mut self, level: Level, out: &Shards<f32>) {
        // SAFETY: rows are those of heads that belong to this unit alone, and it is borrowed mutably.
        let to = unsafe { out.range(self.out.0, self.out.1) };
        let (weights, results) = (self.weights.numbers(), self.results.numbers());
        self.state.finish(level, weights, results, &mut self.report, to);
    }
}

/// Runs the solves phase by phase, the parts of all shared among the threads.
fn together(pool: &Pool, level: Level, solves: &mut [Solve], out: &Shards<f32>) -> Result<(), Panicked> {
    loop {
        let mut tasks = Vec::new();
        let mut open = Vec::new();
        for (index, solve) in solves.iter_mut().enumerate() {
            let len = solve.open();
            if solve.state.phase != Phase::Over {
                tasks.extend((0..solve.state.parts()).map(|part| (index, part)));
            }
            open.push((&solve.state, len, Shards::new(solve.weights.numbers()), Shards::new(solve.results.numbers())));
        }
        if tasks.is_empty() {
            return Ok(());
        }
        pool.run(tasks.len(), &|task| {
            if let Some((part, (state, len, weights, results))) =
                tasks.get(task).and_then(|(index, part)| Some((*part, open.get(*index)?)))
            {
                sweep(level, state, part, *len, weights, results);
            }
        })?;
        drop(open);
        solves.iter_mut().for_each(|solve| solve.close(level, out));
    }
}

/// One part of a phase.
fn sweep(level: Level, state: &State, part: usize, len: usize, weights: &Shards<f32>, results: &Shards<f32>) {
    // Rows of weights are strided: a part has a piece of each, which no other part touches.
    let weights = weights.pointer(state.part(part).start - state.base());
    // SAFETY: a part's result is written by this task alone.
    let result = unsafe { results.range(part * len, len) };
    LENT.with_borrow_mut(|lent| lanes::run(level, Sweep { state, part, weights, result, lent }));
}
