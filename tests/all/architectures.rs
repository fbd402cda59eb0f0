//! Every architecture against llama.cpp: log-probabilities of tiny models with seeded weights, as `eval/bench/engine/fixtures.py`
//! wrote them down.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use wattroute::engine::arch::NAMES;
use wattroute::engine::model::Model;
use wattroute::engine::tiny::Tiny;

/// Both keep keys and values in half precision and round differently on the way (measured: at most 0.011).
const APART: f64 = 0.02;

#[derive(Deserialize)]
struct Fixtures {
    tokens: Vec<u32>,
    models: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    architecture: String,
    sha256: String,
    logprobs: Vec<f64>,
    greedy: Vec<u32>,
    margins: Vec<f64>,
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("../fixtures/llama_cpp.json")).unwrap()
}

/// The model of an architecture, if it is the one that was measured.
fn model(expected: &Expected) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let bytes = Tiny::for_comparison(&expected.architecture).unwrap().bytes().unwrap();
    let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hash, expected.sha256, "{}: measure again with fixtures.py", expected.architecture);
    std::fs::write(&path, bytes).unwrap();
    Model::load(&path, 0, 1).unwrap()
}

fn logprobs(logits: &[f32]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|x| f64::from(x - top).exp()).sum();
    logits.iter().map(|x| f64::from(x - top) - total.ln()).collect()
}

fn best(logits: &[f32]) -> u32 {
    let best = (0_u32..).zip(logits).fold((0, f32::NEG_INFINITY), |m, (i, x)| if *x > m.1 { (i, *x) } else { m });
    best.0
}

#[test]
fn log_probabilities_are_those_of_llama_cpp() {
    let Fixtures { tokens, models } = fixtures();
    assert_eq!(models.iter().map(|m| m.architecture.as_str()).collect::<Vec<_>>(), NAMES);
    for expected in &models {
        let model = model(expected);
        let (mut cache, mut logits) = (model.new_cache(), Vec::new());
        assert_eq!(expected.logprobs.len(), tokens.len() - 1);
        for (pair, want) in tokens.windows(2).zip(&expected.logprobs) {
            model.forward(&mut cache, &pair[..1], &mut logits).unwrap();
            let got = logprobs(&logits)[pair[1] as usize];
            assert!((got - want).abs() < APART, "{}: {got} for {want}", expected.architecture);
        }
    }
}

#[test]
fn greedy_continuations_are_those_of_llama_cpp() {
    let Fixtures { tokens, models } = fixtures();
    for expected in &models {
        let model = model(expected);
        let (mut cache, mut logits) = (model.new_cache(), Vec::new());
        model.forward(&mut cache, &tokens, &mut logits).unwrap();
        for (want, margin) in expected.greedy.iter().zip(&expected.margins) {
            assert!(best(&logits) == *want || *margin < APART, "{} at {want}", expected.architecture);
            model.forward(&mut cache, &[*want], &mut logits).unwrap();
        }
    }
}
