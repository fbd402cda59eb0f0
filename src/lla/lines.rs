//! Lists of lines of sixteen numbers, in half or single precision.
#![allow(clippy::indexing_slicing, reason = "a store resizes its lists before it writes, and checks before it reads")]

use half::f16;

use crate::lla::store::{LANES, Precision};

/// Growth of a list beyond what is asked for, as a share of what it holds: an eighth bounds what is wasted.
const SPARE_SHARE: usize = 8;

/// Sixteen numbers in half precision.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct HalfLine(pub [f16; LANES]);

/// Sixteen numbers in single precision: one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct FullLine(pub [f32; LANES]);

/// Lines of either precision.
#[derive(Clone, Debug)]
pub enum Lines {
    Half(Vec<HalfLine>),
    Full(Vec<FullLine>),
}

/// Borrowed lines of either precision.
#[derive(Clone, Copy, Debug)]
pub enum LineSlice<'a> {
    /// Half precision.
    Half(&'a [HalfLine]),
    /// Single precision.
    Full(&'a [FullLine]),
}

/// Resizes a list, growing by little more than is asked for.
pub fn fit<T: Copy>(list: &mut Vec<T>, len: usize, fill: T) {
    if len > list.capacity() {
        list.reserve_exact(len + len / SPARE_SHARE - list.len());
    }
    list.resize(len, fill);
}

/// A number as it is kept in half precision.
fn halved(x: f32) -> f16 {
    if x.is_finite() { f16::from_f32(x.clamp(-65_504.0, 65_504.0)) } else { f16::from_f32(x) }
}

impl Lines {
    /// None yet.
    pub fn new(precision: Precision) -> Self {
        match precision {
            Precision::Half => Self::Half(Vec::new()),
            Precision::Full => Self::Full(Vec::new()),
        }
    }

    /// Makes it `lines` lines; new ones are zero.
    pub fn resize(&mut self, lines: usize) {
        match self {
            Self::Half(list) => fit(list, lines, HalfLine([f16::ZERO; LANES])),
            Self::Full(list) => fit(list, lines, FullLine([0.0; LANES])),
        }
    }

    /// Bytes held, spare room included.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Half(list) => list.capacity() * size_of::<HalfLine>(),
            Self::Full(list) => list.capacity() * size_of::<FullLine>(),
        }
    }

    /// The lines.
    pub fn slice(&self) -> LineSlice<'_> {
        match self {
            Self::Half(list) => LineSlice::Half(list),
            Self::Full(list) => LineSlice::Full(list),
        }
    }

    /// Writes one lane of the lines from `line` on.
    pub fn put_column(&mut self, line: usize, lane: usize, numbers: &[f32]) {
        match self {
            Self::Half(list) => list[line..].iter_mut().zip(numbers).for_each(|(l, x)| l.0[lane] = halved(*x)),
            Self::Full(list) => list[line..].iter_mut().zip(numbers).for_each(|(l, x)| l.0[lane] = *x),
        }
    }

    /// Sets one lane of some lines to zero.
    pub fn clear_column(&mut self, line: usize, lane: usize, lines: usize) {
        match self {
            Self::Half(list) => list[line..].iter_mut().take(lines).for_each(|l| l.0[lane] = f16::ZERO),
            Self::Full(list) => list[line..].iter_mut().take(lines).for_each(|l| l.0[lane] = 0.0),
        }
    }

    /// Writes whole lines from `line` on; what the last one lacks stays zero.
    pub fn put_row(&mut self, line: usize, numbers: &[f32]) {
        for (i, part) in numbers.chunks(LANES).enumerate() {
            match self {
                Self::Half(list) => {
                    list[line + i].0.iter_mut().zip(part).for_each(|(place, x)| *place = halved(*x));
                }
                Self::Full(list) => list[line + i].0[..part.len()].copy_from_slice(part),
            }
        }
    }

    /// Adds the first `lines` lines of another list of the same precision.
    pub fn copy(&mut self, from: &Self, lines: usize) {
        match (self, from) {
            (Self::Half(list), Self::Half(other)) => list.extend_from_slice(&other[..lines]),
            (Self::Full(list), Self::Full(other)) => list.extend_from_slice(&other[..lines]),
            // `copy_prefix` compared the precisions.
            (Self::Half(_), Self::Full(_)) | (Self::Full(_), Self::Half(_)) => {}
        }
    }
}

impl LineSlice<'_> {
    /// One number.
    pub fn number(self, line: usize, lane: usize) -> f32 {
        match self {
            Self::Half(lines) => lines[line].0[lane].to_f32(),
            Self::Full(lines) => lines[line].0[lane],
        }
    }
}
