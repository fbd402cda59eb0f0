//! Measures the embedded engine, or continues token sequences greedily; one JSON line per result on standard output.
//!
//! `engine-speed MODEL THREADS speed PROMPT_TOKENS DECODE_TOKENS REPEATS` and
//! `engine-speed MODEL THREADS greedy TOKENS` with one JSON array of token ids per line on standard input.

#![allow(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::error::Error;
use std::io::BufRead;
use std::path::Path;

use serde_json::json;
use wattroute::clock;
use wattroute::engine::model::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).and_then(|a| a.parse::<usize>().ok());
    let (Some(path), Some(threads), Some(mode)) = (args.first(), number(1), args.get(2)) else {
        return Err(
            "usage: engine-speed MODEL THREADS speed PROMPT DECODE REPEATS | MODEL THREADS greedy TOKENS".into()
        );
    };
    let started = clock::now();
    let model = Model::load(Path::new(path), 4096, threads)?;
    let load_s = started.elapsed().as_secs_f64();
    if mode == "greedy" {
        for line in std::io::stdin().lock().lines() {
            let prompt: Vec<u32> = serde_json::from_str(&line?)?;
            println!("{}", json!({ "tokens": greedy(&model, &prompt, number(3).unwrap_or(32))? }));
        }
        return Ok(());
    }
    let (prompt, decode) = (number(3).unwrap_or(512), number(4).unwrap_or(128));
    for _ in 0..number(5).unwrap_or(3) {
        let (prefill, generate) = speed(&model, prompt, decode)?;
        let level = format!("{:?}", model.level());
        println!(
            "{}",
            json!({ "load_s": load_s, "level": level, "threads": model.threads(), "weight_bytes": model.weight_bytes(),
                "prompt_tokens": prompt, "decode_tokens": decode, "prefill_tok_s": prefill, "decode_tok_s": generate })
        );
    }
    Ok(())
}

/// Prefill and decode rates in tokens per second.
#[allow(clippy::cast_precision_loss, reason = "token counts are small")]
fn speed(model: &Model, prompt: usize, decode: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let (mut cache, mut logits) = (model.new_cache(), Vec::new());
    let tokens: Vec<u32> = (0..prompt).map(|i| (i * 7919 % 30_000 + 300) as u32).collect();
    let started = clock::now();
    model.forward(&mut cache, &tokens, &mut logits)?;
    let prefill = prompt as f64 / started.elapsed().as_secs_f64();
    let started = clock::now();
    for _ in 0..decode {
        let next = best(&logits);
        model.forward(&mut cache, &[next], &mut logits)?;
    }
    Ok((prefill, decode as f64 / started.elapsed().as_secs_f64()))
}

fn greedy(model: &Model, prompt: &[u32], count: usize) -> Result<Vec<u32>, Box<dyn Error>> {
    let (mut cache, mut logits, mut out) = (model.new_cache(), Vec::new(), Vec::new());
    model.forward(&mut cache, prompt, &mut logits)?;
    while out.len() < count {
        let next = best(&logits);
        out.push(next);
        model.forward(&mut cache, &[next], &mut logits)?;
    }
    Ok(out)
}

fn best(logits: &[f32]) -> u32 {
    let most = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |m, (i, x)| if *x > m.1 { (i, *x) } else { m });
    most.0 as u32
}
