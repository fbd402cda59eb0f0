//! How a sequence is cut into calls does not matter: token by token, in runs, or whole; nor what else was in the store.

use proptest::prelude::*;
use proptest::sample::select;

use crate::lla::properties::support::{SOLVERS, Sample, cases, exact, floats, levels, run, worst};
use crate::lla::reference::attention::wide;
use crate::lla::ridge::Rho;
use crate::lla::simd::Level;
use crate::lla::store::{Precision, Store};
use crate::lla::{Attention, Shape, attend, pool::Pool};

fn sample() -> impl Strategy<Value = Sample> {
    let heads = select(vec![(1, 1), (4, 2), (3, 1), (8, 1)]);
    let sizes = (select(vec![3, 16, 64]), select(vec![5, 16]), select(vec![2_usize, 17, 80, 130]));
    (any::<u64>(), heads, sizes).prop_map(|(seed, (heads, kv_heads), (dim, value_dim, tokens))| {
        Sample::new(seed, Shape { heads, kv_heads, dim, value_dim }, tokens, tokens)
    })
}

/// The output of `sample`, appended and attended to in runs that end at `cuts`.
fn in_runs(sample: &Sample, level: Level, rho: Rho, cuts: &[usize]) -> Vec<f32> {
    let Shape { heads, kv_heads, dim, value_dim } = sample.shape;
    let mut store = Store::new(sample.shape, Precision::Full);
    let (mut out, mut from) = (Vec::new(), 0);
    for to in cuts.iter().copied() {
        let part = |rows: &'_ [f32], width: usize| rows[from * width..to * width].to_vec();
        store.append(&part(&sample.keys, kv_heads * dim), &part(&sample.values, kv_heads * value_dim)).unwrap();
        let queries = part(&sample.queries, heads * dim);
        let probe = if let Rho::Projection(all) = rho { part(all, heads * dim) } else { Vec::new() };
        let rho = if probe.is_empty() { rho } else { Rho::Projection(&probe) };
        out.extend(run(level, &Attention { queries: &queries, first: from, ..sample.job(&store, rho) }));
        from = to;
    }
    out
}

#[test]
fn token_by_token_and_in_runs_equal_the_whole() {
    proptest!(cases(16), |(sample in sample(), seed in any::<u64>())| {
        let tokens = sample.queries.len() / (sample.shape.heads * sample.shape.dim);
        let mut random = fastrand::Rng::with_seed(seed);
        let probe = floats(&mut random, sample.queries.len());
        let ridges = SOLVERS.map(|solver| exact(&[2.0], solver));
        let every: Vec<usize> = (1..=tokens).collect();
        let mut some: Vec<usize> = every.iter().copied().filter(|_| random.u8(..) < 60).collect();
        some.extend((some.last() != Some(&tokens)).then_some(tokens));
        let rhos = [Rho::Zero, Rho::Projection(&probe), Rho::Solve(&ridges[0]), Rho::Solve(&ridges[1]), Rho::Solve(&ridges[2])];
        for (level, rho) in levels().flat_map(|level| rhos.map(|rho| (level, rho))) {
            let whole = wide(&in_runs(&sample, level, rho, &[tokens]));
            for cuts in [&every, &some] {
                let error = worst(&in_runs(&sample, level, rho, cuts), &whole);
                prop_assert!(error < 1e-5, "{error} at {level:?}, {:?}, {rho:?} in {} runs", sample.shape, cuts.len());
            }
        }
    });
}

/// A prompt is read in pieces whose lengths are measured times' doing: they must not show. Pieces end at multiples of eight,
/// and none is shorter.
#[test]
fn where_a_prompt_is_cut_changes_no_bit() {
    for (seed, (heads, kv_heads, dim)) in
        [(1, 1, 64), (2, 1, 16), (9, 3, 64), (14, 2, 64), (16, 1, 32)].into_iter().enumerate()
    {
        let tokens = 217;
        let sample = Sample::new(seed as u64, Shape { heads, kv_heads, dim, value_dim: dim }, tokens, tokens);
        let ridges = SOLVERS.map(|solver| exact(&[2.0], solver));
        for (level, rho) in levels().flat_map(|level| [Rho::Zero, Rho::Solve(&ridges[2])].map(|rho| (level, rho))) {
            let whole = in_runs(&sample, level, rho, &[tokens]);
            for cuts in [vec![16, 32, 80, 200, tokens], vec![8, 88, 208, tokens], vec![168, tokens]] {
                let same = in_runs(&sample, level, rho, &cuts) == whole;
                assert!(same, "{level:?}, {:?}, {rho:?}, cut at {cuts:?}", sample.shape);
            }
        }
    }
}

