//! Random problems and comparisons. Everything is a function of a seed.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;

use crate::lla::reference::Local;
use crate::lla::reference::attention::wide;
use crate::lla::reference::job::{Job, Rho};
use crate::lla::report::Report;
use crate::lla::ridge::{self, Ridge, Solver};
use crate::lla::store::{Precision, Store};
use crate::lla::{Attention, Shape, attend, pool::Pool, simd::Level};

/// Levels this machine can run.
pub fn levels() -> impl Iterator<Item = Level> {
    Level::all().into_iter().filter(|level| level.runs_here())
}

/// A standard normal number (Box and Muller).
pub fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

/// `n` standard normal numbers.
pub fn normals(random: &mut fastrand::Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| normal(random)).collect()
}

/// The same in single precision.
pub fn floats(random: &mut fastrand::Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| normal(random) as f32).collect()
}

/// So many cases, the same on every machine and day.
pub fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(2510),
        failure_persistence: None,
        max_shrink_iters: 40,
        ..ProptestConfig::default()
    }
}

/// One query's problem in double precision: standard normal keys and values, a query some way out.
#[derive(Clone)]
pub struct Problem {
    pub d: usize,
    pub dv: usize,
    pub n: usize,
    pub lambda: f64,
    pub scale: f64,
    pub query: Vec<f64>,
    pub keys: Vec<f64>,
    pub values: Vec<f64>,
}

impl std::fmt::Debug for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "d {} dv {} n {} lambda {} scale {}", self.d, self.dv, self.n, self.lambda, self.scale)
    }
}

impl Problem {
    /// With all drawn from `seed`; scale `1 / sqrt(d)`.
    pub fn new(seed: u64, (d, dv, n): (usize, usize, usize), lambda: f64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let query = normals(&mut random, d).iter().map(|x| 1.5 * x).collect();
        let (keys, values) = (normals(&mut random, n * d), normals(&mut random, n * dv));
        Self { d, dv, n, lambda, scale: 1.0 / (d as f64).sqrt(), query, keys, values }
    }

    /// As the reference takes it.
    pub fn local(&self) -> Local<'_> {
        Local::softmax(&self.query, &self.keys, &self.values, self.scale, self.lambda)
    }
}

/// Problems with heads of 1 to 128 numbers, values of another width, few and many keys, ridges of 0.1 to 100.
pub fn problem() -> impl Strategy<Value = Problem> {
    let sizes = (select(vec![1, 3, 16, 64, 128]), 0..7_usize, select(vec![1, 2, 5, 16]));
    (any::<u64>(), sizes, select(vec![0.1, 1.0, 10.0, 100.0])).prop_map(|(seed, (d, keys, dv), lambda)| {
        let n = [1, 2, (d / 2).max(1), d, d + 1, 4 * d, 1000][keys];
        Problem::new(seed, (d, dv, n), lambda)
    })
}

/// A sequence from position 0, or a run that ends it.
#[derive(Clone)]
pub struct Sample {
    pub shape: Shape,
    pub scale: f32,
    pub first: usize,
    pub queries: Vec<f32>,
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

impl std::fmt::Debug for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:?}, {} queries from {}", self.shape, self.queries.len() / self.shape.dim, self.first)
    }
}

impl Sample {
    /// Standard normal queries, keys and values: `tokens` queries at the end of `positions` keys.
    pub fn new(seed: u64, shape: Shape, tokens: usize, positions: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            shape,
            scale: 1.0 / (shape.dim as f32).sqrt(),
            first: positions - tokens,
            queries: floats(&mut random, tokens * shape.heads * shape.dim),
            keys: floats(&mut random, positions * shape.kv_heads * shape.dim),
            values: floats(&mut random, positions * shape.kv_heads * shape.value_dim),
        }
    }

    /// Its keys and values in a store.
    pub fn store(&self, precision: Precision) -> Store {
        let mut store = Store::new(self.shape, precision);
        store.append(&self.keys, &self.values).unwrap();
        store
    }

    /// The kernel's job on a store.
    pub fn job<'a>(&'a self, store: &'a Store, rho: ridge::Rho<'a>) -> Attention<'a> {
        let Self { shape, scale, first, queries, .. } = self;
        Attention { shape: *shape, scale: *scale, queries, first: *first, store, rho, window: None }
    }

    /// The reference's view of sequence `index` of `sequences`, with a correction, handed to `read`.
    pub fn oracle<T>(&self, (index, sequences): (usize, usize), rho: Rho, read: impl FnOnce(&Job) -> T) -> T {
        let part = |rows: &[f32]| {
            let length = rows.len() / sequences;
            wide(&rows[index * length..(index + 1) * length])
        };
        read(&Job {
            heads: self.shape.heads,
            kv_heads: self.shape.kv_heads,
            dim: self.shape.dim,
            value_dim: self.shape.value_dim,
            scale: f64::from(self.scale),
            queries: &part(&self.queries),
            keys: &part(&self.keys),
            values: &part(&self.values),
            first: self.first / sequences,
            window: None,
            rho,
            radius: f64::INFINITY,
        })
    }
}

/// Largest difference relative to the largest number wanted.
pub fn worst(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(1e-30_f64, |m, x| m.max(x.abs()));
    let far = |(g, w): (&f32, &f64)| if g.is_finite() { (f64::from(*g) - w).abs() } else { f64::INFINITY };
    got.iter().zip(want).map(far).fold(0.0, f64::max) / size
}

/// Asserts that `got` is within `tolerance` of `want`, relative to the largest number wanted.
#[track_caller]
pub fn close(got: &[f64], want: &[f64], tolerance: f64, about: &str) {
    assert_eq!(got.len(), want.len(), "{about}");
    let size = want.iter().fold(1.0_f64, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * size, "{about}: {g} for {w} at {i}");
    }
}

/// Runs one job on one thread.
pub fn run(level: Level, job: &Attention) -> Vec<f32> {
    reported(level, job).0
}

/// The same with the kernel's report.
pub fn reported(level: Level, job: &Attention) -> (Vec<f32>, Report) {
    let mut out = vec![f32::NAN; job.queries.len() / job.shape.dim * job.shape.value_dim];
    let report = attend(&Pool::new(1), level, &[*job], &mut out).unwrap();
    (out, report)
}

/// A ridge for all heads, solved as exactly as single precision can.
pub fn exact(lambda: &[f32], solver: Solver) -> Ridge {
    let ridge = Ridge::new(lambda.to_vec()).unwrap().with_tolerance(1e-7).unwrap();
    ridge.with_most_iterations(255).unwrap().with_solver(solver)
}

/// Every solver.
pub const SOLVERS: [Solver; 3] = [Solver::ConjugateGradient, Solver::Gram, Solver::Auto];
