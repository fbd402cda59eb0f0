//! The one error type of the request path: what happened, whose fault it is, and what follows from that.
//!
//! Status code, OpenAI error shape, retry and log level are functions of a [`Fault`] and are decided here only.
//! A fault's message is written by us for the caller: it never holds a prompt, an answer, a key or an upstream host.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is not well formed or a field has a bad value.
    BadRequest,
    /// A field asks for something that no eligible backend can do.
    Unsupported,
    /// Prompt and requested output do not fit any eligible backend's context window.
    ContextLength,
    /// No or unknown client key.
    Unauthorized,
    /// The key is known but may not do this; or a foreign Host or Origin reached a loopback listener.
    Forbidden,
    /// Path that does not exist.
    NotFound,
    /// Known path, wrong method.
    Method,
    /// Model name that is neither a backend, an alias nor `auto`.
    ModelNotFound,
    /// Body over the limit.
    TooLarge,
    /// Request head over its limit of bytes or fields.
    HeadTooLarge,
    /// The body stopped arriving.
    SlowBody,
    /// A queue or the concurrency limit is full.
    Overloaded,
    /// No backend is eligible for this query.
    NoBackend,
    /// The upstream could not be reached.
    Connect,
    /// No first token in time.
    FirstTokenTimeout,
    /// The stream stopped between tokens.
    GapTimeout,
    /// The answer took longer than the total limit.
    TotalTimeout,
    /// The upstream closed before the answer was complete.
    UpstreamCut,
    /// The upstream sent something that is not HTTP, JSON or SSE as agreed.
    UpstreamProtocol,
    /// The embedded engine failed.
    Engine,
    /// A bug of ours.
    Internal,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The caller.
    Client,
    /// A backend.
    Upstream,
    /// This program.
    Us,
}

/// Whether another attempt makes sense, and where the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Another attempt would fail alike.
    Never,
    /// Another backend may be tried while nothing was sent to the client.
    BeforeFirstByte,
    /// The client may come back after a delay.
    AfterDelay,
}

/// An error on the request path. `Debug` and `Display` show kind and message, never a cause's text from a peer.
pub struct Fault {
    /// What happened.
    pub kind: Kind,
    /// For the caller; ours, never a peer's text.
    pub message: String,
    /// The request field at fault, as a JSON path.
    pub param: Option<String>,
    /// When to come back, for [`Kind::Overloaded`] and [`Kind::NoBackend`].
    pub retry_after: Option<Duration>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault with a message for the caller.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, retry_after: None, cause: None }
    }

    /// Names the request field at fault.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>) -> Self {
        self.param = Some(name.into());
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Keeps the cause for `source()`.
    #[must_use]
    pub fn because(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self.kind {
            Kind::BadRequest
            | Kind::Unsupported
            | Kind::ContextLength
            | Kind::Unauthorized
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::Method
            | Kind::ModelNotFound
            | Kind::TooLarge
            | Kind::HeadTooLarge
            | Kind::SlowBody => Blame::Client,
            Kind::Connect
            | Kind::FirstTokenTimeout
            | Kind::GapTimeout
            | Kind::TotalTimeout
            | Kind::UpstreamCut
            | Kind::UpstreamProtocol => Blame::Upstream,
            Kind::Overloaded | Kind::NoBackend | Kind::Engine | Kind::Internal => Blame::Us,
        }
    }

    /// The only place that picks a status.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            Kind::BadRequest | Kind::Unsupported | Kind::ContextLength => StatusCode::BAD_REQUEST,
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound | Kind::ModelNotFound => StatusCode::NOT_FOUND,
            Kind::Method => StatusCode::METHOD_NOT_ALLOWED,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Kind::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Kind::Overloaded | Kind::NoBackend => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Connect | Kind::UpstreamCut | Kind::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Kind::FirstTokenTimeout | Kind::GapTimeout | Kind::TotalTimeout => StatusCode::GATEWAY_TIMEOUT,
            Kind::Engine | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        match self.kind {
            Kind::Connect | Kind::FirstTokenTimeout | Kind::UpstreamCut | Kind::UpstreamProtocol | Kind::Engine => {
                Retry::BeforeFirstByte
            }
            Kind::Overloaded | Kind::NoBackend => Retry::AfterDelay,
            _ => Retry::Never,
        }
    }

    /// OpenAI's `type`.
    pub fn type_name(&self) -> &'static str {
        match self.blame() {
            Blame::Client if self.kind == Kind::Unauthorized => "authentication_error",
            Blame::Client if self.kind == Kind::Forbidden => "permission_error",
            Blame::Client => "invalid_request_error",
            Blame::Upstream => "upstream_error",
            Blame::Us => "server_error",
        }
    }

    /// OpenAI's `code`, also the label in metrics and journal.
    pub fn code(&self) -> &'static str {
        match self.kind {
            Kind::BadRequest => "bad_request",
            Kind::Unsupported => "unsupported_parameter",
            Kind::ContextLength => "context_length_exceeded",
            Kind::Unauthorized => "invalid_api_key",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not_found",
            Kind::Method => "method_not_allowed",
            Kind::ModelNotFound => "model_not_found",
            Kind::TooLarge => "request_too_large",
            Kind::HeadTooLarge => "request_head_too_large",
            Kind::SlowBody => "request_timeout",
            Kind::Overloaded => "overloaded",
            Kind::NoBackend => "no_backend",
            Kind::Connect => "upstream_unreachable",
            Kind::FirstTokenTimeout => "first_token_timeout",
            Kind::GapTimeout => "stream_stalled",
            Kind::TotalTimeout => "total_timeout",
            Kind::UpstreamCut => "upstream_cut",
            Kind::UpstreamProtocol => "upstream_protocol",
            Kind::Engine => "engine_failed",
            Kind::Internal => "internal",
        }
    }

    /// The body in OpenAI's error shape: `{"error":{"message","type","param","code"}}`.
    pub fn body(&self) -> serde_json::Value {
        json!({ "error": {
            "message": self.message,
            "type": self.type_name(),
            "param": self.param,
            "code": self.code(),
        }})
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.message)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("kind", &self.kind).field("message", &self.message).finish_non_exhaustive()
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|c| c as &(dyn Error + 'static))
    }
}
