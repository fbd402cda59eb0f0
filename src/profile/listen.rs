//! Reads one answer to its end and keeps what a record needs: text, tokens, instants, log-probabilities, what went wrong.
//!
//! The bytes pass the relay's own observer, so that usage, finish and end are read as the gateway reads them; text and
//! log-probabilities, which the gateway never looks at, are read here. Every wait is one of the backend's limits.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::Value;

use crate::api::sse::Observer;
use crate::backend::lease::Report;
use crate::backend::types::{Answer, Body};
use crate::clock::{self, Instant};
use crate::config::checked::Waits;
use crate::fault::{Fault, Kind};

/// After `[DONE]` the body may take this long to end, so that its connection can be used again.
const AFTER_DONE: Duration = Duration::from_millis(50);

/// An answer as it was heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// What it says; without a model's reasoning.
    pub text: String,
    /// What it thought before, where the backend shows it.
    pub reasoning: String,
    /// When the first token came, of reasoning or answer; none if the answer came in one piece.
    pub first: Option<Instant>,
    /// When its finish came: what the connection does afterwards is no part of the answer. None if it came in one piece.
    pub ended: Option<Instant>,
    /// Seconds between tokens that followed each other.
    pub gaps: Vec<f64>,
    /// Log-probability of each token.
    pub logprobs: Vec<f32>,
    /// Prompt and generated tokens by the backend's own count.
    pub usage: Option<(u32, u32)>,
    /// Events with content.
    pub deltas: u32,
    /// Why it ended.
    pub finish: Option<String>,
    /// Message of an error that the backend sent in the stream.
    said: Option<String>,
    last: Option<Instant>,
    pending: Vec<u8>,
}

/// Reads an answer of status 2xx. What was heard comes back also when it broke off.
pub async fn listen(mut answer: Answer, asked: Instant, waits: &Waits) -> (Heard, Option<Fault>) {
    let mut heard = Heard::default();
    let broken = match answer.body {
        Body::Full(body) => {
            heard.usage = answer.usage.input.zip(answer.usage.output);
            heard.finish = answer.usage.finish.take();
            heard.whole(&body)
        }
        Body::Stream(ref mut events) => {
            let mut observer = Observer::new(false);
            let mut broken = None;
            while !observer.seen().done && broken.is_none() {
                let (until, late) = heard.deadline(asked, waits);
                broken = match tokio::time::timeout_at(until, events.next()).await {
                    Err(_) => Some(Fault::new(late, "the backend took longer than its limit")),
                    Ok(None) => Some(Fault::new(Kind::UpstreamCut, "the answer ended before it was complete")),
                    Ok(Some(Err(fault))) => Some(fault),
                    Ok(Some(Ok(chunk))) => heard.chunk(&mut observer, chunk).err(),
                };
                if heard.ended.is_none() && observer.seen().finish.is_some() {
                    heard.ended = Some(clock::now());
                }
            }
            // Some servers close after the finish without `[DONE]`: all of the answer is there.
            if observer.seen().finish.is_some() && !observer.seen().error && heard.said.is_none() {
                broken = None;
            }
            if observer.seen().done {
                let _ = tokio::time::timeout(AFTER_DONE, events.next()).await;
            }
            heard.usage = observer.seen().usage;
            heard.deltas = observer.seen().deltas;
            heard.finish = observer.seen().finish.clone();
            let said = heard.said.take().map(|why| Fault::new(Kind::UpstreamCut, format!("the backend said: {why}")));
            said.or(broken)
        }
    };
    if let Some(lease) = &mut answer.lease {
        match &broken {
            Some(fault) => lease.fault(fault),
            None => lease.report(Report::Good),
        }
    }
    (heard, broken)
}

impl Heard {
    fn deadline(&self, asked: Instant, waits: &Waits) -> (Instant, Kind) {
        let (next, kind) = match self.last {
            Some(last) => (last + waits.gap, Kind::GapTimeout),
            None => (asked + waits.first_token, Kind::FirstTokenTimeout),
        };
        let total = asked + waits.total;
        if total < next { (total, Kind::TotalTimeout) } else { (next, kind) }
    }

