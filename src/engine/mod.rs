//! Embedded local inference: GGUF weights, KV cache, sampling, chat templates by name, a bounded queue.
//!
//! Only this module knows candle. A model file can make loading fail; it cannot make the process fail.
//! One engine runs several sequences together on its own thread, with all its kernel threads; further jobs wait in a
//! queue with a bound, and the one after that is refused.

pub mod acts;
mod answer;
pub mod arch;
pub mod attention;
mod block;
mod byte_level;
pub mod cache;
#[cfg(test)]
mod caching_tests;
#[cfg(test)]
mod company_tests;
pub mod dtype;
pub mod encoder;
mod forward;
mod generate;
pub mod gguf;
#[cfg(test)]
mod gguf_tests;
pub mod matmul;
#[cfg(target_arch = "x86_64")]
mod matmul_avx2;
#[cfg(target_arch = "x86_64")]
mod matmul_avx512;
#[cfg(target_arch = "x86_64")]
mod matmul_frame;
mod matmul_portable;
pub mod metadata;
pub mod model;
#[cfg(test)]
mod oracle;
pub mod packed;
pub mod pieces;
mod plan;
pub mod pointwise;
mod prefixes;
mod queue;
pub mod repack;
mod rope;
mod sample;
mod scratch;
mod sentence_piece;
mod sequence;
mod stop;
pub mod template;
#[cfg(test)]
mod tests;
#[doc(hidden)]
pub mod tiny;
pub mod tokenizer;
pub mod types;
pub mod vocabulary;
pub mod weights;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::clock;
use crate::engine::generate::Worker;
use crate::engine::model::Model;
use crate::engine::plan::Pace;
use crate::engine::prefixes::Prefixes;
use crate::engine::queue::{Queue, Refused};
use crate::engine::sequence::Ticket;
use crate::engine::template::Template;
use crate::engine::tokenizer::{Tokenizer, TooLong};
use crate::engine::types::{Batch, EngineError, Event, Job, KvUse, ModelSpec, Prompt, clamp};

/// A loaded model with its thread. Dropping it stops the thread within one step.
pub struct Engine {
    name: String,
    tokenizer: Arc<Tokenizer>,
    template: Template,
    bos: Option<u32>,
    context: usize,
    queue: Arc<Queue<Ticket>>,
    report: Arc<Mutex<KvUse>>,
}

/// Memory for keys and values when none is configured and all streams at their full windows would need more.
const KV_DEFAULT_BYTES: usize = 2 << 30;

