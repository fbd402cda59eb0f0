//! What a backend gives back, in the client's wire format.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::lease::Lease;
use super::refusal;
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
    /// The stream ends with a usage event that the client did not ask for: the relay takes it out.
    pub hide_usage: bool,
    /// The place taken at the backend, and where to say how it went; none for a backend without a breaker.
    pub lease: Option<Lease>,
}

impl Answer {
    /// A complete JSON answer.
    pub fn full(status: StatusCode, body: Bytes, usage: Usage) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Self { status, headers, body: Body::Full(body), usage, hide_usage: false, lease: None }
    }

    /// A stream of server-sent events with status 200.
    pub fn stream(events: impl Stream<Item = Result<Bytes, Fault>> + Send + 'static, usage: Usage) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]);
        let body = Body::Stream(Box::pin(events));
        Self { status: StatusCode::OK, headers, body, usage, hide_usage: false, lease: None }
    }

    /// An upstream's refusal that another backend may not share: its own trouble, or too many requests.
    pub fn worth_another_backend(&self) -> bool {
        self.status.is_server_error() || matches!(self.status.as_u16(), 408 | 429)
    }

    /// An upstream's refusal of a prompt that does not fit its context window: a larger one may take it.
    pub fn too_long(&self) -> bool {
        refusal::is_too_long(self)
    }
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
