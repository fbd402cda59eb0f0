//! One pass of a decoding solve over one part of the keys: moments, product with the covariance, the covariance itself,
//! or the output. Parts are added up by [`state`](crate::lla::solve::state); a pass never sees another part.
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
use crate::lla::moments::Record;
use crate::lla::solve::state::{Phase, State};
use crate::lla::spread::{Spread, collect, spread};
use crate::lla::store::LANES;
use crate::lla::weigh::weigh;

/// Bytes of keys per tile: read twice per pass, the second time from the first-level cache.
const TILE_BYTES: usize = 16 * 1024;
/// Keys per tile at most.
const MOST_KEYS: usize = 128;

/// Working memory of a sweep.
#[derive(Default)]
pub struct Lent {
    /// Products of a tile's keys, a row per query.
    products: Aligned,
    /// Sums with their lanes apart, `dim` lines per row.
    lanes: Aligned,
    /// A tile of scaled keys, component by component, and the same key by key.
    across: Aligned,
    along: Aligned,
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
    fn run<L: Lanes>(self) {
        let (state, keys) = (self.state, self.state.part(self.part));
        let (dim, width) = (state.sizes.dim, state.sizes.width);
        self.result.fill(0.0);
        // SAFETY: the part's positions are held by the store, which keeps keys and values in the same precision.
        unsafe {
            match (state.job.store.keys(state.unit.kv_head), state.job.store.values(state.unit.kv_head)) {
                (LineSlice::Full(k), LineSlice::Full(v)) => {
                    let (k, v) = (k.as_ptr().cast::<f32>(), v.as_ptr().cast::<f32>());
                    self.over::<L, f32>(keys.clone(), k.add(keys.start * dim), v.add(keys.start * width));
                }
                (LineSlice::Half(k), LineSlice::Half(v)) => {
                    let (k, v) = (k.as_ptr().cast::<f16>(), v.as_ptr().cast::<f16>());
                    self.over::<L, f16>(keys.clone(), k.add(keys.start * dim), v.add(keys.start * width));
                }
                _ => {}
            }
        }
    }
}

