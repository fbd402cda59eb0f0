//! Identities that the single-precision kernels keep, read from their own output, without the reference.
//!
//! The weights themselves are read by giving every key a value of its own: key `j` has the `j`-th unit vector.

use proptest::prelude::*;
use proptest::sample::select;

use crate::lla::properties::support::{SOLVERS, Sample, cases, exact, levels, run, worst};
use crate::lla::reference::attention::{self, wide};
use crate::lla::reference::matrix::{axpy, dot, norm};
use crate::lla::ridge::{Rho, Ridge};
use crate::lla::store::Precision;
use crate::lla::{Attention, Shape};

const ONE: Shape = Shape { heads: 1, kv_heads: 1, dim: 16, value_dim: 24 };

/// One query over 24 keys of 16 numbers.
fn sample() -> impl Strategy<Value = Sample> {
    any::<u64>().prop_map(|seed| Sample::new(seed, ONE, 1, 24))
}

/// The output for a changed sample, in full precision.
fn output(level: crate::lla::simd::Level, sample: &Sample, rho: Rho) -> Vec<f32> {
    run(level, &sample.job(&sample.store(Precision::Full), rho))
}

/// Signed weights of a sample's keys.
fn weights(level: crate::lla::simd::Level, sample: &Sample, rho: Rho) -> Vec<f64> {
    let unit = |j: usize| (0..24).map(move |i| if i == j { 1.0 } else { 0.0 });
    let marked = Sample { values: (0..24).flat_map(unit).collect(), ..sample.clone() };
    wide(&output(level, &marked, rho))
}

#[test]
fn an_infinite_ridge_is_the_softmax_kernel_bit_for_bit_and_a_large_one_is_near() {
    let shapes = [(1, 1, 16), (6, 2, 64), (8, 1, 128)];
    let strategy = (any::<u64>(), select(shapes.to_vec()), select(vec![1_usize, 40]), select(vec![40_usize, 700]));
    proptest!(cases(24), |((seed, (heads, kv_heads, dim), tokens, n) in strategy)| {
        let sample = Sample::new(seed, Shape { heads, kv_heads, dim, value_dim: dim }, tokens, n);
        let store = sample.store(Precision::Half);
        for level in levels() {
            let softmax = run(level, &sample.job(&store, Rho::Zero));
            for solver in SOLVERS {
                let job = |ridge: &Ridge| run(level, &sample.job(&store, Rho::Solve(ridge)));
                prop_assert_eq!(&job(&exact(&[f32::INFINITY], solver)), &softmax, "{:?} {:?}", level, solver);
                // The output moves as the inverse ridge, and the constant is that of the first-order term.
                let moved = |lambda: f32| {
                    let out = job(&exact(&[lambda], solver));
                    norm(&out.iter().zip(&softmax).map(|(a, b)| f64::from(lambda) * f64::from(a - b)).collect::<Vec<_>>())
                };
                let (near, far) = (moved(3e3), moved(1.2e4));
                prop_assert!((near / far - 1.0).abs() < 0.05, "{near} and {far} at {level:?}, {solver:?}");
            }
        }
    });
}

#[test]
fn weights_sum_to_one_and_bring_the_mean_key_to_the_query_as_the_ridge_vanishes() {
    proptest!(cases(24), |(sample in sample())| {
        for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
            let mut apart = Vec::new();
            for lambda in [f32::INFINITY, 10.0, 1.0, 0.1] {
                let ridge = exact(&[lambda], solver);
                let weights = weights(level, &sample, Rho::Solve(&ridge));
                prop_assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{weights:?}");
                let mut mean = vec![0.0; 16];
                weights.iter().zip(sample.keys.chunks_exact(16)).for_each(|(w, key)| axpy(&mut mean, *w, &wide(key)));
                apart.push(norm(&mean.iter().zip(&sample.queries).map(|(m, q)| m - f64::from(*q)).collect::<Vec<_>>()));
            }
            // sum p a k = q + lambda rho, which shrinks with lambda in every direction; softmax stays where it is.
            prop_assert!(apart.is_sorted_by(|a, b| a > b), "{apart:?} at {level:?}, {solver:?}");
            prop_assert!(apart[3] < 0.7 * apart[0], "{apart:?}");
        }
    });
}

