//! An upstream's response to an answer: checked, bounded, and in OpenAI's shape even when it is an error.
//!
//! Invariant: a status, a content type or an encoding that was not agreed is a fault, never passed on as if it were an
//! answer; a body of unknown size is never collected without a bound; neither key nor host of ours leaves.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::lease::Report;
use super::pool::Reply;
use super::scrub::Scrub;
use super::types::{Answer, Body, Source, Usage};
use super::{fault, headers, refusal};
use crate::api::event::Counts;
use crate::clock::{self, Instant};
use crate::config::checked::Waits;
use crate::fault::{Fault, Kind};

/// A complete answer may have this many bytes: far more than any model's longest answer with log-probabilities.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// An error may have this many.
const MAX_ERROR_BYTES: usize = 1024 * 1024;

/// What a response is judged by.
pub struct Asked<'a> {
    /// The backend's name.
    pub name: &'a str,
    /// Server-sent events were asked for.
    pub stream: bool,
    /// When the request began.
    pub at: Instant,
    /// The backend's limits.
    pub waits: &'a Waits,
}

impl Asked<'_> {
    /// When head and first bytes must be there. Most servers send the head of an answer in one piece only when all of it is
    /// generated, so that its limit is the total one.
    pub fn first_deadline(&self) -> Instant {
        let first = if self.stream { self.waits.first_token } else { self.waits.total };
        self.at + first.min(self.waits.total)
    }

    /// The fault of a wait that ended without an answer.
    pub fn too_late(&self) -> Fault {
        if !self.stream || self.waits.total <= self.waits.first_token {
            return self.fault(Kind::TotalTimeout, "took longer than its total limit");
        }
        self.fault(Kind::FirstTokenTimeout, "did not begin to answer in time")
    }

    fn fault(&self, kind: Kind, what: &str) -> Fault {
        Fault::new(kind, format!("backend `{}` {what}", self.name))
    }
}

/// What an answer says about its backend at this point; a stream says it at its end.
pub fn report(answer: &Answer) -> Option<Report> {
    match &answer.body {
        _ if answer.status.is_server_error() && !refusal::is_about_the_key(answer) => Some(Report::Failed),
        _ if !answer.status.is_success() => Some(Report::Refused),
        Body::Full(_) => Some(Report::Good),
        Body::Stream(_) => None,
    }
}

/// Reads a response as far as an answer needs: a stream to its first bytes, everything else to its end.
pub async fn read(response: Response<Reply>, asked: &Asked<'_>, scrub: &Scrub) -> Result<Answer, Fault> {
    let (head, body) = response.into_parts();
    let identity = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if head.headers.get(CONTENT_ENCODING).is_some_and(|value| !identity(value)) {
        return Err(asked.fault(Kind::UpstreamProtocol, "sent an encoding that was not asked for"));
    }
    let headers = headers::response(&head.headers, scrub);
    match head.status.as_u16() {
        200..=299 if asked.stream => stream(head.status, headers, body, asked).await,
        200..=299 => whole(head.status, headers, body, asked).await,
        400..=599 => {
            let body = collect(body, MAX_ERROR_BYTES, asked).await;
            Ok(refusal::answer(head.status, headers, body.ok(), scrub, asked.name))
        }
        300..=399 => Err(asked.fault(Kind::UpstreamProtocol, "answered with a redirect, which is never followed")),
        _ => Err(asked.fault(Kind::UpstreamProtocol, "answered with a status that was not agreed")),
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

async fn stream(status: StatusCode, headers: HeaderMap, mut body: Reply, asked: &Asked<'_>) -> Result<Answer, Fault> {
    if !is_event_stream(&headers) {
        return Err(asked.fault(Kind::UpstreamProtocol, "did not answer with server-sent events"));
    }
    let first = loop {
        let Ok(frame) = tokio::time::timeout_at(asked.first_deadline(), body.frame()).await else {
            return Err(asked.too_late());
        };
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => break data,
                _ => {}
            },
            Some(Err(error)) => return Err(fault::broken(asked.name, error)),
            None => return Err(asked.fault(Kind::UpstreamCut, "ended its answer before it began")),
        }
    };
    let events = Events { first: Some(first), body, name: asked.name.into() };
    let body = Body::Stream(Box::pin(events));
    Ok(Answer { status, headers, body, usage: Usage::default(), hide_usage: false, lease: None })
}

async fn whole(status: StatusCode, headers: HeaderMap, body: Reply, asked: &Asked<'_>) -> Result<Answer, Fault> {
    if is_event_stream(&headers) {
        return Err(asked.fault(Kind::UpstreamProtocol, "answered with a stream that was not asked for"));
    }
    let body = collect(body, MAX_ANSWER_BYTES, asked).await?;
    let Ok(answer) = serde_json::from_slice::<Whole<'_>>(&body) else {
        return Err(asked.fault(Kind::UpstreamProtocol, "sent an answer that is not a JSON object"));
    };
    let usage = answer.usage();
    Ok(Answer { headers, ..Answer::full(status, body, usage) })
}

/// Collects a body within a bound, the gap limit and the total limit.
async fn collect(mut body: Reply, limit: usize, asked: &Asked<'_>) -> Result<Bytes, Fault> {
    let too_large = || asked.fault(Kind::UpstreamProtocol, "sent more than an answer may have");
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    let end = asked.at + asked.waits.total;
    loop {
        let gap = clock::now() + asked.waits.gap;
        let frame = match tokio::time::timeout_at(gap.min(end), body.frame()).await {
            Ok(None) => break,
            Ok(Some(frame)) => frame.map_err(|error| fault::broken(asked.name, error))?,
            Err(_) if gap < end => return Err(asked.fault(Kind::GapTimeout, "stopped in the middle of its answer")),
            Err(_) => return Err(asked.fault(Kind::TotalTimeout, "took longer than its total limit")),
        };
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(too_large());
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut all = BytesMut::with_capacity(first.len() + rest.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&rest);
    Ok(all.freeze())
}

/// The parts of a complete answer that are accounted for.
#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

impl Whole<'_> {
    fn usage(&self) -> Usage {
        let counts = self.usage.and_then(Counts::read);
        let first = self.choices.as_ref().and_then(|choices| choices.first());
        Usage {
            input: counts.map(|(input, _)| input),
            output: counts.map(|(_, output)| output),
            source: if counts.is_some() { Source::Upstream } else { Source::Estimated },
            finish: first.and_then(|choice| choice.finish_reason.as_deref().map(str::to_owned)),
            model: self.model.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        }
    }
}

/// A response body as a stream of bytes.
struct Events {
    first: Option<Bytes>,
    body: Reply,
    name: Box<str>,
}

impl Stream for Events {
    type Item = Result<Bytes, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                    _ => {}
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(fault::broken(&self.name, error)))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
