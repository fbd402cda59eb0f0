//! Weights of hashed features for any number of labels, with rows only for the buckets that training saw.

use crate::classify::fresh::BATCH;
use crate::classify::taxonomy::MOST_LABELS;

/// Places for sums: the labels, the squared inverse document frequency, rounded up to [`STEP`].
const MOST_LANES: usize = (MOST_LABELS + 1).next_multiple_of(STEP);
/// Lanes are added so many at a time.
pub const STEP: usize = 16;

/// A table of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// One unit of a weight.
    pub scale: f32,
    /// Labels; a row has as many weights and then the squared inverse document frequency.
    labels: usize,
    /// Bytes per row, a multiple of [`STEP`].
    stride: usize,
    /// Per bucket the row's number, 0 where training never saw it: row 0 is all zeros.
    index: Vec<u32>,
    rows: Vec<i8>,
}

impl Table {
    /// An empty table of `1 << bits` buckets. `labels` is at most [`MOST_LABELS`].
    pub fn new(bits: u32, labels: usize, scale: f32) -> Self {
        let labels = labels.min(MOST_LABELS);
        let stride = (labels + 1).next_multiple_of(STEP);
        Self { scale, labels, stride, index: vec![0; 1 << bits], rows: vec![0; stride] }
    }

    /// Gives a bucket its row: `labels + 1` bytes. False where the bucket is not in the table or has one.
    pub fn put(&mut self, bucket: usize, row: &[i8]) -> bool {
        let number = u32::try_from(self.rows.len() / self.stride).unwrap_or(0);
        let Some(place) = self.index.get_mut(bucket).filter(|place| **place == 0 && number > 0) else { return false };
        if row.len() != self.labels + 1 {
            return false;
        }
        *place = number;
        self.rows.extend_from_slice(row);
        self.rows.resize(self.rows.len().next_multiple_of(self.stride), 0);
        true
    }

    /// Buckets that have a row, with it, in order.
    pub fn filled(&self) -> impl Iterator<Item = (usize, &[i8])> {
        let row = |at: usize| self.row(at).get(..=self.labels).unwrap_or(&[]);
        self.index.iter().enumerate().filter(|(_, at)| **at > 0).map(move |(bucket, at)| (bucket, row(*at as usize)))
    }

    /// Labels.
    pub fn labels(&self) -> usize {
        self.labels
    }

    fn row(&self, number: usize) -> &[i8] {
        self.rows.get(number * self.stride..(number + 1) * self.stride).unwrap_or(&[])
    }
}

/// Running sums of the rows of one table.
pub struct Sums {
    lanes: [i32; MOST_LANES],
    active: u32,
    known: u32,
}

impl Default for Sums {
    fn default() -> Self {
        Self { lanes: [0; MOST_LANES], active: 0, known: 0 }
    }
}

impl Sums {
    /// Adds the rows of at most 256 buckets: as many as 16 bits hold the sum of. A bucket that training never saw adds row 0.
    pub fn add(&mut self, table: &Table, batch: &[u32]) {
        let mut near = [0i16; MOST_LANES];
        // Rows lie far apart in memory: all are asked for before the first is waited for.
        let (mut numbers, mut touched) = ([0u32; BATCH], 0i8);
        for (number, bucket) in numbers.iter_mut().zip(batch) {
            *number = table.index.get(*bucket as usize).copied().unwrap_or(0);
            self.known += u32::from(*number > 0);
            touched ^= table.rows.get(*number as usize * table.stride).copied().unwrap_or(0);
        }
        std::hint::black_box(touched);
        for number in numbers.iter().take(batch.len()) {
            for (sums, row) in
                near.as_chunks_mut::<STEP>().0.iter_mut().zip(table.row(*number as usize).as_chunks::<STEP>().0)
            {
                for (sum, w) in sums.iter_mut().zip(row) {
                    *sum = sum.wrapping_add(i16::from(*w));
                }
            }
        }
        for (sum, near) in self.lanes.iter_mut().zip(near).take(table.stride) {
            *sum += i32::from(near);
        }
        self.active += batch.len() as u32;
    }

    /// Appends the scores of the linear model on the unit-length vector of the known features.
    pub fn scores(&self, table: &Table, out: &mut Vec<f32>) {
        let squared = self.lanes.get(table.labels).copied().unwrap_or(0).max(1) as f32;
        let unit = table.scale / squared.sqrt();
        out.extend(self.lanes.iter().take(table.labels).map(|sum| *sum as f32 * unit));
    }

    /// Share of the features that training saw.
    pub fn known(&self) -> f32 {
        self.known as f32 / self.active.max(1) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_the_sum_of_the_rows_that_are_there() {
        for labels in [2, 14, 15, 16, 31, MOST_LABELS] {
            let mut table = Table::new(8, labels, 0.5);
            let row = |k: i8| -> Vec<i8> {
                (0..=labels).map(|at| if at == labels { 4 } else { k + (at % 50) as i8 }).collect()
            };
            assert!(table.put(3, &row(1)) && table.put(200, &row(-7)));
            assert!(!table.put(3, &row(2)) && !table.put(256, &row(2)) && !table.put(4, &row(2)[1..]));
            let mut sums = Sums::default();
            sums.add(&table, &[3, 5, 200]);
            sums.add(&table, &[3, 900]);
            let mut scores = Vec::new();
            sums.scores(&table, &mut scores);
            let want = |at: usize| (2 * (1 + at as i32 % 50) + (-7 + at as i32 % 50)) as f32 * 0.5 / 12f32.sqrt();
            assert_eq!(scores.len(), labels);
            assert!(scores.iter().enumerate().all(|(at, s)| (s - want(at)).abs() < 1e-4), "{labels}: {scores:?}");
            assert!((sums.known() - 3.0 / 5.0).abs() < 1e-6);
            assert_eq!(table.filled().map(|(b, _)| b).collect::<Vec<_>>(), [3, 200]);
        }
    }
}
