//! Local linear attention: the correction solves `(C + lambda I) rho = kbar - q`, `C` the covariance of the visible keys
//! under the query's own softmax weights.
//!
//! One token is solved in phases over parts of its keys ([`state`], [`sweep`]), many tokens in blocks that keep their
//! weights ([`block`]). With enough heads each is one task; with few, all threads share every phase.
#![allow(unsafe_code, reason = "tasks write disjoint ranges; each block says why it is sound")]

mod block;
mod descent;
mod factor;
mod inside;
mod lone;
mod state;
mod sweep;
mod tiles;

use std::cell::RefCell;
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

/// Rooms a thread keeps: more than the key-value heads of a layer, and a few hundred KiB each at most contexts.
const ROOMS_KEPT: usize = 64;

/// Memory of a solve.
#[derive(Default)]
struct Room {
    weights: Aligned,
    results: Aligned,
}

thread_local! {
    /// Rooms of earlier calls, so that a decode step asks the system for none.
    static ROOMS: RefCell<Vec<Room>> = RefCell::default();
}

/// One token's solve with its memory.
struct Solve<'a> {
    state: State<'a>,
    room: Room,
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
            let rows = job.shape.group() * value_dim;
            let out = (unit.start + unit.kv_head * rows, rows);
            solves.push(Solve { state, room: Room::default(), report: Report::default(), out });
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
        None => (0..blocks.len()).for_each(solve),
        Some(pool) => pool.run(blocks.len(), &solve)?,
    }
    ROOMS.with_borrow_mut(|rooms| solves.iter_mut().for_each(|one| one.room = rooms.pop().unwrap_or_default()));
    side_by_side(pool, level, &mut solves, out)?;
    ROOMS.with_borrow_mut(|rooms| {
        let free = ROOMS_KEPT.saturating_sub(rooms.len());
        rooms.extend(solves.iter_mut().take(free).map(|one| std::mem::take(&mut one.room)));
    });
    solves.iter().for_each(|one| add(&one.report));
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn ridge<'a>(job: &Attention<'a>) -> Option<&'a Ridge> {
    match job.rho {
        Rho::Solve(ridge) => Some(ridge),
        Rho::Zero | Rho::Projection(_) => None,
    }
}

/// Runs some solves: each on a thread where there are enough of them, else all threads on every phase.
fn side_by_side(pool: Option<&Pool>, level: Level, solves: &mut [Solve], out: &Shards<f32>) -> Result<(), Panicked> {
    match pool {
        None => solves.iter_mut().for_each(|one| one.alone(level, out)),
        Some(pool) if pool.threads() == 1 || solves.len() >= 2 * pool.threads() => {
            let count = solves.len();
            let shards = Shards::new(solves);
            pool.run(count, &|index| {
                // SAFETY: every solve is one task.
                unsafe { shards.range(index, 1) }.iter_mut().for_each(|one| one.alone(level, out));
            })?;
        }
        Some(pool) => together(pool, level, solves, out)?,
    }
    Ok(())
}

impl Solve<'_> {
    /// Runs all phases on this thread.
    fn alone(&mut self, level: Level, out: &Shards<f32>) {
        while self.state.phase != Phase::Over {
            let open = self.open();
            for part in 0..open.state.parts() {
                open.sweep(level, part);
            }
            self.close(level, out);
        }
    }

    /// Makes room for the next phase.
    fn open(&mut self) -> Open<'_> {
        let (state, room) = (&self.state, &mut self.room);
        let len = state.result_len();
        room.weights.fit(state.sizes.rows * state.sizes.weights_row);
        room.results.fit(len * state.parts());
        let (weights, results) = (Shards::new(room.weights.numbers()), Shards::new(room.results.numbers()));
        Open { state, len, weights, results }
    }

    fn close(&mut self, level: Level, out: &Shards<f32>) {
        // SAFETY: rows are those of heads that belong to this unit alone, and it is borrowed mutably.
        let to = unsafe { out.range(self.out.0, self.out.1) };
        let (weights, results) = (self.room.weights.numbers(), self.room.results.numbers());
        self.state.finish(level, weights, results, &mut self.report, to);
    }
}

/// Runs the solves phase by phase, the parts of all shared among the threads.
fn together(pool: &Pool, level: Level, solves: &mut [Solve], out: &Shards<f32>) -> Result<(), Panicked> {
    loop {
        let open: Vec<Open> =
            solves.iter_mut().filter(|one| one.state.phase != Phase::Over).map(|one| one.open()).collect();
        let parts = |(index, one): (usize, &Open)| (0..one.state.parts()).map(move |part| (index, part));
        let tasks: Vec<(usize, usize)> = open.iter().enumerate().flat_map(parts).collect();
        if tasks.is_empty() {
            return Ok(());
        }
        pool.run(tasks.len(), &|task| {
            if let Some((part, one)) = tasks.get(task).and_then(|(index, part)| Some((*part, open.get(*index)?))) {
                one.sweep(level, part);
            }
        })?;
        drop(open);
        solves.iter_mut().for_each(|solve| solve.close(level, out));
    }
}

/// A phase under way.
struct Open<'a> {
    state: &'a State<'a>,
    /// Numbers of a part's result.
    len: usize,
    weights: Shards<'a, f32>,
    results: Shards<'a, f32>,
}

impl Open<'_> {
    /// One part of the phase.
    fn sweep(&self, level: Level, part: usize) {
        let Self { state, len, .. } = *self;
        // Rows of weights are strided: a part has a piece of each, which no other part touches.
        let weights = self.weights.pointer(state.part(part).start - state.base());
        // SAFETY: a part's result is written by this task alone.
        let result = unsafe { self.results.range(part * len, len) };
        LENT.with_borrow_mut(|lent| lanes::run(level, Sweep { state, part, weights, result, lent }));
    }
}
