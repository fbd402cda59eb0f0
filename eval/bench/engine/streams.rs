//! Measures streams that share the embedded engine: tokens per second together, and how long a token waits while a long
//! prompt is read beside it. One JSON document on standard output.
//!
//! `engine-streams MODEL THREADS [--streams 1,2,4,8,16] [--decode 64] [--long 1024] [--repeats 3]`

#![allow(clippy::print_stdout, reason = "a measuring program prints its results")]
#![allow(clippy::cast_precision_loss, reason = "token counts are small")]

use std::cell::Cell;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use wattroute::api::query::Sampling;
use wattroute::clock;
use wattroute::engine::types::{Batch, Event, Job, ModelSpec, Prompt};
use wattroute::engine::{Engine, Generation};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(path), Some(threads)) = (args.first(), args.get(1).and_then(|a| a.parse().ok())) else {
        return Err("usage: engine-streams MODEL THREADS [--streams N,N] [--decode N] [--long N] [--repeats N]".into());
    };
    let option = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1));
    let number = |name: &str, default: usize| option(name).and_then(|a| a.parse().ok()).unwrap_or(default);
    let counts = option("--streams").map_or("1,2,4,8,16", String::as_str);
    let counts: Vec<usize> = counts.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
    let (decode, long, repeats) = (number("--decode", 64), number("--long", 1024), number("--repeats", 3));
    let batch = Batch { streams: counts.iter().copied().max().unwrap_or(1) + 1, ..Batch::default() };
    let engine = Engine::load(&ModelSpec {
        name: "bench".into(),
        path: Path::new(path).to_path_buf(),
        context: 2048,
        template: None,
        threads,
        queue: 64,
        batch,
        attention: wattroute::config::attention::Attention::Softmax,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (mut together, mut stalls) = (Vec::new(), Vec::new());
    for streams in &counts {
        let runs: Vec<f64> =
            (0..repeats).map(|_| runtime.block_on(rate(&engine, *streams, decode))).collect::<Result<_>>()?;
        together.push(json!({ "streams": streams, "tok_s": runs }));
    }
    for streams in counts.iter().filter(|n| **n < 16) {
        stalls.push(runtime.block_on(stall(&engine, *streams, long))?);
    }
    let out = json!({ "threads": threads, "decode_tokens": decode, "long_prompt_tokens": long,
        "stall_budget_ms": batch.stall.as_millis(), "together": together, "beside_a_long_prompt": stalls,
        "kv_bytes_bound": engine.kv().bound });
    println!("{}", serde_json::to_string_pretty(&out)?);
    Ok(())
}

/// Times at which a stream's tokens came.
async fn times(mut generation: Generation, most: usize) -> Result<Vec<Instant>> {
    let mut times = Vec::new();
    while times.len() < most {
        match generation.next().await.ok_or("the stream broke")?? {
            Event::Token(_) => times.push(clock::now().into_std()),
            Event::Done(_) => break,
        }
    }
    Ok(times)
}

fn submit(engine: &Engine, seed: usize, tokens: usize) -> Result<Generation> {
    let names = ["a fox", "a river", "an old clock", "two sisters", "the sea", "a baker", "a lost letter", "winter"];
    let name = names.get(seed % names.len()).copied().unwrap_or_default();
    let prompt = Prompt::Text(format!(
        "Chapter {seed}. This is the long story of {name}, as it was told to me. Once upon a time"
    ));
    let sampling =
        Sampling { temperature: 1.0, seed: Some(seed as u64), max_tokens: Some(tokens as u32), ..Sampling::default() };
    Ok(engine.submit(Job { prompt, sampling, owner: None })?)
}

/// Tokens per second of `streams` together, from when all speak until the first ends.
async fn rate(engine: &Engine, streams: usize, decode: usize) -> Result<f64> {
    let started: Vec<Generation> = (0..streams).map(|seed| submit(engine, seed, decode)).collect::<Result<_>>()?;
    let all: Vec<Vec<Instant>> =
        join_all(started.into_iter().map(|g| times(g, decode))).await.into_iter().collect::<Result<_>>()?;
    let from = all.iter().filter_map(|t| t.first()).max().ok_or("no token")?;
    let to = all.iter().filter_map(|t| t.last()).min().ok_or("no token")?;
    let tokens = all.iter().flatten().filter(|t| *t > from && *t <= to).count();
    Ok(tokens as f64 / to.duration_since(*from).as_secs_f64())
}

/// Longest gaps between the tokens of `streams` while a prompt of about `long` tokens is read, and before it came.
async fn stall(engine: &Engine, streams: usize, long: usize) -> Result<Value> {
    let started: Vec<Generation> = (0..streams).map(|seed| submit(engine, seed, 1500)).collect::<Result<_>>()?;
    let over = Cell::new(false);
    let reading = async {
        // When this one is done, all speak.
        times(submit(engine, 99, 48)?, 48).await?;
        let sampling = Sampling { max_tokens: Some(1), ..Sampling::default() };
        let began = clock::now().into_std();
        let generation = engine.submit(Job { prompt: Prompt::Text("word ".repeat(long)), sampling, owner: None })?;
        let tokens = generation.input_tokens();
        times(generation, 1).await?;
        over.set(true);
        Ok::<_, Box<dyn Error>>((began, clock::now().into_std(), tokens))
    };
    let speaking = join_all(started.into_iter().map(async |mut generation| {
        let mut times = Vec::new();
        while let Some(Ok(Event::Token(_))) = generation.next().await {
            times.push(clock::now().into_std());
            if over.get() {
                break;
            }
        }
        times
    }));
    let (reading, all) = join(reading, speaking).await;
    let (began, ended, tokens) = reading?;
    let (mut before, mut beside) = (Vec::new(), Vec::new());
    for pair in all.iter().flat_map(|times| times.windows(2)) {
        let [earlier, later] = pair else { continue };
        let gap = later.duration_since(*earlier).as_secs_f64() * 1e3;
        if *later <= began {
            before.push(gap)
        } else if *earlier >= began {
            beside.push(gap)
        }
    }
    Ok(json!({ "streams": streams, "prompt_tokens": tokens, "read_s": ended.duration_since(began).as_secs_f64(),
        "gap_ms_before": percentiles(&mut before), "gap_ms_beside": percentiles(&mut beside) }))
}

fn percentiles(gaps: &mut [f64]) -> Value {
    gaps.sort_by(f64::total_cmp);
    let at = |share: usize| gaps.get((gaps.len() * share).div_ceil(100).saturating_sub(1)).copied();
    json!({ "n": gaps.len(), "p50": at(50), "p90": at(90), "p99": at(99), "max": at(100) })
}
