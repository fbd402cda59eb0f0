//! The whole call against double precision.

use super::*;
use crate::lla::ridge::{Ridge, Solver};
use crate::lla::store::Precision;

struct Case {
    queries: Vec<f32>,
    first: usize,
    store: Store,
}

fn case(shape: Shape, precision: Precision, tokens: usize, keys: usize, first: usize) -> Case {
    let mut random = fastrand::Rng::with_seed((tokens * 131 + keys) as u64);
    let mut draw = |n: usize| (0..n).map(|_| random.f32() * 4.0 - 2.0).collect::<Vec<f32>>();
    let mut store = Store::new(shape, precision);
    store.append(&draw(keys * shape.kv_heads * shape.dim), &draw(keys * shape.kv_heads * shape.value_dim)).unwrap();
    Case { queries: draw(tokens * shape.heads * shape.dim), first, store }
}

impl Case {
    fn job(&self) -> Attention<'_> {
        Attention {
            shape: self.store.shape(),
            scale: 0.5,
            queries: &self.queries,
            first: self.first,
            store: &self.store,
            rho: Rho::Zero,
            window: None,
        }
    }

    fn outputs(&self) -> usize {
        self.queries.len() / self.store.shape().dim * self.store.shape().value_dim
    }

    fn run(&self, pool: &Pool, level: Level, window: Option<usize>) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.outputs()];
        attend(pool, level, &[Attention { window, ..self.job() }], &mut out).unwrap();
        out
    }

    fn check(&self, window: Option<usize>) {
        let pool = Pool::new(2);
        let want = reference::attention::attend(&Attention { window, ..self.job() });
        for level in levels() {
            for (i, (got, want)) in self.run(&pool, level, window).iter().zip(&want).enumerate() {
                let error = (f64::from(*got) - want).abs();
                assert!(error < 2e-5, "{level:?} {:?} at {i}: {got} for {want}", self.store.shape());
            }
        }
    }
}

fn levels() -> impl Iterator<Item = Level> {
    Level::all().into_iter().filter(|level| level.runs_here())
}

const SMALL: Shape = Shape { heads: 6, kv_heads: 2, dim: 20, value_dim: 20 };
const SMOL: Shape = Shape { heads: 9, kv_heads: 3, dim: 64, value_dim: 64 };
const RUNS: [(usize, usize, usize); 6] =
    [(1, 1, 0), (1, 63, 62), (1, 200, 199), (5, 5, 0), (70, 130, 60), (33, 97, 64)];

#[test]
fn every_level_agrees_with_double_precision() {
    let wide = Shape { heads: 2, kv_heads: 2, dim: 128, value_dim: 128 };
    let uneven = Shape { heads: 8, kv_heads: 1, dim: 3, value_dim: 17 };
    for shape in [SMALL, SMOL, Shape { heads: 14, kv_heads: 2, ..SMOL }, wide, uneven] {
        for (tokens, keys, first) in RUNS {
            case(shape, Precision::Full, tokens, keys, first).check(None);
            case(shape, Precision::Half, tokens, keys, first).check(None);
        }
    }
}

#[test]
fn a_window_hides_what_is_older() {
    for (tokens, keys, first) in RUNS {
        for window in [1, 2, 15, 16, 64, 100, usize::MAX] {
            case(SMALL, Precision::Full, tokens, keys, first).check(Some(window));
        }
        let none = case(SMALL, Precision::Full, tokens, keys, first);
        assert!(none.run(&Pool::new(1), Level::detect(), Some(0)).iter().all(|x| *x == 0.0));
    }
}

#[test]
fn jobs_together_give_what_each_gives_alone() {
    let pool = Pool::new(2);
    let cases = [
        case(SMOL, Precision::Half, 1, 300, 299),
        case(SMALL, Precision::Full, 40, 90, 50),
        case(SMALL, Precision::Full, 1, 7, 6),
        case(SMOL, Precision::Full, 3, 64, 60),
    ];
    let jobs: Vec<Attention> = cases.iter().map(Case::job).collect();
    let mut out = vec![f32::NAN; cases.iter().map(Case::outputs).sum()];
    let report = attend(&pool, Level::detect(), &jobs, &mut out).unwrap();
    let alone: Vec<f32> = cases.iter().flat_map(|c| c.run(&pool, Level::detect(), None)).collect();
    assert_eq!(out, alone);
    assert_eq!(report.rows, 9 + 40 * 6 + 6 + 3 * 9);
    let single = attend(&pool, Level::detect(), &jobs[..1], &mut vec![0.0; cases[0].outputs()]).unwrap();
    assert_eq!((single.flops, single.kv_bytes), (4 * 300 * 64 * 9, 4 * 300 * 64 * 3));
}

