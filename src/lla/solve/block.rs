//! Many tokens at once: conjugate gradients in step for a block of rows that keeps its weights.
//!
//! A weight is read once per iteration for `4 dim` operations, so keeping it costs less than computing it again at every
//! size of context; only the rows per block shrink as the context grows. Rows that are done leave the products: their
//! directions are not in the matrix that is multiplied. A row is a query head (with a finite ridge) of a token.
#![allow(clippy::indexing_slicing, reason = "matrices are sized in `Memory::fit` from the shape that `attend` checked")]
#![allow(unsafe_code, reason = "vector kernels over scratch and store; each block says why it is sound")]

use std::cell::RefCell;
use std::ops::Range;

use crate::lla::aligned::Aligned;
use crate::lla::lanes::{self, Kernel, Lanes};
use crate::lla::plan::{Unit, corrected};
use crate::lla::pool::Shards;
use crate::lla::report::Report;
use crate::lla::ridge::Ridge;
use crate::lla::simd::Level;
use crate::lla::solve::descent::{Descent, Progress};
use crate::lla::store::LANES;
use crate::lla::{Attention, apply};

/// Keys per tile: keys in both layouts and a step's rows stay in the first two cache levels.
pub const TILE: usize = 64;
/// Weights of a block, in numbers, that the second-level cache holds beside the tiles.
const KEPT: usize = 128 * 1024;
/// Rows per block at least and at most: below, keys are read too often for the work on them; above, weights spill.
const ROWS: (usize, usize) = (12, 48);

/// Positions at multiples of which a sequence may be cut into pieces; a power of two.
const CUT: usize = 8;

/// Some tokens of a job in one key-value head.
pub struct Block<'a> {
    /// The job.
    pub job: &'a Attention<'a>,
    /// Its ridge.
    pub ridge: &'a Ridge,
    /// The key-value head.
    pub unit: &'a Unit,
    /// Its query heads with a finite ridge.
    pub heads: Vec<usize>,
    /// The tokens.
    pub tokens: Range<usize>,
}

/// Working memory of a block.
#[derive(Default)]
pub struct Memory {
    /// Scores, then normalised weights: a row per row, from `Pass::base` on.
    pub weights: Aligned,
    /// Queries, directions or corrections: compact rows of `padded` numbers.
    pub vectors: Aligned,
    /// Products of a tile's keys with them.
    pub products: Aligned,
    /// Sums of keys, compact rows of `padded` numbers.
    pub sums: Aligned,
    /// A tile of keys or values in single precision.
    pub wide: Aligned,
    /// A tile of keys, key by key.
    pub along: Aligned,
    /// Outputs, rows of `width` numbers.
    pub outputs: Aligned,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Writes zeros for the rows of a unit that see nothing.
pub fn blank(job: &Attention, unit: &Unit, tokens: Range<usize>, out: &Shards<f32>) {
    let (group, width) = (job.shape.group(), job.shape.value_dim);
    for token in tokens {
        for head in (unit.kv_head * group..(unit.kv_head + 1) * group).filter(|head| corrected(job, *head)) {
            // SAFETY: the row belongs to this unit alone.
            unsafe { out.range(unit.start + (token * job.shape.heads + head) * width, width) }.fill(0.0);
        }
    }
}

impl<'a> Block<'a> {
    /// Cuts a unit's tokens into blocks, the longest context first.
    ///
    /// Rows of a block share the point that keys are measured from, which shows in their last bits. So where a block ends
    /// depends on positions alone, and none reaches over a multiple of [`CUT`]: a sequence may be run in pieces that end
    /// there, and its rows are the same bits.
    pub fn cut(job: &'a Attention<'a>, ridge: &'a Ridge, unit: &'a Unit, tokens: usize) -> Vec<Self> {
        let group = job.shape.group();
        let heads: Vec<usize> =
            (unit.kv_head * group..(unit.kv_head + 1) * group).filter(|head| corrected(job, *head)).collect();
        let end = job.first + tokens;
        let (mut blocks, mut from) = (Vec::new(), job.first);
        while from < end {
            let keys = (from / CUT + 1).saturating_mul(CUT).min(job.window.unwrap_or(usize::MAX)) + LANES;
            let rows = (KEPT / keys).clamp(ROWS.0, ROWS.1);
            let size = 1 << (rows / heads.len()).clamp(1, CUT).ilog2();
            let to = end.min((from / size + 1) * size);
            let tokens = from - job.first..to - job.first;
            blocks.push(Self { job, ridge, unit, heads: heads.clone(), tokens });
            from = to;
        }
        blocks.reverse();
        blocks
    }

