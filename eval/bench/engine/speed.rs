//! Measures the embedded engine; one JSON line per result on standard output.
//!
//! `engine-speed MODEL THREADS speed PROMPT_TOKENS DECODE_TOKENS REPEATS` gives rates,
//! `engine-speed MODEL THREADS greedy TOKENS` continues JSON arrays of token ids, one per line of standard input,
//! `engine-speed MODEL THREADS perplexity FILE` scores a text in windows of 512 tokens (`-`: arrays as above, each a window),
//! `engine-speed - 0 tiny ARCHITECTURE` writes a tiny model with random weights to standard output.
//! `--lambda X` behind any of them attends by local linear attention with that ridge and no bound on its corrections.

#![allow(clippy::print_stdout, reason = "a measuring program prints its results")]
#![allow(clippy::indexing_slicing, reason = "windows are cut up by their own lengths")]

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;

use serde_json::json;
use wattroute::clock;
use wattroute::config::attention::{Attention, Lambda, Lla, Solver};
use wattroute::engine::model::Model;
use wattroute::engine::pieces::Run;
use wattroute::engine::tiny::Tiny;
use wattroute::engine::tokenizer::Tokenizer;
use wattroute::engine::vocabulary;

const USAGE: &str = "usage: engine-speed MODEL THREADS speed PROMPT DECODE REPEATS | greedy TOKENS | perplexity FILE";
/// Tokens of a window when a text is cut up.
const WINDOW_TOKENS: usize = 512;
/// Windows scored together.
const TOGETHER: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let lambda =
        args.iter().position(|a| a == "--lambda").map(|at| args.drain(at..).nth(1).ok_or(USAGE)).transpose()?;
    let number = |i: usize| args.get(i).and_then(|a| a.parse::<usize>().ok());
    let (Some(path), Some(threads), Some(mode)) = (args.first(), number(1), args.get(2)) else {
        return Err(USAGE.into());
    };
    if mode == "tiny" {
        return tiny(args.get(3).ok_or(USAGE)?);
    }
    let started = clock::now();
    let model = Model::load(Path::new(path), 4096, threads)?.with_attention(&attention(lambda.as_deref())?)?;
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

fn attention(lambda: Option<&str>) -> Result<Attention, Box<dyn Error>> {
    let Some(lambda) = lambda else { return Ok(Attention::Softmax) };
    let lambda = Lambda::One(lambda.parse()?);
    let (solver, tolerance, iterations, radius) = (Solver::Auto, 1e-3, 32, f32::INFINITY);
    Ok(Attention::Lla(Lla { lambda, except: Vec::new(), solver, tolerance, iterations, radius }))
}

/// The model that the expected log-probabilities of `tests/fixtures/llama_cpp.json` are of.
fn tiny(architecture: &str) -> Result<(), Box<dyn Error>> {
    let tiny = Tiny::for_comparison(architecture).ok_or(USAGE)?;
    Ok(std::io::stdout().lock().write_all(&tiny.bytes()?)?)
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

/// Scores every window; the parts of a file together.
#[allow(clippy::cast_precision_loss, reason = "token counts are small")]
fn perplexity(model: &Model, file: &str) -> Result<(), Box<dyn Error>> {
    if file == "-" {
        for windows in lines()?.chunks(TOGETHER) {
            for (logprobs, best) in score(model, windows)? {
                println!("{}", json!({ "logprobs": logprobs, "best": best }));
            }
        }
        return Ok(());
    }
    let tokenizer = Tokenizer::new(&vocabulary::read(model.metadata())?)?;
    let mut tokens = Vec::new();
    let fits = tokenizer.encode(&std::fs::read_to_string(file)?, usize::MAX, &mut tokens);
    fits.map_err(|_| "the text is too long")?;
    let windows: Vec<Vec<u32>> = tokens.chunks(WINDOW_TOKENS).filter(|w| w.len() > 1).map(<[u32]>::to_vec).collect();
    let mut scores = Vec::new();
    for some in windows.chunks(TOGETHER) {
        scores.extend(score(model, some)?.into_iter().flat_map(|(logprobs, _)| logprobs));
    }
    let nll = -scores.iter().sum::<f64>() / scores.len() as f64;
    println!("{}", json!({ "predictions": scores.len(), "nll": nll, "perplexity": nll.exp() }));
    Ok(())
}

/// A window's negative log-probabilities and most likely tokens, position by position.
type Scored = (Vec<f64>, Vec<u32>);

/// ln P of every token but the first of each window, given those before it, and the best token at each place. The windows
/// go through the model side by side, a token of each at a time.
fn score(model: &Model, windows: &[Vec<u32>]) -> Result<Vec<Scored>, Box<dyn Error>> {
    let mut caches: Vec<_> = windows.iter().map(|_| model.new_cache()).collect();
    let mut logits = vec![Vec::new(); windows.len()];
    let mut out = vec![(Vec::new(), Vec::new()); windows.len()];
    for at in 0..windows.iter().map(Vec::len).max().unwrap_or(0) {
        let parts = windows.iter().zip(&mut caches).zip(&mut logits);
        let open = parts.filter(|((window, _), _)| at + 1 < window.len());
        let mut runs: Vec<Run> = open
            .map(|((window, cache), logits)| Run { cache, tokens: &window[at..=at], logits: Some(logits) })
            .collect();
        model.step(&mut runs)?.into_iter().flatten().try_for_each(Err)?;
        for ((window, logits), out) in windows.iter().zip(&logits).zip(&mut out).filter(|((w, _), _)| at + 1 < w.len())
        {
            let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = logits.iter().map(|x| f64::from(x - top).exp()).sum();
            let chosen = logits.get(window[at + 1] as usize).copied().ok_or("a token outside the vocabulary")?;
            out.0.push(f64::from(chosen - top) - total.ln());
            out.1.push(best(logits));
        }
    }
    Ok(out)
}

fn best(logits: &[f32]) -> u32 {
    let most = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |m, (i, x)| if *x > m.1 { (i, *x) } else { m });
    most.0 as u32
}
