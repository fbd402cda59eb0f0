//! Activations times weights: one region of the pool per call, sixteen rows of weights against up to eight tokens at once.
//!
//! Callers give several matrices that share an input (Q, K and V; gate and up), so that a layer costs four regions.
//! This file chooses the kernel and places the results; the kernels are in
//! `matmul_avx512`, `matmul_avx2` and `matmul_portable`.
#![allow(unsafe_code, reason = "tasks write disjoint rows of one output; each block says why it is sound")]

use crate::engine::acts::Acts;
use crate::engine::matmul_portable::portable;
use crate::engine::packed::{Packed, ROWS};
#[cfg(target_arch = "x86_64")]
use crate::engine::{matmul_avx2::Avx2, matmul_avx512::Avx512, matmul_frame};
use crate::lla::pool::{Panicked, Pool, Shards};
use crate::lla::simd::Level;

/// Tokens a kernel takes at once at most: eight accumulators and eight lines of codes fill the registers.
pub const TOKENS: usize = 8;
/// Tasks per thread in a region: enough that a thread that was put aside holds up little.
const TASKS_PER_THREAD: usize = 8;

/// Sums of one group of rows for up to [`TOKENS`] tokens.
pub type Sums = [[f32; ROWS]; TOKENS];

/// One matrix and where its results go: `out[token * stride + row]`.
pub struct Product<'a> {
    /// The weights; their columns are those of the activations.
    pub weights: &'a Packed,
    /// Results, `stride` per token; the first `weights.rows()` of each are written.
    pub out: &'a mut [f32],
    /// Values per token in `out`.
    pub stride: usize,
    /// Adds to what is there instead of replacing it.
    pub add: bool,
}

/// Multiplies all rows of `acts` by every product's weights.
pub fn matmul(pool: &Pool, level: Level, acts: &Acts, products: &mut [Product]) -> Result<(), Panicked> {
    struct Part<'a> {
        weights: &'a Packed,
        out: Shards<'a, f32>,
        stride: usize,
        add: bool,
        first: usize,
    }
    let mut parts = Vec::with_capacity(products.len());
    let mut groups = 0;
    for product in products {
        assert_eq!(product.weights.columns(), acts.columns, "weights and activations differ in columns");
        assert!(product.stride >= product.weights.rows() && product.out.len() >= acts.rows * product.stride);
        let (weights, stride, add) = (product.weights, product.stride, product.add);
        parts.push(Part { weights, out: Shards::new(product.out), stride, add, first: groups });
        groups += weights.groups();
    }
    let chunk = groups.div_ceil(pool.threads() * TASKS_PER_THREAD).max(1);
    pool.run(groups.div_ceil(chunk), &|task| {
        let mut sums = [[0.0; ROWS]; TOKENS];
        for index in task * chunk..groups.min((task + 1) * chunk) {
            let Some(part) = parts.iter().rev().find(|p| p.first <= index) else { continue };
            let group = index - part.first;
            let rows = ROWS.min(part.weights.rows() - group * ROWS);
            for token in (0..acts.rows).step_by(TOKENS) {
                let tokens = TOKENS.min(acts.rows - token);
                rows16(level, part.weights, group, acts, token, tokens, &mut sums);
                for (t, sum) in sums.iter().enumerate().take(tokens) {
                    // SAFETY: this task alone has these rows of this product; tokens differ by `stride >= rows`.
                    let place = unsafe { part.out.range((token + t) * part.stride + group * ROWS, rows) };
                    if part.add {
                        place.iter_mut().zip(sum).for_each(|(p, s)| *p += s);
                    } else {
                        place.iter_mut().zip(sum).for_each(|(p, s)| *p = *s);
                    }
                }
            }
        }
    })
}

