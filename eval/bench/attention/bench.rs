//! The attention kernel against what the machine can do, measured in the same run: multiply-adds per second from
//! registers, and bytes per second read from a buffer of the same size as the keys and values.
//!
//! `cargo bench --bench attention` prints a table and writes `eval/bench/attention/result.json`; `-- --quick` takes fewer
//! shapes, `-- --out FILE` writes elsewhere. Everything on one thread, so that figures are per core.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a program for the command line that measures time"
)]

mod machine;

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wattroute::lla::pool::Pool;
use wattroute::lla::ridge::{Rho, Ridge, Solver};
use wattroute::lla::simd::Level;
use wattroute::lla::store::{Precision, Store};
use wattroute::lla::{Attention, Shape, attend};

/// Microseconds per call of a straightforward C kernel with AVX-512 on one core of another machine, single-precision keys
/// and values: (d, n, softmax, CG4, CG8, CG16, covariance and Cholesky).
const REFERENCE: [(usize, usize, f64, f64, f64, f64, f64); 6] = [
    (64, 128, 0.8, 4.8, 7.8, 13.8, 16.2),
    (64, 512, 3.1, 18.5, 29.8, 52.7, 40.9),
    (64, 2048, 13.1, 75.0, 121.0, 211.0, 141.0),
    (64, 8192, 55.0, 302.0, 485.0, 847.0, 547.0),
    (128, 512, 4.8, 28.0, 45.0, 78.0, 141.0),
    (128, 2048, 22.0, 123.0, 191.0, 327.0, 448.0),
];
/// Tokens per call of the prefill rows: the last ones of the context.
const PREFILL_TOKENS: usize = 128;
/// How long a figure is measured; the best call counts, since whatever disturbs only adds.
const PATIENCE: Duration = Duration::from_millis(100);

/// One shape to measure.
struct Setting {
    shape: Shape,
    keys: usize,
    tokens: usize,
    precision: Precision,
}

/// Keys, values and queries of a setting.
struct Case {
    setting: Setting,
    store: Store,
    queries: Vec<f32>,
}

/// What the machine can do.
struct Limits {
    /// Floating-point operations per second.
    flops: f64,
    /// Bytes per second read, by size of the buffer.
    bytes: Vec<(usize, f64)>,
}

impl Limits {
    /// Least seconds for some operations and bytes, `held` bytes being read again and again.
    fn least(&self, flops: u64, bytes: u64, held: usize) -> (f64, &'static str) {
        let speed =
            self.bytes.iter().find(|(size, _)| *size >= held).or(self.bytes.last()).map_or(f64::NAN, |(_, s)| *s);
        let (by_flops, by_bytes) = (flops as f64 / self.flops, bytes as f64 / speed);
        if by_flops > by_bytes { (by_flops, "multiply-adds") } else { (by_bytes, "memory") }
    }
}

/// Six uniform numbers added up: near enough to normal with a deviation of one.
fn normal(random: &mut fastrand::Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| (0..6).map(|_| random.f32() - 0.5).sum::<f32>() * 1.414).collect()
}

impl Case {
    fn new(setting: Setting) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let Shape { heads, kv_heads, dim, value_dim } = setting.shape;
        let mut store = Store::new(setting.shape, setting.precision);
        let keys = normal(&mut random, setting.keys * kv_heads * dim);
        store.append(&keys, &normal(&mut random, setting.keys * kv_heads * value_dim)).expect("the shape fits");
        let queries = normal(&mut random, setting.tokens * heads * dim);
        Self { setting, store, queries }
    }

    /// Seconds of the best call, with what it cost on paper.
    fn time(&self, pool: &Pool, rho: Rho) -> (f64, u64, u64) {
        let shape = self.setting.shape;
        let mut out = vec![0.0; self.setting.tokens * shape.heads * shape.value_dim];
        let job = Attention {
            shape,
            scale: 1.0 / (shape.dim as f32).sqrt(),
            queries: &self.queries,
            first: self.setting.keys - self.setting.tokens,
            store: &self.store,
            rho,
            window: None,
        };
        let mut cost = (0, 0);
        let mut call = || {
            let report = attend(pool, Level::detect(), &[job], &mut out).expect("the job fits");
            cost = (report.flops, report.kv_bytes);
            black_box(&mut out);
        };
        let seconds = best(&mut call);
        (seconds, cost.0, cost.1)
    }
}

/// Seconds of the fastest of many calls.
fn best(call: &mut dyn FnMut()) -> f64 {
    call();
    let (start, mut least, mut calls) = (Instant::now(), f64::INFINITY, 0);
    while calls < 3 || start.elapsed() < PATIENCE {
        let one = Instant::now();
        call();
        least = least.min(one.elapsed().as_secs_f64());
        calls += 1;
    }
    least
}

fn ridge(solver: Solver, iterations: usize) -> Ridge {
    // A small ridge and no tolerance: the iterations asked for are the iterations run, unless single precision is
    // exhausted before (few of sixteen, where keys are many); operations are counted as they were run.
    let exact =
        Ridge::new(vec![0.05]).and_then(|r| r.with_tolerance(0.0)).and_then(|r| r.with_most_iterations(iterations));
    exact.expect("the parameters are in range").with_solver(solver)
}

