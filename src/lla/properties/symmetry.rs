//! What may be done to a problem without changing its answer, and what may not.

use proptest::prelude::*;

use crate::lla::properties::support::{Problem, cases, close, normals, problem};
use crate::lla::reference::matrix::{axpy, dot, norm, times};
use crate::lla::reference::{Local, forms};

fn rows(rows: &[f64], width: usize, change: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    rows.chunks_exact(width).flat_map(change).collect()
}

/// Reflects along `normal`: an orthogonal map.
fn reflected(x: &[f64], normal: &[f64]) -> Vec<f64> {
    let mut out = x.to_vec();
    axpy(&mut out, -2.0 * dot(x, normal) / dot(normal, normal), normal);
    out
}

#[test]
fn the_order_of_keys_does_not_matter_nor_does_counting_each_twice() {
    proptest!(cases(30), |(p in problem(), seed in any::<u64>())| {
        let want = forms::centred(&p.local());
        let mut order: Vec<usize> = (0..p.n).collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut order);
        let pick = |rows: &[f64], width: usize| order.iter().flat_map(|i| rows[i * width..(i + 1) * width].to_vec()).collect();
        let shuffled = Problem { keys: pick(&p.keys, p.d), values: pick(&p.values, p.dv), ..p.clone() };
        close(&forms::centred(&shuffled.local()), &want, 1e-11, "shuffled");
        let twice = Problem { n: 2 * p.n, keys: p.keys.repeat(2), values: p.values.repeat(2), ..p.clone() };
        close(&forms::centred(&twice.local()), &want, 1e-11, "twice");
    });
}

#[test]
fn keys_without_weight_change_nothing_whatever_they_hold() {
    proptest!(cases(30), |(p in problem())| {
        let want = forms::centred(&p.local());
        let mut scores: Vec<f64> = p.keys.chunks_exact(p.d).map(|k| p.scale * dot(k, &p.query)).collect();
        scores.extend([f64::NEG_INFINITY; 2]);
        let (mut keys, mut values) = (p.keys.clone(), p.values.clone());
        keys.extend(vec![f64::INFINITY; p.d].iter().chain(&vec![f64::NAN; p.d]));
        values.extend(vec![f64::NAN; p.dv].iter().chain(&vec![f64::INFINITY; p.dv]));
        let masked = Local::scored(&p.query, &keys, &values, &scores).with(p.scale, p.lambda);
        close(&forms::centred(&masked), &want, 1e-13, "masked");
        close(&forms::dense(&masked), &want, 1e-10, "masked, least squares");
        // A key far on the other side has a weight of exp(-1e4), which is zero, though its distance is huge.
        let away = 1e4 / (p.scale * dot(&p.query, &p.query).max(1e-3));
        keys.truncate(p.n * p.d);
        values.truncate(p.n * p.dv);
        keys.extend(p.query.iter().map(|q| -away * q));
        values.extend(vec![1e3; p.dv]);
        let far = Problem { n: p.n + 1, keys, values, ..p.clone() };
        close(&forms::centred(&far.local()), &want, 1e-11, "far away");
    });
}

#[test]
fn rotations_and_joint_scalings_change_nothing() {
    proptest!(cases(30), |(p in problem(), seed in any::<u64>(), a in prop::sample::select(vec![0.5, 3.0]))| {
        let want = forms::centred(&p.local());
        let mut random = fastrand::Rng::with_seed(seed);
        let (one, other) = (normals(&mut random, p.d), normals(&mut random, p.d));
        let turn = |x: &[f64]| reflected(&reflected(x, &one), &other);
        let turned = Problem { query: turn(&p.query), keys: rows(&p.keys, p.d, turn), ..p.clone() };
        close(&forms::centred(&turned.local()), &want, 1e-10, "rotated");
        let large = |x: &[f64]| x.iter().map(|x| a * x).collect::<Vec<f64>>();
        let scaled = Problem {
            query: large(&p.query),
            keys: large(&p.keys),
            lambda: a * a * p.lambda,
            scale: p.scale / (a * a),
            ..p.clone()
        };
        close(&forms::centred(&scaled.local()), &want, 1e-10, "scaled");
    });
}

