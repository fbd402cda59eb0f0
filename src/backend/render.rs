//! The embedded engine's events as OpenAI JSON and server-sent events. Pure: no clock, no socket, no engine.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::api::query::Endpoint;
use crate::engine::types::{Done, Token};

/// What all parts of one answer share.
#[derive(Clone, Debug)]
pub struct Head {
    /// Which shape.
    pub endpoint: Endpoint,
    /// `chatcmpl-...` or `cmpl-...`.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// Name of the model that answers.
    pub model: Arc<str>,
    /// Whether the client asked for the usage event; it is sent in any case, and the relay takes it out.
    pub include_usage: bool,
}

/// Log-probabilities collected for a piece of answer; `None` when not asked for.
#[derive(Debug, Default)]
pub struct Logprobs {
    tokens: Vec<Token>,
    /// Characters of the answer before the first of `tokens`.
    offset: usize,
}

/// The last event of every finished stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

impl Logprobs {
    /// Adds a token if it carries a log-probability.
    pub fn push(&mut self, token: Token) {
        if token.logprob.is_some() {
            self.tokens.push(token);
        }
    }

    /// Renders and empties it; null when there is nothing.
    pub fn take(&mut self, endpoint: Endpoint) -> Value {
        if self.tokens.is_empty() {
            return Value::Null;
        }
        let tokens = std::mem::take(&mut self.tokens);
        match endpoint {
            Endpoint::Chat => {
                json!({ "content": tokens.iter().map(chat_logprob).collect::<Vec<_>>(), "refusal": null })
            }
            Endpoint::Completions => self.legacy(&tokens),
        }
    }

