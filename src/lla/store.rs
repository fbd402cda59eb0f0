//! Keys and values of one layer of one sequence, in the layout the kernels read.
//!
//! Per key-value head: keys in blocks of sixteen positions, interleaved, so that sixteen scores come out of one vector
//! with no sum across it (`dim` lines of sixteen numbers per block); values one row per position, padded with zeros to
//! whole lines. Lanes past the last position are zero. Beside them the running sum of the keys' squared lengths, from
//! which the kernels take the smallest ridge that single precision can bear.
//!
//! Invariants: every head holds the same number of positions; half precision saturates, so a finite number is never
//! stored as an infinite one.
#![allow(
    clippy::indexing_slicing,
    reason = "`append` and `resize` size every list from the shape; readers check head and position first"
)]

use std::sync::atomic::{AtomicU8, Ordering};

use crate::lla::lines::{LineSlice, Lines, fit};
use crate::lla::{AttendError, Shape};

/// Positions per block of keys, and numbers per line.
pub const LANES: usize = 16;

/// How numbers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Half precision (IEEE binary16), two bytes.
    Half,
    /// Single precision, four bytes.
    Full,
}

impl Precision {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Full => 4,
        }
    }
}

/// What one key-value head holds.
#[derive(Clone, Debug)]
struct Head {
    keys: Lines,
    values: Lines,
    /// Sum of the squared lengths of the keys up to and including each position.
    squares: Vec<f64>,
}

/// Keys and values of one layer of one sequence. Grows with [`Store::append`]; bounded by its owner.
#[derive(Debug)]
pub struct Store {
    shape: Shape,
    precision: Precision,
    heads: Vec<Head>,
    len: usize,
    /// Iterations the solver took for each query head the last time; 0 where it has not run. A hint only: it picks the
    /// cheaper of two solvers that give the same answer.
    recent: Vec<AtomicU8>,
}

impl Store {
    /// An empty store. The shape is checked when something is appended or attended to.
    pub fn new(shape: Shape, precision: Precision) -> Self {
        let head = || Head { keys: Lines::new(precision), values: Lines::new(precision), squares: Vec::new() };
        let heads = (0..shape.kv_heads).map(|_| head()).collect();
        Self { shape, precision, heads, len: 0, recent: (0..shape.heads).map(|_| AtomicU8::new(0)).collect() }
    }

    /// Shape it was made for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How numbers are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes in use, spare room included.
    pub fn bytes(&self) -> usize {
        let squares = self.heads.iter().map(|h| h.squares.capacity() * size_of::<f64>()).sum::<usize>();
        self.heads.iter().map(|h| h.keys.bytes() + h.values.bytes()).sum::<usize>() + squares
    }

    /// Adds positions at the end: `tokens * kv_heads * dim` numbers of keys (after position encoding) and
    /// `tokens * kv_heads * value_dim` of values, position by position. On an error nothing changes.
    pub fn append(&mut self, keys: &[f32], values: &[f32]) -> Result<(), AttendError> {
        self.shape.check()?;
        let Shape { kv_heads, dim, value_dim, .. } = self.shape;
        let tokens = keys.len() / (kv_heads * dim);
        if keys.len() != tokens * kv_heads * dim || values.len() != tokens * kv_heads * value_dim {
            return Err(AttendError::Shape("keys and values"));
        }
        let before = self.len;
        self.resize(before + tokens);
        for (index, head) in self.heads.iter_mut().enumerate() {
            let mut sum = before.checked_sub(1).map_or(0.0, |last| head.squares[last]);
            for token in 0..tokens {
                let position = before + token;
                let key = &keys[(token * kv_heads + index) * dim..][..dim];
                head.keys.put_column(position / LANES * dim, position % LANES, key);
                let value = &values[(token * kv_heads + index) * value_dim..][..value_dim];
                head.values.put_row(position * value_dim.div_ceil(LANES), value);
                sum += key.iter().map(|k| f64::from(*k) * f64::from(*k)).sum::<f64>();
                head.squares[position] = sum;
            }
        }
        Ok(())
    }

