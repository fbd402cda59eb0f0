//! Outputs of the emulated kernels against the double-precision oracle.

use super::emulator::device;
use crate::lla::cuda::source::Math;
use crate::lla::cuda::{Attention, Device, Store};
use crate::lla::report::Report;
use crate::lla::ridge::{Rho, Ridge};
use crate::lla::store::Precision;
use crate::lla::{self, Shape, reference, store};

/// A sequence held twice: by the processor's store, which the oracle reads, and by the device's.
struct Case {
    shape: Shape,
    queries: Vec<f32>,
    first: usize,
    host: store::Store,
    device: Store,
}

/// Roughly normal numbers.
fn normal(random: &mut fastrand::Rng, n: usize, size: f32) -> Vec<f32> {
    (0..n).map(|_| ((0..6).map(|_| random.f32()).sum::<f32>() - 3.0) * size * 1.414).collect()
}

fn case(device: &Device, shape: Shape, precision: Precision, tokens: usize, keys: usize) -> Case {
    let mut random = fastrand::Rng::with_seed((tokens * 131 + keys * 7 + shape.dim) as u64);
    let k = normal(&mut random, keys * shape.kv_heads * shape.dim, 1.0);
    let v = normal(&mut random, keys * shape.kv_heads * shape.value_dim, 1.0);
    let queries = normal(&mut random, tokens * shape.heads * shape.dim, 1.0);
    held(device, shape, precision, &k, &v, queries)
}

fn held(device: &Device, shape: Shape, precision: Precision, k: &[f32], v: &[f32], queries: Vec<f32>) -> Case {
    let keys = k.len() / (shape.kv_heads * shape.dim);
    let first = keys - queries.len() / (shape.heads * shape.dim);
    let mut host = store::Store::new(shape, precision);
    host.append(k, v).unwrap();
    let store = device.upload(&host).unwrap();
    Case { shape, queries, first, host, device: store }
}

impl Case {
    fn scale(&self) -> f32 {
        1.0 / (self.shape.dim as f32).sqrt()
    }

    fn want(&self, rho: Rho, window: Option<usize>) -> Vec<f64> {
        let Self { shape, queries, first, host, .. } = self;
        let (shape, first) = (*shape, *first);
        reference::attention::attend(&lla::Attention {
            shape,
            scale: self.scale(),
            queries,
            first,
            store: host,
            rho,
            window,
        })
    }

    fn job<'a>(&'a self, rho: Rho<'a>, window: Option<usize>) -> Attention<'a> {
        let Self { shape, queries, first, device: store, .. } = self;
        Attention { shape: *shape, scale: self.scale(), queries, first: *first, store, rho, window }
    }

    fn run(&self, device: &Device, rho: Rho, window: Option<usize>) -> (Vec<f32>, Report) {
        run(device, &[self.job(rho, window)])
    }

    /// The difference from the oracle is within the tolerance.
    fn check(&self, device: &Device, rho: Rho, window: Option<usize>, tolerance: f64) -> Report {
        let want = self.want(rho, window);
        let (got, report) = self.run(device, rho, window);
        let (error, name) = (distance(&got, &want), format!("{:?} {:?}", self.shape, self.host.precision()));
        assert!(error <= tolerance, "{name}: {error:e} is more than {tolerance:e}");
        report
    }
}

fn run(device: &Device, jobs: &[Attention]) -> (Vec<f32>, Report) {
    let call = device.prepare(jobs).unwrap();
    let mut out = vec![f32::NAN; call.outputs()];
    call.run().unwrap();
    let report = call.read(&mut out).unwrap();
    (out, report)
}

/// Length of the difference relative to the oracle's. NaN is never near.
fn distance(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
    let size: f64 = want.iter().map(|x| x * x).sum();
    if error.is_nan() { f64::INFINITY } else { (error / size.max(1e-30)).sqrt() }
}

fn ridge(lambda: f32) -> Ridge {
    Ridge::new(vec![lambda]).unwrap().with_tolerance(2e-6).unwrap().with_most_iterations(64).unwrap()
}

const SMALL: Shape = Shape { heads: 4, kv_heads: 2, dim: 16, value_dim: 16 };
const ODD: Shape = Shape { heads: 3, kv_heads: 1, dim: 24, value_dim: 40 };
const MIDDLE: Shape = Shape { heads: 3, kv_heads: 1, dim: 64, value_dim: 64 };
const WIDE: Shape = Shape { heads: 1, kv_heads: 1, dim: 128, value_dim: 128 };
const CROWD: Shape = Shape { heads: 9, kv_heads: 1, dim: 8, value_dim: 8 };

