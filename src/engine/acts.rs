//! Activations as the kernels read them: 8-bit codes in blocks with a scale each, and the sums that minima need.
//!
//! Weights with half-precision scales take blocks of 32 (as llama.cpp's Q8_0 and Q8_1); wide formats, whose group scales
//! are integers, take blocks of 256 and integer sums (as Q8_K), so that a whole block is added up before anything is
//! converted. Only the kinds that the next weights need are made.

#![allow(clippy::indexing_slicing, reason = "all buffers are sized together in `reset`, from the same row length")]
#![allow(unsafe_code, reason = "rows are filled by different tasks")]

use crate::engine::packed::{Packed, WIDE};
use crate::lla::pool::{Panicked, Pool, Shards};
use crate::lla::simd::Level;

/// Rows that one task fills: some microseconds of work.
const ROWS_PER_TASK: usize = 4;

/// Which blocks are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Of 32.
    pub narrow: bool,
    /// Of 256.
    pub wide: bool,
}

impl Kinds {
    /// What these weights take.
    pub fn of<'a>(weights: impl IntoIterator<Item = &'a Packed>) -> Self {
        weights.into_iter().map(Packed::format).fold(Self::default(), |kinds, format| Self {
            narrow: kinds.narrow || !(format.is_plain() || format.wide),
            wide: kinds.wide || format.wide,
        })
    }
}

/// Rows of activations, one per token.
#[derive(Default)]
pub struct Acts {
    /// Values per row, a multiple of 32, and of 256 where there are wide blocks.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// What `narrow` and `wide` hold; of the other the contents are undefined.
    pub kinds: Kinds,
    /// The values as they were, for weights that are not quantised.
    pub floats: Vec<f32>,
    /// Blocks of 32.
    pub narrow: Narrow,
    /// Blocks of 256.
    pub wide: Wide,
}

/// Blocks of 32.
#[derive(Default)]
pub struct Narrow {
    /// Codes, -127 to 127.
    pub codes: Vec<i8>,
    /// One scale per block.
    pub scales: Vec<f32>,
    /// Per block: scale times the sum of the codes.
    pub sums: Vec<f32>,
}

/// Blocks of 256.
#[derive(Default)]
pub struct Wide {
    /// Codes, -127 to 127.
    pub codes: Vec<i8>,
    /// One scale per block.
    pub scales: Vec<f32>,
    /// Sums of 32 codes.
    pub sums: Vec<i16>,
    /// Sums of 16 codes.
    pub half_sums: Vec<i16>,
}

impl Acts {
    /// Makes room for `rows` rows of `columns` values, rounded up to 32, in blocks of `kinds`. Contents are undefined until
    /// filled. Wide blocks must divide the columns.
    pub fn reset(&mut self, rows: usize, columns: usize, kinds: Kinds) {
        let columns = columns.next_multiple_of(32);
        assert!(!kinds.wide || columns.is_multiple_of(WIDE), "columns do not divide into wide blocks");
        (self.rows, self.columns, self.kinds) = (rows, columns, kinds);
        let count = rows * columns;
        self.floats.resize(count, 0.0);
        if kinds.narrow {
            self.narrow.codes.resize(count, 0);
            self.narrow.scales.resize(count / 32, 0.0);
            self.narrow.sums.resize(count / 32, 0.0);
        }
        if kinds.wide {
            self.wide.codes.resize(count, 0);
            self.wide.scales.resize(count / WIDE, 0.0);
            self.wide.sums.resize(count / 32, 0);
            self.wide.half_sums.resize(count / 16, 0);
        }
    }

    /// Calls `fill(row index, its values)` for every row, then quantises the row. Padding is zero.
    pub fn fill(
        &mut self,
        pool: &Pool,
        level: Level,
        used: usize,
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Result<(), Panicked> {
        let (columns, rows, kinds) = (self.columns, self.rows, self.kinds);
        let floats = Shards::new(&mut self.floats);
        let (narrow, wide) = (&mut self.narrow, &mut self.wide);
        let (codes, scales, sums) =
            (Shards::new(&mut narrow.codes), Shards::new(&mut narrow.scales), Shards::new(&mut narrow.sums));
        let (wide_codes, wide_scales) = (Shards::new(&mut wide.codes), Shards::new(&mut wide.scales));
        let (wide_sums, half_sums) = (Shards::new(&mut wide.sums), Shards::new(&mut wide.half_sums));
        pool.run(rows.div_ceil(ROWS_PER_TASK), &|task| {
            for row in task * ROWS_PER_TASK..rows.min((task + 1) * ROWS_PER_TASK) {
                let first = row * columns;
                // SAFETY: every row belongs to one task, and its part of the values is its own.
                let all = unsafe { floats.range(first, columns) };
                let (values, padding) = all.split_at_mut(used.min(columns));
                padding.fill(0.0);
                fill(row, values);
                if kinds.narrow {
                    // SAFETY: as above, of buffers that `reset` sized for as many rows.
                    let parts = unsafe {
                        let blocks = columns / 32;
                        (
                            codes.range(first, columns),
                            scales.range(row * blocks, blocks),
                            sums.range(row * blocks, blocks),
                        )
                    };
                    at(level, || narrow_row(all, parts));
                }
                if kinds.wide {
                    // SAFETY: as above.
                    let parts = unsafe {
                        WideRow {
                            codes: wide_codes.range(first, columns),
                            scales: wide_scales.range(first / WIDE, columns / WIDE),
                            sums: wide_sums.range(first / 32, columns / 32),
                            half_sums: half_sums.range(first / 16, columns / 16),
                        }
                    };
                    at(level, || wide_row(all, parts));
                }
            }
        })
    }
}

/// Runs code that is inlined, compiled for the instructions of a level.
fn at(level: Level, body: impl FnOnce()) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2(body: impl FnOnce()) {
            body();
        }
        if level >= Level::Avx2 && Level::Avx2.runs_here() {
            // SAFETY: this machine has AVX2 and FMA.
            unsafe { with_avx2(body) }
            return;
        }
    }
    let _ = level;
    body();
}

