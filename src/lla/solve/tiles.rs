//! The passes of a block over its keys, tile by tile: weights, mean keys, one iteration, outputs.
//!
//! Every function that reads keys relies on the same promise: the store holds the block's keys, and the memory was sized
//! by `Pass::new`.
#![allow(clippy::indexing_slicing, reason = "matrices are sized in `Pass::new` from the shape that `attend` checked")]
#![allow(unsafe_code, reason = "vector kernels over scratch and store; each block says why it is sound")]

use std::ops::Range;

use half::f16;

use crate::lla::apply;
use crate::lla::gemm::Product;
use crate::lla::lanes::{Element, Lanes};
use crate::lla::lines::LineSlice;
use crate::lla::solve::block::{Pass, TILE};
use crate::lla::solve::descent::{Descent, Guards, centre, dot, from_centre};
use crate::lla::store::LANES;
use crate::lla::weigh::{weigh, widen};

impl Pass<'_> {
    /// A tile of keys in single precision, interleaved: as they are, in place or converted.
    #[inline(always)]
    unsafe fn keys<L: Lanes>(&mut self, tile: &Range<usize>) -> *const f32 {
        let len = tile.len().next_multiple_of(LANES) * self.dim;
        // SAFETY: the tile is held by the store, and `wide` has room for a tile.
        unsafe { self.wide::<L>(self.block.job.store.keys(self.block.unit.kv_head), tile.start * self.dim, len) }
    }

    /// A tile of keys measured from the centre. Keys that no row sees are zero.
    #[inline(always)]
    unsafe fn centred<L: Lanes>(&mut self, tile: &Range<usize>) -> *const f32 {
        let blocks = tile.len().div_ceil(LANES);
        // SAFETY: as above.
        unsafe {
            match self.block.job.store.keys(self.block.unit.kv_head) {
                LineSlice::Full(lines) => self.subtract::<L, f32>(lines.as_ptr().cast(), tile.start, blocks),
                LineSlice::Half(lines) => self.subtract::<L, f16>(lines.as_ptr().cast(), tile.start, blocks),
            }
        }
    }

    #[inline(always)]
    unsafe fn subtract<L: Lanes, E: Element>(&mut self, keys: *const E, start: usize, blocks: usize) -> *const f32 {
        let (dim, to) = (self.dim, self.memory.wide.numbers().as_mut_ptr());
        // SAFETY: the store holds whole blocks from `start` on, and `wide` has room for a tile.
        unsafe {
            let from = keys.add(start * dim);
            for block in 0..blocks {
                let base = block * dim * LANES;
                for (d, centre) in self.centre.iter().enumerate().take(dim) {
                    let centre = L::splat(*centre);
                    for i in (base + d * LANES..base + (d + 1) * LANES).step_by(L::WIDTH) {
                        E::load::<L>(from.add(i)).sub(centre).store(to.add(i));
                    }
                }
                let first = start + block * LANES;
                if first < self.seen.start || first + LANES > self.seen.end {
                    for lane in (0..LANES).filter(|lane| !self.seen.contains(&(first + lane))) {
                        (0..dim).for_each(|d| *to.add(base + d * LANES + lane) = 0.0);
                    }
                }
            }
        }
        to.cast_const()
    }

    #[inline(always)]
    unsafe fn wide<L: Lanes>(&mut self, lines: LineSlice, from: usize, len: usize) -> *const f32 {
        // SAFETY: the caller's promise that `len` numbers follow `from`.
        unsafe {
            match lines {
                LineSlice::Full(lines) => lines.as_ptr().cast::<f32>().add(from),
                LineSlice::Half(lines) => {
                    let to = self.memory.wide.numbers().as_mut_ptr();
                    widen::<L>(lines.as_ptr().cast::<f16>().add(from), to, len);
                    to.cast_const()
                }
            }
        }
    }

    /// `rows` compact vectors times a tile of interleaved keys, into `to`.
    #[inline(always)]
    unsafe fn dots<L: Lanes>(&mut self, rows: usize, keys: *const f32, tile: &Range<usize>, to: *mut f32, row: usize) {
        // SAFETY: vectors has a row of `padded` numbers per row, `to` one of `row`.
        unsafe {
            L::multiply(&Product {
                rows,
                inner: self.dim,
                lines: tile.len().div_ceil(LANES),
                a: self.memory.vectors.numbers().as_ptr(),
                a_row: self.padded,
                b: keys,
                b_row: LANES,
                b_line: self.dim * LANES,
                c: to,
                c_row: row,
                add: false,
                centre: std::ptr::null(),
            });
        }
    }

    /// Adds a tile of keys under `weights` to the sums.
    #[inline(always)]
    unsafe fn gather<L: Lanes>(
        &mut self,
        rows: usize,
        keys: *const f32,
        inner: usize,
        weights: *const f32,
        row: usize,
    ) {
        let along = self.memory.along.numbers().as_mut_ptr();
        // SAFETY: `along` has room for a tile; the interleaved tile has whole blocks.
        unsafe {
            for block in 0..inner.div_ceil(LANES) {
                let (from, to) = (keys.add(block * self.dim * LANES), along.add(block * LANES * self.padded));
                for d in (0..self.dim / LANES * LANES).step_by(LANES) {
                    L::turn(from.add(d * LANES), LANES, to.add(d), self.padded);
                }
                for d in self.dim / LANES * LANES..self.padded {
                    for key in 0..LANES {
                        *to.add(key * self.padded + d) = if d < self.dim { *from.add(d * LANES + key) } else { 0.0 };
                    }
                }
            }
            L::multiply(&Product {
                rows,
                inner,
                lines: self.padded / LANES,
                a: weights,
                a_row: row,
                b: along.cast_const(),
                b_row: self.padded,
                b_line: LANES,
                c: self.memory.sums.numbers().as_mut_ptr(),
                c_row: self.padded,
                add: true,
                centre: std::ptr::null(),
            });
        }
    }

    /// Normalised weights of every row, zero where it sees nothing.
    #[inline(always)]
    pub unsafe fn weigh<L: Lanes>(&mut self) {
        let job = self.block.job;
        for row in 0..self.rows {
            let (token, head) = self.place(row);
            let query = &job.queries[(token * job.shape.heads + head) * self.dim..][..self.dim];
            let to = &mut self.memory.vectors.numbers()[row * self.padded..][..self.dim];
            to.iter_mut().zip(query).for_each(|(to, q)| *to = q * job.scale);
        }
        for tile in self.tiles() {
            // SAFETY: rows of weights reach to the last key, rounded up to whole lines.
            unsafe {
                let keys = self.keys::<L>(&tile);
                let to = self.memory.weights.numbers().as_mut_ptr().add(tile.start - self.keys.start);
                self.dots::<L>(self.rows, keys, &tile, to, self.stride);
            }
        }
        for row in 0..self.rows {
            let seen = apply::sight(job, self.place(row).0);
            let line = &mut self.memory.weights.numbers()[row * self.stride..(row + 1) * self.stride];
            line[..seen.start - self.keys.start].fill(f32::NEG_INFINITY);
            line[seen.end - self.keys.start..].fill(f32::NEG_INFINITY);
            let mut running = [f32::NEG_INFINITY, 0.0];
            // SAFETY: the line is a row of whole lines.
            unsafe { weigh::<L>(line.as_mut_ptr(), self.stride / LANES, &mut running) };
            let inverse = if running[1] > 0.0 { 1.0 / running[1] } else { running[1] };
            line.iter_mut().for_each(|w| *w *= inverse);
        }
        // The first row's keys are seen by the others too, unless a window hides them.
        let weights = &self.memory.weights.numbers()[..self.stride];
        self.centre = centre(weights, self.keys.start, job.store, self.block.unit.kv_head);
    }

    /// Mean keys, and a system for every row.
    #[inline(always)]
    pub unsafe fn begin<L: Lanes>(&mut self) {
        self.memory.sums.numbers()[..self.rows * self.padded].fill(0.0);
        for tile in self.tiles() {
            // SAFETY: as in `weigh`.
            unsafe {
                let keys = self.centred::<L>(&tile);
                let weights = self.memory.weights.numbers().as_ptr().add(tile.start - self.keys.start);
                self.gather::<L>(self.rows, keys, tile.len(), weights, self.stride);
            }
        }
        let (job, kv_head) = (self.block.job, self.block.unit.kv_head);
        for row in 0..self.rows {
            let (token, head) = self.place(row);
            let seen = apply::sight(job, token);
            let kbar = &self.memory.sums.numbers()[row * self.padded..(row + 1) * self.padded];
            let query = &job.queries[(token * job.shape.heads + head) * self.dim..][..self.dim];
            let mean_square = job.store.mean_square(kv_head, seen.start, seen.end);
            let guards = Guards { ridge: self.block.ridge, head, mean_square, seen: seen.len() };
            self.descents.push(Descent::begin(kbar, &from_centre(query, &self.centre), guards));
        }
    }

    /// One iteration of the rows that are going.
    #[inline(always)]
    pub unsafe fn step<L: Lanes>(&mut self, going: &[usize]) {
        let rows = going.len();
        let mut shifts = Vec::with_capacity(rows);
        for (index, row) in going.iter().enumerate() {
            let descent = &self.descents[*row];
            shifts.push(dot(&descent.direction, &descent.kbar));
            self.memory.vectors.numbers()[index * self.padded..(index + 1) * self.padded]
                .copy_from_slice(&descent.direction);
        }
        self.memory.sums.numbers()[..rows * self.padded].fill(0.0);
        let mut totals = vec![0.0; rows];
        for tile in self.tiles() {
            let lines = tile.len().div_ceil(LANES);
            // SAFETY: products has a row of `TILE` numbers per row, weights one of `stride`.
            unsafe {
                let keys = self.centred::<L>(&tile);
                let products = self.memory.products.numbers().as_mut_ptr();
                self.dots::<L>(rows, keys, &tile, products, TILE);
                let weights = self.memory.weights.numbers().as_ptr().add(tile.start - self.keys.start);
                for (index, row) in going.iter().enumerate() {
                    let (line, weights) = (products.add(index * TILE), weights.add(row * self.stride));
                    let (shift, mut sum) = (L::splat(shifts[index]), L::splat(0.0));
                    for i in (0..lines * LANES).step_by(L::WIDTH) {
                        let t = L::load(line.add(i)).sub(shift).mul(L::load(weights.add(i)));
                        t.store(line.add(i));
                        sum = sum.add(t);
                    }
                    totals[index] += sum.sum();
                }
                self.gather::<L>(rows, keys, tile.len(), products.cast_const(), TILE);
            }
        }
        for ((row, total), product) in
            going.iter().zip(&totals).zip(self.memory.sums.numbers().chunks_exact_mut(self.padded))
        {
            self.descents[*row].advance(product, *total);
        }
    }

    /// Corrected sums of values.
    #[inline(always)]
    pub unsafe fn output<L: Lanes>(&mut self) {
        let mut totals = vec![0.0; self.rows];
        let mut shifts = Vec::with_capacity(self.rows);
        for (row, descent) in self.descents.iter_mut().enumerate() {
            let rho = &mut self.memory.vectors.numbers()[row * self.padded..(row + 1) * self.padded];
            descent.rho();
            rho.copy_from_slice(&descent.direction);
            shifts.push(1.0 + dot(rho, &descent.kbar));
        }
        for tile in self.tiles() {
            let lines = tile.len().div_ceil(LANES);
            // SAFETY: as in `step`; values are held for every key of the tile.
            unsafe {
                let keys = self.centred::<L>(&tile);
                let products = self.memory.products.numbers().as_mut_ptr();
                self.dots::<L>(self.rows, keys, &tile, products, TILE);
                let weights = self.memory.weights.numbers().as_ptr().add(tile.start - self.keys.start);
                for (row, shift) in shifts.iter().enumerate() {
                    let (line, weights) = (products.add(row * TILE), weights.add(row * self.stride));
                    let (shift, mut sum) = (L::splat(*shift), L::splat(0.0));
                    for i in (0..lines * LANES).step_by(L::WIDTH) {
                        let weight = shift.sub(L::load(line.add(i))).mul(L::load(weights.add(i)));
                        weight.store(line.add(i));
                        sum = sum.add(weight);
                    }
                    totals[row] += sum.sum();
                }
                let values = self.block.job.store.values(self.block.unit.kv_head);
                let values = self.wide::<L>(values, tile.start * self.width, tile.len() * self.width);
                L::multiply(&Product {
                    rows: self.rows,
                    inner: tile.len(),
                    lines: self.width / LANES,
                    a: products.cast_const(),
                    a_row: TILE,
                    b: values,
                    b_row: self.width,
                    b_line: LANES,
                    c: self.memory.outputs.numbers().as_mut_ptr(),
                    c_row: self.width,
                    add: true,
                    centre: std::ptr::null(),
                });
            }
        }
        // The corrected weights add up to one but for the rounding of the mean key.
        for (row, total) in self.memory.outputs.numbers().chunks_exact_mut(self.width).zip(&totals) {
            row.iter_mut().for_each(|o| *o /= total);
        }
    }
}