#[test]
fn signed_mass_and_correction_stay_within_their_bounds_for_far_queries() {
    proptest!(cases(24), |(mut sample in sample(), times in select(vec![1.0_f32, 100.0, 1e4]))| {
        sample.queries.iter_mut().for_each(|q| *q *= times);
        sample.scale /= times;
        for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
            for lambda in [1.0_f32, 30.0] {
                let ridge = exact(&[lambda], solver);
                let p = weights(level, &sample, Rho::Zero);
                let mut delta: Vec<f64> = sample.queries.iter().map(|q| -f64::from(*q)).collect();
                p.iter().zip(sample.keys.chunks_exact(16)).for_each(|(p, key)| axpy(&mut delta, *p, &wide(key)));
                let reach = norm(&delta) / (2.0 * f64::from(lambda).sqrt());
                let mass: f64 = weights(level, &sample, Rho::Solve(&ridge)).iter().map(|w| w.abs()).sum();
                prop_assert!(mass <= (1.0 + reach) * 1.001, "mass {mass} for {reach} at {level:?}, {solver:?}");
                let (fit, mean) = (output(level, &sample, Rho::Solve(&ridge)), wide(&output(level, &sample, Rho::Zero)));
                let square = |v: &[f32]| v.iter().zip(&mean).map(|(v, m)| (f64::from(*v) - m).powi(2)).sum::<f64>();
                let spread = p.iter().zip(sample.values.chunks_exact(24)).map(|(p, v)| p * square(v)).sum::<f64>().sqrt();
                let moved = |fit: &[f32]| norm(&fit.iter().zip(&mean).map(|(o, m)| f64::from(*o) - m).collect::<Vec<_>>());
                prop_assert!(moved(&fit) <= reach * spread * 1.001);
                let guarded = exact(&[lambda], solver).with_radius(0.5).unwrap();
                prop_assert!(moved(&output(level, &sample, Rho::Solve(&guarded))) <= 0.5 * spread * 1.001);
            }
        }
    });
}

#[test]
fn order_doubling_and_keys_of_no_weight_do_not_matter() {
    proptest!(cases(24), |(sample in sample(), seed in any::<u64>())| {
        let mut order: Vec<usize> = (0..24).collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut order);
        let pick = |rows: &[f32], width: usize| order.iter().flat_map(|i| rows[i * width..(i + 1) * width].to_vec()).collect();
        let shuffled = Sample { keys: pick(&sample.keys, 16), values: pick(&sample.values, 24), ..sample.clone() };
        let twice = Sample { first: 47, keys: sample.keys.repeat(2), values: sample.values.repeat(2), ..sample.clone() };
        let mut apart = Sample { first: 25, ..sample.clone() };
        let away = 400.0 / (sample.scale * sample.queries.iter().map(|q| q * q).sum::<f32>());
        (0..2).for_each(|_| apart.keys.extend(sample.queries.iter().map(|q| -away * q)));
        apart.values.extend([1e3; 48]);
        for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
            let ridge = exact(&[1.0], solver);
            for rho in [Rho::Zero, Rho::Solve(&ridge)] {
                let want = wide(&output(level, &sample, rho));
                for (what, other) in [("shuffled", &shuffled), ("twice", &twice), ("far keys", &apart)] {
                    let error = worst(&output(level, other, rho), &want);
                    prop_assert!(error < 1e-5, "{what}: {error} at {level:?}, {rho:?}");
                }
            }
        }
    });
}

#[test]
fn rotation_scaling_and_affine_values_pass_through() {
    proptest!(cases(24), |(sample in sample())| {
        let (c, s) = (0.6_f32, 0.8_f32);
        let turn = |rows: &[f32]| -> Vec<f32> {
            rows.chunks_exact(2).flat_map(|xy| [c * xy[0] - s * xy[1], s * xy[0] + c * xy[1]]).collect()
        };
        let times = |rows: &[f32], a: f32| rows.iter().map(|x| a * x).collect::<Vec<f32>>();
        let turned = Sample { queries: turn(&sample.queries), keys: turn(&sample.keys), ..sample.clone() };
        let scaled = Sample {
            queries: times(&sample.queries, 2.0),
            keys: times(&sample.keys, 2.0),
            scale: sample.scale / 4.0,
            ..sample.clone()
        };
        let valued = Sample { values: sample.values.iter().map(|v| 3.0 * v + 2.0).collect(), ..sample.clone() };
        for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
            let (ridge, fourfold) = (exact(&[1.0], solver), exact(&[4.0], solver));
            let want = wide(&output(level, &sample, Rho::Solve(&ridge)));
            prop_assert!(worst(&output(level, &turned, Rho::Solve(&ridge)), &want) < 1e-5, "turned");
            prop_assert!(worst(&output(level, &scaled, Rho::Solve(&fourfold)), &want) < 1e-5, "scaled");
            let moved: Vec<f64> = want.iter().map(|x| 3.0 * x + 2.0).collect();
            prop_assert!(worst(&output(level, &valued, Rho::Solve(&ridge)), &moved) < 1e-5, "affine values");
            let constant = Sample { values: vec![7.0; 24 * 24], ..sample.clone() };
            prop_assert!(worst(&output(level, &constant, Rho::Solve(&ridge)), &[7.0; 24]) < 1e-5, "constant values");
        }
    });
}

