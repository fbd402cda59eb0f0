//! The embedded engine as a backend: a query becomes a job, its events become OpenAI JSON or SSE.
//!
//! Invariant: what the engine cannot honour is refused by name, never ignored. Dropping the future or the body stops the
//! generation within one step; the wait for the first token includes the wait in the queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::StatusCode;

use crate::api::query::{Endpoint, Query};
use crate::backend::render::{Head, Logprobs};
use crate::backend::types::{Answer, Source, Usage};
use crate::clock;
use crate::config::checked::Waits;
use crate::engine::types::{Done, EngineError, Event, Finish, Job, Prompt};
use crate::engine::{Engine, Generation};
use crate::fault::{Fault, Kind};
use crate::verify::Trace;

/// A loaded model that answers queries.
#[derive(Clone)]
pub struct Embedded {
    name: Arc<str>,
    engine: Arc<Engine>,
    waits: Waits,
}

/// Prompts over this many bytes are encoded on a thread of their own: shorter ones take a few milliseconds at most.
const INLINE_ENCODE_BYTES: usize = 16 * 1024;
/// OpenAI's limit for the older endpoint when none is given.
const COMPLETIONS_MAX_TOKENS: u32 = 16;
/// Tokens that a chat template puts around one message, at most; a default system message counts as another.
const MARKS_PER_MESSAGE: usize = 64;
/// When to come back after the queue was full: about the time of a short answer.
const RETRY_AFTER: Duration = Duration::from_secs(2);

impl Embedded {
    /// `name` is what answers call the model: `local/NAME`.
    pub fn new(name: Arc<str>, engine: Arc<Engine>, waits: Waits) -> Self {
        Self { name, engine, waits }
    }

    /// The engine, for its queue and its token counts.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Answers a query. Resolves once the first token is there, or for an answer in one piece once all are.
    pub async fn ask(&self, query: &Query) -> Result<Answer, Fault> {
        self.answer(query, None).await
    }

    /// The same with every token in the trace, before the bytes that it becomes are taken.
    pub async fn ask_watched(&self, query: &Query, trace: &Trace) -> Result<Answer, Fault> {
        self.answer(query, Some(trace.clone())).await
    }

    async fn answer(&self, query: &Query, trace: Option<Trace>) -> Result<Answer, Fault> {
        if let Some(fault) = refused(query) {
            return Err(fault);
        }
        let asked = clock::now();
        let mut generation = self.submit(query).await?;
        let late = |_| Fault::new(Kind::FirstTokenTimeout, format!("{} gave no token in time", self.name));
        let first = tokio::time::timeout_at(asked + self.waits.first_token, generation.next()).await.map_err(late)?;
        let first = first.unwrap_or(Err(EngineError::Stopped)).map_err(|e| fault(e, query.endpoint))?;
        let head = self.head(query);
        if query.stream {
            let usage = self.usage(generation.input_tokens(), None);
            let answer = Answer::stream(events(head, first, generation, trace), usage);
            return Ok(Answer { hide_usage: !query.include_usage, ..answer });
        }
        let late = |_| Fault::new(Kind::TotalTimeout, format!("{} did not finish in time", self.name));
        let whole = tokio::time::timeout_at(asked + self.waits.total, collect(&head, first, generation, trace));
        let (body, done) = whole.await.map_err(late)??;
        Ok(Answer::full(StatusCode::OK, body, self.usage(done.input_tokens, Some(&done))))
    }

    async fn submit(&self, query: &Query) -> Result<Generation, Fault> {
        let job = job(query);
        let endpoint = query.endpoint;
        let submitted = if query.body.len() <= INLINE_ENCODE_BYTES {
            self.engine.submit(job)
        } else {
            let engine = self.engine.clone();
            let encoded = tokio::task::spawn_blocking(move || engine.submit(job)).await;
            encoded.unwrap_or_else(|_| Err(EngineError::Step("the prompt could not be encoded".to_owned())))
        };
        submitted.map_err(|e| fault(e, endpoint))
    }

    fn head(&self, query: &Query) -> Head {
        let prefix = match query.endpoint {
            Endpoint::Chat => "chatcmpl",
            Endpoint::Completions => "cmpl",
        };
        Head {
            endpoint: query.endpoint,
            id: format!("{prefix}-{}", clock::id().simple()),
            created: clock::unix_ms() / 1000,
            model: self.name.clone(),
            include_usage: query.include_usage,
        }
    }

    /// Why this query cannot be answered here, before it is routed: a field the engine cannot honour, or a prompt that leaves
    /// no room in the context window. Only a prompt that could be too long is counted: a token is at least one byte.
    pub fn refuses(&self, query: &Query) -> Option<Fault> {
        if let Some(fault) = refused(query) {
            return Some(fault);
        }
        let bytes: usize = query.messages.iter().map(|m| m.content.len() + MARKS_PER_MESSAGE).sum();
        let context = self.engine.context();
        if bytes + MARKS_PER_MESSAGE < usize::try_from(context).unwrap_or(usize::MAX) {
            return None;
        }
        let input = self.engine.count(&job(query).prompt);
        (input >= context).then(|| fault(EngineError::Context { input, context }, query.endpoint))
    }

