//! Answer to client: every chunk at once, watched by the observer, within the backend's limits.
//!
//! Invariant: a broken stream never ends cleanly. Whatever goes wrong after the first byte, the client gets one error
//! event and then an aborted connection, never `[DONE]`, never a quiet end. What the caller handed in (seat, permits)
//! is held to the last byte, dropping the body drops the upstream connection, and the completion is told exactly once,
//! also by a hang-up. Last stage of the request path.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::api::error;
use crate::api::sse::{Observer, Timings};
use crate::backend::lease::{Lease, Report};
use crate::backend::types::{Answer, Body, Source, Usage};
use crate::clock::{self, Instant};
use crate::config::checked::Waits;
use crate::fault::{Fault, Kind};
use crate::journal::record::Outcome;

/// Time between the error event and the abort, so that the event is on its way before the connection is reset.
const LINGER: Duration = Duration::from_millis(10);
/// After `[DONE]` the upstream may take this long to end its body, so that its connection can be used again.
const AFTER_DONE: Duration = Duration::from_millis(250);

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
                let data = data.take().filter(|data| !data.is_empty());
                if let Some(ending) = ending {
                    ending.delivered(data.as_ref());
                }
                Poll::Ready(data.map(|data| Ok(Frame::data(data))))
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

type Events = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

/// A stream on its way.
struct Live {
    /// None once the upstream is done with: dropping it closes the upstream connection.
    events: Option<Events>,
    observer: Observer,
    timing: Timing,
    /// When the upstream last sent data; a comment is no data.
    progress: Instant,
    timer: Pin<Box<Sleep>>,
    /// The error event is out, the abort follows.
    failing: bool,
    ending: Ending,
}

impl Live {
    fn new(events: Events, hide_usage: bool, timing: Timing, ending: Ending) -> Self {
        let first = timing.asked + timing.waits.first_token.min(timing.waits.total);
        Self {
            events: Some(events),
            observer: Observer::new(hide_usage),
            timing,
            progress: timing.asked,
            timer: Box::pin(tokio::time::sleep_until(first)),
            failing: false,
            ending,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            let Some(events) = &mut self.events else {
                return self.poll_end(cx);
            };
            match events.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(chunk))) => match self.take(chunk) {
                    Ok(out) if out.is_empty() => {}
                    Ok(out) => return Poll::Ready(Some(Ok(self.hand_over(out)))),
                    Err(fault) => return Poll::Ready(Some(Ok(self.break_off(fault)))),
                },
                Poll::Ready(Some(Err(fault))) => match self.broken(fault) {
                    Some(event) => return Poll::Ready(Some(Ok(event))),
                    None => continue,
                },
                Poll::Ready(None) => {
                    let fault = Fault::new(Kind::UpstreamCut, "the answer ended before it was complete");
                    match self.broken(fault) {
                        Some(event) => return Poll::Ready(Some(Ok(event))),
                        None => continue,
                    }
                }
                Poll::Pending => match self.poll_limits(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(fault) => match self.broken(fault) {
                        Some(event) => return Poll::Ready(Some(Ok(event))),
                        None => continue,
                    },
                },
            }
        }
    }

    /// Watches a chunk; what of it may go out now.
    fn take(&mut self, chunk: Bytes) -> Result<Bytes, Fault> {
        let now = clock::now();
        let before = (self.observer.seen().events, self.observer.seen().done, self.has_content());
        let out = self
            .observer
            .feed(chunk)
            .map_err(|_| Fault::new(Kind::UpstreamProtocol, "the backend sent an event larger than any may be"))?;
        if self.observer.seen().events > before.0 || self.observer.in_data() {
            self.progress = now;
        }
        if !before.2 && self.has_content() {
            self.ending.completion.first_token = Some(now);
            let (next, _) = self.deadline();
            self.timer.as_mut().reset(next);
        }
        if !before.1 && self.observer.seen().done {
            self.timer.as_mut().reset(now + AFTER_DONE);
        }
        if now >= self.timing.asked + self.timing.waits.total && !self.observer.seen().done {
            return Err(limit(Kind::TotalTimeout));
        }
        Ok(out)
    }

    fn hand_over(&mut self, out: Bytes) -> Bytes {
        let completion = &mut self.ending.completion;
        completion.bytes += out.len() as u64;
        if completion.first_byte.is_none() {
            completion.first_byte = Some(clock::now());
        }
        out
    }

    fn has_content(&self) -> bool {
        let seen = self.observer.seen();
        seen.deltas > 0 || seen.finish.is_some() || seen.error
    }

    /// The next limit, and what it means when it passes.
    fn deadline(&self) -> (Instant, Kind) {
        let Timing { asked, waits } = self.timing;
        let next = if self.has_content() {
            (self.progress + waits.gap, Kind::GapTimeout)
        } else {
            (asked + waits.first_token, Kind::FirstTokenTimeout)
        };
        let total = (asked + waits.total, Kind::TotalTimeout);
        if total.0 <= next.0 { total } else { next }
    }

    /// One timer for all limits; it is moved when it fires, not with every chunk.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let (at, kind) = self.deadline();
            if self.observer.seen().done || at <= clock::now() {
                return Poll::Ready(limit(kind));
            }
            self.timer.as_mut().reset(at);
        }
        Poll::Pending
    }

    /// The upstream is done with. After `[DONE]` that is a good end however it came about; else the error event.
    fn broken(&mut self, fault: Fault) -> Option<Bytes> {
        let seen = self.observer.seen();
        if seen.done {
            let error = seen.error;
            self.ending.close(self.observer.seen(), if error { Outcome::Upstream } else { Outcome::Ok });
            self.events = None;
            return None;
        }
        // The upstream's own error event went out already; a second one would only hide it.
        if seen.error {
            self.fail(fault, Outcome::Upstream);
            return None;
        }
        Some(self.break_off(fault))
    }

    /// The error event that goes in front of the abort.
    fn break_off(&mut self, fault: Fault) -> Bytes {
        let mut event = BytesMut::new();
        if self.observer.mid_event() {
            event.extend_from_slice(b"\n\n");
        }
        event.extend_from_slice(&error::event(&fault));
        self.fail(fault, Outcome::Fault);
        self.hand_over(event.freeze())
    }

    fn fail(&mut self, fault: Fault, outcome: Outcome) {
        self.ending.completion.fault = Some(fault.code());
        if let Some(lease) = &mut self.ending.lease {
            lease.fault(&fault);
        }
        self.ending.close(self.observer.seen(), outcome);
        self.events = None;
        self.failing = true;
        self.timer.as_mut().reset(clock::now() + LINGER);
    }

    /// Nothing more comes: an abort after a fault, else a clean end.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if !std::mem::take(&mut self.failing) {
            return Poll::Ready(None);
        }
        let linger = self.timer.as_mut().poll(cx).map(|()| Some(Err(Broken)));
        self.failing = linger.is_pending();
        linger
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.events.is_some() {
            // Clients close as soon as they have read `[DONE]`: that is no hang-up.
            let done = self.observer.seen().done;
            self.ending.close(self.observer.seen(), if done { Outcome::Ok } else { Outcome::Hangup });
        }
    }
}

