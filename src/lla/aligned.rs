//! Scratch memory of the kernels: numbers that start on a cache line.
#![allow(unsafe_code, reason = "lines seen as numbers; the block says why it is sound")]

use crate::lla::store::LANES;

/// Sixteen numbers, aligned: scratch is made of these.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line([f32; LANES]);

/// A list of numbers that starts on a cache line.
#[derive(Default)]
pub struct Aligned(Vec<Line>);

impl Aligned {
    /// Makes room for `len` numbers, whose values are left over from before or zero.
    pub fn fit(&mut self, len: usize) {
        if self.0.len() * LANES < len {
            self.0.resize(len.div_ceil(LANES), Line([0.0; LANES]));
        }
    }

    /// Makes room for `len` numbers and sets them.
    pub fn set(&mut self, len: usize, x: f32) {
        self.0.clear();
        self.0.resize(len.div_ceil(LANES), Line([x; LANES]));
    }

    /// The numbers.
    pub fn numbers(&mut self) -> &mut [f32] {
        // SAFETY: a line is sixteen numbers and nothing else, and lines follow one another without gaps.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * LANES) }
    }
}
