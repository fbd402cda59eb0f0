//! The passes of a decoding solve between mean key and output: the covariance times a vector, as often as the solver
//! asks, or the covariance itself.
#![allow(clippy::indexing_slicing, reason = "as in `sweep`")]
#![allow(unsafe_code, reason = "vector kernels over scratch; each block says why it is sound")]

use std::ops::Range;

use crate::lla::gemm::Product;
use crate::lla::lanes::{Element, Lanes};
use crate::lla::solve::lone::{Lone, lone};
use crate::lla::solve::sweep::Sweep;
use crate::lla::spread::{Spread, collect, spread};
use crate::lla::store::LANES;

/// Bytes of keys per tile: read twice per pass, the second time from the first-level cache.
const TILE_BYTES: usize = 16 * 1024;
/// Keys per tile at most, and for the covariance always.
const MOST_KEYS: usize = 128;

impl Sweep<'_> {
    /// The covariance times the active rows' vectors.
    #[inline(always)]
    pub unsafe fn products<L: Lanes, E: Element>(&mut self, part: Range<usize>, keys: *const E) {
        let sizes = self.state.sizes;
        // SAFETY: tiles lie inside the part; scratch is sized here and by the caller.
        unsafe {
            if let [row] = self.state.active.as_slice() {
                self.lent.across.fit(4 * LANES * sizes.dim);
                self.result[0] = lone::<L, E>(&Lone {
                    keys,
                    blocks: part.len().div_ceil(LANES),
                    dim: sizes.dim,
                    vector: self.state.vectors.as_ptr(),
                    centre: self.state.centre.as_ptr(),
                    shift: self.state.shifts[0],
                    weights: self.weights.add(row * sizes.weights_row),
                    sums: self.lent.lanes.numbers().as_mut_ptr(),
                    wide: self.lent.across.numbers().as_mut_ptr(),
                });
            } else {
                let tile = (TILE_BYTES / (sizes.dim * size_of::<E>())).clamp(LANES, MOST_KEYS) / LANES * LANES;
                self.lent.products.fit(self.state.active.len() * tile);
                for start in part.clone().step_by(tile) {
                    let (len, offset) = (part.end.min(start + tile) - start, start - part.start);
                    self.product::<L, E>(len.div_ceil(LANES), offset, tile, keys.add(offset * sizes.dim));
                }
            }
            self.collect::<L>();
        }
    }

    /// The covariance of every active row.
    #[inline(always)]
    pub unsafe fn covariances<L: Lanes, E: Element>(&mut self, part: Range<usize>, keys: *const E) {
        for start in part.clone().step_by(MOST_KEYS) {
            let (len, offset) = (part.end.min(start + MOST_KEYS) - start, start - part.start);
            // SAFETY: the tile lies inside the part.
            unsafe { self.covariance::<L, E>(len, offset, keys.add(offset * self.state.sizes.dim)) };
        }
    }

    /// Adds a tile of keys, measured from the centre, under `weights` to the lanes.
    #[inline(always)]
    pub unsafe fn gather<L: Lanes, E: Element>(
        &mut self,
        keys: *const E,
        blocks: usize,
        weights: *const f32,
        row: usize,
    ) {
        let (sums, centre) = (self.lent.lanes.numbers().as_mut_ptr(), self.centre());
        let (rows, dim) = (self.state.active.len(), self.state.sizes.dim);
        // SAFETY: the tile's keys are there; weights and lanes have a row per active row.
        unsafe { spread::<L, E>(&Spread { rows, blocks, dim, keys, centre, weights, weights_row: row, sums }) };
    }

    /// Adds up the lanes into the part's result.
    #[inline(always)]
    pub unsafe fn collect<L: Lanes>(&mut self) {
        let (sizes, lanes) = (self.state.sizes, self.lent.lanes.numbers());
        let line = sizes.dim.next_multiple_of(LANES);
        for row in 0..self.state.active.len() {
            let to = &mut self.result[row * sizes.result_row + LANES..][..line];
            // SAFETY: `lanes` has `dim` lines per row (and up to fifteen more at the end), `to` whole lines.
            unsafe { collect::<L>(lanes.as_ptr().add(row * sizes.dim * LANES), sizes.dim, to.as_mut_ptr()) };
            to[sizes.dim..].fill(0.0);
        }
    }

    /// A tile's keys under the weights times what their products with the vectors are above the mean key's.
    #[inline(always)]
    unsafe fn product<L: Lanes, E: Element>(&mut self, lines: usize, offset: usize, tile: usize, keys: *const E) {
        let sizes = self.state.sizes;
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
    /// mean key differs.
    #[inline(always)]
    unsafe fn covariance<L: Lanes, E: Element>(&mut self, len: usize, offset: usize, keys: *const E) {
        let (sizes, blocks) = (self.state.sizes, len.div_ceil(LANES));
        let (padded, long) = (sizes.dim.next_multiple_of(LANES), blocks * LANES);
        self.lent.across.fit(padded * long);
        self.lent.along.fit(padded * long);
        let across = self.lent.across.numbers();
        across[sizes.dim * long..padded * long].fill(0.0);
        let (across, along) = (across.as_mut_ptr(), self.lent.along.numbers().as_mut_ptr());
        for (index, row) in self.state.active.iter().enumerate() {
            // The covariance hardly notices the rounding of the mean key.
            let kbar = &self.state.rows[*row].descent.kbar;
            let kbar: Vec<f32> = kbar.iter().zip(&self.state.centre).map(|(k, c)| k + c).collect();
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
}
