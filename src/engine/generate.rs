//! The engine's thread: takes jobs from the queue, one at a time, and sends what they produce.
//!
//! Invariants: a job whose receiver is gone stops within one step (a token, or one chunk of the prompt); a panic or a failed
//! step ends that job only, and the next one starts from an empty cache; a slow reader never holds the thread, because
//! its channel has room for the whole answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::api::query::Sampling;
use crate::clock::{self, Instant};
use crate::engine::cache::KvCache;
use crate::engine::model::Model;
use crate::engine::queue::Queue;
use crate::engine::sample::{Sampler, logprobs};
use crate::engine::stop::{Found, Stop};
use crate::engine::tokenizer::{Tokenizer, Utf8};
use crate::engine::types::{Done, EngineError, Event, Finish, Token};

/// Prompt tokens per forward call: large enough for the kernels to be efficient, small enough that a prompt can be given up
/// between two calls.
const PREFILL_CHUNK_TOKENS: usize = 64;

/// A job as the thread sees it.
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

/// What the thread owns.
pub struct Worker {
    /// Weights.
    pub model: Model,
    /// Ids to bytes.
    pub tokenizer: Arc<Tokenizer>,
    /// Jobs.
    pub queue: Arc<Queue<Ticket>>,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
    /// The template's opening, the same for everybody.
    pub opening: Vec<u32>,
    /// Keys and values of `held`.
    pub cache: KvCache,
    /// Tokens in the cache.
    pub held: Vec<u32>,
    /// Whose tokens they are.
    pub owner: Option<u64>,
    /// Tokens of the last prompt that were in the cache.
    pub reused: usize,
}

/// A job's caller went away.
struct Left;

enum End {
    Left,
    Failed(EngineError),
}

impl From<EngineError> for End {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

impl From<Left> for End {
    fn from(_: Left) -> Self {
        Self::Left
    }
}

impl Worker {
    /// Runs until the queue is closed.
    pub fn run(mut self) {
        while let Some(ticket) = self.queue.pop() {
            let ended = catch_unwind(AssertUnwindSafe(|| self.job(&ticket)));
            let error = match ended {
                Ok(Ok(())) => continue,
                Ok(Err(End::Left)) => continue,
                Ok(Err(End::Failed(error))) => error,
                Err(_) => EngineError::Step("a bug in the engine stopped this answer".to_owned()),
            };
            self.cache = self.model.new_cache();
            self.held.clear();
            let _ = ticket.events.try_send(Err(error));
        }
    }

    fn job(&mut self, ticket: &Ticket) -> Result<(), End> {
        #[cfg(test)]
        tests::trip(ticket);
        let started = clock::now();
        let mut logits = Vec::new();
        self.prefill(ticket, &mut logits)?;
        let decoding = clock::now();
        let mut answer = Answer::new(&ticket.sampling);
        let finish = loop {
            let id = answer.sampler.pick(&logits)?;
            answer.tokens += 1;
            if self.ends.contains(&id) {
                break Finish::Stop;
            }
            let (token, stopped) = answer.token(id, self.tokenizer.bytes(id), &logits, &self.tokenizer)?;
            self.send(ticket, Event::Token(token))?;
            if stopped {
                break Finish::Stop;
            }
            if answer.tokens >= ticket.limit {
                break Finish::Length;
            }
            self.forward(&[id], &mut logits)?;
        };
        let done = Done {
            finish,
            tail: answer.tail(),
            input_tokens: count(ticket.prompt.len()),
            output_tokens: count(answer.tokens),
            prefill_s: (decoding - started).as_secs_f64(),
            decode_s: (clock::now() - decoding).as_secs_f64(),
            queue_s: (started - ticket.submitted).as_secs_f64(),
        };
        Ok(self.send(ticket, Event::Done(done))?)
    }

    /// Brings the cache to the end of the prompt, using what it holds where the caller may see that.
    fn prefill(&mut self, ticket: &Ticket, logits: &mut Vec<f32>) -> Result<(), End> {
        let mut kept = shared(&self.held, &ticket.prompt);
        if ticket.owner.is_none() || ticket.owner != self.owner {
            // Another caller's words must not be guessed from how fast a prompt is read: only the opening is common.
            kept = kept.min(shared(&self.opening, &ticket.prompt));
        }
        // The last token is always run, for its logits.
        kept = kept.min(ticket.prompt.len().saturating_sub(1));
        self.cache.truncate(kept);
        self.held.truncate(kept);
        (self.owner, self.reused) = (ticket.owner, kept);
        let rest = ticket.prompt.get(kept..).unwrap_or_default();
        for chunk in rest.chunks(PREFILL_CHUNK_TOKENS) {
            self.wanted(ticket)?;
            self.forward(chunk, logits)?;
        }
        Ok(())
    }

    fn forward(&mut self, tokens: &[u32], logits: &mut Vec<f32>) -> Result<(), EngineError> {
        self.model.forward(&mut self.cache, tokens, logits)?;
        self.held.extend_from_slice(tokens);
        Ok(())
    }

    fn wanted(&self, ticket: &Ticket) -> Result<(), Left> {
        if ticket.events.is_closed() || self.queue.closed() { Err(Left) } else { Ok(()) }
    }

    fn send(&self, ticket: &Ticket, event: Event) -> Result<(), Left> {
        self.wanted(ticket)?;
        ticket.events.try_send(Ok(event)).map_err(|_| Left)
    }
}

/// The answer so far.
struct Answer {
    sampler: Sampler,
    stop: Stop,
    utf8: Utf8,
    logprobs: Option<usize>,
    tokens: usize,
    stopped: bool,
}

impl Answer {
    fn new(sampling: &Sampling) -> Self {
        Self {
            sampler: Sampler::new(sampling),
            stop: Stop::new(&sampling.stop),
            utf8: Utf8::default(),
            logprobs: sampling.logprobs.map(usize::from),
            tokens: 0,
            stopped: false,
        }
    }

