//! One pass of a decoding solve over one part of the keys: weights, mean key, or output; what the solver asks for between
//! them is in [`inside`](crate::lla::solve::inside). Parts are added up by [`state`](crate::lla::solve::state); a pass
//! never sees another part.
//!
//! From the second pass on keys are measured from the solve's centre as they are loaded: the subtraction waits for the
//! same load as the multiply-add, while a centred copy costs as much as two passes.
#![allow(
    clippy::indexing_slicing,
    reason = "scratch and parts are sized from the shape that `attend` checked; see `Sizes`"
)]
#![allow(unsafe_code, reason = "vector kernels over scratch and store; each block says why it is sound")]

use std::cell::RefCell;
use std::ops::Range;

use half::f16;

use crate::lla::aligned::Aligned;
use crate::lla::gemm::Product;
use crate::lla::lanes::{Element, Kernel, Lanes};
use crate::lla::lines::LineSlice;
use crate::lla::record::Record;
use crate::lla::solve::state::{Phase, State};
use crate::lla::store::LANES;
use crate::lla::weigh::weigh;

/// Keys per tile where they are read once: enough sums side by side to hide the latency of a multiply-add.
const TILE: usize = 128;

/// Working memory of a sweep.
#[derive(Default)]
pub struct Lent {
    /// Products of a tile's keys, a row per query.
    pub products: Aligned,
    /// Sums with their lanes apart, `dim` lines per row.
    pub lanes: Aligned,
    /// A tile of scaled keys, component by component.
    pub across: Aligned,
    /// The same key by key.
    pub along: Aligned,
}

thread_local! {
    /// One per thread.
    pub static LENT: RefCell<Lent> = RefCell::default();
}

/// A pass over one part.
pub struct Sweep<'a> {
    /// The solve.
    pub state: &'a State<'a>,
    /// Which part.
    pub part: usize,
    /// Weights of all rows for the part's keys: row `r` starts at `r * state.sizes.weights_row`.
    pub weights: *mut f32,
    /// Where the part's result goes.
    pub result: &'a mut [f32],
    /// Where to work.
    pub lent: &'a mut Lent,
}

impl Kernel for Sweep<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let (state, part) = (self.state, self.state.part(self.part));
        let (dim, width) = (state.sizes.dim, state.sizes.width);
        self.result.fill(0.0);
        // SAFETY: the part's positions are held by the store, which keeps keys and values in the same precision.
        unsafe {
            match (state.job.store.keys(state.unit.kv_head), state.job.store.values(state.unit.kv_head)) {
                (LineSlice::Full(k), LineSlice::Full(v)) => {
                    let (k, v) = (k.as_ptr().cast::<f32>(), v.as_ptr().cast::<f32>());
                    self.over::<L, f32>(part.clone(), k.add(part.start * dim), v.add(part.start * width));
                }
                (LineSlice::Half(k), LineSlice::Half(v)) => {
                    let (k, v) = (k.as_ptr().cast::<f16>(), v.as_ptr().cast::<f16>());
                    self.over::<L, f16>(part.clone(), k.add(part.start * dim), v.add(part.start * width));
                }
                _ => {}
            }
        }
    }
}

