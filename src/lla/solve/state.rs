//! Where a decoding solve stands: one token, the query heads of one key-value head, the keys it sees cut into parts.
//!
//! A solve is a sequence of phases; each is one [`sweep`](crate::lla::solve::sweep) over every part, in any order and on
//! any thread, then [`State::finish`], which adds the parts up in their order and decides what comes next.
#![allow(clippy::indexing_slicing, reason = "lists have one element per row or part, made in `State::new`")]

use std::ops::Range;

use crate::lla::lanes;
use crate::lla::plan::{Unit, corrected};
use crate::lla::record::Record;
use crate::lla::report::Report;
use crate::lla::ridge::{Ridge, Solver};
use crate::lla::simd::{Level, exp};
use crate::lla::solve::descent::{Descent, Guards, Progress, centre, dot, from_centre};
use crate::lla::solve::factor::{Factor, prefers_factor};
use crate::lla::store::LANES;
use crate::lla::{Attention, apply};

/// Keys per part: adding up a part's lanes costs a fortieth of its pass.
const PART_KEYS: usize = 1024;
/// Parts of the covariance at most, since each keeps a matrix per row.
const MATRICES: usize = 8;

/// What the next sweep computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Weights.
    Moments,
    /// Keys measured from a centre, and their mean.
    Centre,
    /// The covariance of the keys.
    Covariance,
    /// The covariance times a vector.
    Product,
    /// Corrected sum of values.
    Output,
    /// Nothing: the output is written.
    Over,
}

/// Sizes in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Query heads with a finite ridge.
    pub rows: usize,
    /// Per query and key.
    pub dim: usize,
    /// Per value, rounded up to whole lines.
    pub width: usize,
    /// From one row of weights to the next.
    pub weights_row: usize,
    /// From one row of a part's result to the next: a line, then a vector.
    pub result_row: usize,
}

/// One query head.
pub struct Row {
    head: usize,
    /// Whether its covariance is factored.
    direct: bool,
    /// Its system.
    pub descent: Descent,
}

/// A solve under way.
pub struct State<'a> {
    /// The job.
    pub job: &'a Attention<'a>,
    /// The key-value head.
    pub unit: &'a Unit,
    ridge: &'a Ridge,
    /// Positions the token sees.
    pub seen: Range<usize>,
    /// Sizes.
    pub sizes: Sizes,
    /// What the next sweep computes.
    pub phase: Phase,
    heads: Vec<usize>,
    /// One per head, once the mean keys are known.
    pub rows: Vec<Row>,
    /// Rows the next sweep is for.
    pub active: Vec<usize>,
    /// A vector of `dim` numbers per active row: queries, directions, or corrections.
    pub vectors: Vec<f32>,
    /// Each one's product with its mean key.
    pub shifts: Vec<f32>,
    /// What keys are measured from once their weights are known: a common offset of all keys is no part of the problem,
    /// but would cost its digits.
    pub centre: Vec<f32>,
    /// Sum of the vector being added up.
    sum: Vec<f32>,
}

impl<'a> State<'a> {
    /// At the start; `None` if the token sees nothing.
    pub fn new(job: &'a Attention<'a>, ridge: &'a Ridge, unit: &'a Unit) -> Option<Self> {
        let (group, dim) = (job.shape.group(), job.shape.dim);
        let heads: Vec<usize> =
            (unit.kv_head * group..(unit.kv_head + 1) * group).filter(|head| corrected(job, *head)).collect();
        let seen = apply::sight(job, 0);
        let width = job.shape.value_dim.next_multiple_of(LANES);
        let sizes = Sizes {
            rows: heads.len(),
            dim,
            width,
            weights_row: seen.end.next_multiple_of(LANES) - seen.start / LANES * LANES,
            result_row: LANES + width.max(dim.next_multiple_of(LANES)),
        };
        let vectors =
            heads.iter().flat_map(|head| &job.queries[head * dim..(head + 1) * dim]).map(|q| q * job.scale).collect();
        let active = (0..heads.len()).collect();
        let (rows, shifts, centre, sum) = Default::default();
        let phase = Phase::Moments;
        let state = Self { job, unit, ridge, seen, sizes, phase, heads, rows, active, vectors, shifts, centre, sum };
        (!state.seen.is_empty()).then_some(state)
    }