fn limit(kind: Kind) -> Fault {
    let what = match kind {
        Kind::FirstTokenTimeout => "the backend did not begin to answer in time",
        Kind::GapTimeout => "the backend stopped in the middle of its answer",
        _ => "the answer took longer than its total limit",
    };
    Fault::new(kind, what)
}

/// What is held to the end, and who is told of it.
struct Ending {
    completion: Completion,
    done: Option<Box<dyn FnOnce(Completion) + Send>>,
    lease: Option<Lease>,
    _hold: Box<dyn Send>,
}

impl Ending {
    /// A complete body was taken over by the connection.
    fn delivered(&mut self, data: Option<&Bytes>) {
        let Some(data) = data else { return };
        self.completion.bytes = data.len() as u64;
        self.completion.first_byte = Some(clock::now());
        self.completion.outcome = if self.completion.status.is_success() { Outcome::Ok } else { Outcome::Upstream };
    }

    /// Notes what a stream has shown.
    fn close(&mut self, seen: &crate::api::sse::Seen, outcome: Outcome) {
        self.completion.outcome = outcome;
        self.completion.timings = seen.timings;
        let usage = &mut self.completion.usage;
        usage.finish = seen.finish.clone().or(usage.finish.take());
        usage.model = seen.model.clone().or(usage.model.take());
        if let Some((input, output)) = seen.usage {
            (usage.input, usage.output) = (Some(input), Some(output));
            if usage.source != Source::Engine {
                usage.source = Source::Upstream;
            }
        } else if usage.output.is_none() {
            usage.output = Some(seen.deltas);
            usage.source = Source::Deltas;
        }
        if let Some(lease) = self.lease.as_mut().filter(|_| outcome == Outcome::Ok) {
            lease.report(Report::Good);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.completion.ended = clock::now();
        if let Some(done) = self.done.take() {
            done(self.completion.clone());
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer broke off")
    }
}

impl std::error::Error for Broken {}