/// A kernel that silently leaves the correction away keeps everything above but this.
#[test]
fn what_softmax_does_not_notice_changes_a_finite_ridge() {
    proptest!(cases(24), |(sample in sample())| {
        let times = |rows: &[f32], a: f32| rows.iter().map(|x| a * x).collect::<Vec<f32>>();
        let traded = Sample { queries: times(&sample.queries, 2.0), keys: times(&sample.keys, 0.5), ..sample.clone() };
        let moved = Sample { keys: sample.keys.iter().map(|k| k + 0.5).collect(), ..sample.clone() };
        for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
            for other in [&traded, &moved] {
                let change = |rho: Rho| worst(&output(level, other, rho), &wide(&output(level, &sample, rho)));
                prop_assert!(change(Rho::Zero) < 1e-5, "softmax does not notice: {}", change(Rho::Zero));
                for lambda in [10.0, 1.0, 0.1] {
                    let ridge = exact(&[lambda], solver);
                    prop_assert!(change(Rho::Solve(&ridge)) > 1e-3, "lambda {lambda} at {level:?}, {solver:?}");
                }
            }
        }
    });
}

#[test]
fn one_key_equal_keys_a_sharp_scale_and_none_have_plain_answers() {
    proptest!(cases(24), |(sample in sample())| {
        let one = Sample { first: 0, keys: sample.keys[..16].to_vec(), values: sample.values[..24].to_vec(), ..sample.clone() };
        let equal = Sample { keys: sample.keys[..16].repeat(24), ..sample.clone() };
        let sharp = Sample { scale: 1e4, ..sample.clone() };
        let flat = Sample { scale: 0.0, ..sample.clone() };
        let at_key = Sample { queries: sample.keys[..16].to_vec(), ..equal.clone() };
        let score = |j: &usize| dot(&wide(&sample.queries), &wide(&sample.keys[j * 16..(j + 1) * 16]));
        let best = (0..24).max_by(|a, b| score(a).total_cmp(&score(b))).unwrap();
        for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
            let ridge = exact(&[1.0], solver);
            let fit = |sample: &Sample| output(level, sample, Rho::Solve(&ridge));
            prop_assert!(worst(&fit(&one), &wide(&one.values)) < 1e-5, "one key");
            let mean = wide(&output(level, &equal, Rho::Zero));
            prop_assert!(worst(&fit(&equal), &mean) < 2e-5, "equal keys: {}", worst(&fit(&equal), &mean));
            prop_assert!(worst(&fit(&at_key), &mean) < 1e-5, "a query at the mean key");
            prop_assert!(worst(&fit(&sharp), &wide(&sample.values[best * 24..(best + 1) * 24])) < 2e-5, "the best key");
            let store = flat.store(Precision::Full);
            let job = flat.job(&store, Rho::Solve(&ridge));
            prop_assert!(worst(&run(level, &job), &attention::attend(&job)) < 1e-5, "no scale");
            let blind = Attention { window: Some(0), ..job };
            prop_assert!(run(level, &blind).iter().all(|x| *x == 0.0), "nothing visible");
        }
    });
}

#[test]
fn the_solved_correction_handed_to_the_projection_path_gives_the_local_fit() {
    let shapes = vec![(1, 1, 16), (6, 2, 64), (8, 1, 33)];
    proptest!(cases(24), |(seed in any::<u64>(), (heads, kv_heads, dim) in select(shapes), tokens in select(vec![1_usize, 20]))| {
        let sample = Sample::new(seed, Shape { heads, kv_heads, dim, value_dim: dim }, tokens, 150);
        let store = sample.store(Precision::Full);
        for (level, solver) in levels().flat_map(|level| SOLVERS.map(|solver| (level, solver))) {
            let ridge = exact(&[1.0], solver);
            let solved = sample.job(&store, Rho::Solve(&ridge));
            let rho: Vec<f32> = attention::corrections(&solved).iter().map(|x| *x as f32).collect();
            let handed = run(level, &sample.job(&store, Rho::Projection(&rho)));
            prop_assert!(worst(&handed, &wide(&run(level, &solved))) < 2e-5, "{level:?}, {solver:?}");
            let none = vec![0.0; rho.len()];
            let softmax = wide(&run(level, &sample.job(&store, Rho::Zero)));
            prop_assert!(worst(&run(level, &sample.job(&store, Rho::Projection(&none))), &softmax) < 1e-6);
        }
    });
}
