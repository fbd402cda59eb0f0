//! Corrections that are handed in, and the query whose softmax attention the local fit stands for.

use proptest::prelude::*;

use crate::lla::properties::support::{Problem, cases, close, problem};
use crate::lla::reference::matrix::norm;
use crate::lla::reference::{Local, forms, probe, solve};

#[test]
fn the_solved_correction_handed_in_gives_the_local_fit_and_none_gives_softmax() {
    proptest!(cases(40), |(p in problem())| {
        let local = p.local();
        let rho = solve::cholesky(&local).unwrap();
        close(&probe::covariance_form(&local, &rho), &forms::dense(&local), 1e-10, "solved");
        close(&probe::two_branch(&local, &rho), &forms::dense(&local), 1e-9, "solved, two branches");
        let none = vec![0.0; p.d];
        prop_assert_eq!(probe::covariance_form(&local, &none), local.value_mean());
        prop_assert_eq!(probe::two_branch(&local, &none), local.value_mean());
    });
}

#[test]
fn softmax_at_the_newton_point_agrees_to_second_order_in_the_inverse_ridge() {
    let strategy = (any::<u64>(), prop::sample::select(vec![(3, 2, 12), (16, 5, 64), (64, 16, 256)]));
    proptest!(cases(20), |((seed, sizes) in strategy)| {
        let p = Problem::new(seed, sizes, 1.0);
        let apart = |lambda: f64| {
            let local = Local { lambda, ..p.local() };
            let point = probe::newton_point(&local).unwrap();
            let there = Local::softmax(&point, &p.keys, &p.values, p.scale, f64::INFINITY).value_mean();
            let fit = forms::centred(&local);
            let difference = |a: &[f64], b: &[f64]| norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
            (difference(&there, &fit), difference(&fit, &local.value_mean()))
        };
        let top = p.local().covariance().iter().step_by(p.d + 1).sum::<f64>() * norm(&p.query);
        let ((near, moved), (nearer, _)) = (apart(1e3 * top), apart(1e4 * top));
        prop_assert!((near / nearer - 100.0).abs() < 10.0, "{near} to {nearer}");
        prop_assert!(near < moved / 10.0, "the stand-in is much closer ({near}) than softmax at the query ({moved})");
    });
}
