//! Finite input gives finite output, whatever its size; what cannot be solved is softmax attention.

use proptest::prelude::*;
use proptest::sample::select;

use crate::lla::properties::support::{SOLVERS, Sample, cases, exact, levels, reported, run, worst};
use crate::lla::reference::attention::{self, wide};
use crate::lla::ridge::{Rho, Ridge};
use crate::lla::store::Precision;
use crate::lla::{Shape, simd::Level};

/// Denormal, tiny, ordinary, large, and so large that squares and scores overflow.
const SIZES: [f32; 7] = [0.0, 1e-41, 1e-20, 1.0, 1e4, 1e15, 1e30];

#[test]
fn finite_input_of_any_size_gives_finite_output() {
    let sizes = (select(SIZES.to_vec()), select(SIZES.to_vec()), select(vec![0.0_f32, 1e-41, 1.0, 1e15]));
    let runs = (select(vec![1_usize, 2, 30]), select(vec![1e-30_f32, 0.125, 1.0, 1e5]));
    proptest!(cases(80), |(seed in any::<u64>(), (q, k, v) in sizes, (tokens, scale) in runs)| {
        let shape = Shape { heads: 4, kv_heads: 2, dim: 20, value_dim: 9 };
        let mut sample = Sample { scale, ..Sample::new(seed, shape, tokens, 40) };
        sample.queries.iter_mut().for_each(|x| *x *= q);
        sample.values.iter_mut().for_each(|x| *x *= v);
        // Half of the keys keep their size, so that small and large ones meet.
        sample.keys.iter_mut().step_by(2).for_each(|x| *x *= k);
        let store = sample.store(Precision::Full);
        for level in levels() {
            prop_assert!(run(level, &sample.job(&store, Rho::Zero)).iter().all(|x| x.is_finite()), "softmax, {level:?}");
            for (solver, lambda) in SOLVERS.iter().flat_map(|solver| [1e-3, 1.0, 1e20].map(|lambda| (*solver, lambda))) {
                let ridges = [exact(&[lambda], solver), Ridge::new(vec![lambda]).unwrap().with_radius(1.0).unwrap()];
                for ridge in &ridges {
                    let out = run(level, &sample.job(&store, Rho::Solve(ridge)));
                    prop_assert!(out.iter().all(|x| x.is_finite()), "{level:?}, {ridge:?}: {out:?}");
                }
            }
        }
    });
}

#[test]
fn scores_of_ten_thousand_pick_the_best_key() {
    proptest!(cases(16), |(seed in any::<u64>(), tokens in select(vec![1_usize, 20]))| {
        let shape = Shape { heads: 2, kv_heads: 1, dim: 16, value_dim: 16 };
        let sample = Sample { scale: 1e3, ..Sample::new(seed, shape, tokens, 60) };
        let store = sample.store(Precision::Full);
        for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
            let ridge = exact(&[1.0], solver);
            for rho in [Rho::Zero, Rho::Solve(&ridge)] {
                let job = sample.job(&store, rho);
                // A score of 1e4 has an absolute error of 1e-3, and so have its weight and the output.
                let error = worst(&run(level, &job), &attention::attend(&job));
                prop_assert!(error < 2e-2, "{error} at {level:?}, {rho:?}");
            }
        }
    });
}

#[test]
fn few_keys_equal_keys_and_the_smallest_ridge_stay_near_the_reference_of_the_raised_ridge() {
    let strategy = (any::<u64>(), select(vec![1_usize, 2, 5, 16]), any::<bool>(), select(vec![1_usize, 2]));
    proptest!(cases(24), |((seed, n, equal, tokens) in strategy)| {
        let shape = Shape { heads: 1, kv_heads: 1, dim: 16, value_dim: 8 };
        let mut sample = Sample::new(seed, shape, tokens.min(n), n);
        if equal {
            sample.keys = sample.keys[..16].repeat(n);
        }
        let store = sample.store(Precision::Full);
        let softmax = attention::softmax(&sample.job(&store, Rho::Zero));
        for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
            let ridge = exact(&[1e-6], solver);
            let out = run(level, &sample.job(&store, Rho::Solve(&ridge)));
            // Below 64 times the rounding of the keys' squares a ridge is noise; there it is raised, and the bound on
            // corrections holds with the raised one.
            let size = |rows: &[f32]| rows.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            let floor = 64.0 * f64::from(f32::EPSILON) * size(&sample.keys) / n as f64;
            let reach = (size(&sample.queries).sqrt() + size(&sample.keys).sqrt()) / (2.0 * floor.sqrt());
            let most = reach * size(&sample.values).sqrt();
            for (o, mean) in out.iter().zip(&softmax) {
                prop_assert!((f64::from(*o) - mean).abs() <= most, "{o} for {mean} at {level:?}, {solver:?}");
            }
        }
    });
}

/// Keys so long that their squares overflow: no system can be solved, and the rows say so.
#[test]
fn rows_that_cannot_be_solved_fall_back_to_softmax_and_are_counted() {
    let shape = Shape { heads: 2, kv_heads: 1, dim: 16, value_dim: 16 };
    for tokens in [1, 20] {
        let mut sample = Sample { scale: 1e-30, ..Sample::new(5, shape, tokens, 40) };
        sample.keys.iter_mut().for_each(|k| *k *= 1e25);
        let store = sample.store(Precision::Full);
        for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
            let ridge = exact(&[1.0], solver);
            let (out, report) = reported(level, &sample.job(&store, Rho::Solve(&ridge)));
            let softmax = wide(&run(level, &sample.job(&store, Rho::Zero)));
            assert!(worst(&out, &softmax) < 1e-5, "{level:?}, {solver:?}, {tokens} tokens");
            assert_eq!(report.fell_back, 2 * tokens as u64, "{level:?}, {solver:?}");
        }
    }
}

#[test]
fn a_row_that_is_not_a_number_spoils_no_other() {
    let shape = Shape { heads: 2, kv_heads: 1, dim: 16, value_dim: 16 };
    let clean = Sample::new(5, shape, 20, 40);
    let mut spoilt = clean.clone();
    // Token 7, head 1.
    spoilt.queries[15 * 16] = f32::NAN;
    let store = clean.store(Precision::Full);
    for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
        let ridge = exact(&[1.0], solver);
        for rho in [Rho::Zero, Rho::Solve(&ridge)] {
            let (want, got) = (run(level, &clean.job(&store, rho)), run(level, &spoilt.job(&store, rho)));
            for (row, (want, got)) in want.chunks_exact(16).zip(got.chunks_exact(16)).enumerate() {
                if row == 15 {
                    assert!(got.iter().all(|x| x.is_nan()), "{level:?}, {rho:?}");
                } else {
                    // A row that leaves the solver early changes which rows are multiplied together: rounding, no more.
                    assert!(worst(got, &wide(want)) < 2e-6, "row {row}, {level:?}, {rho:?}");
                }
            }
        }
    }
    assert!(levels().any(|level| level == Level::Portable));
}
