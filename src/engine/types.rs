//! What goes into the engine and what comes out.
//!
//! Invariant: `Debug` of everything here shows sizes, never text of a prompt or an answer.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::api::query::{Message, Sampling};
use crate::config::attention::Attention;

/// A model to load.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// Name in configuration.
    pub name: String,
    /// The GGUF file.
    pub path: PathBuf,
    /// Context window to allocate; at most the file's own.
    pub context: u32,
    /// Chat template by name; `None` picks one by architecture and vocabulary.
    pub template: Option<String>,
    /// Threads of the kernels; 0 is one per core.
    pub threads: usize,
    /// Jobs that may wait; one more is refused with [`EngineError::QueueFull`].
    pub queue: usize,
    /// How it attends.
    pub attention: Attention,
    /// How jobs share the engine.
    pub batch: Batch,
}

/// How jobs share an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Jobs that run at a time.
    pub streams: usize,
    /// Bytes for keys and values of all jobs and of kept beginnings; at least one context's. `None` is enough for all
    /// streams, up to 2 GiB or one context.
    pub kv_memory: Option<u64>,
    /// How long a step may take that reads a prompt beside streams that speak.
    pub stall: Duration,
}

impl Default for Batch {
    /// Eight streams; steps of 100 ms, which a reader of an answer hardly notices.
    fn default() -> Self {
        Self { streams: 8, kv_memory: None, stall: Duration::from_millis(100) }
    }
}

/// What keys and values take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvUse {
    /// Most that may be taken.
    pub bound: usize,
    /// Set aside for running jobs, up to their token limits.
    pub promised: usize,
    /// Of that, taken.
    pub running: usize,
    /// Taken by kept beginnings, which give way to jobs.
    pub kept: usize,
    /// Kept beginnings.
    pub prefixes: usize,
    /// Prompt tokens that came from a cache, since the model was loaded.
    pub reused_tokens: u64,
}

/// What to generate from.
#[derive(Clone)]
pub enum Prompt {
    /// Rendered with the model's chat template.
    Chat(Vec<Message>),
    /// Used as it is.
    Text(String),
}

/// One generation.
#[derive(Clone, Debug)]
pub struct Job {
    /// Input.
    pub prompt: Prompt,
    /// Settings.
    pub sampling: Sampling,
    /// Whose conversation this is: the keys and values of a common beginning are used again only for the same owner, so that
    /// nobody can guess another's prompt from how fast his own is read. `None` shares only the template's opening.
    pub owner: Option<u64>,
}

/// One step of a generation. Text arrives in whole UTF-8 characters.
#[derive(Clone, Debug)]
pub enum Event {
    /// A generated token.
    Token(Token),
    /// The last event.
    Done(Done),
}

/// A generated token.
#[derive(Clone)]
pub struct Token {
    /// Text it added; may be empty while a character or a possible stop string is incomplete.
    pub text: String,
    /// The token's own bytes, for `logprobs.content[].bytes`.
    pub bytes: Vec<u8>,
    /// ln P over the full vocabulary at temperature 1: drawing it needs this anyway.
    pub ln_p: f32,
    /// The same for whoever asked for log-probabilities.
    pub logprob: Option<f32>,
    /// Most likely alternatives, best first: bytes and ln P.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// How a generation ended.
#[derive(Clone, PartialEq)]
pub struct Done {
    /// `stop` or `length`.
    pub finish: Finish,
    /// Text held back for a stop string that did not come.
    pub tail: String,
    /// Prompt tokens, template included.
    pub input_tokens: u32,
    /// Of those, how many came from a cache.
    pub reused_tokens: u32,
    /// Generated tokens.
    pub output_tokens: u32,
    /// Mean ln P of the generated tokens, the one that ended the answer included, at temperature 1.
    pub mean_logprob: f32,
    /// The lowest of them.
    pub min_logprob: f32,
    /// Seconds of prefill.
    pub prefill_s: f64,
    /// Seconds of decode.
    pub decode_s: f64,
    /// Seconds in the queue.
    pub queue_s: f64,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// End-of-turn token or a stop string.
    Stop,
    /// Token limit or context window.
    Length,
}

impl Finish {
    /// OpenAI's `finish_reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chat(messages) => f.debug_tuple("Chat").field(messages).finish(),
            Self::Text(text) => f.debug_struct("Text").field("bytes", &text.len()).finish(),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("bytes", &self.bytes.len())
            .field("logprob", &self.logprob)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done")
            .field("finish", &self.finish)
            .field("input_tokens", &self.input_tokens)
            .field("output_tokens", &self.output_tokens)
            .finish_non_exhaustive()
    }
}

/// Why the engine refused or failed. Messages hold no prompt text.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The file cannot be used; says which file, what is wrong and what to do.
    #[error("{0}")]
    Load(String),
    /// The queue's bound is reached.
    #[error("the model's queue of {0} is full")]
    QueueFull(usize),
    /// Prompt and answer do not fit.
    #[error(
        "the prompt has {input} tokens or more; with at least one token of answer it does not fit the context of {context}"
    )]
    Context {
        /// Prompt tokens.
        input: u32,
        /// Window.
        context: u32,
    },
    /// Nothing to generate from.
    #[error("the prompt is empty")]
    Empty,
    /// A step failed.
    #[error("the engine failed: {0}")]
    Step(String),
    /// The engine's thread is gone.
    #[error("the engine has stopped")]
    Stopped,
}

/// A number of tokens as the API counts them.
pub fn clamp(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