#[test]
fn a_given_projection_corrects_by_the_covariance_of_values_and_keys() {
    for shape in [SMALL, SMOL, Shape { heads: 4, kv_heads: 1, dim: 3, value_dim: 17 }] {
        for (tokens, keys, first) in RUNS.into_iter().chain([(1, 700, 699)]) {
            let case = case(shape, Precision::Full, tokens, keys, first);
            let rho: Vec<f32> = case.queries.iter().map(|q| q * 0.3 + 0.1).collect();
            let job = Attention { rho: Rho::Projection(&rho), ..case.job() };
            let mut want = vec![0.0; case.outputs()];
            for row in 0..tokens * shape.heads {
                let out = &mut want[row * shape.value_dim..(row + 1) * shape.value_dim];
                apply::again(&job, row / shape.heads, row % shape.heads, out);
            }
            for level in levels() {
                let mut out = vec![f32::NAN; case.outputs()];
                let report = attend(&Pool::new(2), level, &[job], &mut out).unwrap();
                let error = out.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
                assert!(error < 3e-5, "{level:?} {shape:?} {tokens} {keys}: {error}");
                assert_eq!(report.rows, (tokens * shape.heads) as u64);
            }
        }
    }
}

#[test]
fn keys_before_the_first_query_are_seen_and_later_ones_are_not() {
    // 10 keys, queries at 3..6: the keys 6.. are never seen, whatever they hold.
    let seen = case(SMALL, Precision::Full, 3, 10, 3);
    let want = seen.run(&Pool::new(1), Level::detect(), None);
    let mut other = Store::new(SMALL, Precision::Full);
    other.copy_prefix(&seen.store, 6).unwrap();
    other.append(&[7.0; 160], &[9.0; 160]).unwrap();
    assert_eq!(Case { store: other, ..seen }.run(&Pool::new(1), Level::detect(), None), want);
}