impl Sweep<'_> {
    /// The pass over keys and values of either precision; both pointers are at the part's first key.
    #[inline(always)]
    unsafe fn over<L: Lanes, E: Element>(mut self, part: Range<usize>, keys: *const E, values: *const E) {
        let sizes = self.state.sizes;
        let tile = (TILE_BYTES / (sizes.dim * size_of::<E>())).clamp(LANES, MOST_KEYS) / LANES * LANES;
        self.lent.products.fit(sizes.rows * tile);
        self.lent.lanes.set(sizes.rows * sizes.dim.next_multiple_of(LANES) * LANES, 0.0);
        for start in part.clone().step_by(tile) {
            let at = start..part.end.min(start + tile);
            let offset = start - part.start;
            // SAFETY: the tile lies inside the part.
            unsafe {
                let keys = keys.add(offset * sizes.dim);
                match self.state.phase {
                    Phase::Moments => self.moments::<L, E>(at, offset, tile, keys),
                    Phase::Product => self.product::<L, E>(at, offset, tile, keys),
                    Phase::Covariance => self.covariance::<L, E>(at, offset, keys),
                    Phase::Output => self.output::<L, E>(at, offset, tile, keys, values.add(offset * sizes.width)),
                    Phase::Over => {}
                }
            }
        }
        if matches!(self.state.phase, Phase::Moments | Phase::Product) {
            let (lanes, line) = (self.lent.lanes.numbers(), sizes.dim.next_multiple_of(LANES));
            for row in 0..self.state.active.len() {
                let to = &mut self.result[row * sizes.result_row + LANES..][..line];
                // SAFETY: `lanes` has `dim` lines per row (and sixteen more), `to` whole lines.
                unsafe { collect::<L>(lanes.as_ptr().add(row * sizes.dim * LANES), sizes.dim, to.as_mut_ptr()) };
                to[sizes.dim..].fill(0.0);
            }
        }
    }

    /// Products of the active rows' vectors with a tile's keys, into `to`.
    #[inline(always)]
    unsafe fn dots<L: Lanes, E: Element>(&self, keys: *const E, lines: usize, to: *mut f32, to_row: usize) {
        let dim = self.state.sizes.dim;
        // SAFETY: the tile's keys are held; `vectors` has a row of `dim` numbers per active row.
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
                centre: if self.state.centre.is_empty() { std::ptr::null() } else { self.state.centre.as_ptr() },
            });
        }
    }

    /// Adds a tile of keys under `weights` to the lanes.
    #[inline(always)]
    unsafe fn gather<L: Lanes, E: Element>(&mut self, keys: *const E, blocks: usize, weights: *const f32, row: usize) {
        let sums = self.lent.lanes.numbers().as_mut_ptr();
        let (rows, dim) = (self.state.active.len(), self.state.sizes.dim);
        // SAFETY: the tile's keys are held; weights and lanes have a row per active row.
        unsafe { spread::<L, E>(&Spread { rows, blocks, dim, keys, weights, weights_row: row, sums }) };
    }

    #[inline(always)]
    unsafe fn moments<L: Lanes, E: Element>(&mut self, at: Range<usize>, offset: usize, _: usize, keys: *const E) {
        let (sizes, seen) = (self.state.sizes, self.state.seen.clone());
        let lines = at.len().div_ceil(LANES);
        if offset == 0 {
            for row in 0..sizes.rows {
                self.result[row * sizes.result_row + Record::MOST] = f32::NEG_INFINITY;
            }
        }
        // SAFETY: rows of weights reach to the end of the part, rounded up to whole lines.
        unsafe {
            let first = self.weights.add(offset);
            self.dots::<L, E>(keys, lines, first, sizes.weights_row);
            for row in 0..sizes.rows {
                let line = first.add(row * sizes.weights_row);
                let scores = std::slice::from_raw_parts_mut(line, lines * LANES);
                scores[..seen.start.saturating_sub(at.start).min(lines * LANES)].fill(f32::NEG_INFINITY);
                scores[(seen.end - at.start).min(lines * LANES)..].fill(f32::NEG_INFINITY);
                let running = &mut self.result[row * sizes.result_row..][..LANES];
                let shrink = weigh::<L>(line, lines, &mut running[Record::MOST..=Record::TOTAL]);
                if shrink != 1.0 {
                    let before = std::slice::from_raw_parts_mut(line.sub(offset), offset);
                    before.iter_mut().for_each(|w| *w *= shrink);
                    let lanes = sizes.dim * LANES;
                    let sums = &mut self.lent.lanes.numbers()[row * lanes..(row + 1) * lanes];
                    sums.iter_mut().for_each(|s| *s *= shrink);
                }
            }
            self.gather::<L, E>(keys, lines, first.cast_const(), sizes.weights_row);
        }
    }

    #[inline(always)]
    unsafe fn product<L: Lanes, E: Element>(&mut self, at: Range<usize>, offset: usize, tile: usize, keys: *const E) {
        let (sizes, lines) = (self.state.sizes, at.len().div_ceil(LANES));
        let products = self.lent.products.numbers().as_mut_ptr();
        // SAFETY: `products` has a row of `tile` numbers per row, weights one that reaches to the end of the part.
        unsafe {
            self.dots::<L, E>(keys, lines, products, tile);
            for (index, row) in self.state.active.iter().enumerate() {
                let (line, weights) = (products.add(index * tile), self.weights.add(row * sizes.weights_row + offset));
                let shift = L::splat(self.state.shifts[index]);
                let mut sum = L::splat(0.0);
                for i in (0..lines * LANES).step_by(L::WIDTH) {
                    let t = L::load(line.add(i)).sub(shift).mul(L::load(weights.add(i)));
                    t.store(line.add(i));
                    sum = sum.add(t);
                }
                self.result[index * sizes.result_row] += sum.sum();
            }
            self.gather::<L, E>(keys, lines, products.cast_const(), tile);
        }
    }

    /// Adds `sum p u u^T` of a tile, upper triangle in bands of sixteen rows. One row of queries at a time, since the
    /// centre differs.
    #[inline(always)]
    unsafe fn covariance<L: Lanes, E: Element>(&mut self, at: Range<usize>, offset: usize, keys: *const E) {
        let (sizes, blocks) = (self.state.sizes, at.len().div_ceil(LANES));
        let (padded, long) = (sizes.dim.next_multiple_of(LANES), blocks * LANES);
        self.lent.across.fit(padded * long);
        self.lent.along.fit(padded * long);
        let across = self.lent.across.numbers();
        across[sizes.dim * long..padded * long].fill(0.0);
        let (across, along) = (across.as_mut_ptr(), self.lent.along.numbers().as_mut_ptr());
        for (index, row) in self.state.active.iter().enumerate() {
            let kbar = &self.state.rows[*row].descent.kbar;
            let matrix = self.result[index * sizes.dim * padded..].as_mut_ptr();
            // SAFETY: `across` is `padded` rows of `long` numbers, `along` the reverse; the result has a matrix per row.
            unsafe {
                let weights = self.weights.add(row * sizes.weights_row + offset);
                for block in 0..blocks {
                    for i in (0..LANES).step_by(L::WIDTH) {
                        let root = L::load(weights.add(block * LANES + i)).root();
                        for (d, mean) in kbar.iter().enumerate().take(sizes.dim) {
                            let key = E::load::<L>(keys.add((block * sizes.dim + d) * LANES + i));
                            key.sub(L::splat(*mean)).mul(root).store(across.add(d * long + block * LANES + i));
                        }
                    }
                    for d in (0..padded).step_by(LANES) {
                        let to = along.add(block * LANES * padded + d);
                        L::turn(across.add(d * long + block * LANES), long, to, padded);
                    }
                }
                for d in (0..sizes.dim).step_by(LANES) {
                    L::multiply(&Product {
                        rows: LANES.min(sizes.dim - d),
                        inner: long,
                        lines: (padded - d) / LANES,
                        a: across.add(d * long).cast_const(),
                        a_row: long,
                        b: along.add(d).cast_const(),
                        b_row: padded,
                        b_line: LANES,
                        c: matrix.add(d * padded + d),
                        c_row: padded,
                        add: true,
                        centre: std::ptr::null(),
                    });
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes, E: Element>(
        &mut self,
        at: Range<usize>,
        offset: usize,
        tile: usize,
        keys: *const E,
        values: *const E,
    ) {
        let (sizes, lines) = (self.state.sizes, at.len().div_ceil(LANES));
        let products = self.lent.products.numbers().as_mut_ptr();
        // SAFETY: as in `product`; values are held for every key of the tile.
        unsafe {
            self.dots::<L, E>(keys, lines, products, tile);
            for (index, row) in self.state.active.iter().enumerate() {
                let (line, weights) = (products.add(index * tile), self.weights.add(row * sizes.weights_row + offset));
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
                a_row: tile,
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
