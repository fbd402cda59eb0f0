//! Gradients: the reference against finite differences, the single-precision passes against the reference.

use crate::lla::backward::{Batch, Gradients, TrainError, backward, forward};
use crate::lla::pool::Pool;
use crate::lla::properties::support::{Sample, close, floats, levels, normals, worst};
use crate::lla::reference::attention::wide;
use crate::lla::reference::backward::{projected, solved};
use crate::lla::reference::{Local, forms, job, matrix, probe};
use crate::lla::ridge::{Rho, Ridge};
use crate::lla::simd::Level;
use crate::lla::{AttendError, Shape};

/// `dL/dx` of every element by central differences, for `L = upstream . f(x)`.
fn differences(x: &[f64], upstream: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let step = 1e-5;
    (0..x.len())
        .map(|i| {
            let at = |change: f64| {
                let mut moved = x.to_vec();
                moved[i] += change;
                matrix::dot(&f(&moved), upstream)
            };
            (at(step) - at(-step)) / (2.0 * step)
        })
        .collect()
}

#[test]
fn reference_gradients_are_those_of_finite_differences() {
    let mut random = fastrand::Rng::with_seed(16);
    for (d, dv, n) in [(1, 2, 1), (3, 2, 2), (3, 5, 9), (8, 3, 20)] {
        for lambda in [0.3, 2.0, 50.0, f64::INFINITY] {
            let (q, k, v) = (normals(&mut random, d), normals(&mut random, n * d), normals(&mut random, n * dv));
            let (g, probe) = (normals(&mut random, dv), normals(&mut random, d));
            let scale = 0.7;
            let run = |q: &[f64], k: &[f64], v: &[f64], l: f64| forms::centred(&Local::softmax(q, k, v, scale, l));
            let got = solved(&Local::softmax(&q, &k, &v, scale, lambda), &g);
            close(&got.query, &differences(&q, &g, |q| run(q, &k, &v, lambda)), 1e-7, "query");
            close(&got.keys, &differences(&k, &g, |k| run(&q, k, &v, lambda)), 1e-7, "keys");
            close(&got.values, &differences(&v, &g, |v| run(&q, &k, v, lambda)), 1e-7, "values");
            if lambda < f64::INFINITY {
                close(&[got.lambda], &differences(&[lambda], &g, |l| run(&q, &k, &v, l[0])), 1e-7, "lambda");
            }
            let run = |q: &[f64], k: &[f64], v: &[f64], rho: &[f64]| {
                probe::two_branch(&Local::softmax(q, k, v, scale, f64::INFINITY), rho)
            };
            let got = projected(&Local::softmax(&q, &k, &v, scale, f64::INFINITY), &g, &probe);
            close(&got.query, &differences(&q, &g, |q| run(q, &k, &v, &probe)), 1e-7, "query under a probe");
            close(&got.keys, &differences(&k, &g, |k| run(&q, k, &v, &probe)), 1e-7, "keys under a probe");
            close(&got.values, &differences(&v, &g, |v| run(&q, &k, v, &probe)), 1e-7, "values under a probe");
            close(&got.rho, &differences(&probe, &g, |rho| run(&q, &k, &v, rho)), 1e-7, "probe");
        }
    }
}

/// Grouped heads, padded dimensions, value width unlike the key's; more than one block of rows.
const SHAPES: [(Shape, usize); 5] = [
    (Shape { heads: 1, kv_heads: 1, dim: 1, value_dim: 1 }, 3),
    (Shape { heads: 6, kv_heads: 2, dim: 20, value_dim: 9 }, 37),
    (Shape { heads: 2, kv_heads: 2, dim: 64, value_dim: 64 }, 70),
    (Shape { heads: 3, kv_heads: 1, dim: 33, value_dim: 16 }, 64),
    (Shape { heads: 1, kv_heads: 1, dim: 16, value_dim: 32 }, 100),
];

struct Trained {
    out: Vec<f32>,
    gradients: Gradients,
}

fn train(sample: &Sample, level: Level, rho: Rho, upstream: &[f32]) -> Trained {
    let batch = Batch {
        shape: sample.shape,
        sequences: 2,
        scale: sample.scale,
        queries: &sample.queries,
        keys: &sample.keys,
        values: &sample.values,
        rho,
    };
    let pool = Pool::new(2);
    let mut out = vec![f32::NAN; upstream.len()];
    let saved = forward(&pool, level, &batch, &mut out).unwrap();
    let gradients = backward(&pool, level, &batch, &saved, upstream).unwrap();
    Trained { out, gradients }
}

