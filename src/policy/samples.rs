//! `[verify.samples]`: a few short second answers of the local backend, drawn at a temperature with a seed each; how far they
//! agree with the first one is a sign that it is right (self-consistency: Wang et al. 2022, arXiv 2203.11171). Pure.

use std::time::Duration;

use super::section::Section;
use crate::config::problem::Problems;

/// Second answers, where the file does not say.
const COUNT: f64 = 3.0;
/// Tokens of each: enough for a choice or the first sentence. An answer that works its way to a number needs as many as the
/// first one took: its beginning says nothing (`eval/verify/README.md`).
const TOKENS: f64 = 32.0;
/// What they may take together, in milliseconds: people wait for it.
const WAIT_MS: f64 = 3000.0;
/// As in the paper's experiments.
const TEMPERATURE: f64 = 0.7;
/// Logits between no and full agreement: full agreement moves P = .50 to .73. Has the least Brier score of 1, 2, 4 and 8 on
/// worked answers (`eval/verify/README.md`).
const WEIGHT: f64 = 2.0;

/// How a local answer is compared with its own second answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Samples {
    /// How many.
    pub count: u32,
    /// Tokens of each at most.
    pub tokens: u32,
    /// What they may take together; what is there then counts.
    pub wait: Duration,
    /// Temperature that they are drawn at.
    pub temperature: f64,
    /// Logits between no and full agreement.
    pub weight: f64,
}

/// Reads the section.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within their ranges")]
pub fn section(mut s: Section<'_>, problems: &mut Problems) -> Samples {
    let count = s.number("count", 1.0..=8.0, problems).unwrap_or(COUNT);
    let tokens = s.number("tokens", 1.0..=512.0, problems).unwrap_or(TOKENS);
    let wait = s.number("wait_ms", 1.0..=60_000.0, problems).unwrap_or(WAIT_MS);
    let temperature = s.number("temperature", 0.01..=2.0, problems).unwrap_or(TEMPERATURE);
    let weight = s.number("weight", 0.0..=20.0, problems).unwrap_or(WEIGHT);
    s.finish(problems);
    let wait = Duration::from_secs_f64(wait / 1e3);
    Samples { count: count as u32, tokens: tokens as u32, wait, temperature, weight }
}

impl Samples {
    /// P(the answer is right) with what its second answers say: `agreement` from 0 to 1. An answer that is none stays none.
    pub fn joined(&self, p: f64, agreement: f64) -> f64 {
        if p <= 0.0 || !agreement.is_finite() {
            return p;
        }
        let z =
            (p.min(1.0 - 1e-12) / (1.0 - p.min(1.0 - 1e-12))).ln() + self.weight * (agreement.clamp(0.0, 1.0) - 0.5);
        1.0 / (1.0 + (-z).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const HEAD: &str =
        "name = \"s\"\nabout = \"S.\"\n[rule]\nkind = \"coverage-threshold\"\nthreshold = 0.5\n[verify]\n";

    #[test]
    fn second_answers_are_off_unless_they_are_asked_for_and_wrong_keys_are_told() {
        let read = |more: &str| parse(&format!("{HEAD}{more}"), "s.toml");
        assert_eq!(read("").unwrap().verify.unwrap().samples, None);
        let samples = read("[verify.samples]\ncount = 5\n").unwrap().verify.unwrap().samples.unwrap();
        assert_eq!((samples.count, samples.tokens, samples.wait), (5, 32, Duration::from_secs(3)));
        let told = read("[verify.samples]\ncount = 0\nseeds = 3\n").unwrap_err().to_string();
        assert!(told.contains("verify.samples.count: must be a number from 1 to 8"), "{told}");
        assert!(told.contains("verify.samples.seeds: unknown key"), "{told}");
    }

    #[test]
    fn agreement_moves_the_probability_both_ways_and_never_makes_an_answer_of_none() {
        let samples = Samples { count: 3, tokens: 32, wait: Duration::from_secs(3), temperature: 0.7, weight: 2.0 };
        assert!((samples.joined(0.5, 1.0) - 0.731).abs() < 1e-3 && (samples.joined(0.5, 0.0) - 0.269).abs() < 1e-3);
        assert!((samples.joined(0.3, 0.5) - 0.3).abs() < 1e-12);
        assert_eq!(samples.joined(0.0, 1.0), 0.0);
        assert_eq!(samples.joined(0.4, f64::NAN), 0.4);
        assert!(samples.joined(1.0, 0.0) > 0.99);
    }
}