    /// Position of the first weight.
    pub fn base(&self) -> usize {
        self.seen.start / LANES * LANES
    }

    fn span(&self) -> usize {
        let parts = self.sizes.weights_row.div_ceil(PART_KEYS);
        if self.phase == Phase::Covariance { PART_KEYS * parts.div_ceil(MATRICES) } else { PART_KEYS }
    }

    /// Parts of the next sweep.
    pub fn parts(&self) -> usize {
        self.sizes.weights_row.div_ceil(self.span())
    }

    /// Positions of a part, from a whole block on.
    pub fn part(&self, part: usize) -> Range<usize> {
        let start = self.base() + part * self.span();
        start..self.seen.end.min(start + self.span())
    }

    /// Numbers of a part's result.
    pub fn result_len(&self) -> usize {
        match self.phase {
            Phase::Covariance => self.active.len() * self.sizes.dim * self.sizes.dim.next_multiple_of(LANES),
            _ => self.sizes.rows * self.sizes.result_row,
        }
    }

    /// Adds up the parts' results (one after another) and goes on to the next phase. `out` is the output of the
    /// key-value head's query heads.
    pub fn finish(
        &mut self,
        level: Level,
        weights: &mut [f32],
        results: &mut [f32],
        report: &mut Report,
        out: &mut [f32],
    ) {
        match self.phase {
            Phase::Moments => return self.weigh(weights, results),
            Phase::Centre => self.begin(results),
            Phase::Covariance => self.factor(level, results),
            Phase::Product => self.advance(results),
            Phase::Output => return self.write(results, report, out),
            Phase::Over => return,
        }
        self.turn();
    }

    /// Picks the rows and vectors of the next phase.
    fn turn(&mut self) {
        self.active.clear();
        for (direct, phase) in [(true, Phase::Covariance), (false, Phase::Product)] {
            let wanted = |row: &Row| row.direct == direct && row.descent.progress == Progress::Going;
            if self.active.is_empty() {
                self.active.extend((0..self.rows.len()).filter(|index| wanted(&self.rows[*index])));
                self.phase = phase;
            }
        }
        if self.active.is_empty() {
            self.active.extend(0..self.sizes.rows);
            self.phase = Phase::Output;
        }
        self.vectors.clear();
        self.shifts.clear();
        for index in &self.active {
            let descent = &mut self.rows[*index].descent;
            if self.phase == Phase::Output {
                descent.rho();
            }
            self.shifts.push(dot(&descent.direction, &descent.kbar));
            self.vectors.extend_from_slice(&descent.direction[..self.sizes.dim]);
        }
    }

    /// Makes the weights of every part add up to one, and picks the centre.
    fn weigh(&mut self, weights: &mut [f32], results: &[f32]) {
        let (sizes, len) = (self.sizes, self.result_len());
        for index in 0..sizes.rows {
            let part = |part: usize| &results[part * len + index * sizes.result_row..][..LANES];
            let most = (0..self.parts()).map(|p| part(p)[Record::MOST]).fold(f32::NEG_INFINITY, f32::max);
            let factor = |p: usize| if part(p)[Record::MOST] == most { 1.0 } else { exp(part(p)[Record::MOST] - most) };
            let total: f32 = (0..self.parts()).map(|p| part(p)[Record::TOTAL] * factor(p)).sum();
            let inverse = if total > 0.0 { 1.0 / total } else { total };
            let row = &mut weights[index * sizes.weights_row..(index + 1) * sizes.weights_row];
            for p in 0..self.parts() {
                let share = factor(p) * inverse;
                let own = self.part(p).start - self.base()..self.part(p).end.next_multiple_of(LANES) - self.base();
                row[own].iter_mut().for_each(|w| *w *= share);
            }
        }
        self.centre = centre(&weights[..sizes.weights_row], self.base(), self.job.store, self.unit.kv_head);
        self.phase = Phase::Centre;
    }

