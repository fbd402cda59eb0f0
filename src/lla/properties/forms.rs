//! One prediction, many roads: every form of the reference gives what weighted least squares gives.

use proptest::prelude::*;

use crate::lla::properties::support::{cases, close, normals, problem};
use crate::lla::reference::matrix::times;
use crate::lla::reference::moments::Moments;
use crate::lla::reference::{Local, forms, probe, solve};

#[test]
fn every_form_equals_weighted_least_squares() {
    proptest!(cases(60), |(p in problem())| {
        let local = p.local();
        let root = forms::dense(&local);
        close(&forms::centred(&local), &root, 1e-10, "mean-centred");
        close(&forms::query_centred(&local).unwrap(), &root, 1e-10, "query-centred");
        close(&forms::predictor(&local).unwrap(), &root, 1e-10, "predictor and residuals");
        let moments = Moments::gather(&local);
        let rho = moments.solve(&p.query, p.lambda).unwrap();
        close(&moments.apply(&rho), &root, 1e-10, "one pass of moments");
        close(&probe::covariance_form(&local, &rho), &root, 1e-10, "covariance form");
        close(&probe::two_branch(&local, &rho), &root, 1e-10, "two branches");
    });
}

#[test]
fn solvers_agree_and_conjugate_gradients_end_within_the_smaller_dimension() {
    proptest!(cases(60), |(p in problem())| {
        let local = p.local();
        let want = solve::cholesky(&local).unwrap();
        if p.n <= 256 {
            close(&solve::dual(&local).unwrap(), &want, 1e-10, "dual");
        }
        let iterated = solve::iterated(&local, 1e-10, 1000);
        close(&iterated.x, &want, 1e-8, "conjugate gradients");
        close(&solve::product(&local, &iterated.x), &local.delta(), 1e-8, "and their product is the right-hand side");
        // Exact arithmetic ends after as many steps as there are eigenvalues apart from lambda, and one for lambda.
        // Rounding adds a few where the matrix is badly conditioned, so there the question is asked of fewer digits.
        let digits = if p.lambda < 1.0 { 1e-4 } else { 1e-10 };
        let steps = solve::iterated(&local, digits, 1000).iterations;
        prop_assert!(steps <= p.n.min(p.d) + 1, "{steps} steps");
    });
}

#[test]
fn a_query_at_the_mean_key_needs_no_iteration() {
    proptest!(cases(20), |(p in problem())| {
        // Without scale the weights are equal, so that the mean does not depend on the query.
        let mut still = p.clone();
        still.scale = 0.0;
        still.query = still.local().key_mean();
        let local = still.local();
        let delta = local.delta();
        prop_assert!(delta.iter().all(|x| *x == 0.0), "{delta:?}");
        let got = solve::iterated(&local, 1e-10, 100);
        prop_assert_eq!(got.iterations, 0);
        prop_assert!(got.x.iter().all(|x| *x == 0.0));
        close(&forms::centred(&local), &local.value_mean(), 1e-14, "the mean value");
    });
}

#[test]
fn any_linear_predictor_is_corrected_by_the_mean_of_its_residuals() {
    proptest!(cases(30), |(p in problem(), seed in any::<u64>())| {
        let mut random = fastrand::Rng::with_seed(seed);
        let what = normals(&mut random, p.d * p.dv);
        let constant = Local { values: &vec![2.5; p.n * p.dv], ..p.local() };
        // What the predictor adds at the query it takes away at the keys: c + What (q - kbar).
        let moved: Vec<f64> = times(&what, &p.local().delta()).iter().map(|x| 2.5 - x).collect();
        close(&forms::with_predictor(&constant, &what), &moved, 1e-10, "constants");
        // Values that are linear in the key are predicted exactly by their own map, wherever the query is.
        let linear: Vec<f64> = p.keys.chunks_exact(p.d).flat_map(|k| times(&what, k)).collect();
        let local = Local { values: &linear, ..p.local() };
        let want = times(&what, &p.query);
        close(&forms::with_predictor(&local, &what), &want, 1e-10, "a linear map");
    });
}
