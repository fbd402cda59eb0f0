//! Where the ridge, the scale or the keys reach a limit whose answer is known in another way.

use std::cell::Cell;

use proptest::prelude::*;

use crate::lla::properties::support::{Problem, cases, close, normals, problem};
use crate::lla::reference::matrix::{Cholesky, axpy, dot, norm, ridged, times};
use crate::lla::reference::{Local, forms};

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[test]
fn a_large_ridge_approaches_softmax_as_its_inverse() {
    proptest!(cases(40), |(p in problem())| {
        prop_assume!(p.n > 2);
        let at = |lambda: f64| forms::centred(&Local { lambda, ..p.local() });
        let softmax = p.local().value_mean();
        // To first order the output moves by G (q - kbar) / lambda.
        let mut first = vec![0.0; p.dv];
        let (cross, delta) = (p.local().cross_covariance(), p.local().delta());
        first.iter_mut().zip(cross.chunks_exact(p.d)).for_each(|(f, row)| *f = -dot(row, &delta));
        let size = norm(&first);
        prop_assume!(size > 1e-3);
        for lambda in [1e6, 1e7] {
            let moved = norm(&minus(&at(lambda), &softmax)) * lambda;
            prop_assert!((moved / size - 1.0).abs() < 0.05, "lambda {lambda}: {moved} for {size}");
        }
        // What is left falls a hundredfold per tenfold ridge.
        let rest = |lambda: f64| {
            let moved = minus(&at(lambda), &softmax);
            norm(&minus(&moved, &first.iter().map(|f| f / lambda).collect::<Vec<_>>()))
        };
        let top = p.local().covariance().iter().step_by(p.d + 1).sum::<f64>();
        let (far, farther) = (rest(300.0 * top), rest(3000.0 * top));
        prop_assert!(farther < 1e-13 || (far / farther - 100.0).abs() < 5.0, "{far} to {farther}");
    });
}

#[test]
fn an_infinite_ridge_is_softmax_attention_bit_for_bit() {
    proptest!(cases(20), |(p in problem())| {
        let local = Local { lambda: f64::INFINITY, ..p.local() };
        prop_assert_eq!(forms::centred(&local), local.value_mean());
    });
}

/// Values that are affine in the keys, `A k + b`, and what the map gives at the query.
fn affine(p: &Problem, seed: u64) -> (Vec<f64>, Vec<f64>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (a, b) = (normals(&mut random, p.d * p.dv), normals(&mut random, p.dv));
    let map = |x: &[f64]| times(&a, x).iter().zip(&b).map(|(y, b)| y + b).collect::<Vec<f64>>();
    (p.keys.chunks_exact(p.d).flat_map(map).collect(), map(&p.query))
}

#[test]
fn affine_values_are_continued_exactly_as_the_ridge_vanishes() {
    proptest!(cases(30), |(p in problem(), seed in any::<u64>())| {
        prop_assume!(p.n > 3 * p.d);
        let (values, want) = affine(&p, seed);
        let error = |lambda: f64| {
            let local = Local { values: &values, lambda, ..p.local() };
            norm(&minus(&forms::centred(&local), &want)) / norm(&want).max(1.0)
        };
        prop_assert!(error(0.0) < 1e-9, "no ridge: {}", error(0.0));
        let (more, less) = (error(1e-5), error(1e-6));
        prop_assert!(less < 1e-10 || (more / less - 10.0).abs() < 0.5, "linear in lambda: {more} and {less}");
        // Softmax attention cannot do this: it stays inside the values it averages.
        prop_assert!(error(f64::INFINITY) > 1e3 * less);
    });
}

#[test]
fn keys_as_values_give_the_query_and_constants_themselves() {
    proptest!(cases(30), |(p in problem())| {
        let constant = vec![0.75; p.n * p.dv];
        let local = Local { values: &constant, ..p.local() };
        close(&forms::centred(&local), &vec![0.75; p.dv], 1e-12, "constant");
        if p.n > 3 * p.d {
            let own = Local { values: &p.keys, value_dim: p.d, lambda: 1e-12, ..p.local() };
            close(&forms::centred(&own), &p.query, 1e-8, "the query");
        }
    });
}

/// Ridge regression with equal weights from its normal equations, with or without an intercept.
fn global(p: &Problem, intercept: bool) -> Vec<f64> {
    let width = p.d + usize::from(intercept);
    let row = |key: &[f64]| key.iter().copied().chain(intercept.then_some(1.0)).collect::<Vec<f64>>();
    let (mut gram, mut right) = (vec![0.0; width * width], vec![0.0; p.dv * width]);
    for (key, value) in p.keys.chunks_exact(p.d).zip(p.values.chunks_exact(p.dv)) {
        let x = row(key);
        gram.chunks_exact_mut(width).zip(&x).for_each(|(line, a)| axpy(line, *a, &x));
        right.chunks_exact_mut(width).zip(value).for_each(|(line, v)| axpy(line, *v, &x));
    }
    // The penalty on sums is n times that on means; the intercept has none.
    let mut penalised = ridged(&gram, width, p.n as f64 * p.lambda);
    if intercept {
        penalised[width * width - 1] = gram[width * width - 1];
    }
    let factor = Cholesky::new(&penalised, width).unwrap();
    right.chunks_exact(width).map(|line| dot(&factor.solve(line), &row(&p.query))).collect()
}

#[test]
fn without_scale_it_is_ridge_regression_with_an_intercept_and_not_without() {
    let apart = Cell::new(0);
    proptest!(cases(40), |(p in problem())| {
        let flat = Problem { scale: 0.0, ..p };
        let got = forms::centred(&flat.local());
        close(&got, &global(&flat, true), 1e-9, "affine ridge regression");
        let without = global(&flat, false);
        apart.set(apart.get() + usize::from(norm(&minus(&got, &without)) > 1e-3));
    });
    let apart = apart.get();
    assert!(apart > 30, "the intercept-free fit is another one; it agreed in {} of 40 cases", 40 - apart);
}

#[test]
fn one_key_equal_keys_and_a_sharp_scale_have_plain_answers() {
    proptest!(cases(30), |(p in problem())| {
        let one = Problem { n: 1, keys: p.keys[..p.d].to_vec(), values: p.values[..p.dv].to_vec(), ..p.clone() };
        close(&forms::centred(&one.local()), &one.values, 1e-12, "one key");
        let equal = Problem { keys: p.keys[..p.d].repeat(p.n), ..p.clone() };
        close(&forms::centred(&equal.local()), &equal.local().value_mean(), 1e-10, "equal keys");
        let sharp = Problem { scale: 1e6, ..p.clone() };
        let score = |key: &&[f64]| dot(key, &p.query);
        let best = p.keys.chunks_exact(p.d).zip(p.values.chunks_exact(p.dv)).max_by(|a, b| score(&a.0).total_cmp(&score(&b.0)));
        close(&forms::centred(&sharp.local()), best.unwrap().1, 1e-9, "the best key's value");
    });
}