    /// Forgets the positions from `len` on; keeps the memory.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        self.resize(len);
        let dim = self.shape.dim;
        for head in &mut self.heads {
            for lane in len..len.next_multiple_of(LANES) {
                head.keys.clear_column(len / LANES * dim, lane % LANES, dim);
            }
        }
    }

    /// Makes this store hold the first `len` positions of another of the same shape and precision (fewer if it has
    /// fewer), and nothing else.
    pub fn copy_prefix(&mut self, other: &Self, len: usize) -> Result<(), AttendError> {
        if self.shape != other.shape || self.precision != other.precision {
            return Err(AttendError::Shape("stores"));
        }
        self.truncate(0);
        let len = len.min(other.len);
        let whole = len.next_multiple_of(LANES).min(other.len);
        let (blocks, row) = (whole.div_ceil(LANES), self.shape.value_dim.div_ceil(LANES));
        for (head, from) in self.heads.iter_mut().zip(&other.heads) {
            head.keys.copy(&from.keys, blocks * self.shape.dim);
            head.values.copy(&from.values, whole * row);
            head.squares.clear();
            head.squares.extend_from_slice(&from.squares[..whole]);
        }
        self.len = whole;
        self.truncate(len);
        Ok(())
    }

    /// The key of one head at a position, in single precision; empty where there is none.
    pub fn key(&self, kv_head: usize, position: usize) -> Vec<f32> {
        if kv_head >= self.heads.len() || position >= self.len {
            return Vec::new();
        }
        let (dim, keys) = (self.shape.dim, self.keys(kv_head));
        (0..dim).map(|d| keys.number(position / LANES * dim + d, position % LANES)).collect()
    }

    /// The value of one head at a position, in single precision; empty where there is none.
    pub fn value(&self, kv_head: usize, position: usize) -> Vec<f32> {
        if kv_head >= self.heads.len() || position >= self.len {
            return Vec::new();
        }
        let (row, values) = (self.shape.value_dim.div_ceil(LANES), self.values(kv_head));
        (0..self.shape.value_dim).map(|d| values.number(position * row + d / LANES, d % LANES)).collect()
    }

    /// Keys of a head: `dim` lines per block of sixteen positions; line `d` of a block has component `d` of each.
    pub(in crate::lla) fn keys(&self, kv_head: usize) -> LineSlice<'_> {
        self.heads[kv_head].keys.slice()
    }

    /// Values of a head: whole lines per position, the last padded with zeros.
    pub(in crate::lla) fn values(&self, kv_head: usize) -> LineSlice<'_> {
        self.heads[kv_head].values.slice()
    }

    /// Mean squared length of the keys at positions `from..to` of a head (0 for none).
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a guard's size, not a result")]
    pub(in crate::lla) fn mean_square(&self, kv_head: usize, from: usize, to: usize) -> f32 {
        let squares = &self.heads[kv_head].squares;
        let up_to = |n: usize| n.checked_sub(1).and_then(|last| squares.get(last)).copied().unwrap_or(0.0);
        let (from, to) = (from.min(self.len), to.min(self.len));
        if from < to { ((up_to(to) - up_to(from)) / (to - from) as f64) as f32 } else { 0.0 }
    }

    /// Iterations that a query head took the last time; 0 if unknown.
    pub(in crate::lla) fn recent(&self, head: usize) -> usize {
        self.recent.get(head).map_or(0, |n| usize::from(n.load(Ordering::Relaxed)))
    }

    /// Notes the iterations a query head took.
    pub(in crate::lla) fn note(&self, head: usize, iterations: usize) {
        if let Some(place) = self.recent.get(head) {
            place.store(u8::try_from(iterations).unwrap_or(u8::MAX), Ordering::Relaxed);
        }
    }

    fn resize(&mut self, len: usize) {
        let (blocks, row) = (len.div_ceil(LANES), self.shape.value_dim.div_ceil(LANES));
        for head in &mut self.heads {
            head.keys.resize(blocks * self.shape.dim);
            head.values.resize(len * row);
            fit(&mut head.squares, len, 0.0);
        }
        self.len = len;
    }
}