    fn chunk(&mut self, observer: &mut Observer, chunk: Bytes) -> Result<(), Fault> {
        let now = clock::now();
        let events = observer
            .feed(chunk)
            .map_err(|_| Fault::new(Kind::UpstreamProtocol, "the backend sent an event larger than any may be"))?;
        self.pending.extend_from_slice(&events);
        while let Some(end) = memchr::memchr2(b'\n', b'\r', &self.pending) {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            if let Ok(event) = serde_json::from_slice::<Value>(data) {
                self.event(&event, now);
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &Value, now: Instant) {
        if let Some(error) = event.get("error").filter(|e| !e.is_null()) {
            let message = error.get("message").and_then(Value::as_str).or_else(|| error.as_str());
            self.said = Some(message.unwrap_or("an error without a message").to_owned());
        }
        let Some(choice) = event.pointer("/choices/0") else { return };
        let before = self.logprobs.len();
        self.take_logprobs(choice);
        let part = |pointer: &str| choice.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let content = [part("/delta/content"), part("/text")].concat();
        let reasoning = [part("/delta/reasoning_content"), part("/delta/reasoning")].concat();
        self.text.push_str(&content);
        self.reasoning.push_str(&reasoning);
        if content.is_empty() && reasoning.is_empty() && self.logprobs.len() == before {
            return;
        }
        if let Some(last) = self.last {
            self.gaps.push(now.duration_since(last).as_secs_f64());
        }
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// Of a chat's `logprobs.content[].logprob`, or of the older form's `logprobs.token_logprobs[]`.
    fn take_logprobs(&mut self, choice: &Value) {
        let list = |pointer: &str| choice.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        let chat = list("/logprobs/content").filter_map(|token| token.get("logprob")?.as_f64());
        let older = list("/logprobs/token_logprobs").filter_map(Value::as_f64);
        #[expect(clippy::cast_possible_truncation, reason = "a logarithm of a probability needs no more digits")]
        self.logprobs.extend(chat.chain(older).filter(|p| p.is_finite()).map(|p| p as f32));
    }

    fn whole(&mut self, body: &[u8]) -> Option<Fault> {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let choice = answer.pointer("/choices/0").cloned().unwrap_or_default();
        self.take_logprobs(&choice);
        let content = choice.pointer("/message/content").or_else(|| choice.get("text"));
        match content.and_then(Value::as_str) {
            Some(text) => {
                text.clone_into(&mut self.text);
                None
            }
            None => Some(Fault::new(Kind::UpstreamProtocol, "the answer has no message in it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use serde_json::json;

    use super::*;
    use crate::backend::types::Usage;

    const WAITS: Waits = Waits {
        connect: Duration::from_secs(1),
        first_token: Duration::from_secs(5),
        gap: Duration::from_secs(2),
        total: Duration::from_secs(60),
    };

    async fn hear(events: &[(&str, u64)]) -> (Heard, Option<&'static str>) {
        let events: Vec<(Bytes, u64)> =
            events.iter().map(|(t, ms)| (Bytes::copy_from_slice(t.as_bytes()), *ms)).collect();
        let stream = stream::iter(events).then(|(bytes, ms)| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(bytes)
        });
        let (heard, fault) = listen(Answer::stream(stream, Usage::default()), clock::now(), &WAITS).await;
        (heard, fault.map(|f| f.code()))
    }

    fn delta(text: &str) -> String {
        format!(
            "data: {}\n\n",
            json!({ "choices": [{ "delta": { "content": text }, "logprobs": { "content": [{ "logprob": -0.5 }] } }] })
        )
    }

    const END: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

    #[tokio::test(start_paused = true)]
    async fn text_tokens_and_instants_are_those_of_the_stream() {
        let began = clock::now();
        let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
        let (heard, fault) = hear(&[(role, 10), (&delta("Par"), 90), (&delta("is"), 40), (END, 5)]).await;
        assert_eq!((heard.text.as_str(), fault), ("Paris", None));
        assert_eq!((heard.usage, heard.finish.as_deref(), heard.logprobs.len()), (Some((7, 2)), Some("stop"), 2));
        assert_eq!(heard.first.unwrap().duration_since(began), Duration::from_millis(100), "a role is no token");
        assert_eq!(heard.gaps, [0.04]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_off_keeps_what_was_heard_and_says_why() {
        for (events, text, code) in [
            (vec![(delta("half"), 1)], "half", "upstream_cut"),
            (vec![(delta("half"), 1), (delta("late"), 3000)], "half", "stream_stalled"),
            (vec![(delta("late"), 6000)], "", "first_token_timeout"),
            (
                vec![(delta("a"), 1), ("data: {\"error\":{\"message\":\"out of memory\"}}\n\n".to_owned(), 1)],
                "a",
                "upstream_cut",
            ),
        ] {
            let events: Vec<(&str, u64)> = events.iter().map(|(t, ms)| (t.as_str(), *ms)).collect();
            let (heard, fault) = hear(&events).await;
            assert_eq!((heard.text.as_str(), fault), (text, Some(code)), "{events:?}");
        }
        let finish = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
        let (heard, fault) = hear(&[(&delta("all"), 1), (finish, 1)]).await;
        assert_eq!((heard.text.as_str(), fault), ("all", None), "a finish is an end");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_with_its_finish_and_not_with_its_connection() {
        let finish = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        let began = clock::now();
        let (heard, fault) = hear(&[(&delta("4"), 20), (finish, 10), ("data: [DONE]\n\n", 900)]).await;
        assert_eq!((fault, heard.ended.map(|at| at.duration_since(began))), (None, Some(Duration::from_millis(30))));
    }

    #[tokio::test(start_paused = true)]
    async fn reasoning_is_time_and_tokens_but_no_answer() {
        let thought = "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n";
        let began = clock::now();
        let (heard, _) = hear(&[(thought, 20), (&delta("4"), 30), (END, 1)]).await;
        assert_eq!((heard.text.as_str(), heard.reasoning.as_str(), heard.gaps.len()), ("4", "hm", 1));
        assert_eq!(heard.first.unwrap().duration_since(began), Duration::from_millis(20));
    }

    #[tokio::test]
    async fn an_answer_in_one_piece_has_no_first_token() {
        let body = json!({ "choices": [{ "message": { "content": "four" }, "finish_reason": "stop" }] }).to_string();
        let usage = Usage { input: Some(3), output: Some(1), ..Usage::default() };
        let answer = Answer::full(http::StatusCode::OK, Bytes::from(body), usage);
        let (heard, fault) = listen(answer, clock::now(), &WAITS).await;
        assert!(fault.is_none() && heard.text == "four" && heard.usage == Some((3, 1)) && heard.first.is_none());
        let answer = Answer::full(http::StatusCode::OK, Bytes::from_static(b"{}"), Usage::default());
        assert!(listen(answer, clock::now(), &WAITS).await.1.is_some());
    }
}
