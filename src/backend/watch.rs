//! A local server's answer under watch: what it says goes into the trace, and log-probabilities that only we asked for come
//! out again, their values replaced by `null`; every other byte is the server's.
//!
//! Lenient like the observer: what cannot be read is not traced, and passes all the same.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::types::{Answer, Body};
use crate::api::event::parts;
use crate::api::sse::{Lines, MAX_EVENT_BYTES};
use crate::fault::{Fault, Kind};
use crate::verify::Trace;

type Events = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

/// Puts an answer under watch. `hide` takes out log-probabilities that the client did not ask for.
pub fn over(answer: Answer, trace: &Trace, hide: bool) -> Answer {
    if !answer.status.is_success() {
        return answer;
    }
    let body = match answer.body {
        Body::Full(bytes) => Body::Full(whole(&bytes, trace, hide)),
        Body::Stream(events) => Body::Stream(Box::pin(Watched {
            events,
            trace: trace.clone(),
            hide,
            pending: BytesMut::new(),
            lines: Lines::default(),
        })),
    };
    Answer { body, ..answer }
}

/// An answer in one piece.
fn whole(bytes: &Bytes, trace: &Trace, hide: bool) -> Bytes {
    let hidden = note(bytes, trace).filter(|_| hide);
    trace.end(false);
    hidden.map_or_else(|| bytes.clone(), Bytes::from)
}

/// A stream of events.
struct Watched {
    events: Events,
    trace: Trace,
    hide: bool,
    pending: BytesMut,
    lines: Lines,
}

impl Stream for Watched {
    type Item = Result<Bytes, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Poll::Ready(next) = self.events.as_mut().poll_next(cx) else { return Poll::Pending };
            let chunk = match next {
                Some(Ok(chunk)) => chunk,
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                None => {
                    // Half an event: the relay knows what to make of it.
                    let rest = self.pending.split().freeze();
                    return Poll::Ready((!rest.is_empty()).then_some(Ok(rest)));
                }
            };
            match self.take(&chunk) {
                Ok(out) if out.is_empty() => {}
                out => return Poll::Ready(Some(out)),
            }
        }
    }
}

impl Watched {
    /// The whole events that these bytes complete.
    fn take(&mut self, chunk: &[u8]) -> Result<Bytes, Fault> {
        self.pending.extend_from_slice(chunk);
        let mut out = BytesMut::new();
        while let Some(bounds) = self.lines.next_event(&self.pending) {
            let event = self.pending.split_to(bounds.end);
            out.extend_from_slice(&event_without(&event, &self.trace, self.hide));
        }
        if self.pending.len() > MAX_EVENT_BYTES {
            return Err(Fault::new(Kind::UpstreamProtocol, "the backend sent an event larger than any may be"));
        }
        Ok(out.freeze())
    }
}

/// One event, traced and rid of what only we asked for.
fn event_without<'e>(event: &'e [u8], trace: &Trace, hide: bool) -> Cow<'e, [u8]> {
    let (Some(data), _) = parts(event) else { return Cow::Borrowed(event) };
    if data.trim_ascii() == b"[DONE]" {
        trace.end(false);
        return Cow::Borrowed(event);
    }
    let Some(hidden) = note(&data, trace).filter(|_| hide) else { return Cow::Borrowed(event) };
    let place = match &data {
        Cow::Borrowed(data) => offset(event, data),
        Cow::Owned(_) => None,
    };
    let Some(at) = place else {
        // Data of several lines: white space between JSON tokens need not keep its line ends.
        let one_line: Vec<u8> = hidden.into_iter().map(|byte| if byte == b'\n' { b' ' } else { byte }).collect();
        return Cow::Owned([b"data: ".as_slice(), &one_line, b"\n\n"].concat());
    };
    let (before, after) = (event.get(..at).unwrap_or_default(), event.get(at + data.len()..).unwrap_or_default());
    Cow::Owned([before, &hidden, after].concat())
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default, alias = "message")]
    delta: Option<Part<'a>>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    function_call: Option<IgnoredAny>,
}

/// Log-probabilities in the shape of either endpoint.
#[derive(Deserialize)]
struct Probabilities {
    #[serde(default)]
    content: Option<Vec<One>>,
    #[serde(default)]
    token_logprobs: Option<Vec<Option<f64>>>,
}

#[derive(Deserialize)]
struct One {
    logprob: f64,
}

/// Traces a JSON text; the same text with its log-probabilities replaced by `null`, if it had any.
fn note(json: &[u8], trace: &Trace) -> Option<Vec<u8>> {
    let chunk: Chunk<'_> = serde_json::from_slice(json).ok()?;
    let mut out: Option<Vec<u8>> = None;
    let mut from = 0;
    for choice in chunk.choices.iter().flatten() {
        choice.note(trace);
        let Some(raw) = choice.logprobs else { continue };
        let Some(at) = offset(json, raw.get().as_bytes()) else { continue };
        let text = out.get_or_insert_with(|| Vec::with_capacity(json.len()));
        text.extend_from_slice(json.get(from..at).unwrap_or_default());
        text.extend_from_slice(b"null");
        from = at + raw.get().len();
    }
    if let Some(text) = &mut out {
        text.extend_from_slice(json.get(from..).unwrap_or_default());
    }
    out
}

