//! The answer on its way out: the handler's body, watched; or a body of our own.
//!
//! An `Err` or a panic in the handler's body aborts the response: on HTTP/1 the connection closes without the last
//! chunk, on HTTP/2 the stream is reset. A broken answer never looks finished.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use super::watch::{Answering, Owed};
use crate::fault::{Fault, Kind};

pin_project! {
    /// A response body that says when it ends.
    pub struct Answer<B> {
        #[pin]
        from: From<B>,
        // Dropped with the last byte.
        answering: Answering,
        // On HTTP/2 only.
        owed: Option<Owed>,
        // The fault that breaks the answer off, held back for one turn.
        broken: Option<Fault>,
        // The connection's turn in which the body was found to have nothing yet.
        idle_in: u64,
    }
}

pin_project! {
    #[project = FromProjected]
    enum From<B> {
        Handler { #[pin] body: B },
        Edge { #[pin] body: Full<Bytes> },
    }
}

impl<B> Answer<B> {
    /// The handler's answer.
    pub fn handler(response: Response<B>, answering: Answering, owed: Option<Owed>) -> Response<Self> {
        response.map(|body| Self { from: From::Handler { body }, answering, owed, broken: None, idle_in: 0 })
    }

    /// An answer of our own.
    pub fn edge(fault: &Fault, answering: Answering, owed: Option<Owed>) -> Response<Self> {
        fault_response(fault).map(|body| Self { from: From::Edge { body }, answering, owed, broken: None, idle_in: 0 })
    }
}

/// A fault as a whole response in OpenAI's shape.
pub fn fault_response(fault: &Fault) -> Response<Full<Bytes>> {
    let mut response = json(fault.status(), &fault.body());
    if let Some(delay) = fault.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
        response.headers_mut().insert("retry-after-ms", HeaderValue::from(delay.as_millis() as u64));
    }
    response
}

/// A whole JSON response.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl<B: Body<Data = Bytes, Error = Fault>> Body for Answer<B> {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = self.project();
        if let Some(fault) = this.broken.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        let turn = this.answering.watch().turn();
        if turn > 0 && *this.idle_in == turn {
            // hyper asks again in the same turn. Had anything come since, it would have woken the task for another one.
            return Poll::Pending;
        }
        if let Some(owed) = this.owed {
            owed.taken();
        }
        let polled = match this.from.project() {
            FromProjected::Handler { body } => {
                catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))).unwrap_or_else(|_| {
                    tracing::error!("a panic while an answer was streaming");
                    Poll::Ready(Some(Err(Fault::new(Kind::Internal, "internal error"))))
                })
            }
            FromProjected::Edge { body } => body.poll_frame(cx).map_err(|never| match never {}),
        };
        if let Poll::Ready(Some(Err(fault))) = polled {
            // hyper throws away what it has not written when a body fails. The turn in between lets it write the parts
            // before, among them the event that tells the client what went wrong.
            *this.broken = Some(fault);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match &polled {
            Poll::Pending => *this.idle_in = turn,
            Poll::Ready(Some(Ok(_))) => {
                if let Some(owed) = this.owed {
                    owed.gave(this.answering.watch());
                }
            }
            Poll::Ready(_) => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            From::Handler { body } => body.is_end_stream(),
            From::Edge { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Handler { body } => body.size_hint(),
            From::Edge { body } => body.size_hint(),
        }
    }
}
