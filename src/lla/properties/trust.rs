//! What the signed weights obey, and how far a correction can reach.

use std::cell::Cell;

use proptest::prelude::*;

use crate::lla::properties::support::{Problem, cases, close, problem};
use crate::lla::reference::matrix::{axpy, norm};
use crate::lla::reference::{Local, forms, probe, solve};

#[test]
fn signed_weights_sum_to_one_and_their_mean_key_is_the_query_but_for_the_ridge() {
    proptest!(cases(60), |(p in problem())| {
        let local = p.local();
        let rho = solve::cholesky(&local).unwrap();
        let factors = forms::factors(&local, &rho);
        let total: f64 = local.weights.iter().zip(&factors).map(|(p, a)| p * a).sum();
        prop_assert!((total - 1.0).abs() < 1e-12, "{total}");
        // sum p a k = kbar - C rho = q + lambda rho, since (C + lambda I) rho = kbar - q.
        let mean = forms::average(&Local { values: &p.keys, value_dim: p.d, ..local.clone() }, &factors);
        let mut want = p.query.clone();
        axpy(&mut want, p.lambda, &rho);
        close(&mean, &want, 1e-10, "mean key under the signed weights");
    });
}

/// The problem with a query this many times as far out.
fn far(p: &Problem, times: f64) -> Problem {
    // The scale shrinks with it, so that the weights do not collapse onto one key.
    Problem { query: p.query.iter().map(|q| q * times).collect(), scale: p.scale / times, ..p.clone() }
}

#[test]
fn corrections_stay_within_their_bounds_for_near_and_far_queries() {
    let tightest = Cell::new(0.0_f64);
    proptest!(cases(60), |(p in problem(), times in prop::sample::select(vec![0.0, 1.0, 10.0, 1e3, 1e6]))| {
        let p = if times == 0.0 { Problem { query: vec![0.0; p.d], ..p } } else { far(&p, times) };
        let trust = probe::trust(&p.local()).unwrap();
        prop_assert!(trust.moved <= trust.moved_at_most * (1.0 + 1e-9) + 1e-12, "{trust:?}");
        prop_assert!(trust.mass <= trust.mass_at_most * (1.0 + 1e-9), "{trust:?}");
        if p.n > 1 {
            tightest.set(tightest.get().max(trust.moved / trust.moved_at_most));
        }
    });
    let tightest = tightest.get();
    assert!(tightest > 0.2, "a bound that is never approached would not notice a wrong ridge: {tightest}");
}

#[test]
fn the_adaptive_ridge_keeps_corrections_within_its_radius() {
    proptest!(cases(40), |(p in problem(), times in prop::sample::select(vec![1.0, 100.0, 1e4]))| {
        let p = far(&p, times);
        for radius in [0.5, 1.0, 3.0] {
            let local = p.local();
            let lambda = probe::guarded(p.lambda, &local.delta(), radius);
            prop_assert!(lambda >= p.lambda);
            let guarded = Local { lambda, ..local };
            let mean = guarded.value_mean();
            let square = |value: &[f64]| value.iter().zip(&mean).map(|(v, m)| (v - m) * (v - m)).sum::<f64>();
            let spread = guarded.points().map(|(p, _, value)| p * square(value)).sum::<f64>().sqrt();
            let moved: Vec<f64> = forms::centred(&guarded).iter().zip(&mean).map(|(o, m)| o - m).collect();
            prop_assert!(norm(&moved) <= radius * spread * (1.0 + 1e-9) + 1e-12);
        }
    });
}