#[test]
fn an_affine_change_of_the_values_passes_through() {
    proptest!(cases(30), |(p in problem(), seed in any::<u64>())| {
        let mut random = fastrand::Rng::with_seed(seed);
        let (m, c) = (normals(&mut random, 3 * p.dv), normals(&mut random, 3));
        let change = |v: &[f64]| times(&m, v).iter().zip(&c).map(|(x, c)| x + c).collect::<Vec<f64>>();
        let changed = Problem { dv: 3, values: rows(&p.values, p.dv, change), ..p.clone() };
        close(&forms::centred(&changed.local()), &change(&forms::centred(&p.local())), 1e-10, "changed");
    });
}

#[test]
fn moving_keys_and_evaluation_point_under_fixed_weights_changes_nothing() {
    proptest!(cases(30), |(p in problem(), seed in any::<u64>())| {
        let mut random = fastrand::Rng::with_seed(seed);
        let by = normals(&mut random, p.d);
        let scores: Vec<f64> = p.keys.chunks_exact(p.d).map(|k| p.scale * dot(k, &p.query)).collect();
        let moved = |x: &[f64]| x.iter().zip(&by).map(|(x, t)| x + 10.0 * t).collect::<Vec<f64>>();
        let (query, keys) = (moved(&p.query), rows(&p.keys, p.d, moved));
        let local = Local::scored(&query, &keys, &p.values, &scores).with(p.scale, p.lambda);
        close(&forms::centred(&local), &forms::centred(&p.local()), 1e-9, "moved");
    });
}

/// Two things that softmax attention does not notice and a local fit must: a silent softmax would pass all of the above.
#[test]
fn trading_scale_between_query_and_keys_and_moving_keys_alone_change_a_finite_ridge() {
    proptest!(cases(30), |(p in problem(), seed in any::<u64>())| {
        prop_assume!(p.n > 2 && p.d < 100);
        let softmax = |p: &Problem| p.local().value_mean();
        let apart = |a: &[f64], b: &[f64]| norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
        let traded = Problem {
            query: p.query.iter().map(|q| 2.0 * q).collect(),
            keys: p.keys.iter().map(|k| k / 2.0).collect(),
            lambda: p.lambda.min(10.0),
            ..p.clone()
        };
        let here = Problem { lambda: p.lambda.min(10.0), ..p.clone() };
        close(&softmax(&traded), &softmax(&here), 1e-12, "softmax does not see a trade");
        let change = apart(&forms::centred(&traded.local()), &forms::centred(&here.local()));
        prop_assert!(change > 1e-4, "a trade changed the output by {change}");
        let by = normals(&mut fastrand::Rng::with_seed(seed), p.d);
        let move_by = |k: &[f64]| k.iter().zip(&by).map(|(k, t)| k + t).collect::<Vec<f64>>();
        let moved = Problem { keys: rows(&p.keys, p.d, move_by), ..here.clone() };
        close(&softmax(&moved), &softmax(&here), 1e-10, "softmax does not see a move");
        let change = apart(&forms::centred(&moved.local()), &forms::centred(&here.local()));
        prop_assert!(change > 1e-4, "a move changed the output by {change}");
    });
}

#[test]
fn gaussian_weights_are_softmax_weights_exactly_where_keys_have_one_norm() {
    proptest!(cases(30), |(p in problem())| {
        prop_assume!(p.n > 1);
        let unit = |x: &[f64]| x.iter().map(|y| y / norm(x)).collect::<Vec<f64>>();
        let keys = rows(&p.keys, p.d, unit);
        let (gaussian, softmax) = (
            |keys: &[f64]| Local::gaussian(&p.query, keys, &p.values, 1.0 / p.scale, p.lambda).weights,
            |keys: &[f64]| Local::softmax(&p.query, keys, &p.values, p.scale, p.lambda).weights,
        );
        close(&gaussian(&keys), &softmax(&keys), 1e-13, "unit keys");
        let apart = gaussian(&p.keys).iter().zip(softmax(&p.keys)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        prop_assert!(apart > 1e-9, "unequal norms must show: {apart}");
    });
}