/// Both passes of two sequences against the reference.
fn check(sample: &Sample, level: Level, (rho, oracle): (Rho, &dyn Fn(usize) -> Vec<f64>), tolerance: f64) {
    let rows = sample.queries.len() / sample.shape.dim;
    let upstream = floats(&mut fastrand::Rng::with_seed(9), rows * sample.shape.value_dim);
    let got = train(sample, level, rho, &upstream);
    let mut lambda = vec![0.0; sample.shape.heads];
    for index in 0..2 {
        let half = |rows: &[f32]| rows[index * rows.len() / 2..(index + 1) * rows.len() / 2].to_vec();
        let given = oracle(index);
        let asked = match rho {
            Rho::Zero => job::Rho::Zero,
            Rho::Solve(_) => job::Rho::Solve(&given),
            Rho::Projection(_) => job::Rho::Projection(&given),
        };
        let g = wide(&half(&upstream));
        sample.oracle((index, 2), asked, |job| {
            let about = |what: &str| format!("{what}, {level:?}, {:?}", sample.shape);
            let same = |what: &str, got: &[f32], want: &[f64]| {
                let error = worst(&half(got), want);
                assert!(error < tolerance, "{}: {error}", about(what));
            };
            same("output", &got.out, &job.forward());
            let want = job.backward(&g);
            same("queries", &got.gradients.queries, &want.query);
            same("keys", &got.gradients.keys, &want.keys);
            same("values", &got.gradients.values, &want.values);
            if matches!(rho, Rho::Projection(_)) {
                same("probe", &got.gradients.rho, &want.rho);
            }
            lambda.iter_mut().zip(job.backward_lambda(&g)).for_each(|(sum, l)| *sum += l);
        });
    }
    assert!(worst(&got.gradients.lambda, &lambda) < tolerance, "lambda: {:?} for {lambda:?}", got.gradients.lambda);
}

#[test]
fn training_passes_agree_with_the_reference_at_every_level() {
    for (shape, tokens) in SHAPES {
        for level in levels() {
            let sample = Sample::new(tokens as u64, shape, 2 * tokens, 2 * tokens);
            check(&sample, level, (Rho::Zero, &|_| Vec::new()), 2e-6);
            // The last head of several is softmax: heads do not share their ridge.
            let lambda: Vec<f32> =
                (0..shape.heads).map(|h| if h == 5 { f32::INFINITY } else { 1.0 + h as f32 }).collect();
            let ridge = Ridge::new(lambda.clone()).unwrap().with_tolerance(1e-7).unwrap();
            check(&sample, level, (Rho::Solve(&ridge), &|_| wide(&lambda)), 2e-5);
            let probe = floats(&mut fastrand::Rng::with_seed(3), sample.queries.len());
            let half = |index: usize| wide(&probe[index * probe.len() / 2..(index + 1) * probe.len() / 2]);
            check(&sample, level, (Rho::Projection(&probe), &half), 2e-5);
        }
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let shape = Shape { heads: 4, kv_heads: 2, dim: 16, value_dim: 8 };
    let sample = Sample::new(7, shape, 3 * 40, 3 * 40);
    let ridge = Ridge::new(vec![0.5]).unwrap();
    let batch = Batch {
        shape,
        sequences: 3,
        scale: sample.scale,
        queries: &sample.queries,
        keys: &sample.keys,
        values: &sample.values,
        rho: Rho::Solve(&ridge),
    };
    let run = |threads: usize| {
        let pool = Pool::new(threads);
        let mut out = vec![0.0; 3 * 40 * 4 * 8];
        let saved = forward(&pool, Level::detect(), &batch, &mut out).unwrap();
        (backward(&pool, Level::detect(), &batch, &saved, &out).unwrap(), saved)
    };
    let (one, saved) = run(1);
    assert_eq!(one, run(3).0);
    assert!(saved.iterations.iter().all(|n| (1..=32).contains(n)), "every row was solved");
}

#[test]
fn training_input_that_does_not_fit_is_an_error() {
    let shape = Shape { heads: 2, kv_heads: 1, dim: 4, value_dim: 4 };
    let sample = Sample::new(1, shape, 6, 6);
    let (pool, mut out) = (Pool::new(1), vec![0.0; 48]);
    let good = Batch {
        shape,
        sequences: 2,
        scale: 0.5,
        queries: &sample.queries,
        keys: &sample.keys,
        values: &sample.values,
        rho: Rho::Zero,
    };
    let guarded = Ridge::new(vec![1.0]).unwrap().with_radius(1.0).unwrap();
    let uneven = Ridge::new(vec![1.0; 3]).unwrap();
    let mut error = |batch: Batch| forward(&pool, Level::detect(), &batch, &mut out).unwrap_err();
    let shaped = |part| TrainError::Attend(AttendError::Shape(part));
    assert_eq!(error(Batch { rho: Rho::Solve(&guarded), ..good }), TrainError::Radius);
    assert_eq!(error(Batch { rho: Rho::Solve(&uneven), ..good }), shaped("ridges"));
    assert_eq!(error(Batch { rho: Rho::Projection(&[1.0]), ..good }), shaped("projections"));
    assert_eq!(error(Batch { sequences: 4, ..good }), shaped("queries"));
    assert_eq!(error(Batch { sequences: 0, ..good }), shaped("queries"));
    assert_eq!(error(Batch { keys: &sample.keys[1..], ..good }), shaped("keys"));
    assert_eq!(error(Batch { values: &[], ..good }), shaped("values"));
    assert_eq!(error(Batch { shape: Shape { dim: 0, ..shape }, ..good }), shaped("heads"));
    let saved = forward(&pool, Level::detect(), &good, &mut [0.0; 48]).unwrap();
    assert_eq!(forward(&pool, Level::detect(), &good, &mut [0.0]).unwrap_err(), shaped("outputs"));
    let half = Batch {
        sequences: 1,
        queries: &sample.queries[..24],
        keys: &sample.keys[..12],
        values: &sample.values[..12],
        ..good
    };
    assert_eq!(backward(&pool, Level::detect(), &half, &saved, &[0.0; 24]).unwrap_err(), shaped("saved rows"));
}