impl Clone for Store {
    fn clone(&self) -> Self {
        let recent = self.recent.iter().map(|n| AtomicU8::new(n.load(Ordering::Relaxed))).collect();
        Self { shape: self.shape, precision: self.precision, heads: self.heads.clone(), len: self.len, recent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { heads: 4, kv_heads: 2, dim: 5, value_dim: 18 };

    fn numbers(tokens: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..tokens * SHAPE.kv_heads * width).map(|_| random.f32() * 8.0 - 4.0).collect()
    }

    fn filled(precision: Precision, pieces: &[usize]) -> (Store, Vec<f32>, Vec<f32>) {
        let mut store = Store::new(SHAPE, precision);
        let total: usize = pieces.iter().sum();
        let (keys, values) = (numbers(total, 5, 1), numbers(total, 18, 2));
        let (mut k, mut v) = (&keys[..], &values[..]);
        for piece in pieces {
            let (a, rest) = k.split_at(piece * 10);
            let (b, others) = v.split_at(piece * 36);
            store.append(a, b).unwrap();
            (k, v) = (rest, others);
        }
        (store, keys, values)
    }

    fn same(a: &Store, b: &Store, len: usize) {
        assert_eq!((a.len(), b.len() >= len), (len, true));
        for head in 0..2 {
            for position in 0..len {
                assert_eq!(a.key(head, position), b.key(head, position));
                assert_eq!(a.value(head, position), b.value(head, position));
            }
            assert_eq!(a.mean_square(head, 1, len), b.mean_square(head, 1, len));
        }
    }

    #[test]
    fn what_was_appended_is_read_back() {
        for pieces in [vec![1; 40], vec![40], vec![3, 16, 17, 4]] {
            let (store, keys, values) = filled(Precision::Full, &pieces);
            for position in 0..40 {
                for head in 0..2 {
                    assert_eq!(store.key(head, position), keys[(position * 2 + head) * 5..][..5]);
                    assert_eq!(store.value(head, position), values[(position * 2 + head) * 18..][..18]);
                }
            }
            assert!(store.key(2, 0).is_empty() && store.value(0, 40).is_empty());
            let square = |p: usize| keys[p * 10..p * 10 + 5].iter().map(|x| x * x).sum::<f32>();
            let mean = (3..9).map(square).sum::<f32>() / 6.0;
            assert!((store.mean_square(0, 3, 9) / mean - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn half_precision_rounds_and_saturates() {
        let (store, keys, _) = filled(Precision::Half, &[20]);
        assert!(store.key(1, 3).iter().zip(&keys[35..40]).all(|(a, b)| (a - b).abs() < 2e-3));
        let mut one = Store::new(Shape { heads: 1, kv_heads: 1, dim: 2, value_dim: 1 }, Precision::Half);
        one.append(&[1e30, -1e30], &[f32::INFINITY]).unwrap();
        assert_eq!(one.key(0, 0), [65_504.0, -65_504.0]);
        assert_eq!(one.value(0, 0), [f32::INFINITY]);
    }

    #[test]
    fn truncating_and_going_on_is_as_if_never_appended() {
        for precision in [Precision::Half, Precision::Full] {
            let (whole, keys, values) = filled(precision, &[40]);
            for len in [0, 1, 15, 16, 17, 39, 40] {
                let (mut store, _, _) = filled(precision, &[40]);
                store.truncate(len);
                same(&store, &whole, len);
                if len % LANES != 0 {
                    let lane = |lane| store.keys(0).number(len / LANES * 5, lane);
                    assert!((len % LANES..LANES).all(|l| lane(l) == 0.0), "lanes past the end are zero");
                }
                store.append(&keys[len * 10..], &values[len * 36..]).unwrap();
                same(&store, &whole, 40);
                let mut copy = Store::new(SHAPE, precision);
                copy.append(&keys[..10], &values[..36]).unwrap();
                copy.copy_prefix(&whole, len).unwrap();
                same(&copy, &whole, len);
                copy.append(&keys[len * 10..], &values[len * 36..]).unwrap();
                same(&copy, &whole, 40);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let (mut store, keys, values) = filled(Precision::Full, &[4]);
        assert_eq!(store.append(&keys[1..], &values), Err(AttendError::Shape("keys and values")));
        assert_eq!(store.append(&keys, &values[1..]), Err(AttendError::Shape("keys and values")));
        assert_eq!(store.len(), 4);
        let mut none = Store::new(Shape { dim: 0, ..SHAPE }, Precision::Full);
        assert!(none.append(&[], &[]).is_err());
        assert!(none.copy_prefix(&store, 1).is_err());
        assert!(store.bytes() >= 4 * 2 * (5 + 18) * 4 && store.bytes() < 20_000);
    }
}
