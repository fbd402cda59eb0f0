//! Block conjugate gradients for the rows of one block: `(sum p u u^T + lambda I) x = b`, all rows in step.
//!
//! Rows that are done leave the block, so that the two products of an iteration shrink with it. A row whose numbers stop
//! being finite gets `x = 0`: softmax attention.
#![allow(clippy::indexing_slicing, reason = "all slices are rows of `Sides`, sized in `Work::new`")]

use crate::lla::backward::block::{Sides, dot};
use crate::lla::backward::product::{Left, Out, Sizes, multiply};
use crate::lla::ridge::Ridge;

/// Vectors of the rows still active, compact from the front; each `rows x dim`.
pub struct Work {
    index: Vec<usize>,
    square: Vec<f32>,
    enough: Vec<f32>,
    x: Vec<f32>,
    r: Vec<f32>,
    direction: Vec<f32>,
    product: Vec<f32>,
    /// `rows x keys`.
    along: Vec<f32>,
}

impl Work {
    /// For blocks of `rows` rows.
    pub fn new(rows: usize, dim: usize, keys: usize) -> Self {
        let vectors = || vec![0.0; rows * dim];
        Self {
            index: Vec::with_capacity(rows),
            square: vec![0.0; rows],
            enough: vec![0.0; rows],
            x: vectors(),
            r: vectors(),
            direction: vectors(),
            product: vectors(),
            along: vec![0.0; rows * keys],
        }
    }

    /// Solves for the first `rows` rows of `b`, into `out`; the iterations of each row go to `spent`.
    #[inline(always)]
    pub fn solve(
        &mut self,
        sides: &Sides,
        b: &[f32],
        (ridge, head): (&Ridge, usize),
        out: &mut [f32],
        spent: &mut [u8],
    ) {
        let (dim, lambda, most) = (sides.dim, ridge.lambda(head), ridge.most_iterations());
        self.start(sides, b, ridge.tolerance(), out);
        for iteration in 1..=most {
            if self.index.is_empty() {
                return;
            }
            self.multiply(sides, lambda);
            let mut slot = 0;
            while slot < self.index.len() {
                let own = slot * dim..(slot + 1) * dim;
                let step = self.square[slot] / dot(&self.direction[own.clone()], &self.product[own.clone()]);
                let (x, r) = (&mut self.x[own.clone()], &mut self.r[own.clone()]);
                x.iter_mut().zip(&self.direction[own.clone()]).for_each(|(x, d)| *x += step * d);
                r.iter_mut().zip(&self.product[own.clone()]).for_each(|(r, y)| *r -= step * y);
                let next = dot(r, r);
                let row = self.index[slot];
                spent[row] = iteration as u8;
                if !next.is_finite() || next <= self.enough[slot] || iteration == most {
                    let place = &mut out[row * dim..(row + 1) * dim];
                    if next.is_finite() {
                        place.copy_from_slice(x)
                    } else {
                        place.fill(0.0)
                    }
                    self.leave(slot, dim);
                    continue;
                }
                let beta = next / self.square[slot];
                self.direction[own].iter_mut().zip(&*r).for_each(|(d, r)| *d = r + beta * *d);
                self.square[slot] = next;
                slot += 1;
            }
        }
    }

    #[inline(always)]
    fn start(&mut self, sides: &Sides, b: &[f32], tolerance: f32, out: &mut [f32]) {
        let dim = sides.dim;
        self.index.clear();
        for row in 0..sides.rows {
            let right = &b[row * dim..(row + 1) * dim];
            let square = dot(right, right);
            out[row * dim..(row + 1) * dim].fill(0.0);
            if square > 0.0 && square.is_finite() {
                let slot = self.index.len();
                self.index.push(row);
                (self.square[slot], self.enough[slot]) = (square, tolerance * tolerance * square);
                self.x[slot * dim..(slot + 1) * dim].fill(0.0);
                self.r[slot * dim..(slot + 1) * dim].copy_from_slice(right);
                self.direction[slot * dim..(slot + 1) * dim].copy_from_slice(right);
            }
        }
    }

    /// `product = sum p (u.d) k + lambda d`; the mean's own share is zero, since `sum p (u.d) = 0`.
    #[inline(always)]
    fn multiply(&mut self, sides: &Sides, lambda: f32) {
        let (dim, stride, seen) = (sides.dim, sides.stride, sides.seen);
        let rows = self.index.len().next_multiple_of(8);
        let forth = Sizes { rows, inner: dim, width: seen };
        let along = Out::fresh(&mut self.along, stride);
        multiply(sides.level, forth, Left::plain(&self.direction, dim), (sides.turned, stride), along);
        for (slot, row) in self.index.iter().enumerate() {
            let direction = &self.direction[slot * dim..(slot + 1) * dim];
            let offset = dot(direction, &sides.means[row * dim..(row + 1) * dim]);
            let weights = &sides.weights[row * stride..row * stride + seen];
            let line = &mut self.along[slot * stride..slot * stride + seen];
            line.iter_mut().zip(weights).for_each(|(t, p)| *t = p * (*t - offset));
        }
        let back = Sizes { rows, inner: seen, width: dim };
        let product = Out::fresh(&mut self.product, dim);
        multiply(sides.level, back, Left::plain(&self.along, stride), (sides.keys, dim), product);
        let active = self.index.len() * dim;
        let pairs = self.product[..active].iter_mut().zip(&self.direction[..active]);
        pairs.for_each(|(y, d)| *y += lambda * d);
    }

    /// Moves the last active row into the slot of one that is done.
    #[inline(always)]
    fn leave(&mut self, slot: usize, dim: usize) {
        let last = self.index.len() - 1;
        self.index.swap_remove(slot);
        if slot != last {
            (self.square[slot], self.enough[slot]) = (self.square[last], self.enough[last]);
            for vectors in [&mut self.x, &mut self.r, &mut self.direction, &mut self.product] {
                vectors.copy_within(last * dim..(last + 1) * dim, slot * dim);
            }
        }
    }
}