/// One row of [`Wide`].
struct WideRow<'a> {
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i16],
    half_sums: &'a mut [i16],
}

/// The largest magnitude; a NaN counts as nothing.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    for part in values.as_chunks::<8>().0 {
        for (m, x) in lanes.iter_mut().zip(part) {
            let x = x.abs();
            *m = if x > *m { x } else { *m };
        }
    }
    lanes.iter().fold(0.0_f32, |m, x| if *x > m { *x } else { m })
}

/// Codes of 16 values, and their sum.
#[inline(always)]
fn codes16(values: &[f32], inverse: f32, codes: &mut [i8]) -> i32 {
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even.
    const ROUND: f32 = 12_582_912.0;
    let mut sum = 0;
    for i in 0..16 {
        let rounded = values[i] * inverse + ROUND;
        // The integer is in the low bits; a NaN or infinity gives some code, and the scale carries it on.
        #[expect(clippy::cast_possible_truncation, reason = "the low byte is the code")]
        let code = rounded.to_bits().cast_signed() as i8;
        codes[i] = code;
        sum += i32::from(code);
    }
    sum
}

#[inline(always)]
fn narrow_row(values: &[f32], (codes, scales, sums): (&mut [i8], &mut [f32], &mut [f32])) {
    for (b, values) in values.as_chunks::<32>().0.iter().enumerate() {
        let largest = largest(values);
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let codes = &mut codes[b * 32..b * 32 + 32];
        let sum = codes16(&values[..16], inverse, &mut codes[..16]) + codes16(&values[16..], inverse, &mut codes[16..]);
        let scale = largest / 127.0;
        scales[b] = scale;
        #[expect(clippy::cast_precision_loss, reason = "at most 32 * 127")]
        {
            sums[b] = scale * sum as f32;
        }
    }
}

#[inline(always)]
fn wide_row(values: &[f32], row: WideRow) {
    for (b, values) in values.as_chunks::<WIDE>().0.iter().enumerate() {
        let largest = largest(values);
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        row.scales[b] = if largest > 0.0 { 1.0 / inverse } else { 0.0 };
        for half in 0..WIDE / 16 {
            let at = b * WIDE + half * 16;
            let sum = codes16(&values[half * 16..half * 16 + 16], inverse, &mut row.codes[at..at + 16]);
            #[expect(clippy::cast_possible_truncation, reason = "at most 16 * 127")]
            let sum = sum as i16;
            row.half_sums[at / 16] = sum;
            row.sums[at / 32] = if half % 2 == 0 { sum } else { row.sums[at / 32] + sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Kinds = Kinds { narrow: true, wide: true };

    #[test]
    fn codes_times_scale_are_the_values() {
        let mut random = fastrand::Rng::with_seed(3);
        let input: Vec<f32> = (0..512).map(|_| random.f32() * 4.0 - 2.0).collect();
        for level in Level::all().into_iter().filter(|l| l.runs_here()) {
            let mut acts = Acts::default();
            acts.reset(2, 512, BOTH);
            acts.fill(&Pool::new(1), level, 512, &|_, row| row.copy_from_slice(&input)).unwrap();
            let near = |code: i8, scale: f32, value: f32| {
                let back = f32::from(code) * scale;
                assert!((back - value).abs() <= scale * 0.5001, "{back} for {value}");
            };
            for i in 512..1024 {
                near(acts.narrow.codes[i], acts.narrow.scales[i / 32], input[i - 512]);
                near(acts.wide.codes[i], acts.wide.scales[i / WIDE], input[i - 512]);
            }
            let sum = |codes: &[i8]| codes.iter().map(|c| i32::from(*c)).sum::<i32>();
            for (b, codes) in acts.narrow.codes.chunks(32).enumerate() {
                assert!((acts.narrow.sums[b] - acts.narrow.scales[b] * sum(codes) as f32).abs() < 1e-5);
            }
            for (b, codes) in acts.wide.codes.chunks(16).enumerate() {
                assert_eq!(i32::from(acts.wide.half_sums[b]), sum(codes));
            }
            for (b, codes) in acts.wide.codes.chunks(32).enumerate() {
                assert_eq!(i32::from(acts.wide.sums[b]), sum(codes));
            }
        }
    }

    #[test]
    fn zeros_give_zero() {
        let mut acts = Acts::default();
        acts.reset(2, 256, BOTH);
        acts.fill(&Pool::new(1), Level::Portable, 250, &|_, row| row.fill(0.0)).unwrap();
        assert!(acts.narrow.codes.iter().chain(&acts.wide.codes).all(|c| *c == 0));
        assert!(acts.narrow.scales.iter().chain(&acts.wide.scales).all(|x| *x == 0.0));
        assert!(acts.wide.sums.iter().all(|x| *x == 0));
    }

    #[test]
    fn only_the_kinds_that_weights_take_are_made() {
        use crate::engine::packed::Format;
        let made = |format| Packed::new(16, 256, format).unwrap();
        let (plain, narrow, wide) =
            (made(Format::F16), made(Format::narrow(4, true)), made(Format::wide(6, 16, false)));
        assert_eq!(Kinds::of([&plain]), Kinds::default());
        assert_eq!(Kinds::of([&plain, &narrow]), Kinds { narrow: true, wide: false });
        assert_eq!(Kinds::of([&narrow, &wide]), BOTH);
    }
}
