//! Measures the embedded engine; one JSON line per result on standard output.
//!
//! `engine-speed MODEL THREADS speed PROMPT_TOKENS DECODE_TOKENS REPEATS` gives rates,
//! `engine-speed MODEL THREADS greedy TOKENS` continues JSON arrays of token ids, one per line of standard input,
//! `engine-speed MODEL THREADS perplexity FILE` scores a text in windows of 512 tokens (`-`: arrays as above, each a window).

#![allow(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::error::Error;
use std::io::BufRead;
use std::path::Path;

use serde_json::json;
use wattroute::clock;
use wattroute::engine::model::Model;
use wattroute::engine::tokenizer::Tokenizer;
use wattroute::engine::vocabulary;

const USAGE: &str = "usage: engine-speed MODEL THREADS speed PROMPT DECODE REPEATS | greedy TOKENS | perplexity FILE";
/// Tokens scored together when a text is cut up.
const WINDOW_TOKENS: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).and_then(|a| a.parse::<usize>().ok());
    let (Some(path), Some(threads), Some(mode)) = (args.first(), number(1), args.get(2)) else {
        return Err(USAGE.into());
    };
    let started = clock::now();
    let model = Model::load(Path::new(path), 4096, threads)?;
    let load_s = started.elapsed().as_secs_f64();
    match (mode.as_str(), args.get(3)) {
        ("greedy", _) => {
            for prompt in lines()? {
                println!("{}", json!({ "tokens": greedy(&model, &prompt, number(3).unwrap_or(32))? }));
            }
        }
        ("perplexity", Some(file)) => perplexity(&model, file)?,
        ("speed", _) => {
            let (prompt, decode) = (number(3).unwrap_or(512), number(4).unwrap_or(128));
            for _ in 0..number(5).unwrap_or(3) {
                let (prefill, generate) = speed(&model, prompt, decode)?;
                let level = format!("{:?}", model.level());
                println!(
                    "{}",
                    json!({ "load_s": load_s, "level": level, "threads": model.threads(),
                        "weight_bytes": model.weight_bytes(), "prompt_tokens": prompt, "decode_tokens": decode,
                        "prefill_tok_s": prefill, "decode_tok_s": generate })
                );
            }
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

/// Arrays of token ids on standard input.
fn lines() -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
    std::io::stdin().lock().lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
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

/// Scores every window, then all together where they are parts of a file.
#[allow(clippy::cast_precision_loss, reason = "token counts are small")]
fn perplexity(model: &Model, file: &str) -> Result<(), Box<dyn Error>> {
    if file == "-" {
        for window in lines()? {
            let (logprobs, best) = score(model, &window)?;
            println!("{}", json!({ "logprobs": logprobs, "best": best }));
        }
        return Ok(());
    }
    let tokenizer = Tokenizer::new(&vocabulary::read(model.metadata())?)?;
    let mut tokens = Vec::new();
    let fits = tokenizer.encode(&std::fs::read_to_string(file)?, usize::MAX, &mut tokens);
    fits.map_err(|_| "the text is too long")?;
    let (mut sum, mut count) = (0.0, 0);
    for window in tokens.chunks(WINDOW_TOKENS).filter(|w| w.len() > 1) {
        let (logprobs, _) = score(model, window)?;
        sum -= logprobs.iter().sum::<f64>();
        count += logprobs.len();
    }
    println!(
        "{}",
        json!({ "predictions": count, "nll": sum / count as f64, "perplexity": (sum / count as f64).exp() })
    );
    Ok(())
}

/// ln P of every token but the first, given those before it, and the best token at each place.
fn score(model: &Model, tokens: &[u32]) -> Result<(Vec<f64>, Vec<u32>), Box<dyn Error>> {
    let (mut cache, mut logits, mut out) = (model.new_cache(), Vec::new(), (Vec::new(), Vec::new()));
    for pair in tokens.windows(2) {
        let [token, next] = pair else { continue };
        model.forward(&mut cache, &[*token], &mut logits)?;
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|x| f64::from(x - top).exp()).sum();
        let chosen = logits.get(*next as usize).copied().ok_or("a token outside the vocabulary")?;
        out.0.push(f64::from(chosen - top) - total.ln());
        out.1.push(best(&logits));
    }
    Ok(out)
}

fn best(logits: &[f32]) -> u32 {
    let most = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |m, (i, x)| if *x > m.1 { (i, *x) } else { m });
    most.0 as u32
}