/// The two in turns, so that every shape meets both in some setting without a run for every pair.
fn in_turns<T: Copy>(index: usize, both: [T; 2]) -> T {
    both[index % 2]
}

#[test]
fn softmax_decode_agrees_with_double_precision() {
    for (kind, processors) in [1, 132].into_iter().enumerate() {
        let Some(device) = device(processors, 1, None) else { return };
        for (index, shape) in [SMALL, ODD, MIDDLE, WIDE, CROWD].into_iter().enumerate() {
            for (turn, (tokens, keys)) in [(1, 1), (1, 65), (3, 550)].into_iter().enumerate() {
                let precision = in_turns(index + turn + kind, [Precision::Half, Precision::Full]);
                let case = case(&device, shape, precision, tokens, keys);
                case.check(&device, Rho::Zero, None, 1e-6);
                case.check(&device, Rho::Zero, Some(40), 1e-6);
            }
        }
    }
}

#[test]
fn softmax_prefill_agrees_with_double_precision() {
    for (math, tolerance) in [(Math::F32, 1e-6), (Math::Tf32x3, 1e-6), (Math::Tf32, 1e-3)] {
        let Some(device) = device(132, 2, Some(math)) else { return };
        for shape in [SMALL, ODD, MIDDLE, WIDE, CROWD] {
            case(&device, shape, Precision::Half, 5, 5).check(&device, Rho::Zero, None, tolerance);
            let case = case(&device, shape, Precision::Half, 35, 70);
            case.check(&device, Rho::Zero, None, tolerance);
            case.check(&device, Rho::Zero, Some(33), tolerance);
        }
        case(&device, MIDDLE, Precision::Full, 33, 70).check(&device, Rho::Zero, None, tolerance);
    }
}

#[test]
fn decode_solves_the_ridge() {
    let all = [(Math::F32, 1e-5), (Math::Tf32x3, 1e-5), (Math::Tf32, 1e-3), (Math::Bf16, 1e-2)];
    for (kind, (math, tolerance)) in all.into_iter().enumerate() {
        // How keys are split does not depend on the kind of products.
        for processors in if kind == 1 { vec![1, 132] } else { vec![132] } {
            let Some(device) = device(processors, 3, Some(math)) else { return };
            let shapes = [(SMALL, 1, 1), (ODD, 2, 90), (MIDDLE, 1, 550), (WIDE, 1, 140)];
            for (index, (shape, tokens, keys)) in shapes.into_iter().enumerate() {
                let (lambda, precision) = in_turns(index + kind, [(100.0, Precision::Half), (1.0, Precision::Full)]);
                let case = case(&device, shape, precision, tokens, keys);
                let report = case.check(&device, Rho::Solve(&ridge(lambda)), None, tolerance);
                assert_eq!((report.fell_back, report.rows), (0, (tokens * shape.heads) as u64));
                assert_eq!(report.iterations.rows(), report.rows);
            }
        }
    }
}

#[test]
fn prefill_solves_the_ridge() {
    let all = [(Math::F32, 1e-5), (Math::Tf32x3, 1e-5), (Math::Tf32, 3e-3)];
    for (kind, (math, tolerance)) in all.into_iter().enumerate() {
        let Some(device) = device(132, 4, Some(math)) else { return };
        let shapes = [(SMALL, 40, 45), (ODD, 7, 90), (MIDDLE, 25, 66), (WIDE, 18, 40)];
        for (index, (shape, tokens, keys)) in shapes.into_iter().enumerate() {
            let (lambda, precision) = in_turns(index + kind, [(100.0, Precision::Half), (1.0, Precision::Full)]);
            let case = case(&device, shape, precision, tokens, keys);
            let report = case.check(&device, Rho::Solve(&ridge(lambda)), None, tolerance);
            assert_eq!((report.fell_back, report.iterations.rows()), (0, report.rows));
        }
        case(&device, SMALL, Precision::Half, 40, 90).check(&device, Rho::Solve(&ridge(2.0)), Some(20), tolerance);
    }
}

#[test]
fn given_corrections_are_applied() {
    let Some(device) = device(132, 5, Some(Math::Tf32x3)) else { return };
    for (shape, tokens, keys) in [(SMALL, 1, 1), (ODD, 2, 600), (MIDDLE, 20, 70), (WIDE, 1, 300), (CROWD, 9, 9)] {
        let case = case(&device, shape, Precision::Half, tokens, keys);
        let rho = normal(&mut fastrand::Rng::with_seed(3), case.queries.len(), 0.3);
        case.check(&device, Rho::Projection(&rho), None, 1e-5);
        let none = vec![0.0; rho.len()];
        case.check(&device, Rho::Projection(&none), Some(30), 1e-6);
    }
}