impl Sweep<'_> {
    /// The pass over keys and values of either precision; both pointers are at the part's first key.
    #[inline(always)]
    unsafe fn over<L: Lanes, E: Element>(&mut self, part: Range<usize>, keys: *const E, values: *const E) {
        let sizes = self.state.sizes;
        self.lent.lanes.set(self.state.active.len() * sizes.dim.next_multiple_of(LANES) * LANES, 0.0);
        for row in 0..if self.state.phase == Phase::Moments { sizes.rows } else { 0 } {
            self.result[row * sizes.result_row + Record::MOST] = f32::NEG_INFINITY;
        }
        // SAFETY: tiles lie inside the part.
        unsafe {
            match self.state.phase {
                Phase::Moments | Phase::Output => {
                    self.lent.products.fit(sizes.rows * TILE);
                    for start in part.clone().step_by(TILE) {
                        let (at, offset) = (start..part.end.min(start + TILE), start - part.start);
                        let keys = keys.add(offset * sizes.dim);
                        match self.state.phase {
                            Phase::Moments => self.moments::<L, E>(at, offset, keys),
                            _ => self.output::<L, E>(at, offset, keys, values.add(offset * sizes.width)),
                        }
                    }
                }
                Phase::Centre => {
                    let weights = self.weights.cast_const();
                    self.gather::<L, E>(keys, part.len().div_ceil(LANES), weights, sizes.weights_row);
                    self.collect::<L>();
                }
                Phase::Product => self.products::<L, E>(part, keys),
                Phase::Covariance => self.covariances::<L, E>(part, keys),
                Phase::Over => {}
            }
        }
    }

    /// What keys are measured from; null before that is known.
    pub fn centre(&self) -> *const f32 {
        if self.state.centre.is_empty() { std::ptr::null() } else { self.state.centre.as_ptr() }
    }

    /// Products of the active rows' vectors with a tile's keys, from the centre on if there is one, into `to`.
    #[inline(always)]
    pub unsafe fn dots<L: Lanes, E: Element>(&self, keys: *const E, lines: usize, to: *mut f32, to_row: usize) {
        let dim = self.state.sizes.dim;
        // SAFETY: the tile's keys are there; `vectors` has a row of `dim` numbers per active row.
        unsafe {
            L::multiply(&Product {
                rows: self.state.active.len(),
                inner: dim,
                lines,
                a: self.state.vectors.as_ptr(),
                a_row: dim,
                b: keys,
                b_row: LANES,
                b_line: dim * LANES,
                c: to,
                c_row: to_row,
                add: false,
                centre: self.centre(),
            });
        }
    }

    /// Scores to weights relative to the largest of the part so far.
    #[inline(always)]
    unsafe fn moments<L: Lanes, E: Element>(&mut self, at: Range<usize>, offset: usize, keys: *const E) {
        let (sizes, seen) = (self.state.sizes, self.state.seen.clone());
        let lines = at.len().div_ceil(LANES);
        // SAFETY: rows of weights reach to the end of the part, rounded up to whole lines.
        unsafe {
            let first = self.weights.add(offset);
            self.dots::<L, E>(keys, lines, first, sizes.weights_row);
            for row in 0..sizes.rows {
                let line = first.add(row * sizes.weights_row);
                let scores = std::slice::from_raw_parts_mut(line, lines * LANES);
                scores[..seen.start.saturating_sub(at.start).min(lines * LANES)].fill(f32::NEG_INFINITY);
                scores[(seen.end - at.start).min(lines * LANES)..].fill(f32::NEG_INFINITY);
                let running = &mut self.result[row * sizes.result_row..][Record::MOST..=Record::TOTAL];
                let shrink = weigh::<L>(line, lines, running);
                if shrink != 1.0 {
                    let before = std::slice::from_raw_parts_mut(line.sub(offset), offset);
                    before.iter_mut().for_each(|w| *w *= shrink);
                }
            }
        }
    }

    /// Corrected weights of a tile, and the values under them.
    #[inline(always)]
    unsafe fn output<L: Lanes, E: Element>(
        &mut self,
        at: Range<usize>,
        offset: usize,
        keys: *const E,
        values: *const E,
    ) {
        let (sizes, lines) = (self.state.sizes, at.len().div_ceil(LANES));
        let products = self.lent.products.numbers().as_mut_ptr();
        // SAFETY: `products` has a row of `TILE` numbers per row, weights one that reaches to the end of the part; values
        // are held for every key of the tile.
        unsafe {
            self.dots::<L, E>(keys, lines, products, TILE);
            for (index, row) in self.state.active.iter().enumerate() {
                let (line, weights) = (products.add(index * TILE), self.weights.add(row * sizes.weights_row + offset));
                let (shift, mut sum) = (L::splat(1.0 + self.state.shifts[index]), L::splat(0.0));
                for i in (0..lines * LANES).step_by(L::WIDTH) {
                    let weight = shift.sub(L::load(line.add(i))).mul(L::load(weights.add(i)));
                    weight.store(line.add(i));
                    sum = sum.add(weight);
                }
                self.result[index * sizes.result_row] += sum.sum();
            }
            L::multiply(&Product {
                rows: self.state.active.len(),
                inner: at.len(),
                lines: sizes.width / LANES,
                a: products.cast_const(),
                a_row: TILE,
                b: values,
                b_row: sizes.width,
                b_line: LANES,
                c: self.result.as_mut_ptr().add(LANES),
                c_row: sizes.result_row,
                add: true,
                centre: std::ptr::null(),
            });
        }
    }
}