    /// Adds up the mean keys and starts the solvers.
    fn begin(&mut self, results: &[f32]) {
        let (sizes, len) = (self.sizes, self.result_len());
        let mean_square = self.job.store.mean_square(self.unit.kv_head, self.seen.start, self.seen.end);
        for (index, head) in self.heads.iter().enumerate() {
            self.sum.clear();
            self.sum.resize(sizes.dim.next_multiple_of(LANES), 0.0);
            for part in 0..self.parts() {
                let result = &results[part * len + index * sizes.result_row..][LANES..sizes.result_row];
                self.sum.iter_mut().zip(result).for_each(|(sum, x)| *sum += x);
            }
            let query = from_centre(&self.job.queries[head * sizes.dim..(head + 1) * sizes.dim], &self.centre);
            let guards = Guards { ridge: self.ridge, head: *head, mean_square, seen: self.seen.len() };
            let direct = match self.ridge.solver() {
                Solver::ConjugateGradient => false,
                Solver::Gram => true,
                Solver::Auto => prefers_factor(self.job.store.recent(*head), sizes.dim, self.seen.len()),
            };
            self.rows.push(Row { head: *head, direct, descent: Descent::begin(&self.sum, &query, guards) });
        }
    }

    fn factor(&mut self, level: Level, results: &mut [f32]) {
        let (size, stride) = (self.sizes.dim, self.sizes.dim.next_multiple_of(LANES));
        let (first, rest) = results.split_at_mut(self.result_len());
        for part in rest.chunks_exact(first.len()).take(self.parts() - 1) {
            first.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
        for (matrix, index) in first.chunks_exact_mut(size * stride).zip(&self.active) {
            let descent = &mut self.rows[*index].descent;
            for d in 0..size {
                matrix[d * stride + d] += descent.lambda;
            }
            let mut right = descent.target().to_vec();
            if lanes::run(level, Factor { matrix, size, stride, right: &mut right }) {
                descent.settle(&right);
            } else {
                descent.progress = Progress::Failed;
            }
        }
    }

    fn advance(&mut self, results: &[f32]) {
        let (sizes, len) = (self.sizes, self.result_len());
        for (index, row) in self.active.iter().enumerate() {
            self.sum.fill(0.0);
            let mut weight = 0.0;
            for part in 0..self.parts() {
                let result = &results[part * len + index * sizes.result_row..][..sizes.result_row];
                weight += result[0];
                self.sum.iter_mut().zip(&result[LANES..]).for_each(|(sum, x)| *sum += x);
            }
            self.rows[*row].descent.advance(&mut self.sum, weight);
        }
    }

    fn write(&mut self, results: &[f32], report: &mut Report, out: &mut [f32]) {
        let (sizes, len, width) = (self.sizes, self.result_len(), self.job.shape.value_dim);
        for (index, row) in self.rows.iter().enumerate() {
            let place = &mut out[row.head % self.job.shape.group() * width..][..width];
            place.fill(0.0);
            let mut total = 0.0;
            for part in 0..self.parts() {
                let result = &results[part * len + index * sizes.result_row..];
                place.iter_mut().zip(&result[LANES..]).for_each(|(o, x)| *o += x);
                total += result[0];
            }
            // The corrected weights add up to one but for the rounding of the mean key.
            place.iter_mut().for_each(|o| *o /= total);
            let mut fell_back = row.descent.progress == Progress::Failed;
            if !place.iter().all(|x| x.is_finite()) {
                apply::again(self.job, 0, row.head, place);
                fell_back = true;
            }
            report.fell_back += u64::from(fell_back);
            let recent = self.job.store.recent(row.head);
            // The covariance teaches nothing about iterations: after some tokens with it they are counted again.
            self.job.store.note(row.head, if row.direct { recent.saturating_sub(1) } else { row.descent.iterations });
        }
        let solved = self.rows.iter().map(|row| (row.head, (!row.direct).then_some(row.descent.iterations)));
        report.count_solve(self.job, self.seen.len(), solved);
        self.phase = Phase::Over;
    }
}