#[test]
fn odd_input_has_defined_output() {
    let pool = Pool::new(1);
    for level in levels() {
        let mut nan = case(SMALL, Precision::Full, 2, 2, 0);
        nan.queries[SMALL.heads * SMALL.dim] = f32::NAN;
        let out = nan.run(&pool, level, None);
        let (good, bad) = out.split_at(SMALL.heads * SMALL.dim);
        assert!(good.iter().all(|x| x.is_finite()), "a NaN query spoils its own row only");
        assert!(bad[..SMALL.dim].iter().all(|x| x.is_nan()) && bad[SMALL.dim..].iter().all(|x| x.is_finite()));

        let good = case(SMALL, Precision::Full, 3, 90, 60);
        let mut spoilt = Store::new(SMALL, Precision::Full);
        spoilt.copy_prefix(&good.store, 63).unwrap();
        spoilt.append(&[f32::NAN; 120], &[f32::INFINITY; 120]).unwrap();
        let want = good.run(&pool, level, Some(40));
        let got = Case { store: spoilt, ..good }.run(&pool, level, Some(40));
        let error = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
        assert!(error < 1e-5, "what a row does not see cannot spoil it: {error}");

        let mut steep = case(SMALL, Precision::Full, 1, 300, 299);
        steep.queries.iter_mut().for_each(|q| *q *= 1e38);
        assert!(steep.run(&pool, level, None).iter().all(|x| x.is_finite()), "scores that overflow");

        let mut huge = Store::new(SMALL, Precision::Full);
        huge.append(&[-1e30; 120], &[1.0; 120]).unwrap();
        let huge = Case { queries: vec![1e30; 120], first: 2, store: huge };
        assert!(huge.run(&pool, level, None).iter().all(|x| *x == 0.0), "minus infinity weighs nothing");
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let good = case(SMALL, Precision::Full, 2, 4, 2);
    let mut out = vec![0.0; good.outputs()];
    let mut error = |job: Attention| attend(&Pool::new(1), Level::Portable, &[job], &mut out).unwrap_err();
    let shape = |shape: Shape| Attention { shape, ..good.job() };
    for bad in [Shape { heads: 0, ..SMALL }, Shape { heads: 5, ..SMALL }, Shape { dim: usize::MAX, ..SMALL }] {
        assert_eq!(error(shape(bad)), AttendError::Shape("heads"));
    }
    assert_eq!(error(shape(Shape { dim: 10, ..SMALL })), AttendError::Shape("store"));
    assert_eq!(error(Attention { queries: &good.queries[1..], ..good.job() }), AttendError::Shape("queries"));
    assert_eq!(error(Attention { queries: &good.queries[..120], ..good.job() }), AttendError::Shape("outputs"));
    assert_eq!(error(Attention { scale: f32::NAN, ..good.job() }), AttendError::Scale);
    assert_eq!(error(Attention { first: 3, ..good.job() }), AttendError::Overlong { end: 5, held: 4 });
    assert!(matches!(error(Attention { first: usize::MAX, ..good.job() }), AttendError::Overlong { .. }));
    let empty = Store::new(SMALL, Precision::Full);
    assert_eq!(error(Attention { store: &empty, ..good.job() }), AttendError::Empty);
    assert_eq!(error(Attention { rho: Rho::Projection(&[0.0]), ..good.job() }), AttendError::Shape("projections"));
    let ridge = ridge::Ridge::new(vec![1.0; 4]).unwrap();
    assert_eq!(error(Attention { rho: Rho::Solve(&ridge), ..good.job() }), AttendError::Shape("ridges"));
}

/// Local linear attention in double precision, as its definition reads, by elimination without pivots.
fn linear(job: &Attention, ridge: &Ridge) -> Vec<f64> {
    let Shape { heads, dim, value_dim, .. } = job.shape;
    let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
    let mut out = Vec::new();
    for (row, query) in job.queries.chunks_exact(dim).enumerate() {
        let (token, head) = (row / heads, row % heads);
        let kv_head = head / job.shape.group();
        let seen: Vec<usize> = apply::sight(job, token).collect();
        let query = wide(query.to_vec());
        let keys: Vec<Vec<f64>> = seen.iter().map(|p| wide(job.store.key(kv_head, *p))).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let scores: Vec<f64> = keys.iter().map(|k| dot(k, &query) * f64::from(job.scale)).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
        let p: Vec<f64> = scores.iter().map(|s| (s - most).exp() / total).collect();
        let kbar: Vec<f64> = (0..dim).map(|d| p.iter().zip(&keys).map(|(p, k)| p * k[d]).sum()).collect();
        let mut rho: Vec<f64> = kbar.iter().zip(&query).map(|(k, q)| k - q).collect();
        let mut matrix = vec![vec![0.0; dim]; dim];
        for (p, key) in p.iter().zip(&keys) {
            let u: Vec<f64> = key.iter().zip(&kbar).map(|(k, m)| k - m).collect();
            for (line, a) in matrix.iter_mut().zip(&u) {
                line.iter_mut().zip(&u).for_each(|(c, b)| *c += p * a * b);
            }
        }
        let square = job.store.mean_square(kv_head, seen[0], seen[seen.len() - 1] + 1);
        let length = dot(&rho, &rho).sqrt();
        let bound = (length / (2.0 * f64::from(ridge.radius()))).powi(2);
        let lambda = f64::from(ridge.lambda(head)).max(f64::from(64.0 * f32::EPSILON * square)).max(bound);
        (0..dim).for_each(|d| matrix[d][d] += if lambda.is_finite() { lambda } else { 1.0 });
        for k in 0..dim {
            for i in k + 1..dim {
                let f = matrix[i][k] / matrix[k][k];
                (k..dim).for_each(|j| matrix[i][j] -= f * matrix[k][j]);
                rho[i] -= f * rho[k];
            }
        }
        for k in (0..dim).rev() {
            let sum: f64 = (k + 1..dim).map(|j| matrix[k][j] * rho[j]).sum();
            rho[k] = (rho[k] - sum) / matrix[k][k];
        }
        if lambda.is_infinite() {
            rho.fill(0.0);
        }
        let shift = dot(&rho, &kbar);
        let mut sum = vec![0.0; value_dim];
        for ((p, key), position) in p.iter().zip(&keys).zip(seen) {
            let weight = p * (1.0 - dot(&rho, key) + shift);
            sum.iter_mut().zip(wide(job.store.value(kv_head, position))).for_each(|(s, v)| *s += weight * v);
        }
        out.extend(sum);
    }
    out
}

fn apart(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let size = want.iter().map(|w| w * w).sum::<f64>().sqrt();
    got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum::<f64>().sqrt() / size
}

#[test]
fn both_solvers_agree_with_double_precision_for_one_token_and_for_many() {
    let shapes = [
        SMALL,
        SMOL,
        Shape { heads: 8, kv_heads: 1, dim: 3, value_dim: 17 },
        Shape { heads: 2, kv_heads: 2, dim: 33, value_dim: 5 },
    ];
    for shape in shapes {
        for (tokens, keys, first) in RUNS.into_iter().chain([(1, 1300, 1299)]) {
            for precision in [Precision::Full, Precision::Half] {
                let case = case(shape, precision, tokens, keys, first);
                for (lambda, window) in [(1.0, None), (10.0, Some(50))] {
                    for solver in [Solver::Auto, Solver::ConjugateGradient, Solver::Gram] {
                        let ridge = Ridge::new(vec![lambda]).unwrap().with_solver(solver).with_tolerance(1e-6).unwrap();
                        let job = Attention { rho: Rho::Solve(&ridge), window, ..case.job() };
                        let want = linear(&job, &ridge);
                        for level in levels() {
                            let mut out = vec![f32::NAN; case.outputs()];
                            let report = attend(&Pool::new(2), level, &[job], &mut out).unwrap();
                            let error = apart(&out, &want);
                            assert!(error < 1e-5, "{level:?} {shape:?} {solver:?} {tokens} {keys} {lambda}: {error}");
                            assert_eq!((report.fell_back, report.rows), (0, (tokens * shape.heads) as u64));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn an_infinite_ridge_is_softmax_bit_for_bit_also_beside_finite_ones() {
    for (tokens, keys, first) in RUNS.into_iter().chain([(1, 1300, 1299)]) {
        let case = case(SMALL, Precision::Half, tokens, keys, first);
        let softmax = case.run(&Pool::new(2), Level::detect(), None);
        let lambda: Vec<f32> = (0..6).map(|head| if head % 2 == 0 { f32::INFINITY } else { 1.0 }).collect();
        for (ridge, infinite) in [(Ridge::new(vec![f32::INFINITY]).unwrap(), 1), (Ridge::new(lambda).unwrap(), 2)] {
            let mut out = vec![f32::NAN; case.outputs()];
            attend(&Pool::new(2), Level::detect(), &[Attention { rho: Rho::Solve(&ridge), ..case.job() }], &mut out)
                .unwrap();
            for (row, (got, want)) in out.chunks(20).zip(softmax.chunks(20)).enumerate() {
                let same = got.iter().zip(want).all(|(g, w)| g.to_bits() == w.to_bits());
                let alone = first == 0 && row / 6 == 0;
                assert!(alone || same == (row % infinite == 0), "row {row}: a finite ridge must not be softmax");
            }
        }
    }
}

#[test]
fn threads_and_company_do_not_change_a_bit_of_a_solve() {
    let one = case(SMOL, Precision::Full, 1, 3000, 2999);
    let other = case(SMALL, Precision::Half, 30, 90, 60);
    for solver in [Solver::ConjugateGradient, Solver::Gram] {
        let ridge = Ridge::new(vec![0.5]).unwrap().with_solver(solver);
        let jobs = [&one, &other].map(|case| Attention { rho: Rho::Solve(&ridge), ..case.job() });
        let outs = [1, 2, 3].map(|threads| {
            let mut out = vec![f32::NAN; one.outputs() + other.outputs()];
            attend(&Pool::new(threads), Level::detect(), &jobs, &mut out).unwrap();
            out
        });
        let mut alone = vec![f32::NAN; one.outputs()];
        attend(&Pool::new(2), Level::detect(), &jobs[..1], &mut alone).unwrap();
        assert_eq!(outs[0][..one.outputs()], alone);
        outs[1..].iter().for_each(|out| assert_eq!(out, &outs[0]));
    }
}

#[test]
fn cost_and_iterations_are_reported() {
    let case = case(SMOL, Precision::Half, 1, 512, 511);
    let mut out = vec![0.0; case.outputs()];
    let mut report = |ridge: &Ridge| {
        let job = Attention { rho: Rho::Solve(ridge), scale: 0.02, ..case.job() };
        attend(&Pool::new(1), Level::detect(), &[job], &mut out).unwrap()
    };
    let ridge = Ridge::new(vec![1.0]).unwrap().with_tolerance(0.0).unwrap().with_most_iterations(4).unwrap();
    let gradient = report(&ridge.clone().with_solver(Solver::ConjugateGradient));
    assert_eq!(gradient.flops, 9 * 4 * 512 * 64 * (4 + 2));
    assert_eq!(gradient.kv_bytes, 3 * 2 * 512 * 64 * (4 + 3));
    assert!((0..9).all(|head| gradient.iterations.head(head) == [0, 0, 0, 0, 1]));
    let direct = report(&ridge.with_solver(Solver::Gram));
    assert_eq!(direct.flops, 9 * (512 * 64 * 65 + 8 * 512 * 64 + 64 * 64 * 64 / 3 + 2 * 64 * 64));
    assert_eq!((direct.kv_bytes, direct.factored), (3 * 6 * 512 * 64, 9));
}

#[test]
fn a_solve_that_goes_out_of_range_falls_back_to_softmax_and_is_counted() {
    for (tokens, keys) in [(1, 40), (3, 40)] {
        let mut case = case(SMALL, Precision::Full, tokens, keys, keys - tokens);
        case.queries.iter_mut().for_each(|q| *q = -1e37);
        let mut store = Store::new(SMALL, Precision::Full);
        let draw: Vec<f32> = (0..keys * 40).map(|i| ((i * 37 % 101) as f32 - 50.0) * 4e35).collect();
        store.append(&draw, &draw).unwrap();
        let case = Case { store, ..case };
        let softmax = case.run(&Pool::new(1), Level::detect(), None);
        for solver in [Solver::ConjugateGradient, Solver::Gram] {
            let ridge = Ridge::new(vec![1.0]).unwrap().with_solver(solver);
            let mut out = vec![f32::NAN; case.outputs()];
            let job = Attention { rho: Rho::Solve(&ridge), ..case.job() };
            let report = attend(&Pool::new(1), Level::detect(), &[job], &mut out).unwrap();
            assert!(out.iter().all(|x| x.is_finite()) && report.fell_back > 0);
            assert!(out.iter().zip(&softmax).all(|(a, b)| (a - b).abs() <= b.abs() * 1e-5), "{out:?} {softmax:?}");
        }
    }
}

#[test]
fn a_far_query_is_held_by_the_radius() {
    let mut case = case(SMALL, Precision::Full, 4, 200, 196);
    case.queries.iter_mut().for_each(|q| *q *= 100.0);
    for (radius, level) in [(1.0, Level::detect()), (0.1, Level::Portable)] {
        let ridge = Ridge::new(vec![1e-3]).unwrap().with_radius(radius).unwrap().with_tolerance(1e-6).unwrap();
        let job = Attention { scale: 0.01, rho: Rho::Solve(&ridge), ..case.job() };
        let mut out = vec![f32::NAN; case.outputs()];
        attend(&Pool::new(1), level, &[job], &mut out).unwrap();
        assert!(apart(&out, &linear(&job, &ridge)) < 1e-5);
        let mut softmax = vec![0.0; case.outputs()];
        attend(&Pool::new(1), level, &[Attention { rho: Rho::Zero, ..job }], &mut softmax).unwrap();
        // Values are within 2, so no standard deviation exceeds 2 per number.
        let bound = 2.0 * radius * (20.0_f32).sqrt();
        for (a, b) in out.chunks(20).zip(softmax.chunks(20)) {
            assert!(a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt() <= bound);
        }
    }
}