#[test]
fn an_infinite_ridge_is_softmax_bit_for_bit() {
    let Some(device) = device(132, 6, None) else { return };
    let all = Ridge::new(vec![f32::INFINITY]).unwrap();
    let some = Ridge::new(vec![f32::INFINITY, 1.0, f32::INFINITY]).unwrap();
    for (tokens, keys) in [(1, 700), (20, 40)] {
        let case = case(&device, MIDDLE, Precision::Half, tokens, keys);
        let (softmax, _) = case.run(&device, Rho::Zero, None);
        let (infinite, report) = case.run(&device, Rho::Solve(&all), None);
        assert_eq!(softmax, infinite);
        assert_eq!(report.iterations.rows(), 0);
        let (mixed, _) = case.run(&device, Rho::Solve(&some), None);
        for (row, (a, b)) in softmax.chunks(64).zip(mixed.chunks(64)).enumerate() {
            assert_eq!(a == b, row % 3 != 1, "head {}", row % 3);
        }
        case.check(&device, Rho::Solve(&some), None, 2e-2);
    }
}

#[test]
fn the_order_of_threads_changes_no_bit() {
    let runs: Vec<_> = (0..3)
        .filter_map(|seed| {
            let device = device(132, 100 + seed, Some(Math::Tf32))?;
            let (near, far) = (ridge(1.0), ridge(100.0));
            let decode = case(&device, MIDDLE, Precision::Half, 1, 700);
            let prefill = case(&device, SMALL, Precision::Full, 30, 60);
            let rho = normal(&mut fastrand::Rng::with_seed(3), prefill.queries.len(), 0.3);
            let jobs = [
                decode.job(Rho::Zero, None),
                decode.job(Rho::Solve(&near), None),
                prefill.job(Rho::Zero, None),
                prefill.job(Rho::Solve(&far), None),
                prefill.job(Rho::Projection(&rho), None),
            ];
            let out = run(&device, &jobs).0;
            Some(out.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        })
        .collect();
    assert!(runs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn jobs_together_give_what_the_oracle_gives_each() {
    let Some(device) = device(132, 7, Some(Math::Tf32x3)) else { return };
    let near = ridge(1.0);
    let cases = [
        case(&device, MIDDLE, Precision::Half, 1, 300),
        case(&device, SMALL, Precision::Full, 40, 90),
        case(&device, SMALL, Precision::Full, 1, 7),
        case(&device, SMALL, Precision::Half, 3, 64),
    ];
    let rho = |i: usize| if i.is_multiple_of(2) { Rho::Zero } else { Rho::Solve(&near) };
    let jobs: Vec<_> = cases.iter().enumerate().map(|(i, case)| case.job(rho(i), None)).collect();
    let (got, report) = run(&device, &jobs);
    let want: Vec<f64> = cases.iter().enumerate().flat_map(|(i, case)| case.want(rho(i), None)).collect();
    assert!(distance(&got, &want) < 3e-5);
    assert_eq!((report.rows, report.iterations.rows()), (3 + 160 + 4 + 12, 160 + 12));
    let (none, report) = run(&device, &[]);
    assert_eq!((none.len(), report), (0, Report::default()));
}

#[test]
fn decode_token_by_token_equals_prefill() {
    let Some(device) = device(132, 8, Some(Math::Tf32x3)) else { return };
    let case = case(&device, SMALL, Precision::Half, 12, 50);
    for rho in [Rho::Zero, Rho::Solve(&ridge(1.0))] {
        let (whole, _) = case.run(&device, rho, None);
        let width = SMALL.heads * SMALL.dim;
        for (token, queries) in case.queries.chunks(width).enumerate() {
            let (one, _) = run(&device, &[Attention { queries, first: case.first + token, ..case.job(rho, None) }]);
            let want: Vec<f64> = whole[token * width..][..width].iter().map(|x| f64::from(*x)).collect();
            assert!(distance(&one, &want) < 3e-5, "token {token}");
        }
    }
}

#[test]
fn the_correction_is_there() {
    // Softmax does not see q -> 2 q, k -> k / 2 nor a common shift of the keys; local linear attention does.
    let Some(device) = device(132, 9, Some(Math::Tf32)) else { return };
    for tokens in [1, 8] {
        let mut random = fastrand::Rng::with_seed(5);
        let (k, v) = (normal(&mut random, 80 * 32, 1.0), normal(&mut random, 80 * 32, 1.0));
        let q = normal(&mut random, tokens * 64, 1.0);
        let plain = held(&device, SMALL, Precision::Full, &k, &v, q.clone());
        let times = |list: &[f32], by: f32| list.iter().map(|x| x * by).collect::<Vec<_>>();
        let swapped = held(&device, SMALL, Precision::Full, &times(&k, 0.5), &v, times(&q, 2.0));
        let moved: Vec<f32> = k.iter().map(|x| x + 1.5).collect();
        let shifted = held(&device, SMALL, Precision::Full, &moved, &v, q);
        for other in [swapped, shifted] {
            let far = |rho: Rho| {
                let want: Vec<f64> = plain.run(&device, rho, None).0.iter().map(|x| f64::from(*x)).collect();
                distance(&other.run(&device, rho, None).0, &want)
            };
            assert!(far(Rho::Zero) < 1e-2, "{}", far(Rho::Zero));
            assert!(far(Rho::Solve(&ridge(1.0))) > 0.1, "{}", far(Rho::Solve(&ridge(1.0))));
        }
    }
}

#[test]
fn odd_input_has_defined_output() {
    let Some(device) = device(132, 10, None) else { return };
    for tokens in [1, 6] {
        let sane = case(&device, SMALL, Precision::Full, tokens, 50);
        for rho in [Rho::Zero, Rho::Solve(&ridge(1.0))] {
            let (none, _) = sane.run(&device, rho, Some(0));
            assert!(none.iter().all(|x| *x == 0.0), "nothing is seen");
            // A NaN query spoils its own row only.
            let mut queries = sane.queries.clone();
            queries[0] = f32::NAN;
            let (out, _) = run(&device, &[Attention { queries: &queries, ..sane.job(rho, None) }]);
            assert!(out[..16].iter().all(|x| x.is_nan()) && out[16..].iter().all(|x| x.is_finite()));
            // Scores of +-1e4 and equal keys.
            let far: Vec<f32> = sane.queries.iter().map(|q| q * 4000.0).collect();
            let (out, _) = run(&device, &[Attention { queries: &far, ..sane.job(rho, None) }]);
            assert!(out.iter().all(|x| x.is_finite()));
            let same = held(&device, SMALL, Precision::Half, &[300.0; 50 * 32], &[2.0; 50 * 32], sane.queries.clone());
            let (out, _) = same.run(&device, rho, None);
            assert!(out.iter().all(|x| (x - 2.0).abs() < 1e-3), "constants are kept");
        }
        // A right-hand side beyond single precision: the row is softmax attention.
        let lost = vec![1e25; sane.queries.len()];
        let job = Attention { queries: &lost, scale: 1e-25, ..sane.job(Rho::Zero, None) };
        let (softmax, _) = run(&device, &[job]);
        let (out, report) = run(&device, &[Attention { rho: Rho::Solve(&ridge(1.0)), ..job }]);
        assert_eq!(report.fell_back, report.rows);
        let want: Vec<f64> = softmax.iter().map(|x| f64::from(*x)).collect();
        assert!(distance(&out, &want) < 2e-2);
    }
}

#[test]
fn the_radius_bounds_the_correction() {
    let Some(device) = device(132, 11, Some(Math::Tf32x3)) else { return };
    let bounded = ridge(0.5).with_radius(0.7).unwrap();
    for tokens in [1, 8] {
        let case = case(&device, SMALL, Precision::Full, tokens, 60);
        case.check(&device, Rho::Solve(&bounded), None, 3e-5);
    }
}

#[test]
fn a_store_that_grew_holds_what_was_appended() {
    let Some(device) = device(132, 12, None) else { return };
    let whole = case(&device, SMALL, Precision::Half, 1, 600);
    let mut pieces = device.store(SMALL, Precision::Half).unwrap();
    let rows = |from: usize, to: usize, of: &dyn Fn(usize, usize) -> Vec<f32>| {
        (from..to).flat_map(|p| (0..2).flat_map(move |h| of(h, p))).collect::<Vec<f32>>()
    };
    let mut at = 0;
    for piece in [1, 255, 1, 250, 93] {
        let key = |h, p| whole.host.key(h, p);
        let value = |h, p| whole.host.value(h, p);
        if piece == 250 {
            // What is forgotten does not come back.
            pieces.append(&[9.0; 64], &[9.0; 64]).unwrap();
            pieces.truncate(at);
        }
        pieces.append(&rows(at, at + piece, &key), &rows(at, at + piece, &value)).unwrap();
        at += piece;
    }
    assert_eq!((pieces.len(), pieces.is_empty()), (600, false));
    assert!(pieces.bytes() >= 600 * 2 * 32 * 2);
    let (a, _) = whole.run(&device, Rho::Zero, None);
    let (b, _) = run(&device, &[Attention { store: &pieces, ..whole.job(Rho::Zero, None) }]);
    assert_eq!(a, b);
}
