//! Speed of the matrix kernels by element type, beside the machine's memory: one JSON line each on standard output.
//!
//! `engine-types [THREADS]`: for one token (decode), bytes of weights per second, which memory bounds; for 128 tokens
//! (prefill), multiplications per second, which arithmetic bounds. Half a gigabyte of weights per type, more than any cache.

#![allow(clippy::print_stdout, reason = "a measuring program prints its results")]
#![allow(clippy::cast_precision_loss, reason = "sizes are below 2^52")]
#![allow(clippy::indexing_slicing, reason = "cut to their own length")]

use std::error::Error;
use std::hint::black_box;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde_json::json;
use wattroute::clock;
use wattroute::engine::acts::{Acts, Kinds};
use wattroute::engine::dtype::Dtype;
use wattroute::engine::matmul::{Product, matmul};
use wattroute::engine::packed::{Packed, ROWS};
use wattroute::engine::repack;
use wattroute::lla::pool::Pool;
use wattroute::lla::simd::Level;

/// Rows and columns of a matrix.
const SIDE: usize = 2048;
/// Weights per type, in bytes.
const BYTES: usize = 512 << 20;
/// Tokens of the prefill measurement.
const TOKENS: usize = 128;
/// Best of so many passes.
const PASSES: usize = 3;

const TYPES: [GgmlDType; 13] = [
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q4K,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
    GgmlDType::Q8_0,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::F32,
];

fn main() -> Result<(), Box<dyn Error>> {
    let threads = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(0);
    let (pool, level) = (Pool::new(threads), Level::detect());
    let memory = memory(&pool)?;
    println!("{}", json!({ "threads": pool.threads(), "level": format!("{level:?}"), "memory_gb_s": memory }));
    for dtype in TYPES {
        let matrices = matrices(Dtype(dtype))?;
        let bytes: usize = matrices.iter().map(Packed::bytes).sum();
        let decode = run(&pool, level, &matrices, 1)?;
        // The prefill needs no more matrices than make its time readable.
        let some = &matrices[..matrices.len().min(8)];
        let prefill = run(&pool, level, some, TOKENS)?;
        let weights = (SIDE * SIDE) as f64;
        println!(
            "{}",
            json!({ "type": format!("{dtype:?}"), "bits_per_weight": bytes as f64 * 8.0 / weights / matrices.len() as f64,
                "decode_gb_s": bytes as f64 / decode / 1e9, "of_memory": bytes as f64 / decode / 1e9 / memory,
                "decode_gweights_s": weights * matrices.len() as f64 / decode / 1e9,
                "prefill_gmac_s": weights * (some.len() * TOKENS) as f64 / prefill / 1e9 })
        );
    }
    Ok(())
}

/// The same random matrix, as often as fills the memory.
fn matrices(dtype: Dtype) -> Result<Vec<Packed>, Box<dyn Error>> {
    let mut random = fastrand::Rng::with_seed(1);
    let values: Vec<f32> = (0..SIDE * SIDE).map(|_| random.f32() - 0.5).collect();
    let tensor = Tensor::from_vec(values, (SIDE, SIDE), &Device::Cpu)?;
    let raw = QTensor::quantize(&tensor, dtype.0)?.data()?.into_owned();
    let row_bytes = SIDE / dtype.block() * dtype.block_bytes();
    let mut packed = Packed::new(SIDE, SIDE, repack::format(dtype)).ok_or("too large")?;
    let (length, stream) = packed.groups_mut();
    for (group, part) in stream.chunks_mut(length).zip(raw.chunks(ROWS * row_bytes)) {
        repack::fill(dtype, part, SIDE, group)?;
    }
    let count = BYTES.div_ceil(packed.bytes());
    Ok(vec![packed; count])
}

/// Seconds to multiply `tokens` rows by every matrix.
fn run(pool: &Pool, level: Level, matrices: &[Packed], tokens: usize) -> Result<f64, Box<dyn Error>> {
    let mut acts = Acts::default();
    acts.reset(tokens, SIDE, Kinds::of(matrices));
    acts.fill(pool, level, SIDE, &|row, out| {
        let mut random = fastrand::Rng::with_seed(row as u64);
        out.iter_mut().for_each(|x| *x = random.f32() - 0.5);
    })?;
    let mut out = vec![0.0; tokens * SIDE];
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let started = clock::now();
        for weights in matrices {
            matmul(pool, level, &acts, &mut [Product { weights, out: &mut out, stride: SIDE, add: false }])?;
        }
        best = best.min(started.elapsed().as_secs_f64());
        black_box(&out);
    }
    Ok(best)
}

/// Gigabytes per second that all threads read from memory together.
fn memory(pool: &Pool) -> Result<f64, Box<dyn Error>> {
    const CHUNK: usize = 1 << 17;
    let data = vec![1_u64; BYTES / 8];
    let mut best = f64::INFINITY;
    for _ in 0..2 * PASSES {
        let started = clock::now();
        pool.run(data.len() / CHUNK, &|task| {
            let part = data.get(task * CHUNK..(task + 1) * CHUNK).unwrap_or(&[]);
            black_box(part.iter().fold(0_u64, |sum, x| sum.wrapping_add(*x)));
        })?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(BYTES as f64 / best / 1e9)
}
