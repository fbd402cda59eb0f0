//! From logits to events: draws a token, turns it into text, sees where the answer ends.

use crate::api::query::Sampling;
use crate::engine::sample::{Sampler, scan, top};
use crate::engine::stop::{Found, Stop};
use crate::engine::tokenizer::{Tokenizer, Utf8};
use crate::engine::types::{EngineError, Finish, Token};
use crate::lla::simd::Level;

/// The answer so far.
pub struct Answer {
    sampler: Sampler,
    stop: Stop,
    utf8: Utf8,
    /// Alternatives to report per token, if log-probabilities were asked for.
    alternatives: Option<usize>,
    /// Most tokens.
    limit: usize,
    stopped: bool,
    /// Tokens drawn.
    pub tokens: usize,
    /// Sum of their log-probabilities.
    sum: f64,
    /// The lowest of them.
    least: f32,
}

/// What one token led to.
pub struct Drawn {
    /// The token.
    pub id: u32,
    /// Its event; none for a token that only ends the answer.
    pub token: Option<Token>,
    /// The answer's end.
    pub finish: Option<Finish>,
}

impl Answer {
    /// An empty answer of at most `limit` tokens.
    pub fn new(sampling: &Sampling, limit: usize) -> Self {
        Self {
            sampler: Sampler::new(sampling),
            stop: Stop::new(&sampling.stop),
            utf8: Utf8::default(),
            alternatives: sampling.logprobs.map(usize::from),
            limit,
            stopped: false,
            tokens: 0,
            sum: 0.0,
            least: 0.0,
        }
    }

    /// Draws the next token. `ends` are the tokens that end an answer.
    pub fn draw(
        &mut self,
        level: Level,
        logits: &[f32],
        table: &Tokenizer,
        ends: &[u32],
    ) -> Result<Drawn, EngineError> {
        let seen = scan(level, logits)?;
        let id = self.sampler.pick(level, &seen, logits);
        let logprob = seen.logprob(logits, id);
        self.tokens += 1;
        self.sum += f64::from(logprob);
        self.least = self.least.min(logprob);
        if ends.contains(&id) {
            return Ok(Drawn { id, token: None, finish: Some(Finish::Stop) });
        }
        let bytes = table.bytes(id);
        let text = match self.stop.push(&self.utf8.push(bytes)) {
            Found::Text(text) => text,
            Found::Stop(text) => {
                self.stopped = true;
                text
            }
        };
        let mut token = Token { text, bytes: bytes.to_vec(), ln_p: logprob, logprob: None, top: Vec::new() };
        if let Some(count) = self.alternatives {
            token.logprob = Some(logprob);
            token.top = top(&seen, logits, count).into_iter().map(|(id, p)| (table.bytes(id).to_vec(), p)).collect();
        }
        let cut = (self.tokens >= self.limit).then_some(Finish::Length);
        Ok(Drawn { id, token: Some(token), finish: if self.stopped { Some(Finish::Stop) } else { cut } })
    }

    /// Text still held back when the answer ends.
    pub fn tail(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        match self.stop.push(&self.utf8.finish()) {
            Found::Stop(text) => text,
            Found::Text(text) => text + &self.stop.finish(),
        }
    }

    /// Mean and least log-probability of the tokens drawn, the one that ended the answer included.
    pub fn logprobs(&self) -> (f32, f32) {
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "the API's precision is f32")]
        let mean = (self.sum / self.tokens.max(1) as f64) as f32;
        (mean, self.least)
    }
}