    /// The event of a chosen token, and whether it completed a stop string.
    fn token(
        &mut self,
        id: u32,
        bytes: &[u8],
        logits: &[f32],
        table: &Tokenizer,
    ) -> Result<(Token, bool), EngineError> {
        let text = match self.stop.push(&self.utf8.push(bytes)) {
            Found::Text(text) => text,
            Found::Stop(text) => {
                self.stopped = true;
                text
            }
        };
        let mut token = Token { text, bytes: bytes.to_vec(), logprob: None, top: Vec::new() };
        if let Some(top) = self.logprobs {
            let found = logprobs(logits, id, top)?;
            token.logprob = Some(found.chosen);
            token.top = found.top.iter().map(|(id, p)| (table.bytes(*id).to_vec(), *p)).collect();
        }
        Ok((token, self.stopped))
    }

    /// Text still held back when the answer ends.
    fn tail(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        match self.stop.push(&self.utf8.finish()) {
            Found::Stop(text) => text,
            Found::Text(text) => text + &self.stop.finish(),
        }
    }
}

/// Length of the common beginning.
fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "../../tests/support/tiny.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing, reason = "shared with the integration tests")]
mod tiny;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::generate::tiny;
    use crate::engine::template::{self, Template};
    use crate::engine::vocabulary;

    const BOMB: u64 = 0xB0_0B00;

    /// A bug in the engine, for the job of this owner.
    pub fn trip(ticket: &Ticket) {
        assert!(ticket.owner != Some(BOMB), "a bug");
    }

    fn worker(queue: &Arc<Queue<Ticket>>) -> Worker {
        let folder = tempfile::tempdir().unwrap();
        let model = Model::load(&tiny::write(folder.path()), 256, 1).unwrap();
        let vocabulary = vocabulary::read(model.metadata()).unwrap();
        let tokenizer = Arc::new(Tokenizer::new(&vocabulary).unwrap());
        let template = Template::choose(None, &vocabulary, &tokenizer).unwrap();
        assert_eq!(template.name(), "chatml");
        Worker {
            cache: model.new_cache(),
            ends: template::ends(&vocabulary, &tokenizer),
            opening: Vec::new(),
            queue: queue.clone(),
            held: Vec::new(),
            owner: None,
            reused: 0,
            tokenizer,
            model,
        }
    }

    type Events = mpsc::Receiver<Result<Event, EngineError>>;

    fn ticket(prompt: Vec<u32>, owner: Option<u64>) -> (Ticket, Events) {
        let (events, receiver) = mpsc::channel(10);
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        (Ticket { prompt, sampling, limit: 4, events, submitted: clock::now(), owner }, receiver)
    }

    fn last(mut events: Events) -> Option<Result<Event, EngineError>> {
        std::iter::from_fn(|| events.blocking_recv()).last()
    }

    #[test]
    fn a_panic_or_a_failed_step_ends_its_own_job_only() {
        let queue = Arc::new(Queue::new(8));
        let worker = worker(&queue);
        let prompt: Vec<u32> = (40..60).collect();
        let mut waiting = Vec::new();
        for (prompt, owner) in [
            (prompt.clone(), Some(1)),
            (prompt.clone(), Some(BOMB)),
            (prompt.clone(), Some(1)),
            (vec![40, u32::MAX], Some(1)),
            (prompt.clone(), Some(1)),
        ] {
            let (ticket, events) = ticket(prompt, owner);
            queue.push(ticket).unwrap();
            waiting.push(events);
        }
        let thread = std::thread::spawn(move || worker.run());
        let ends: Vec<_> = waiting.into_iter().map(last).collect();
        let good = |end: &Option<Result<Event, EngineError>>| matches!(end, Some(Ok(Event::Done(done))) if done.output_tokens == 4);
        let failed = |end: &Option<Result<Event, EngineError>>| matches!(end, Some(Err(EngineError::Step(_))));
        assert!(good(&ends[0]) && good(&ends[2]) && good(&ends[4]), "{ends:?}");
        assert!(failed(&ends[1]) && failed(&ends[3]), "{ends:?}");
        queue.close();
        thread.join().unwrap();
    }

    #[test]
    fn a_job_nobody_waits_for_takes_no_step() {
        let queue = Arc::new(Queue::new(8));
        let mut worker = worker(&queue);
        let (ticket, events) = ticket((40..60).collect(), None);
        drop(events);
        assert!(matches!(worker.job(&ticket), Err(End::Left)));
        assert_eq!(worker.cache.len(), 0);
    }

    #[test]
    fn what_is_cached_for_one_owner_is_not_used_for_another() {
        let queue = Arc::new(Queue::new(8));
        let mut worker = worker(&queue);
        worker.opening = (40..45).collect();
        let prompt: Vec<u32> = (40..60).collect();
        let mut kept = |owner| {
            let (ticket, _events) = ticket(prompt.clone(), owner);
            let held = worker.held.clone();
            let mut logits = Vec::new();
            worker.prefill(&ticket, &mut logits).map_err(|_| ()).unwrap();
            assert_eq!(worker.held, prompt);
            (held.len(), worker.reused)
        };
        assert_eq!(kept(Some(1)), (0, 0));
        assert_eq!(kept(Some(1)), (20, 19));
        assert_eq!(kept(Some(2)), (20, 5));
        assert_eq!(kept(None), (20, 5));
        assert_eq!(kept(None), (20, 5));
    }
}
