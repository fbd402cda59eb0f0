//! What the kernel says it did: operations and bytes by the published formulas, iterations per head.

use crate::lla::properties::support::{Sample, exact, levels, reported};
use crate::lla::ridge::{Rho, Solver};
use crate::lla::store::Precision;
use crate::lla::{Attention, Shape};

const SHAPES: [(usize, usize, usize); 3] = [(1, 1, 64), (9, 3, 64), (8, 1, 128)];

fn square(heads: usize, kv_heads: usize, dim: usize) -> Shape {
    Shape { heads, kv_heads, dim, value_dim: dim }
}

#[test]
fn one_token_costs_what_the_formulas_say() {
    for ((heads, kv_heads, d), n) in SHAPES.iter().flat_map(|shape| [1, 128, 2048].map(|n| (*shape, n))) {
        let sample = Sample::new(3, square(heads, kv_heads, d), 1, n);
        let probe = vec![0.1; sample.queries.len()];
        for (precision, bytes) in [(Precision::Half, 2), (Precision::Full, 4)] {
            let store = sample.store(precision);
            let cost = |rho: Rho| {
                let (_, report) = reported(levels().last().unwrap(), &sample.job(&store, rho));
                assert_eq!(report.rows, heads as u64);
                report
            };
            let per_head = |flops: usize| (flops * heads) as u64;
            let shared = |numbers: usize| (numbers * bytes * kv_heads) as u64;
            let softmax = cost(Rho::Zero);
            assert_eq!((softmax.flops, softmax.kv_bytes), (per_head(4 * n * d), shared(2 * n * d)));
            let projection = cost(Rho::Projection(&probe));
            assert_eq!((projection.flops, projection.kv_bytes), (per_head(8 * n * d), shared(2 * n * d)));
            let gram = cost(Rho::Solve(&exact(&[1.0], Solver::Gram)));
            let factor = d * d * d / 3 + 2 * d * d;
            assert_eq!(gram.flops, per_head(n * d * (d + 1) + 8 * n * d + factor));
            assert_eq!((gram.kv_bytes, gram.factored), (shared(3 * n * d), heads as u64));
            // Iterations differ between heads: operations add up, keys are read until the last of a group is done.
            let cg = cost(Rho::Solve(&exact(&[1.0], Solver::ConjugateGradient)));
            let taken: Vec<usize> = (0..heads).map(|head| cg.iterations.head(head).len() - 1).collect();
            assert_eq!(cg.iterations.rows(), heads as u64);
            assert!(taken.iter().all(|k| (1..=2 * n + 1).contains(k)), "{taken:?}");
            assert_eq!(cg.flops, taken.iter().map(|k| (4 * n * d * (k + 2)) as u64).sum::<u64>());
            let last = taken.chunks(heads / kv_heads).map(|group| group.iter().max().unwrap());
            assert_eq!(cg.kv_bytes, last.map(|k| (bytes * n * d * (k + 3)) as u64).sum::<u64>());
        }
    }
}

#[test]
fn a_run_costs_the_sum_of_its_rows_and_a_window_only_what_it_sees() {
    let (d, tokens, n) = (64, 30, 100);
    let sample = Sample::new(4, square(6, 2, d), tokens, n);
    let store = sample.store(Precision::Half);
    for window in [None, Some(17)] {
        let ridge = exact(&[3.0], Solver::ConjugateGradient);
        let pairs: usize = (n - tokens + 1..=n).map(|seen| seen.min(window.unwrap_or(n))).sum::<usize>() * 6;
        let report = |rho: Rho| {
            let job = Attention { window, ..sample.job(&store, rho) };
            reported(levels().last().unwrap(), &job).1
        };
        assert_eq!(report(Rho::Zero).flops, (4 * pairs * d) as u64);
        let solved = report(Rho::Solve(&ridge));
        assert_eq!((solved.rows, solved.iterations.rows()), (6 * tokens as u64, 6 * tokens as u64));
        // Each row is between the cheapest and the dearest of the histogram.
        let spans = (0..6).map(|head| {
            let counts = solved.iterations.head(head);
            (counts.iter().position(|rows| *rows > 0).unwrap(), counts.len() - 1)
        });
        let (least, most) = spans.fold((usize::MAX, 0), |(a, b), (c, d)| (a.min(c), b.max(d)));
        let at = |k: usize| (4 * pairs * d * (k + 2)) as u64;
        assert!((at(least)..=at(most)).contains(&solved.flops), "{solved:?}");
    }
}

#[test]
fn a_larger_ridge_takes_fewer_iterations_and_a_query_at_the_mean_none() {
    let sample = Sample::new(6, square(4, 2, 64), 1, 500);
    let store = sample.store(Precision::Full);
    for level in levels() {
        let mean = |lambda: f32| {
            let ridge = exact(&[lambda], Solver::ConjugateGradient).with_tolerance(1e-3).unwrap();
            reported(level, &sample.job(&store, Rho::Solve(&ridge))).1.iterations.mean()
        };
        let taken = [1000.0, 10.0, 1.0, 0.1].map(mean);
        assert!(taken.is_sorted_by(|a, b| a < b), "{taken:?} at {level:?}");
        let still = Sample { queries: vec![0.0; 4 * 64], keys: vec![0.0; 500 * 2 * 64], ..sample.clone() };
        let ridge = exact(&[1.0], Solver::ConjugateGradient);
        let (_, report) = reported(level, &still.job(&still.store(Precision::Full), Rho::Solve(&ridge)));
        assert_eq!((0..4).map(|head| report.iterations.head(head).to_vec()).collect::<Vec<_>>(), vec![vec![1]; 4]);
    }
}
