//! One stream: a job that was admitted, the keys and values of its tokens, and its answer so far.

use tokio::sync::mpsc;

use crate::api::query::Sampling;
use crate::clock::{self, Instant};
use crate::engine::answer::Answer;
use crate::engine::cache::KvCache;
use crate::engine::pieces::Run;
use crate::engine::prefixes::{Held, Wish};
use crate::engine::tokenizer::Tokenizer;
use crate::engine::types::{Done, EngineError, Event, Finish, clamp};
use crate::lla::simd::Level;

/// A job as the engine's thread sees it.
pub struct Ticket {
    /// Prompt ids, at least one, fewer than the context.
    pub prompt: Vec<u32>,
    /// Settings.
    pub sampling: Sampling,
    /// Most tokens to generate; at least 1, and prompt and answer fit the context.
    pub limit: usize,
    /// Where events go; as much room as events can come.
    pub events: mpsc::Sender<Result<Event, EngineError>>,
    /// When it was submitted.
    pub submitted: Instant,
    /// Whose cached prefix it may use; see [`Job::owner`](crate::engine::types::Job).
    pub owner: Option<u64>,
}

impl Ticket {
    /// Most tokens that it can have in a cache.
    pub fn tokens(&self) -> usize {
        self.prompt.len().saturating_add(self.limit)
    }
}

/// A stream at work.
pub struct Sequence {
    /// What was asked.
    pub ticket: Ticket,
    /// Keys and values of `held`.
    pub cache: KvCache,
    /// Tokens that were run.
    pub held: Held,
    /// Tokens of the step under way; none when it sits this one out.
    pub next: Vec<u32>,
    /// Logits after the last of them.
    pub logits: Vec<f32>,
    /// Bytes set aside for its cache.
    pub reserved: usize,
    /// Prompt tokens that came from a cache; none before its first step.
    pub reused: Option<usize>,
    answer: Answer,
    started: Instant,
    speaking: Option<Instant>,
    /// The token drawn last, which the next step runs.
    drawn: Option<u32>,
}

impl Sequence {
    /// Begins a job with an empty cache.
    pub fn new(ticket: Ticket, cache: KvCache, reserved: usize) -> Self {
        Self {
            held: Held { tokens: Vec::new(), owner: ticket.owner },
            answer: Answer::new(&ticket.sampling, ticket.limit),
            ticket,
            cache,
            next: Vec::new(),
            logits: Vec::new(),
            reserved,
            reused: None,
            started: clock::now(),
            speaking: None,
            drawn: None,
        }
    }

    /// Prompt tokens still to run; 0 once it speaks.
    pub fn left(&self) -> usize {
        self.ticket.prompt.len().saturating_sub(self.held.tokens.len())
    }

    /// Chooses what the next step runs: `take` tokens of the prompt, or the token drawn last.
    pub fn feed(&mut self, take: usize) {
        self.next.clear();
        if self.left() > 0 {
            let rest = self.ticket.prompt.iter().skip(self.held.tokens.len());
            self.next.extend(rest.take(take));
        } else {
            self.next.extend(self.drawn);
        }
    }

    /// Whether the next step ends with logits that a token is drawn from.
    pub fn speaks_next(&self) -> bool {
        self.next.len() >= self.left()
    }

    /// Notes that the step was run.
    pub fn ran(&mut self) {
        self.held.tokens.append(&mut self.next);
    }

    /// Draws a token and sends it; the last event if that ended the answer, for the caller to send.
    pub fn speak(&mut self, level: Level, table: &Tokenizer, ends: &[u32]) -> Result<Option<Done>, EngineError> {
        self.speaking.get_or_insert_with(clock::now);
        let drawn = self.answer.draw(level, &self.logits, table, ends)?;
        self.drawn = Some(drawn.id);
        if let Some(token) = drawn.token {
            // A reader that is gone is noticed before the next step.
            self.send(Ok(Event::Token(token)));
        }
        Ok(drawn.finish.map(|finish| self.done(finish)))
    }

    /// Whether anybody still reads.
    pub fn wanted(&self) -> bool {
        !self.ticket.events.is_closed()
    }

    /// Sends an event; the channel has room for all. Whether anybody reads it is another matter.
    pub fn send(&self, event: Result<Event, EngineError>) {
        let _ = self.ticket.events.try_send(event);
    }

    /// What it would use of other caches.
    pub fn wish<'a>(&'a self, openings: &'a [Vec<u32>]) -> Wish<'a> {
        Wish { prompt: &self.ticket.prompt, owner: self.ticket.owner, openings }
    }

    /// The next step's tokens with their cache, and a place for logits if a token is drawn from them.
    pub fn as_run(&mut self) -> Run<'_> {
        let speaks = self.speaks_next();
        Run { cache: &mut self.cache, tokens: &self.next, logits: speaks.then_some(&mut self.logits) }
    }

    fn done(&mut self, finish: Finish) -> Done {
        let now = clock::now();
        let decoding = self.speaking.unwrap_or(now);
        let (mean_logprob, min_logprob) = self.answer.logprobs();
        Done {
            finish,
            tail: self.answer.tail(),
            input_tokens: clamp(self.ticket.prompt.len()),
            reused_tokens: clamp(self.reused.unwrap_or(0)),
            output_tokens: clamp(self.answer.tokens),
            mean_logprob,
            min_logprob,
            prefill_s: (decoding - self.started).as_secs_f64(),
            decode_s: (now - decoding).as_secs_f64(),
            queue_s: (self.started - self.ticket.submitted).as_secs_f64(),
        }
    }
}
