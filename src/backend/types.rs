//! What a backend gives back, in the client's wire format.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, StatusCode};

use crate::fault::Fault;

/// An answer whose head is known.
pub struct Answer {
    /// Status for the client; an upstream's own error status is passed on.
    pub status: StatusCode,
    /// Allow-listed headers for the client.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// What is known of tokens and timing so far; a stream's is completed by its [`Observer`](crate::api::sse).
    pub usage: Usage,
}

/// Bytes of an answer: OpenAI JSON, or OpenAI SSE.
pub enum Body {
    /// Complete.
    Full(Bytes),
    /// Server-sent events as they come. An `Err` ends the stream as broken; a clean end is `None`.
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>),
}

/// Tokens of an answer, with where the counts come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Prompt tokens.
    pub input: Option<u32>,
    /// Generated tokens.
    pub output: Option<u32>,
    /// Where they come from.
    pub source: Source,
    /// `finish_reason` of the first choice.
    pub finish: Option<String>,
    /// Model that the upstream says answered.
    pub model: Option<String>,
}

/// Where token counts come from, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The upstream's `usage`.
    Upstream,
    /// The embedded engine's own count.
    Engine,
    /// Counted deltas: a stream that was cut.
    Deltas,
    /// Bytes / 4.
    #[default]
    Estimated,
}

impl Source {
    /// Word in journal and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Engine => "engine",
            Self::Deltas => "deltas",
            Self::Estimated => "estimated",
        }
    }
}
