//! A stream on its way: one state machine over upstream, observer and limits.
//!
//! Invariant: it ends in exactly one of three ways: cleanly after `[DONE]`, with an error event and then an abort, or
//! dropped by a hang-up.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::time::Sleep;

use super::ending::Ending;
use super::{Broken, Timing};
use crate::api::error;
use crate::api::sse::Observer;
use crate::clock::{self, Instant};
use crate::fault::{Fault, Kind};
use crate::journal::record::Outcome;

/// Time between the error event and the abort, so that the event is on its way before the connection is reset.
const LINGER: Duration = Duration::from_millis(10);
/// After `[DONE]` the upstream may take this long to end its body, so that its connection can be used again.
const AFTER_DONE: Duration = Duration::from_millis(250);

/// Bytes from a backend.
pub type Events = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

/// A stream on its way.
pub struct Live {
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
    /// Starts the clock of the first token.
    pub fn new(events: Events, hide_usage: bool, timing: Timing, ending: Ending) -> Self {
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

    /// The next bytes for the client.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
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