fn methods(tokens: usize) -> Vec<(&'static str, Option<Ridge>)> {
    let gradient = |iterations| Some(ridge(Solver::ConjugateGradient, iterations));
    let mut all = vec![("softmax", None), ("CG4", gradient(4)), ("CG8", gradient(8)), ("CG16", gradient(16))];
    if tokens == 1 {
        all.push(("Gram", Some(ridge(Solver::Gram, 1))));
    }
    all
}

/// Measures a setting, prints a line, and returns its figures.
fn measure(pool: &Pool, limits: &Limits, setting: Setting) -> Value {
    let case = Case::new(setting);
    let Setting { shape, keys, tokens, precision } = &case.setting;
    let held = keys * shape.kv_heads * (shape.dim + shape.value_dim) * precision.bytes();
    let reference = REFERENCE.iter().find(|r| r.0 == shape.dim && r.1 == *keys && *tokens == 1 && shape.heads == 1);
    let mut line = format!("{precision:?} {tokens:>3} x {keys:>5} d {:>3} g {}", shape.dim, shape.group());
    let mut figures = Vec::new();
    let mut softmax = f64::NAN;
    for (index, (name, ridge)) in methods(*tokens).iter().enumerate() {
        let (seconds, flops, bytes) = case.time(pool, ridge.as_ref().map_or(Rho::Zero, Rho::Solve));
        softmax = if index == 0 { seconds } else { softmax };
        let (least, by) = limits.least(flops, bytes, held);
        let was = reference.map(|r| [r.2, r.3, r.4, r.5, r.6]).and_then(|all| all.get(index).copied());
        let micros = seconds * 1e6;
        line += &format!(
            "  {name} {micros:.1} us ({:.0} G/s, {:.0} %)",
            flops as f64 / seconds / 1e9,
            least / seconds * 100.0
        );
        figures.push(json!({
            "method": name,
            "microseconds": micros,
            "gflops": flops as f64 / seconds / 1e9,
            "gbytes": bytes as f64 / seconds / 1e9,
            "share_of_limit": least / seconds,
            "limit": by,
            "times_softmax": seconds / softmax,
            "reference_microseconds": was,
        }));
    }
    println!("{line}");
    json!({
        "precision": format!("{precision:?}"), "tokens": tokens, "keys": keys, "dim": shape.dim, "group": shape.group(),
        "kv_bytes": held, "methods": figures,
    })
}

fn settings(quick: bool) -> Vec<Setting> {
    let lengths: &[usize] = if quick { &[512, 2048] } else { &[128, 512, 2048, 8192, 32_768] };
    let mut all = Vec::new();
    for tokens in [1, PREFILL_TOKENS] {
        for dim in [64, 128] {
            for (precision, heads) in [(Precision::Full, 1), (Precision::Half, 1), (Precision::Half, 3)] {
                // Prefill is bound by multiply-adds: the precision of the cache hardly shows.
                if tokens > 1 && precision == Precision::Full {
                    continue;
                }
                let shape = Shape { heads, kv_heads: 1, dim, value_dim: dim };
                // A long context changes nothing for a run of tokens but the time to measure it.
                let most = if tokens > 1 { 8192 } else { usize::MAX };
                let lengths = lengths.iter().filter(|keys| **keys <= most);
                all.extend(lengths.map(|keys| Setting { shape, keys: *keys, tokens, precision }));
            }
        }
    }
    all
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|a| a == "--quick");
    let path = arguments.iter().position(|a| a == "--out").and_then(|i| arguments.get(i + 1).cloned());
    let path = path.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/eval/bench/attention/result.json").into());
    let pool = Pool::new(1);
    let sizes = [32, 128, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 131_072].map(|kib| kib * 1024);
    let limits = Limits {
        flops: machine::multiply_adds(Level::detect()),
        bytes: sizes.map(|size| (size, machine::read(size))).to_vec(),
    };
    println!("{:?}: {:.1} GFLOP/s per core from registers", Level::detect(), limits.flops / 1e9);
    for (size, speed) in &limits.bytes {
        println!("  reading {:>6} KiB: {:.1} GB/s", size / 1024, speed / 1e9);
    }
    let rows: Vec<Value> = settings(quick).into_iter().map(|setting| measure(&pool, &limits, setting)).collect();
    let after = machine::multiply_adds(Level::detect());
    let result = json!({
        "level": format!("{:?}", Level::detect()),
        "gflops_limit": limits.flops / 1e9,
        "gflops_limit_after": after / 1e9,
        "read_gbytes": limits.bytes.iter().map(|(size, speed)| json!([size, speed / 1e9])).collect::<Vec<_>>(),
        "rows": rows,
    });
    let text = serde_json::to_string_pretty(&result).expect("numbers and names");
    std::fs::write(&path, text + "\n").expect("the file can be written");
    println!("multiply-adds after the run: {:.1} GFLOP/s; written to {path}", after / 1e9);
}