impl Choice<'_> {
    fn note(&self, trace: &Trace) {
        let found = self.logprobs.and_then(|raw| serde_json::from_str::<Probabilities>(raw.get()).ok());
        let (content, tokens) = found.map_or((None, None), |p| (p.content, p.token_logprobs));
        let chat = content.into_iter().flatten().map(|one| one.logprob);
        let all = chat.chain(tokens.into_iter().flatten().flatten());
        let said = self.delta.as_ref().map(|d| d.content.as_deref().or(d.refusal.as_deref()).unwrap_or_default());
        trace.piece(said.or(self.text.as_deref()).unwrap_or_default(), all);
        let called = |d: &Part<'_>| d.tool_calls.as_ref().is_some_and(|c| !c.is_empty()) || d.function_call.is_some();
        if self.delta.as_ref().is_some_and(called) {
            trace.calls();
        }
        if let Some(reason) = self.finish_reason.as_deref() {
            trace.end(reason == "length");
        }
    }
}

/// Where a part of a text begins in it.
fn offset(all: &[u8], part: &[u8]) -> Option<usize> {
    let at = (part.as_ptr() as usize).checked_sub(all.as_ptr() as usize)?;
    (all.get(at..at.checked_add(part.len())?)? == part).then_some(at)
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};

    use super::*;
    use crate::verify::Expected;

    const USUAL: Expected = Expected { prior: 0.5, tokens: 10.0, prompt: 5.0 };
    const FIRST: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"fo\\u0075r\"},\"logprobs\":{\"content\":[{\"token\":\"four\",\"logprob\":-0.5,\"top_logprobs\":[]}]},\"x\":1.0e5}]}\n\n";
    const LAST: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\",\"logprobs\":null}]}\n\n";

    async fn streamed(pieces: Vec<Bytes>, hide: bool) -> (String, Trace) {
        let trace = Trace::default();
        let answer = Answer::stream(stream::iter(pieces.into_iter().map(Ok)), Default::default());
        let Body::Stream(events) = over(answer, &trace, hide).body else { panic!("a stream stays one") };
        let all: Vec<_> = events.map(|piece| piece.unwrap()).collect().await;
        (String::from_utf8(all.concat()).unwrap(), trace)
    }

    #[tokio::test]
    async fn any_split_is_traced_and_hidden_alike() {
        let text = format!(": hello\n\n{FIRST}{LAST}data: [DONE]\n\n");
        let want = text.replace("{\"content\":[{\"token\":\"four\",\"logprob\":-0.5,\"top_logprobs\":[]}]}", "null");
        for piece in [1, 2, 7, 50, text.len()] {
            let pieces: Vec<Bytes> = text.as_bytes().chunks(piece).map(Bytes::copy_from_slice).collect();
            let (out, trace) = streamed(pieces.clone(), true).await;
            assert_eq!(out, want, "{piece}");
            let evidence = trace.evidence(USUAL);
            assert_eq!((evidence.tokens, evidence.mean_logprob, evidence.cut), (1, Some(-0.5), true));
            assert!(trace.ended());
            assert_eq!(streamed(pieces, false).await.0, text);
        }
    }

    #[tokio::test]
    async fn data_of_several_lines_is_hidden_too() {
        let text = FIRST.replace(",\"logprobs\"", "\ndata: ,\"logprobs\"");
        let (out, trace) = streamed(vec![Bytes::from(text)], true).await;
        assert!(!out.contains("-0.5") && out.ends_with("\n\n"), "{out}");
        let value: serde_json::Value = serde_json::from_str(out.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(value["choices"][0]["delta"]["content"], "four");
        assert_eq!(trace.tokens(), 1);
    }

    #[test]
    fn a_whole_answer_of_either_endpoint_is_read() {
        for (body, hidden) in [
            (
                r#"{"choices":[{"message":{"content":"a b"},"logprobs":{"content":[{"logprob":-1},{"logprob":-3}]},"finish_reason":"stop"}],"usage":{}}"#,
                r#"{"choices":[{"message":{"content":"a b"},"logprobs":null,"finish_reason":"stop"}],"usage":{}}"#,
            ),
            (
                r#"{"choices":[{"text":"a b","logprobs":{"tokens":["a","b"],"token_logprobs":[null,-1,-3]}}]}"#,
                r#"{"choices":[{"text":"a b","logprobs":null}]}"#,
            ),
        ] {
            let trace = Trace::default();
            assert_eq!(whole(&Bytes::from(body), &trace, true), hidden);
            let evidence = trace.evidence(USUAL);
            assert_eq!((evidence.mean_logprob, evidence.min_logprob, evidence.tokens), (Some(-2.0), Some(-3.0), 2));
            assert!(evidence.whole && !evidence.empty);
            assert_eq!(whole(&Bytes::from(body), &Trace::default(), false), body);
        }
    }

    #[test]
    fn what_cannot_be_read_passes_and_a_tool_call_is_no_empty_answer() {
        for body in ["[]", "{\"choices\":7}", "not json"] {
            assert_eq!(whole(&Bytes::from(body), &Trace::default(), true), body);
        }
        let trace = Trace::default();
        whole(&Bytes::from(r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"x"}]}}]}"#), &trace, true);
        assert!(!trace.evidence(USUAL).empty);
    }
}
