//! Evidence as numbers: what is known when the answer is there, in the order of the model's weights.

/// What was expected before anybody was asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// P(correct) of the backend that answers, from its table or predictor.
    pub prior: f64,
    /// Tokens of its answer.
    pub tokens: f64,
    /// Tokens of the prompt.
    pub prompt: f64,
}

/// What an answer, or its beginning, shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// What was expected.
    pub expected: Expected,
    /// Generated tokens.
    pub tokens: u32,
    /// All of the answer is there; else it is the beginning of a stream.
    pub whole: bool,
    /// Mean ln P of the tokens at temperature 1; none where the backend tells none.
    pub mean_logprob: Option<f64>,
    /// The least of them.
    pub min_logprob: Option<f64>,
    /// Ended by its token limit.
    pub cut: bool,
    /// Whole, and without a letter, a digit or a tool call.
    pub empty: bool,
    /// Begins as refusals do.
    pub refuses: bool,
    /// Says one thing again and again.
    pub loops: bool,
    /// The confidence it states of itself.
    pub stated: Option<f64>,
}

/// What the model weighs, in the order of [`Evidence::features`].
pub const FEATURES: [&str; 11] = [
    "bias",
    "prior",
    "mean_logprob",
    "min_logprob",
    "unknown_logprob",
    "length",
    "prompt",
    "cut",
    "refuses",
    "loops",
    "stated",
];

/// Longest distance of a length from what was expected that counts: e^3 is twenty-fold.
const LENGTH: f64 = 3.0;
/// Largest logit of the prior that counts: P = .982.
const PRIOR: f64 = 4.0;
/// Longest prompt that counts, in tokens.
const PROMPT: f64 = 1e7;
/// Lowest mean and least ln P that count: below, one token more or less decides nothing.
const LOGPROBS: [f64; 2] = [-4.0, -12.0];

impl Evidence {
    /// Numbers for the model; all finite whatever the evidence is. Where log-probabilities are not known both are 0 and
    /// `unknown_logprob` is 1. The beginning of a stream is never short, but may already be long.
    pub fn features(&self) -> [f64; FEATURES.len()] {
        let length = (f64::from(self.tokens).max(1.0).ln() - self.expected.tokens.max(1.0).ln()).clamp(-LENGTH, LENGTH);
        let [mean, least] = LOGPROBS;
        [
            1.0,
            logit(self.expected.prior).clamp(-PRIOR, PRIOR),
            self.mean_logprob.unwrap_or(0.0).clamp(mean, 0.0),
            self.min_logprob.unwrap_or(0.0).clamp(least, 0.0),
            flag(self.mean_logprob.is_none()),
            if self.whole { length } else { length.max(0.0) },
            self.expected.prompt.max(1.0).clamp(1.0, PROMPT).ln(),
            flag(self.cut),
            flag(self.refuses),
            flag(self.loops),
            self.stated.map_or(0.0, |p| p - 0.5),
        ]
    }

    /// What speaks against the answer, for people; numbers and our own words only.
    pub fn against(&self) -> String {
        let words = [
            (self.empty, "it is empty"),
            (self.refuses, "it refuses"),
            (self.loops, "it repeats itself"),
            (self.cut, "it was cut by its limit"),
        ];
        let found: Vec<&str> = words.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word).collect();
        match (found.is_empty(), self.mean_logprob, self.min_logprob) {
            (false, _, _) => found.join(" and "),
            (true, Some(mean), Some(least)) => format!("mean ln P {mean:.2}, least {least:.2}"),
            (true, _, _) => format!("{} tokens, no log-probabilities", self.tokens),
        }
    }
}

/// ln(p / (1 - p)); an impossible or certain p is taken to the edge of what doubles tell apart.
fn logit(p: f64) -> f64 {
    let p = if p.is_finite() { p.clamp(1e-9, 1.0 - 1e-9) } else { 0.5 };
    (p / (1.0 - p)).ln()
}

fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn plain() -> Evidence {
        Evidence {
            expected: Expected { prior: 0.5, tokens: 100.0, prompt: 20.0 },
            tokens: 100,
            whole: true,
            mean_logprob: Some(-0.2),
            min_logprob: Some(-2.0),
            cut: false,
            empty: false,
            refuses: false,
            loops: false,
            stated: None,
        }
    }

    #[test]
    fn features_are_finite_for_any_figures() {
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -5.0, 1e300] {
            let evidence = Evidence {
                expected: Expected { prior: odd, tokens: odd, prompt: odd },
                mean_logprob: Some(odd).filter(|x| !x.is_nan()),
                min_logprob: Some(odd).filter(|x| !x.is_nan()),
                ..plain()
            };
            assert!(evidence.features().iter().all(|x| x.is_finite()), "{odd}: {:?}", evidence.features());
        }
    }

    #[test]
    fn a_beginning_is_never_too_short_and_may_be_too_long() {
        let at = |name: &str, e: &Evidence| e.features()[FEATURES.iter().position(|f| *f == name).unwrap()];
        let short = Evidence { tokens: 10, whole: false, ..plain() };
        assert_eq!(at("length", &short), 0.0);
        assert!(at("length", &Evidence { whole: true, ..short }) < -2.0);
        assert!(at("length", &Evidence { tokens: 400, whole: false, ..plain() }) > 1.0);
    }

    #[test]
    fn the_reason_holds_numbers_and_our_own_words_only() {
        assert_eq!(plain().against(), "mean ln P -0.20, least -2.00");
        let bad = Evidence { refuses: true, loops: true, ..plain() };
        assert_eq!(bad.against(), "it refuses and it repeats itself");
        assert_eq!(
            Evidence { mean_logprob: None, min_logprob: None, ..plain() }.against(),
            "100 tokens, no log-probabilities"
        );
    }
}
