//! What a backend writes down while it produces an answer that will be checked.
//!
//! Clones share it: the backend writes as its bytes are taken, the stage that holds them reads. Bounded: of a long
//! answer the beginning and the end are kept, and sums of the rest. No `Debug`: it holds text of the answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::detect;
use super::evidence::{Evidence, Expected};

/// Bytes of text kept; what is looked for stands at an answer's beginning and end, far within this.
const TEXT_BYTES: usize = 64 * 1024;

/// A handle.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Gathered>>);

#[derive(Default)]
struct Gathered {
    text: String,
    tokens: u32,
    /// Of tokens with a log-probability.
    sum: f64,
    least: f64,
    known: u32,
    calls: bool,
    cut: bool,
    ended: bool,
}

impl Trace {
    /// A piece of the answer with the natural log-probabilities of its tokens, as far as they are known.
    pub fn piece(&self, text: &str, logprobs: impl IntoIterator<Item = f64>) {
        let mut gathered = self.lock();
        let before = gathered.known;
        for p in logprobs.into_iter().filter(|p| p.is_finite()) {
            gathered.sum += p;
            gathered.least = gathered.least.min(p);
            gathered.known = gathered.known.saturating_add(1);
        }
        let said = gathered.known.saturating_sub(before).max(u32::from(!text.is_empty()));
        gathered.tokens = gathered.tokens.saturating_add(said);
        gathered.append(text);
    }

    /// The answer calls tools, which is more than nothing.
    pub fn calls(&self) {
        self.lock().calls = true;
    }

    /// The answer is complete; `cut` by its token limit, or ended by itself.
    pub fn end(&self, cut: bool) {
        let mut gathered = self.lock();
        gathered.ended = true;
        gathered.cut |= cut;
    }

    /// Tokens so far: counted where each has its log-probability, else pieces.
    pub fn tokens(&self) -> u32 {
        self.lock().tokens
    }

    /// Whether the end was seen.
    pub fn ended(&self) -> bool {
        self.lock().ended
    }

    /// What there is, as numbers.
    pub fn evidence(&self, expected: Expected) -> Evidence {
        let gathered = self.lock();
        let known = (gathered.known > 0).then(|| f64::from(gathered.known));
        Evidence {
            expected,
            tokens: gathered.tokens,
            whole: gathered.ended,
            mean_logprob: known.map(|n| gathered.sum / n),
            min_logprob: known.map(|_| gathered.least),
            cut: gathered.cut,
            empty: gathered.ended && !gathered.calls && detect::is_empty(&gathered.text),
            refuses: !gathered.calls && detect::refuses(&gathered.text),
            loops: detect::loops(&gathered.text),
            stated: detect::stated(&gathered.text),
        }
    }

    /// What was said, of a long answer its beginning and end; none if it calls tools.
    pub fn said(&self) -> Option<String> {
        let gathered = self.lock();
        (!gathered.calls).then(|| gathered.text.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    /// A text that grows too long loses its middle.
    fn append(&mut self, text: &str) {
        self.text.push_str(text);
        if self.text.len() > TEXT_BYTES {
            let from = self.text.floor_char_boundary(TEXT_BYTES / 4);
            let to = self.text.floor_char_boundary(self.text.len() - TEXT_BYTES / 4);
            self.text.replace_range(from..to, "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Expected = Expected { prior: 0.6, tokens: 100.0, prompt: 20.0 };

    #[test]
    fn sums_are_over_the_tokens_whose_probability_is_known() {
        let trace = Trace::default();
        trace.piece("four", [-0.5]);
        trace.piece(" thousand", [-1.5, f64::NAN]);
        trace.piece("", []);
        trace.piece("!", []);
        let evidence = trace.evidence(USUAL);
        assert_eq!((evidence.tokens, evidence.whole), (3, false));
        assert_eq!((evidence.mean_logprob, evidence.min_logprob), (Some(-1.0), Some(-1.5)));
        assert!(Trace::default().evidence(USUAL).mean_logprob.is_none());
    }

    #[test]
    fn an_answer_is_empty_only_once_it_has_ended_and_a_tool_call_is_none() {
        let trace = Trace::default();
        trace.piece("  ", [-0.1]);
        assert!(!trace.evidence(USUAL).empty);
        trace.end(false);
        assert!(trace.evidence(USUAL).empty);
        trace.calls();
        assert!(!trace.evidence(USUAL).empty);
    }

    #[test]
    fn a_very_long_answer_keeps_its_beginning_and_its_end() {
        let trace = Trace::default();
        trace.piece("I'm sorry, but no. ", []);
        (0..4000).for_each(|n| trace.piece(&format!("sentence {n} of many\u{e9}. "), []));
        (0..200).for_each(|_| trace.piece("again and ", []));
        assert!(trace.lock().text.len() <= TEXT_BYTES);
        let evidence = trace.evidence(USUAL);
        assert!(evidence.refuses && evidence.loops);
    }
}
