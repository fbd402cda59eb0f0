//! Checks the CUDA kernels on a device against the double-precision oracle, then times them; JSON on standard output.
//!
//! `attention-gpu [FOLDER_OF_NVRTC]`. Exit code 1 where a check fails, 2 where there is no device.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a measuring program prints its results")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use nvml_wrapper::Nvml;
use serde_json::{Value, json};
use wattroute::clock;
use wattroute::lla::cuda::source::Math;
use wattroute::lla::cuda::{Attention, Device, Options, Prepared, Store};
use wattroute::lla::ridge::{Rho, Ridge};
use wattroute::lla::store::Precision;
use wattroute::lla::{self, Shape, reference, store};

/// Bytes of keys and values that the timed calls rotate through: several times the second-level cache.
const ROTATION_BYTES: usize = 512 << 20;
/// Length of one timing, seconds; long enough for the energy counter.
const TIMED_SECONDS: f64 = 1.0;

/// A sequence on the host, for the oracle, and on the device.
struct Case {
    shape: Shape,
    queries: Vec<f32>,
    host: store::Store,
    device: Store,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let nvrtc = std::env::args_os().nth(1).map(PathBuf::from);
    let open = |math| Device::open_with(&Options { nvrtc: nvrtc.clone(), math });
    let device = match open(None) {
        Ok(device) => device,
        Err(missing) => {
            eprintln!("{missing}");
            return ExitCode::from(2);
        }
    };
    let run = || -> Outcome<(bool, Value)> {
        let (mut good, mut checks) = (true, Vec::new());
        let bounds = [(Math::F32, 1e-5), (Math::Tf32x3, 1e-5), (Math::Tf32, 5e-3), (Math::Bf16, 2e-2)];
        for (math, bound) in bounds {
            good &= check(&open(Some(math))?, math, bound, &mut checks)?;
        }
        let times = if good { times(&device)? } else { Vec::new() };
        Ok((good, json!({ "device": device.name(), "checks": checks, "times": times })))
    };
    match run() {
        Ok((good, all)) => {
            println!("{all:#}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn case(device: &Device, shape: Shape, precision: Precision, tokens: usize, keys: usize, seed: u64) -> Outcome<Case> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut normal = |n: usize| -> Vec<f32> {
        (0..n).map(|_| ((0..6).map(|_| random.f32()).sum::<f32>() - 3.0) * std::f32::consts::SQRT_2).collect()
    };
    let (k, v) = (normal(keys * shape.kv_heads * shape.dim), normal(keys * shape.kv_heads * shape.value_dim));
    let queries = normal(tokens * shape.heads * shape.dim);
    let mut host = store::Store::new(shape, precision);
    host.append(&k, &v)?;
    let mut on_device = device.store(shape, precision)?;
    on_device.append(&k, &v)?;
    Ok(Case { shape, queries, host, device: on_device })
}

impl Case {
    fn job<'a>(&'a self, rho: Rho<'a>) -> Attention<'a> {
        let first = self.device.len() - self.queries.len() / (self.shape.heads * self.shape.dim);
        let scale = 1.0 / (self.shape.dim as f32).sqrt();
        Attention { shape: self.shape, scale, queries: &self.queries, first, store: &self.device, rho, window: None }
    }

    /// Length of the difference from the oracle, relative to the oracle's length.
    fn error(&self, device: &Device, rho: Rho) -> Outcome<f64> {
        let Attention { shape, scale, queries, first, window, .. } = self.job(rho);
        let want = reference::attention::attend(&lla::Attention {
            shape,
            scale,
            queries,
            first,
            store: &self.host,
            rho,
            window,
        });
        let mut got = vec![f32::NAN; want.len()];
        device.attend(&[self.job(rho)], &mut got)?;
        let error: f64 = got.iter().zip(&want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
        Ok((error / want.iter().map(|w| w * w).sum::<f64>()).sqrt())
    }
}

fn shape(heads: usize, kv_heads: usize, dim: usize) -> Shape {
    Shape { heads, kv_heads, dim, value_dim: dim }
}

fn ridge(lambda: f32) -> Outcome<Ridge> {
    Ok(Ridge::new(vec![lambda])?.with_tolerance(2e-6)?.with_most_iterations(64)?)
}

/// Every kernel at sizes that split and that do not, against the oracle.
fn check(device: &Device, math: Math, bound: f64, checks: &mut Vec<Value>) -> Outcome<bool> {
    let mut good = true;
    for (shape, tokens, keys) in [
        (shape(8, 2, 16), 1, 700),
        (shape(9, 3, 64), 1, 2000),
        (shape(4, 1, 128), 2, 1500),
        (shape(9, 3, 64), 150, 300),
        (shape(4, 1, 128), 100, 260),
    ] {
        for precision in [Precision::Half, Precision::Full] {
            let case = case(device, shape, precision, tokens, keys, (tokens * 7 + keys) as u64)?;
            let (strong, weak) = (ridge(100.0)?, ridge(1.0)?);
            let probe: Vec<f32> = case.queries.iter().rev().map(|x| x * 0.2).collect();
            let ways = [
                ("softmax", Rho::Zero),
                ("lla 100", Rho::Solve(&strong)),
                ("lla 1", Rho::Solve(&weak)),
                ("probe", Rho::Projection(&probe)),
            ];
            for (way, rho) in ways {
                let error = case.error(device, rho)?;
                let within = error <= bound;
                good &= within;
                checks.push(
                    json!({ "way": way, "math": format!("{math:?}"), "dim": shape.dim, "tokens": tokens, "keys": keys,
                    "precision": format!("{precision:?}"), "error": error, "bound": bound, "within": within }),
                );
            }
        }
    }
    Ok(good)
}

fn times(device: &Device) -> Outcome<Vec<Value>> {
    let mut all = Vec::new();
    let ridge = Ridge::new(vec![10.0])?;
    for (heads, kv_heads, dim) in [(32, 8, 64), (8, 8, 128), (32, 8, 128)] {
        for (tokens, keys) in [(1, 2048), (1, 8192), (1, 32_768), (2048, 2048)] {
            for (way, rho) in [("softmax", Rho::Zero), ("lla 10", Rho::Solve(&ridge))] {
                let shape = shape(heads, kv_heads, dim);
                let mut one = time(device, shape, tokens, keys, rho)?;
                if let Value::Object(fields) = &mut one {
                    fields.extend([("way".to_owned(), json!(way)), ("heads".to_owned(), json!(heads))]);
                    fields.extend([("kv_heads".to_owned(), json!(kv_heads)), ("dim".to_owned(), json!(dim))]);
                }
                all.push(one);
            }
        }
    }
    Ok(all)
}

/// Median of five timings over input sets that do not fit the cache together, and joules per call from the counter.
fn time(device: &Device, shape: Shape, tokens: usize, keys: usize, rho: Rho) -> Outcome<Value> {
    let bytes = keys * shape.kv_heads * 2 * shape.dim * 2;
    let sets = (ROTATION_BYTES / bytes).clamp(1, 16);
    let cases = (0..sets)
        .map(|seed| case(device, shape, Precision::Half, tokens, keys, seed as u64))
        .collect::<Outcome<Vec<_>>>()?;
    let calls = cases.iter().map(|case| Ok(device.prepare(&[case.job(rho)])?)).collect::<Outcome<Vec<Prepared>>>()?;
    let round = |times: usize| -> Outcome<f64> {
        let started = clock::now();
        for call in calls.iter().cycle().take(times) {
            call.start()?;
        }
        calls.first().ok_or("no calls")?.finish()?;
        Ok(started.elapsed().as_secs_f64())
    };
    round(calls.len() * 2)?;
    let enough = ((TIMED_SECONDS / (round(calls.len())? / calls.len() as f64)) as usize).max(calls.len());
    let (before, mut seconds) = (millijoules(), Vec::new());
    for _ in 0..5 {
        seconds.push(round(enough)? / enough as f64);
    }
    let joules = before.zip(millijoules()).map(|(a, b)| (b - a) as f64 / 1e3 / (5 * enough) as f64);
    seconds.sort_by(f64::total_cmp);
    let mut out = vec![0.0; calls.first().map_or(0, Prepared::outputs)];
    let report = calls.first().ok_or("no calls")?.read(&mut out)?;
    let median = seconds.get(2).copied().unwrap_or(f64::NAN);
    Ok(json!({ "tokens": tokens, "keys": keys, "sets": calls.len(), "calls": enough, "seconds": median,
        "fastest": seconds.first(), "slowest": seconds.last(), "flops": report.flops, "kv_bytes": report.kv_bytes,
        "flops_per_second": report.flops as f64 / median, "kv_bytes_per_second": report.kv_bytes as f64 / median,
        "iterations": report.iterations.mean(), "fell_back": report.fell_back, "joules_per_call": joules }))
}

/// The first device's energy counter, where there is one.
fn millijoules() -> Option<u64> {
    Nvml::init().ok()?.device_by_index(0).ok()?.total_energy_consumption().ok()
}
