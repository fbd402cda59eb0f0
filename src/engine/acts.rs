//! Activations as the kernels read them: 8-bit codes per block of 32 with a scale, and the sums that minima need.

#![allow(clippy::indexing_slicing, reason = "all buffers are sized together in `reset`, from the same row length")]
#![allow(unsafe_code, reason = "rows are filled by different tasks")]

use crate::lla::pool::{Panicked, Pool, Shards};
use crate::lla::simd::Level;

/// Rows that one task fills: some microseconds of work.
const ROWS_PER_TASK: usize = 4;

/// Rows of quantised activations, one per token.
#[derive(Default)]
pub struct Acts {
    /// Values per row, a multiple of 32.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Codes, -127 to 127.
    pub codes: Vec<i8>,
    /// One scale per 32 codes.
    pub scales: Vec<f32>,
    /// Per 32 codes: scale times the sum of the codes.
    pub sums: Vec<f32>,
    /// The same per 16 codes.
    pub half_sums: Vec<f32>,
    /// The values as they were, for weights that are not quantised.
    pub floats: Vec<f32>,
}

/// One row of [`Acts`], to be filled by one task.
pub struct Row<'a> {
    /// Codes.
    pub codes: &'a mut [i8],
    /// Scales.
    pub scales: &'a mut [f32],
    /// Sums per 32.
    pub sums: &'a mut [f32],
    /// Sums per 16.
    pub half_sums: &'a mut [f32],
    /// Values; the caller puts the input here.
    pub floats: &'a mut [f32],
}

impl Acts {
    /// Makes room for `rows` rows of `columns` values, rounded up to 32. Contents are undefined until filled.
    pub fn reset(&mut self, rows: usize, columns: usize) {
        let columns = columns.next_multiple_of(32);
        (self.rows, self.columns) = (rows, columns);
        self.codes.resize(rows * columns, 0);
        self.floats.resize(rows * columns, 0.0);
        self.scales.resize(rows * columns / 32, 0.0);
        self.sums.resize(rows * columns / 32, 0.0);
        self.half_sums.resize(rows * columns / 16, 0.0);
    }

    /// Calls `fill(row index, its values)` for every row, then quantises the row. Padding is zero.
    pub fn fill(
        &mut self,
        pool: &Pool,
        level: Level,
        used: usize,
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Result<(), Panicked> {
        let (columns, rows) = (self.columns, self.rows);
        let (codes, floats) = (Shards::new(&mut self.codes), Shards::new(&mut self.floats));
        let (scales, sums) = (Shards::new(&mut self.scales), Shards::new(&mut self.sums));
        let half_sums = Shards::new(&mut self.half_sums);
        let blocks = columns / 32;
        pool.run(rows.div_ceil(ROWS_PER_TASK), &|task| {
            for row in task * ROWS_PER_TASK..rows.min((task + 1) * ROWS_PER_TASK) {
                // SAFETY: every row belongs to one task, and its parts of all buffers are its own.
                let part = unsafe {
                    Row {
                        codes: codes.range(row * columns, columns),
                        floats: floats.range(row * columns, columns),
                        scales: scales.range(row * blocks, blocks),
                        sums: sums.range(row * blocks, blocks),
                        half_sums: half_sums.range(row * blocks * 2, blocks * 2),
                    }
                };
                let (values, padding) = part.floats.split_at_mut(used.min(columns));
                padding.fill(0.0);
                fill(row, values);
                quantise(level, part);
            }
        })
    }
}

/// Quantises the values of a row.
pub fn quantise(level: Level, row: Row) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 if level.runs_here() => x86::quantise(row),
        _ => body(row),
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "calls code compiled for instructions that were checked for")]
mod x86 {
    use super::{Row, body};

    pub fn quantise(row: Row) {
        #[target_feature(enable = "avx2,fma")]
        fn wide(row: Row) {
            body(row);
        }
        // SAFETY: called only after `Level::runs_here` said that this machine has AVX2 and FMA.
        unsafe { wide(row) }
    }
}

#[inline(always)]
fn body(row: Row) {
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even.
    const ROUND: f32 = 12_582_912.0;
    for (b, values) in row.floats.as_chunks::<32>().0.iter().enumerate() {
        let mut largest = [0.0_f32; 8];
        for part in values.as_chunks::<8>().0 {
            for (m, x) in largest.iter_mut().zip(part) {
                let x = x.abs();
                *m = if x > *m { x } else { *m };
            }
        }
        let largest = largest.iter().fold(0.0_f32, |m, x| if *x > m { *x } else { m });
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let codes = &mut row.codes[b * 32..b * 32 + 32];
        let mut sums = [0_i32; 2];
        for h in 0..2 {
            for i in 0..16 {
                let rounded = values[h * 16 + i] * inverse + ROUND;
                // The integer is in the low bits; a NaN or infinity gives some code, and the scale carries it on.
                #[expect(clippy::cast_possible_truncation, reason = "the low byte is the code")]
                let code = rounded.to_bits().cast_signed() as i8;
                codes[h * 16 + i] = code;
                sums[h] += i32::from(code);
            }
        }
        let scale = largest / 127.0;
        row.scales[b] = scale;
        #[expect(clippy::cast_precision_loss, reason = "at most 32 * 127")]
        {
            row.half_sums[b * 2] = scale * sums[0] as f32;
            row.half_sums[b * 2 + 1] = scale * sums[1] as f32;
            row.sums[b] = scale * (sums[0] + sums[1]) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_times_scale_are_the_values() {
        let mut random = fastrand::Rng::with_seed(3);
        let input: Vec<f32> = (0..96).map(|_| random.f32() * 4.0 - 2.0).collect();
        for level in Level::all().into_iter().filter(|l| l.runs_here()) {
            let mut acts = Acts::default();
            acts.reset(1, 96);
            acts.fill(&Pool::new(1), level, 96, &|_, row| row.copy_from_slice(&input)).unwrap();
            for b in 0..3 {
                let codes = &acts.codes[b * 32..b * 32 + 32];
                let total: i32 = codes.iter().map(|c| i32::from(*c)).sum();
                assert!((acts.sums[b] - acts.scales[b] * total as f32).abs() < 1e-5);
                assert!((acts.sums[b] - acts.half_sums[2 * b] - acts.half_sums[2 * b + 1]).abs() < 1e-4);
                for (i, c) in codes.iter().enumerate() {
                    let back = f32::from(*c) * acts.scales[b];
                    assert!((back - input[b * 32 + i]).abs() <= acts.scales[b] * 0.5001, "{back}");
                }
            }
        }
    }

    #[test]
    fn zeros_give_zero() {
        let mut acts = Acts::default();
        acts.reset(2, 20);
        acts.fill(&Pool::new(1), Level::Portable, 20, &|_, row| row.fill(0.0)).unwrap();
        assert!(acts.codes.iter().all(|c| *c == 0) && acts.scales.iter().chain(&acts.sums).all(|x| *x == 0.0));
    }
}
