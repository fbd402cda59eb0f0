//! Answer to client: every chunk at once, watched by the observer, within the backend's limits.
//!
//! Invariant: a broken stream never ends cleanly. Whatever goes wrong after the first byte, the client gets one error
//! event and then an aborted connection, never `[DONE]`, never a quiet end. What the caller handed in (seat, permits)
//! is held to the last byte, dropping the body drops the upstream connection, and the completion is told exactly once,
//! also by a hang-up. Last stage of the request path.

mod ending;
mod live;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use self::ending::Ending;
use self::live::Live;
use crate::api::error;
use crate::api::sse::Timings;
use crate::backend::types::{Answer, Body, Usage};
use crate::clock::{self, Instant};
use crate::config::checked::Waits;
use crate::journal::record::Outcome;

/// Whole bodies are handed over in pieces of this size, because the connection copies what it is handed.
const PIECE_BYTES: usize = 32 * 1024;

/// When the backend was asked, and what it may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Limits count from here.
    pub asked: Instant,
    /// The backend's limits.
    pub waits: Waits,
}

/// How an answer went, told once when its last byte is gone or nobody wants it any more.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Status sent.
    pub status: StatusCode,
    /// How it ended.
    pub outcome: Outcome,
    /// The fault's code, if there was one.
    pub fault: Option<&'static str>,
    /// Tokens, finish reason and model, as far as they were seen.
    pub usage: Usage,
    /// llama.cpp's own timings, if it sent them.
    pub timings: Option<Timings>,
    /// Bytes handed to the client's connection.
    pub bytes: u64,
    /// When the first byte was handed over.
    pub first_byte: Option<Instant>,
    /// When the first generated content was seen; none if the answer did not stream.
    pub first_token: Option<Instant>,
    /// When it ended.
    pub ended: Instant,
}

/// The body of every response of the data plane.
pub struct RelayBody(Inner);

enum Inner {
    Full { data: Option<Bytes>, ending: Option<Box<Ending>> },
    Live(Box<Live>),
}

/// The stream broke: the connection is aborted after what was sent.
#[derive(Debug)]
pub struct Broken;

/// Turns an answer into a response. `hold` is dropped with the body; `done` is called once, whatever happens.
pub fn relay(
    answer: Answer,
    hold: impl Send + 'static,
    timing: Timing,
    done: impl FnOnce(Completion) + Send + 'static,
) -> Response<RelayBody> {
    let ending = Ending {
        completion: Completion {
            status: answer.status,
            outcome: Outcome::Hangup,
            fault: None,
            usage: answer.usage,
            timings: None,
            bytes: 0,
            first_byte: None,
            first_token: None,
            ended: clock::now(),
        },
        done: Some(Box::new(done)),
        lease: answer.lease,
        _hold: Box::new(hold),
    };
    let live = matches!(answer.body, Body::Stream(_));
    let body = match answer.body {
        Body::Full(data) => Inner::Full { data: Some(data), ending: Some(Box::new(ending)) },
        Body::Stream(events) => Inner::Live(Box::new(Live::new(events, answer.hide_usage, timing, ending))),
    };
    let mut response = Response::new(RelayBody(body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    let headers = response.headers_mut();
    if live {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    } else if answer.status.is_server_error() && !headers.contains_key(http::header::RETRY_AFTER) {
        error::spent(headers);
    }
    response
}

impl RelayBody {
    /// A complete body that nobody accounts for: errors, model lists, health.
    pub fn full(data: impl Into<Bytes>) -> Self {
        Self(Inner::Full { data: Some(data.into()), ending: None })
    }
}

impl HttpBody for RelayBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.0 {
            Inner::Full { data, ending } => {
                let mut piece = data.take().filter(|data| !data.is_empty());
                *data = piece.as_mut().filter(|all| all.len() > PIECE_BYTES).map(|all| all.split_off(PIECE_BYTES));
                if let (Some(ending), Some(piece)) = (ending, &piece) {
                    ending.delivered(piece, data.is_none());
                }
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
            }
            Inner::Live(live) => live.poll(cx).map(|next| next.map(|data| data.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Inner::Full { data: None, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Full { data, .. } => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Inner::Live(_) => SizeHint::default(),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer broke off")
    }
}

impl std::error::Error for Broken {}
