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

/// What rounding adds where a query is far from all keys: `1 - rho.(k - kbar)` is then a small difference of products as
/// large as `|rho| |k - kbar|`, of which single precision keeps 24 bits, whatever the order of operations. For standard
/// normal keys and queries it is below [`SINGLE`].
fn cancellation(job: &Attention) -> f64 {
    let dim = job.shape.dim;
    let longest = |rows: &[f64]| rows.chunks_exact(dim).map(matrix::norm).fold(0.0, f64::max);
    let spread = (0..job.shape.kv_heads).map(|head| {
        let mut keys: Vec<f64> =
            (0..job.store.len()).flat_map(|position| wide(&job.store.key(head, position))).collect();
        let mean = |d: usize| keys.iter().skip(d).step_by(dim).sum::<f64>() / job.store.len() as f64;
        let mean: Vec<f64> = (0..dim).map(mean).collect();
        keys.chunks_exact_mut(dim).for_each(|key| matrix::axpy(key, -1.0, &mean));
        longest(&keys)
    });
    f64::from(f32::EPSILON) * longest(&attention::corrections(job)) * spread.fold(0.0, f64::max)
}

fn check(job: &Attention, tolerance: f64, about: &str) {
    let want = attention::attend(job);
    for level in levels() {
        let error = worst(&run(level, job), &want);
        let keys = job.store.len();
        assert!(
            error < tolerance,
            "{about}: {error} at {level:?}, {:?}, {keys} keys, run from {}",
            job.shape,
            job.first
        );
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

/// Where nothing but the ridge holds the fit back, corrections are longest.
#[test]
fn few_keys_are_no_less_exact() {
    let sizes = (select(vec![16_usize, 64, 128]), 1..9_usize, select(vec![1_usize, 3]), any::<bool>());
    proptest!(cases(40), |(seed in any::<u64>(), (dim, n, group, run) in sizes)| {
        let shape = Shape { heads: group, kv_heads: 1, dim, value_dim: 17 };
        let sample = Sample::new(seed, shape, if run { n } else { 1 }, n);
        let store = sample.store(Precision::Full);
        for solver in SOLVERS {
            let ridge = exact(&[1.0], solver);
            check(&sample.job(&store, Rho::Solve(&ridge)), SINGLE, &format!("{solver:?}"));
        }
    });
}

/// A common part of all keys is no part of the problem, and costs no digits beyond those of a query so far away.
#[test]
fn an_offset_of_all_keys_costs_what_the_distance_of_the_query_does() {
    let strategy = (sample(), select(vec![1.0_f32, 5.0]), select(vec![0.1_f32, 1.0, 10.0]));
    proptest!(cases(40), |(((mut sample, precision), offset, lambda) in strategy)| {
        let by = floats(&mut fastrand::Rng::with_seed(99), sample.shape.dim);
        for key in sample.keys.chunks_exact_mut(sample.shape.dim) {
            key.iter_mut().zip(&by).for_each(|(k, t)| *k += offset * t);
        }
        let store = sample.store(precision);
        for solver in SOLVERS {
            let ridge = exact(&[lambda], solver);
            let job = sample.job(&store, Rho::Solve(&ridge));
            check(&job, SINGLE + cancellation(&job), &format!("{solver:?}, offset {offset}, lambda {lambda}"));
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
