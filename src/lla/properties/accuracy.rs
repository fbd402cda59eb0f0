//! The single-precision kernels against the reference: every level, solver, correction, precision and layout of heads.

use proptest::prelude::*;
use proptest::sample::select;

use crate::lla::properties::support::{SOLVERS, Sample, cases, exact, floats, levels, run, worst};
use crate::lla::reference::attention::{self, wide};
use crate::lla::reference::matrix;
use crate::lla::ridge::{Rho, Ridge};
use crate::lla::store::Precision;
use crate::lla::{Attention, Shape};

/// Heads of 1, 3, 16, 64 and 128 numbers, values of another width, groups of 1, 2, 3 and 8.
fn shape() -> impl Strategy<Value = Shape> {
    let sizes = (select(vec![1, 3, 16, 64, 128]), select(vec![1, 5, 16, 17, 64]), select(vec![1, 2, 3, 8]), 1..3_usize);
    sizes.prop_map(|(dim, value_dim, group, kv_heads)| Shape { heads: group * kv_heads, kv_heads, dim, value_dim })
}

/// A run at the end of few or many keys: one token or several, the store in half or full precision.
fn sample() -> impl Strategy<Value = (Sample, Precision)> {
    let sizes = (0..7_usize, select(vec![1_usize, 1, 2, 17, 50]), select(vec![Precision::Half, Precision::Full]));
    (any::<u64>(), shape(), sizes).prop_map(|(seed, shape, (keys, tokens, precision))| {
        let d = shape.dim;
        let n = [1, 2, (d / 2).max(1), d, d + 1, 4 * d, 1000][keys];
        // Long runs of many heads would take the reference too long.
        let most = (200_000 / (n * shape.heads * d)).max(1);
        (Sample::new(seed, shape, tokens.min(n).min(most), n), precision)
    })
}

/// Relative error that single precision is allowed from a ridge of 1 on.
const SINGLE: f64 = 1e-5;

/// What rounding adds beyond it: `1 - rho.k + rho.kbar` cancels, and its terms are as large as `|rho| |k|`. That is
/// hundreds where a row sees one or two keys only, so that nothing but the ridge holds the fit back.
fn cancellation(job: &Attention) -> f64 {
    let longest = |rows: &[f64]| rows.chunks_exact(job.shape.dim).map(matrix::norm).fold(0.0, f64::max);
    let keys: Vec<f64> = (0..job.shape.kv_heads)
        .flat_map(|head| (0..job.store.len()).flat_map(move |position| wide(&job.store.key(head, position))))
        .collect();
    4.0 * f64::from(f32::EPSILON) * longest(&attention::corrections(job)) * longest(&keys)
}

fn check(job: &Attention, tolerance: f64, about: &str) {
    let (want, allowed) = (attention::attend(job), tolerance + cancellation(job));
    for level in levels() {
        let error = worst(&run(level, job), &want);
        let keys = job.store.len();
        assert!(error < allowed, "{about}: {error} at {level:?}, {:?}, {keys} keys, run from {}", job.shape, job.first);
    }
}

#[test]
fn the_kernel_solves_the_regression_at_every_level_by_every_solver() {
    let strategy = (sample(), select(vec![1.0_f32, 10.0, 100.0]));
    proptest!(cases(48), |(((sample, precision), lambda) in strategy)| {
        let store = sample.store(precision);
        for solver in SOLVERS {
            let ridge = exact(&[lambda], solver);
            check(&sample.job(&store, Rho::Solve(&ridge)), SINGLE, &format!("{solver:?}, lambda {lambda}"));
        }
    });
}

#[test]
fn heads_have_ridges_of_their_own_and_some_have_none() {
    proptest!(cases(24), |((sample, precision) in sample())| {
        let store = sample.store(precision);
        let kinds = [2.0, f32::INFINITY, 50.0, 1.0];
        let lambda: Vec<f32> = (0..sample.shape.heads).map(|head| kinds[head % 4]).collect();
        for solver in SOLVERS {
            let ridge = exact(&lambda, solver);
            check(&sample.job(&store, Rho::Solve(&ridge)), SINGLE, &format!("{solver:?}, mixed"));
        }
    });
}

#[test]
fn softmax_and_given_corrections_agree_with_the_reference() {
    proptest!(cases(48), |((sample, precision) in sample(), seed in any::<u64>())| {
        let store = sample.store(precision);
        check(&sample.job(&store, Rho::Zero), SINGLE, "softmax");
        let probe = floats(&mut fastrand::Rng::with_seed(seed), sample.queries.len());
        check(&sample.job(&store, Rho::Projection(&probe)), SINGLE, "projection");
    });
}

#[test]
fn windows_see_the_latest_keys_only() {
    let strategy = (sample(), select(vec![1_usize, 2, 15, 16, 17, 64, 300, usize::MAX]));
    proptest!(cases(24), |(((sample, precision), window) in strategy)| {
        let store = sample.store(precision);
        let probe = floats(&mut fastrand::Rng::with_seed(7), sample.queries.len());
        let ridge = exact(&[2.0], SOLVERS[window % 3]);
        for rho in [Rho::Zero, Rho::Solve(&ridge), Rho::Projection(&probe)] {
            let job = Attention { window: Some(window), ..sample.job(&store, rho) };
            check(&job, SINGLE, &format!("window {window}"));
        }
    });
}

#[test]
fn the_adaptive_ridge_is_the_reference_s() {
    let strategy = (sample(), select(vec![0.3_f32, 1.0, 4.0]));
    proptest!(cases(24), |(((sample, precision), radius) in strategy)| {
        let store = sample.store(precision);
        for solver in SOLVERS {
            let ridge = exact(&[1.0], solver).with_radius(radius).unwrap();
            check(&sample.job(&store, Rho::Solve(&ridge)), SINGLE, &format!("{solver:?}, radius {radius}"));
        }
    });
}

/// A common part of all keys is no part of the problem: the offset costs digits, as products grow, and nothing else.
#[test]
fn an_offset_of_all_keys_costs_rounding_only() {
    let strategy = (sample(), select(vec![1.0_f32, 5.0]));
    proptest!(cases(24), |(((mut sample, precision), offset) in strategy)| {
        let by = floats(&mut fastrand::Rng::with_seed(99), sample.shape.dim);
        for key in sample.keys.chunks_exact_mut(sample.shape.dim) {
            key.iter_mut().zip(&by).for_each(|(k, t)| *k += offset * t);
        }
        let store = sample.store(precision);
        for solver in SOLVERS {
            let ridge = exact(&[2.0], solver);
            check(&sample.job(&store, Rho::Solve(&ridge)), SINGLE, &format!("{solver:?}, offset {offset}"));
        }
    });
}

/// A residual of a thousandth, the default, costs less than a hundredth of the output.
#[test]
fn the_recommended_tolerance_is_within_a_hundredth_of_the_output() {
    let strategy = (sample(), select(vec![1.0_f32, 10.0, 100.0]));
    proptest!(cases(24), |(((sample, precision), lambda) in strategy)| {
        let store = sample.store(precision);
        let ridge = Ridge::new(vec![lambda]).unwrap();
        check(&sample.job(&store, Rho::Solve(&ridge)), 1e-2, &format!("lambda {lambda}"));
    });
}