#[test]
fn a_window_equals_a_store_that_holds_only_the_kept_keys() {
    proptest!(cases(24), |(sample in sample(), window in 1..140_usize, half in any::<bool>())| {
        let Shape { heads, kv_heads, dim, value_dim } = sample.shape;
        let precision = if half { Precision::Half } else { Precision::Full };
        let tokens = sample.queries.len() / (heads * dim);
        let kept = window.min(tokens);
        let last = Sample {
            shape: sample.shape,
            scale: sample.scale,
            first: tokens - 1,
            queries: sample.queries[(tokens - 1) * heads * dim..].to_vec(),
            keys: sample.keys.clone(),
            values: sample.values.clone(),
        };
        let evicted = Sample {
            first: kept - 1,
            queries: last.queries.clone(),
            keys: sample.keys[(tokens - kept) * kv_heads * dim..].to_vec(),
            values: sample.values[(tokens - kept) * kv_heads * value_dim..].to_vec(),
            ..sample
        };
        let (all, few) = (last.store(precision), evicted.store(precision));
        for level in levels() {
            for solver in SOLVERS {
                let ridge = exact(&[1.0], solver);
                let windowed = Attention { window: Some(window), ..last.job(&all, Rho::Solve(&ridge)) };
                let want = wide(&run(level, &evicted.job(&few, Rho::Solve(&ridge))));
                let error = worst(&run(level, &windowed), &want);
                prop_assert!(error < 1e-5, "{error} at {level:?}, {solver:?}");
            }
        }
    });
}

#[test]
fn a_store_that_was_cut_back_or_copied_equals_a_fresh_one_bit_for_bit() {
    proptest!(cases(16), |(sample in sample(), more in 1..40_usize, half in any::<bool>())| {
        let Shape { kv_heads, dim, value_dim, .. } = sample.shape;
        let precision = if half { Precision::Half } else { Precision::Full };
        let ridge = exact(&[1.0], SOLVERS[0]);
        let fresh = sample.store(precision);
        let want = run(Level::detect(), &sample.job(&fresh, Rho::Solve(&ridge)));
        let mut longer = sample.store(precision);
        longer.append(&vec![1e3; more * kv_heads * dim], &vec![-1e3; more * kv_heads * value_dim]).unwrap();
        let beyond = run(Level::detect(), &sample.job(&longer, Rho::Solve(&ridge)));
        prop_assert_eq!(&beyond, &want, "keys beyond the run");
        let mut copy = Store::new(sample.shape, precision);
        copy.copy_prefix(&longer, fresh.len()).unwrap();
        prop_assert_eq!(&run(Level::detect(), &sample.job(&copy, Rho::Solve(&ridge))), &want, "copied");
        longer.truncate(fresh.len());
        prop_assert_eq!(&run(Level::detect(), &sample.job(&longer, Rho::Solve(&ridge))), &want, "cut back");
    });
}

#[test]
fn company_and_threads_change_no_bit_of_a_job() {
    let shapes = [(1, 1, 64, 300), (8, 1, 64, 40), (4, 2, 16, 33), (2, 2, 128, 1500)];
    let ridges = SOLVERS.map(|solver| exact(&[2.0], solver));
    let samples: Vec<Sample> = (shapes.iter().enumerate())
        .flat_map(|(seed, (heads, kv_heads, dim, n))| {
            let shape = Shape { heads: *heads, kv_heads: *kv_heads, dim: *dim, value_dim: *dim };
            [1, 20].map(|tokens| Sample::new(seed as u64, shape, tokens, *n))
        })
        .collect();
    let stores: Vec<Store> = samples.iter().map(|sample| sample.store(Precision::Half)).collect();
    for ridge in &ridges[..2] {
        let jobs: Vec<Attention> =
            samples.iter().zip(&stores).map(|(sample, store)| sample.job(store, Rho::Solve(ridge))).collect();
        let alone: Vec<f32> = jobs.iter().flat_map(|job| run(Level::detect(), job)).collect();
        for threads in [1, 2, 5] {
            let mut together = vec![f32::NAN; alone.len()];
            attend(&Pool::new(threads), Level::detect(), &jobs, &mut together).unwrap();
            assert!(together == alone, "{threads} threads, {:?}", ridge.solver());
        }
    }
}