    /// Solves it and writes its rows.
    pub fn solve(&self, level: Level, out: &Shards<f32>) -> Report {
        if apply::sight(self.job, self.tokens.start).is_empty() {
            blank(self.job, self.unit, self.tokens.clone(), out);
            return Report::default();
        }
        MEMORY.with_borrow_mut(|memory| lanes::run(level, Pass::new(self, memory, out)))
    }
}

/// A block being solved.
pub struct Pass<'a> {
    /// The block.
    pub block: &'a Block<'a>,
    /// Where to work.
    pub memory: &'a mut Memory,
    /// Where outputs go.
    pub out: &'a Shards<'a, f32>,
    /// Query heads x tokens.
    pub rows: usize,
    /// Numbers per key.
    pub dim: usize,
    /// `dim` rounded up to whole lines.
    pub padded: usize,
    /// Numbers per value, likewise.
    pub width: usize,
    /// Positions any row sees, from a whole block on.
    pub keys: Range<usize>,
    /// From one row of weights to the next.
    pub stride: usize,
    /// A system per row.
    pub descents: Vec<Descent>,
    /// Positions any row sees.
    pub seen: Range<usize>,
    /// What keys are measured from, once there are weights.
    pub centre: Vec<f32>,
}

impl<'a> Pass<'a> {
    fn new(block: &'a Block<'a>, memory: &'a mut Memory, out: &'a Shards<'a, f32>) -> Self {
        let (job, tokens) = (block.job, block.tokens.clone());
        let rows = tokens.len() * block.heads.len();
        let seen = apply::sight(job, tokens.start).start..job.first + tokens.end;
        let keys = seen.start / LANES * LANES..seen.end;
        let (dim, padded) = (job.shape.dim, job.shape.dim.next_multiple_of(LANES));
        let (width, stride) = (job.shape.value_dim.next_multiple_of(LANES), keys.len().next_multiple_of(LANES));
        memory.weights.fit(rows * stride);
        memory.vectors.fit(rows * padded);
        memory.products.fit(rows * TILE);
        memory.sums.fit(rows * padded);
        memory.wide.fit(TILE * padded.max(width));
        memory.along.fit(TILE * padded);
        memory.outputs.set(rows * width, 0.0);
        let (descents, centre) = (Vec::with_capacity(rows), Vec::new());
        Self { block, memory, out, rows, dim, padded, width, keys, stride, descents, seen, centre }
    }

    /// Token and query head of a row.
    pub fn place(&self, row: usize) -> (usize, usize) {
        let heads = &self.block.heads;
        (self.block.tokens.start + row / heads.len(), heads[row % heads.len()])
    }

    /// Tiles of keys.
    pub fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let keys = self.keys.clone();
        keys.clone().step_by(TILE).map(move |start| start..keys.end.min(start + TILE))
    }
}

impl Kernel for Pass<'_> {
    type Output = Report;

    #[inline(always)]
    fn run<L: Lanes>(mut self) -> Report {
        // SAFETY: the store holds the block's keys; memory was sized for it in `new`.
        unsafe {
            self.weigh::<L>();
            self.begin::<L>();
            loop {
                let going: Vec<usize> =
                    (0..self.rows).filter(|row| self.descents[*row].progress == Progress::Going).collect();
                if going.is_empty() {
                    break;
                }
                self.step::<L>(&going);
            }
            self.output::<L>();
        }
        self.write()
    }
}

impl Pass<'_> {
    /// Copies the outputs to their places, and counts.
    fn write(&mut self) -> Report {
        let (job, mut report) = (self.block.job, Report::default());
        for row in 0..self.rows {
            let (token, head) = self.place(row);
            let (descent, width) = (&self.descents[row], job.shape.value_dim);
            // SAFETY: the row belongs to this block alone.
            let to = unsafe { self.out.range(self.block.unit.start + (token * job.shape.heads + head) * width, width) };
            to.iter_mut().zip(&self.memory.outputs.numbers()[row * self.width..]).for_each(|(to, o)| *to = *o);
            let mut fell_back = descent.progress == Progress::Failed;
            if !to.iter().all(|x| x.is_finite()) {
                apply::again(job, token, head, to);
                fell_back = true;
            }
            report.fell_back += u64::from(fell_back);
        }
        for (index, token) in self.block.tokens.clone().enumerate() {
            let heads = self.block.heads.iter().enumerate();
            let solved =
                heads.map(|(h, head)| (*head, Some(self.descents[index * self.block.heads.len() + h].iterations)));
            report.count_solve(job, apply::sight(job, token).len(), solved);
        }
        // Keys and values were read once for the block, not once per token.
        let most = self.descents.iter().map(|d| d.iterations).max().unwrap_or(0);
        let numbers = self.keys.len() * (job.shape.dim * (most + 2) + job.shape.value_dim);
        report.kv_bytes = (numbers * job.store.precision().bytes()) as u64;
        report
    }
}