    fn usage(&self, input: u32, done: Option<&Done>) -> Usage {
        Usage {
            input: Some(input),
            output: done.map(|d| d.output_tokens),
            source: Source::Engine,
            finish: done.map(|d| d.finish.name().to_owned()),
            model: Some(self.name.to_string()),
        }
    }
}

/// Why the embedded engine cannot answer this query: a 400 that names the field.
pub fn refused(query: &Query) -> Option<Fault> {
    let needs = query.needs;
    let by_need = [
        (needs.tools, "tools"),
        (needs.images, "messages"),
        (needs.audio, "messages"),
        (needs.json, "response_format"),
        (needs.many, "n"),
    ];
    let field = query.beyond_embedded.first().map(String::as_str);
    if let Some(field) = field.or_else(|| by_need.iter().find(|(needed, _)| *needed).map(|(_, field)| *field)) {
        let message = format!("the embedded engine cannot honour \"{field}\"; leave it out or ask a backend that can");
        return Some(Fault::new(Kind::Unsupported, message).param(field));
    }
    if query.sampling.max_tokens == Some(0) {
        return Some(Fault::new(Kind::BadRequest, "\"max_tokens\" must be at least 1").param("max_tokens"));
    }
    None
}

fn job(query: &Query) -> Job {
    let mut sampling = query.sampling.clone();
    let prompt = match query.endpoint {
        Endpoint::Chat => Prompt::Chat(query.messages.clone()),
        Endpoint::Completions => {
            sampling.max_tokens = sampling.max_tokens.or(Some(COMPLETIONS_MAX_TOKENS));
            Prompt::Text(query.messages.iter().map(|m| m.content.as_str()).collect())
        }
    };
    Job { prompt, sampling, owner: query.session }
}

/// An engine error as the caller sees it.
fn fault(error: EngineError, endpoint: Endpoint) -> Fault {
    let param = match endpoint {
        Endpoint::Chat => "messages",
        Endpoint::Completions => "prompt",
    };
    match &error {
        EngineError::QueueFull(_) => Fault::new(Kind::Overloaded, error.to_string()).retry_after(RETRY_AFTER),
        EngineError::Context { .. } => Fault::new(Kind::ContextLength, error.to_string()).param(param),
        EngineError::Empty => Fault::new(Kind::BadRequest, error.to_string()).param(param),
        EngineError::Load(_) | EngineError::Step(_) | EngineError::Stopped => {
            Fault::new(Kind::Engine, "the embedded engine failed").because(error)
        }
    }
}

/// All events in one body.
async fn collect(
    head: &Head,
    first: Event,
    mut generation: Generation,
    trace: Option<Trace>,
) -> Result<(Bytes, Done), Fault> {
    let (mut text, mut logprobs, mut next) = (String::new(), Logprobs::default(), first);
    loop {
        note(trace.as_ref(), &next);
        match next {
            Event::Token(token) => {
                text.push_str(&token.text);
                logprobs.push(token);
            }
            Event::Done(done) => {
                text.push_str(&done.tail);
                return Ok((head.whole(&text, logprobs.take(head.endpoint), &done), done));
            }
        }
        let event = generation.next().await.unwrap_or(Err(EngineError::Stopped));
        next = event.map_err(|e| fault(e, head.endpoint))?;
    }
}

/// The events of a stream. An error ends it as broken: no finish, no `[DONE]`.
fn events(
    head: Head,
    first: Event,
    generation: Generation,
    trace: Option<Trace>,
) -> impl Stream<Item = Result<Bytes, Fault>> + Send {
    let rest = generation.map({
        let endpoint = head.endpoint;
        move |event| event.map_err(|e| fault(e, endpoint))
    });
    let opening = head.opening();
    let mut logprobs = Logprobs::default();
    let pieces = stream::iter([Ok(first)]).chain(rest).filter_map(move |event| {
        if let Ok(event) = &event {
            note(trace.as_ref(), event);
        }
        std::future::ready(match event {
            Err(fault) => Some(Err(fault)),
            Ok(Event::Token(token)) => {
                let text = token.text.clone();
                logprobs.push(token);
                let values = logprobs.take(head.endpoint);
                (!text.is_empty() || !values.is_null()).then(|| Ok(head.piece(&text, values)))
            }
            Ok(Event::Done(done)) => Some(Ok(ending(&head, &done))),
        })
    });
    stream::iter(opening.map(Ok)).chain(pieces)
}

/// Writes an event down for an answer that will be checked.
fn note(trace: Option<&Trace>, event: &Event) {
    let Some(trace) = trace else { return };
    match event {
        Event::Token(token) => trace.piece(&token.text, [f64::from(token.ln_p)]),
        Event::Done(done) => {
            trace.piece(&done.tail, []);
            trace.end(done.finish == Finish::Length);
        }
    }
}

fn ending(head: &Head, done: &Done) -> Bytes {
    let end = head.ending(done, serde_json::Value::Null);
    if done.tail.is_empty() {
        return end;
    }
    let mut out = head.piece(&done.tail, serde_json::Value::Null).to_vec();
    out.extend_from_slice(&end);
    Bytes::from(out)
}