/// Sums of group `group` for tokens `token..token + tokens`; `tokens` is 1 to [`TOKENS`].
pub fn rows16(level: Level, weights: &Packed, group: usize, acts: &Acts, token: usize, tokens: usize, sums: &mut Sums) {
    assert!(tokens <= TOKENS && token + tokens <= acts.rows && weights.columns() == acts.columns);
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => matmul_frame::rows16::<Avx512>(weights, group, acts, token, tokens, sums),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => matmul_frame::rows16::<Avx2>(weights, group, acts, token, tokens, sums),
        _ => portable(weights, group, acts, token, tokens, sums),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use half::f16;

    use crate::engine::acts::Kinds;
    use crate::engine::block::{set_code, set_integers, set_scales};
    use crate::engine::packed::{Format, WIDE};

    /// A matrix of random codes and scales.
    pub fn random(rows: usize, columns: usize, format: Format, seed: u64) -> Packed {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut packed = Packed::new(rows, columns, format).unwrap();
        let (_, stream) = packed.groups_mut();
        for block in stream.chunks_exact_mut(format.block_bytes()) {
            if format == Format::F32 {
                block.as_chunks_mut::<4>().0.iter_mut().for_each(|w| *w = (random.f32() - 0.5).to_le_bytes());
                continue;
            }
            if format == Format::F16 {
                let mut draw = || f16::from_f32(random.f32() - 0.5).to_le_bytes();
                block.as_chunks_mut::<2>().0.iter_mut().for_each(|w| *w = draw());
                continue;
            }
            for lane in 0..ROWS {
                let mut half = |below: f32| f16::from_f32(random.f32() * below);
                set_scales(format, block, lane, half(if format.wide { 0.002 } else { 0.1 }), half(-0.1));
                for part in 0..format.parts() * usize::from(format.wide) {
                    set_integers(format, block, lane, part, random.i8(-128..), random.i8(..));
                }
                for c in 0..format.columns() {
                    set_code(format, block, lane, c, random.u8(..) & ((1_u16 << format.bits) - 1) as u8);
                }
            }
        }
        packed
    }

    fn acts(rows: usize, columns: usize) -> Acts {
        let mut acts = Acts::default();
        acts.reset(rows, columns, Kinds { narrow: true, wide: columns.is_multiple_of(WIDE) });
        let fill = |index: usize, row: &mut [f32]| {
            let mut random = fastrand::Rng::with_seed(index as u64 + 11);
            row.iter_mut().for_each(|x| *x = random.f32() * 2.0 - 1.0);
            // The extremes that could overflow a narrow intermediate sum.
            let extreme = if index.is_multiple_of(2) { 1.0 } else { -1.0 };
            row[..32].fill(extreme);
            row[columns - columns.min(WIDE)..].iter_mut().take(64 * (index % 5)).for_each(|x| *x = extreme);
        };
        acts.fill(&Pool::new(1), Level::Portable, columns, &fill).unwrap();
        acts
    }

    const FORMATS: [Format; 12] = [
        Format::narrow(4, false),
        Format::narrow(4, true),
        Format::narrow(5, false),
        Format::narrow(5, true),
        Format::narrow(8, false),
        Format::wide(4, 16, false),
        Format::wide(4, 16, true),
        Format::wide(4, 32, true),
        Format::wide(5, 32, true),
        Format::wide(6, 16, false),
        Format::F16,
        Format::F32,
    ];

    /// Columns that a format takes: those, or as many wide blocks.
    fn columns(format: Format, narrow: usize) -> usize {
        if format.wide { narrow / 32 * WIDE } else { narrow }
    }

    #[test]
    fn every_level_gives_the_portable_result() {
        for format in FORMATS {
            for (rows, columns) in [(16, columns(format, 64)), (35, columns(format, 96))] {
                let weights = random(rows, columns, format, 5);
                let acts = acts(11, columns);
                for (token, tokens) in [(0, 1), (1, 2), (0, 3), (3, 5), (0, 7), (3, 8)] {
                    for group in 0..weights.groups() {
                        let (mut want, mut got) = ([[0.0; ROWS]; TOKENS], [[f32::NAN; ROWS]; TOKENS]);
                        rows16(Level::Portable, &weights, group, &acts, token, tokens, &mut want);
                        for level in Level::all().into_iter().filter(|l| l.runs_here()) {
                            rows16(level, &weights, group, &acts, token, tokens, &mut got);
                            for (g, w) in got.iter().flatten().zip(want.iter().flatten()).take(tokens * ROWS) {
                                assert!((g - w).abs() <= 2e-4 * w.abs().max(10.0), "{format:?} {level:?}: {g} for {w}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_portable_result_is_the_product_of_the_stored_values() {
        for format in FORMATS {
            let columns = columns(format, 96);
            let weights = random(20, columns, format, 9);
            let acts = acts(2, columns);
            let mut row = Vec::new();
            for group in 0..2 {
                let mut sums = [[0.0; ROWS]; TOKENS];
                rows16(Level::Portable, &weights, group, &acts, 0, 2, &mut sums);
                for (t, sum) in sums.iter().enumerate().take(2) {
                    for (lane, got) in sum.iter().enumerate().take(20 - group * ROWS) {
                        weights.row(group * ROWS + lane, &mut row);
                        let value = |c: usize| {
                            let at = t * columns + c;
                            let coded = |codes: &[i8], scale: f32| f64::from(codes[at]) * f64::from(scale);
                            match (format.is_plain(), format.wide) {
                                (true, _) => f64::from(acts.floats[at]),
                                (_, false) => coded(&acts.narrow.codes, acts.narrow.scales[at / 32]),
                                (_, true) => coded(&acts.wide.codes, acts.wide.scales[at / WIDE]),
                            }
                        };
                        let want: f64 = (0..columns).map(|c| f64::from(row[c]) * value(c)).sum();
                        assert!((f64::from(*got) - want).abs() < 1e-3 * want.abs().max(1.0), "{format:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn results_go_to_their_places() {
        let format = FORMATS[1];
        let (a, b) = (random(20, 64, format, 1), random(48, 64, format, 2));
        let acts = acts(10, 64);
        let pool = Pool::new(2);
        let (mut x, mut y) = (vec![1.0; 10 * 25], vec![1.0; 10 * 48]);
        let mut products = [
            Product { weights: &a, out: &mut x, stride: 25, add: true },
            Product { weights: &b, out: &mut y, stride: 48, add: false },
        ];
        matmul(&pool, Level::detect(), &acts, &mut products).unwrap();
        let mut sums = [[0.0; ROWS]; TOKENS];
        for token in 0..10 {
            for row in 0..48 {
                rows16(Level::Portable, &b, row / ROWS, &acts, token, 1, &mut sums);
                assert!((y[token * 48 + row] - sums[0][row % ROWS]).abs() < 1e-2);
            }
            for row in 0..25 {
                let want = if row < 20 {
                    rows16(Level::Portable, &a, row / ROWS, &acts, token, 1, &mut sums);
                    1.0 + sums[0][row % ROWS]
                } else {
                    1.0
                };
                assert!((x[token * 25 + row] - want).abs() < 1e-2);
            }
        }
    }
}