impl Engine {
    /// Loads a model and starts its thread. Blocks for as long as the file takes to read and repack.
    pub fn load(spec: &ModelSpec) -> Result<Self, EngineError> {
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let model = Model::load(&spec.path, spec.context, spec.threads)?.with_attention(&spec.attention)?;
            let vocabulary = vocabulary::read(model.metadata())?;
            let tokenizer = Tokenizer::new(&vocabulary)?;
            let template = Template::choose(spec.template.as_deref(), &vocabulary, &tokenizer)?;
            Ok((model, vocabulary, tokenizer, template))
        }));
        let broken = || {
            EngineError::Load(format!(
                "{}: the file is broken in a way that loading did not foresee",
                spec.path.display()
            ))
        };
        let (model, vocabulary, tokenizer, template) = loaded.map_err(|_| broken())??;
        let tokenizer = Arc::new(tokenizer);
        let queue = Arc::new(Queue::new(spec.queue, spec.batch.streams));
        let context = model.context();
        let kv_bound = kv_bound(&spec.batch, model.cache_bytes(context), context)?;
        let report = Arc::new(Mutex::new(KvUse { bound: kv_bound, ..KvUse::default() }));
        let worker = Worker {
            ends: template::ends(&vocabulary, &tokenizer),
            openings: vec![template.render(&tokenizer, &[], context).unwrap_or_default()],
            tokenizer: tokenizer.clone(),
            queue: queue.clone(),
            pace: Pace::new(spec.batch.stall),
            kv_bound,
            report: report.clone(),
            running: Vec::new(),
            prefixes: Prefixes::default(),
            reused: 0,
            model,
        };
        std::thread::Builder::new()
            .name(format!("engine {}", spec.name))
            .spawn(move || worker.run())
            .map_err(|e| EngineError::Load(format!("the engine's thread did not start: {e}")))?;
        let bos = vocabulary.opening();
        Ok(Self { name: spec.name.clone(), tokenizer, template, bos, context, queue, report })
    }

    /// Prompt tokens, template included. Stops counting once the context is passed: a larger result is a lower bound.
    pub fn count(&self, prompt: &Prompt) -> u32 {
        let tokens = self.encode(prompt).map_or(self.context.saturating_add(1), |ids| ids.len());
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// Queues a job; checks first that it fits. Takes a millisecond per few thousand prompt tokens.
    pub fn submit(&self, job: Job) -> Result<Generation, EngineError> {
        let too_long = |input: usize| EngineError::Context { input: clamp(input), context: clamp(self.context) };
        let prompt = self.encode(&job.prompt).map_err(|TooLong| too_long(self.context.saturating_add(1)))?;
        let room = self.context.saturating_sub(prompt.len());
        if room == 0 {
            return Err(too_long(prompt.len()));
        }
        if prompt.is_empty() {
            return Err(EngineError::Empty);
        }
        let wanted = job.sampling.max_tokens.map_or(room, |n| usize::try_from(n).unwrap_or(room));
        let limit = wanted.clamp(1, room);
        let input_tokens = clamp(prompt.len());
        // Room for every token, the end and an error: the thread never waits for a reader.
        let (events, receiver) = mpsc::channel(limit.saturating_add(2));
        let ticket =
            Ticket { prompt, sampling: job.sampling, limit, events, submitted: clock::now(), owner: job.owner };
        let place = self.queue.push(ticket).map_err(|refused| match refused {
            Refused::Full => EngineError::QueueFull(self.queue.bound()),
            Refused::Closed => EngineError::Stopped,
        })?;
        Ok(Generation { events: receiver, queue: self.queue.clone(), place, input_tokens, ended: false })
    }

    /// Name in configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Window in tokens, prompt and answer together.
    pub fn context(&self) -> u32 {
        clamp(self.context)
    }

    /// Name of the chat template in use.
    pub fn template(&self) -> &'static str {
        self.template.name()
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Jobs that run.
    pub fn running(&self) -> usize {
        self.queue.running()
    }

    /// Jobs that may run at a time.
    pub fn streams(&self) -> usize {
        self.queue.streams()
    }

    /// What keys and values take, as of the last step.
    pub fn kv(&self) -> KvUse {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more job would be refused.
    pub fn full(&self) -> bool {
        self.queue.full()
    }

    fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>, TooLong> {
        match prompt {
            Prompt::Chat(messages) => self.template.render(&self.tokenizer, messages, self.context),
            Prompt::Text(text) => {
                let mut ids: Vec<u32> = self.bos.into_iter().collect();
                self.tokenizer.encode(text, self.context, &mut ids)?;
                Ok(ids)
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The events of one job. Dropping it takes the job out of the queue, or stops it within one step.
pub struct Generation {
    events: mpsc::Receiver<Result<Event, EngineError>>,
    queue: Arc<Queue<Ticket>>,
    place: u64,
    input_tokens: u32,
    ended: bool,
}

impl Generation {
    /// Prompt tokens, template included.
    pub fn input_tokens(&self) -> u32 {
        self.input_tokens
    }
}

impl Stream for Generation {
    type Item = Result<Event, EngineError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = self.events.poll_recv(cx);
        if let Poll::Ready(event) = next {
            let event = event.unwrap_or(Err(EngineError::Stopped));
            self.ended = matches!(event, Err(_) | Ok(Event::Done(_)));
            return Poll::Ready(Some(event));
        }
        Poll::Pending
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.events.close();
        drop(self.queue.remove(self.place));
    }
}

/// Bytes that keys and values may take, where one whole context takes `one`.
fn kv_bound(batch: &Batch, one: usize, context: usize) -> Result<usize, EngineError> {
    let Some(asked) = batch.kv_memory else {
        return Ok(one.saturating_mul(batch.streams.max(1)).min(KV_DEFAULT_BYTES.max(one)));
    };
    let bound = usize::try_from(asked).unwrap_or(usize::MAX);
    if bound < one {
        return Err(EngineError::Load(format!(
            "kv_memory of {bound} bytes does not hold one context of {context} tokens: give it {one} or more, or a \
             smaller context"
        )));
    }
    Ok(bound)
}