    fn legacy(&mut self, tokens: &[Token]) -> Value {
        let mut offsets = Vec::with_capacity(tokens.len());
        for token in tokens {
            offsets.push(self.offset);
            self.offset += lossy(&token.bytes).chars().count();
        }
        let top = |token: &Token| -> serde_json::Map<String, Value> {
            token.top.iter().rev().map(|(bytes, p)| (legacy_text(bytes), json!(p))).collect()
        };
        json!({
            "tokens": tokens.iter().map(|t| legacy_text(&t.bytes)).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|t| t.logprob).collect::<Vec<_>>(),
            "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }
}

impl Head {
    /// The opening event of a chat stream: the role, no text.
    pub fn opening(&self) -> Option<Bytes> {
        let delta = json!({ "role": "assistant", "content": "", "refusal": null });
        (self.endpoint == Endpoint::Chat)
            .then(|| event(&self.chunk(json!([choice("delta", delta, Value::Null, None)]))))
    }

    /// An event with text.
    pub fn piece(&self, text: &str, logprobs: Value) -> Bytes {
        event(&self.chunk(json!([self.part(Some(text), logprobs, None)])))
    }

    /// The events that end a stream: finish, usage, `[DONE]`.
    pub fn ending(&self, done: &Done, logprobs: Value) -> Bytes {
        let mut last = self.chunk(json!([self.part(None, logprobs, Some(done.finish.name()))]));
        insert(&mut last, "timings", timings(done));
        let mut counts = self.chunk(json!([]));
        insert(&mut counts, "usage", usage(done));
        let mut out = event(&last).to_vec();
        out.extend_from_slice(&event(&counts));
        out.extend_from_slice(DONE);
        Bytes::from(out)
    }

    /// A complete answer.
    pub fn whole(&self, text: &str, logprobs: Value, done: &Done) -> Bytes {
        let finish = Some(done.finish.name());
        let (object, choice) = match self.endpoint {
            Endpoint::Chat => {
                let message = json!({ "role": "assistant", "content": text, "refusal": null });
                ("chat.completion", choice("message", message, logprobs, finish))
            }
            Endpoint::Completions => ("text_completion", choice("text", json!(text), logprobs, finish)),
        };
        let body = json!({
            "id": self.id, "object": object, "created": self.created, "model": &*self.model,
            "choices": [choice], "usage": usage(done), "timings": timings(done),
        });
        Bytes::from(body.to_string())
    }

    fn chunk(&self, choices: Value) -> Value {
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completions => "text_completion",
        };
        let mut chunk = json!({
            "id": self.id, "object": object, "created": self.created, "model": &*self.model, "choices": choices,
        });
        if self.include_usage {
            insert(&mut chunk, "usage", Value::Null);
        }
        chunk
    }

    fn part(&self, text: Option<&str>, logprobs: Value, finish: Option<&str>) -> Value {
        match self.endpoint {
            Endpoint::Chat => {
                let delta = text.map_or_else(|| json!({}), |text| json!({ "content": text }));
                choice("delta", delta, logprobs, finish)
            }
            Endpoint::Completions => choice("text", json!(text.unwrap_or_default()), logprobs, finish),
        }
    }
}

fn choice(name: &str, content: Value, logprobs: Value, finish: Option<&str>) -> Value {
    json!({ "index": 0, name: content, "logprobs": logprobs, "finish_reason": finish })
}

/// OpenAI's `usage`.
fn usage(done: &Done) -> Value {
    json!({
        "prompt_tokens": done.input_tokens,
        "completion_tokens": done.output_tokens,
        "total_tokens": done.input_tokens.saturating_add(done.output_tokens),
    })
}

/// An extension that local servers share: counts and milliseconds of both phases, and of the wait before them.
fn timings(done: &Done) -> Value {
    json!({
        "prompt_n": done.input_tokens,
        "prompt_ms": done.prefill_s * 1e3,
        "predicted_n": done.output_tokens,
        "predicted_ms": done.decode_s * 1e3,
        "queue_ms": done.queue_s * 1e3,
    })
}

fn chat_logprob(token: &Token) -> Value {
    let entry = |bytes: &[u8], p: f32| json!({ "token": lossy(bytes), "bytes": bytes, "logprob": p });
    let mut value = entry(&token.bytes, token.logprob.unwrap_or_default());
    let top: Vec<Value> = token.top.iter().map(|(bytes, p)| entry(bytes, *p)).collect();
    insert(&mut value, "top_logprobs", Value::Array(top));
    value
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The older endpoint has no field for bytes: part of a character is spelled out so that two of them stay apart.
fn legacy_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |mut text, byte| {
            let _ = write!(text, "\\x{byte:02x}");
            text
        }),
    }
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::types::Finish;

    fn done() -> Done {
        Done {
            finish: Finish::Stop,
            tail: String::new(),
            input_tokens: 5,
            reused_tokens: 0,
            output_tokens: 2,
            mean_logprob: -0.5,
            min_logprob: -1.0,
            prefill_s: 0.5,
            decode_s: 0.25,
            queue_s: 0.0,
        }
    }

    fn head(endpoint: Endpoint, include_usage: bool) -> Head {
        Head { endpoint, id: "x-1".into(), created: 7, model: "local/m".into(), include_usage }
    }

    fn events(bytes: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(bytes).unwrap();
        let data = text.split("\n\n").filter_map(|e| e.strip_prefix("data: "));
        data.filter(|d| *d != "[DONE]").map(|d| serde_json::from_str(d).unwrap()).collect()
    }

    #[test]
    fn usage_comes_last_with_no_choices() {
        let ending = head(Endpoint::Chat, true).ending(&done(), Value::Null);
        let seen = events(&ending);
        assert_eq!(seen[0]["choices"][0]["finish_reason"], "stop");
        assert_eq!(seen[1]["choices"], json!([]));
        assert_eq!(seen[1]["usage"]["total_tokens"], 7);
        assert!(ending.ends_with(DONE));
        assert_eq!((seen[0].get("usage"), seen.len()), (Some(&Value::Null), 2));
        assert_eq!(events(&head(Endpoint::Chat, false).ending(&done(), Value::Null))[0].get("usage"), None);
    }

    #[test]
    fn chat_and_text_shapes() {
        let chat: Value =
            serde_json::from_slice(&head(Endpoint::Chat, false).whole("hi", Value::Null, &done())).unwrap();
        assert_eq!(
            (&chat["object"], &chat["choices"][0]["message"]["content"]),
            (&json!("chat.completion"), &json!("hi"))
        );
        let text: Value =
            serde_json::from_slice(&head(Endpoint::Completions, false).whole("hi", Value::Null, &done())).unwrap();
        assert_eq!((&text["object"], &text["choices"][0]["text"]), (&json!("text_completion"), &json!("hi")));
        assert!(head(Endpoint::Completions, false).opening().is_none());
        let opening = events(&head(Endpoint::Chat, false).opening().unwrap());
        assert_eq!(opening[0]["choices"][0]["delta"]["role"], "assistant");
    }

    #[test]
    fn log_probabilities_keep_bytes_and_offsets() {
        let token = |bytes: &[u8]| Token {
            text: String::new(),
            bytes: bytes.to_vec(),
            ln_p: -0.5,
            logprob: Some(-0.5),
            top: vec![(bytes.to_vec(), -0.5), (b"z".to_vec(), -1.5)],
        };
        let mut chat = Logprobs::default();
        chat.push(token(&[0xE2, 0x82]));
        let value = chat.take(Endpoint::Chat);
        assert_eq!(value["content"][0]["bytes"], json!([0xE2, 0x82]));
        assert_eq!(value["content"][0]["top_logprobs"][1]["token"], "z");
        assert_eq!(chat.take(Endpoint::Chat), Value::Null);
        let mut text = Logprobs::default();
        text.push(token("a€".as_bytes()));
        text.push(token(&[0xE2]));
        let value = text.take(Endpoint::Completions);
        assert_eq!(value["text_offset"], json!([0, 2]));
        assert_eq!(value["tokens"], json!(["a€", "bytes:\\xe2"]));
        text.push(token(b"b"));
        assert_eq!(text.take(Endpoint::Completions)["text_offset"], json!([3]));
    }
}
