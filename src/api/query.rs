//! A checked request: the typed head that routing needs, and the body exactly as it came.
//!
//! Invariant: `Debug` of everything here shows sizes and names, never text of a prompt.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// Which endpoint the query came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completions,
}

/// One request: the body as received plus what was read from it. Fields that nobody here understands stay in the body.
#[derive(Clone)]
pub struct Query {
    /// Where it came in.
    pub endpoint: Endpoint,
    /// The body, byte for byte as the client sent it.
    pub body: Bytes,
    /// `model` as the client wrote it.
    pub model: String,
    /// Wants server-sent events.
    pub stream: bool,
    /// Asked for the usage event itself (`stream_options.include_usage`).
    pub include_usage: bool,
    /// Text for the classifier: the last user message, or the prompt. At most [`TEXT_BYTES`].
    pub text: String,
    /// Conversation for the embedded engine; text parts only. For [`Endpoint::Completions`] it is one message of role
    /// `user` that holds the whole prompt.
    pub messages: Vec<Message>,
    /// What a backend must be able to do.
    pub needs: Needs,
    /// Sampling settings for the embedded engine.
    pub sampling: Sampling,
    /// Fields present in the body that the embedded engine cannot honour, as JSON paths, in body order.
    pub beyond_embedded: Vec<String>,
    /// Estimated prompt tokens (bytes / 4, at least 1 per message); a backend's own count replaces it later.
    pub input_tokens: u32,
    /// Conversation key from `x-session-id` or the body, for stickiness and the journal (hashed, never text).
    pub session: Option<u64>,
    /// Key of the body's `user` or `metadata.session`, hashed like `session`.
    pub user: Option<u64>,
    /// What the client asked of this gateway in headers or in the body's `wattroute` field.
    pub asked: Asked,
    /// The few request headers that may travel upstream: `traceparent`, `idempotency-key`.
    pub pass: Vec<(HeaderName, HeaderValue)>,
    /// Where in `body` the parts are that [`rewrite`](crate::api::rewrite::rewrite) replaces.
    pub spans: Spans,
}

/// What the client asked of this gateway itself. Privacy can only tighten what keys and policies say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Preset or policy name: letters, digits, `-` and `_`, at most 64. Never a path.
    pub policy: Option<String>,
    /// The query must not leave this machine.
    pub private: bool,
}

/// Byte ranges inside a body. An empty [`Spans`] makes a rewrite the identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// The value of `model`, quotes included.
    pub model: Option<Range<usize>>,
    /// The member `wattroute` with one comma, so that what is left is still an object.
    pub wattroute: Option<Range<usize>>,
    /// How to ask for a usage event: what to replace, and by what.
    pub usage: Option<(Range<usize>, &'static str)>,
    /// How to ask for log-probabilities that the client did not ask for: what to replace, and by what.
    pub logprobs: Option<(Range<usize>, &'static str)>,
}

/// How much of the last user message the classifier reads.
pub const TEXT_BYTES: usize = 8 * 1024;

/// One message of a conversation, flattened to text.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, `developer`, `tool`.
    pub role: String,
    /// Text parts joined.
    pub content: String,
}

/// What a backend must be able to do to be eligible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// `tools` non-empty, or tool messages in the conversation.
    pub tools: bool,
    /// Image parts.
    pub images: bool,
    /// Audio or file parts.
    pub audio: bool,
    /// `response_format` of type `json_schema` or `json_object`.
    pub json: bool,
    /// `n` > 1 or `best_of` > 1.
    pub many: bool,
    /// `logprobs`.
    pub logprobs: bool,
}

/// Sampling settings the embedded engine honours, ranged at the edge.
#[derive(Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; OpenAI's default is 1.
    pub temperature: f32,
    /// Nucleus, (0, 1].
    pub top_p: f32,
    /// `max_completion_tokens`, else `max_tokens`.
    pub max_tokens: Option<u32>,
    /// Up to four strings that end the answer; not part of it.
    pub stop: Vec<String>,
    /// Reproducible sampling.
    pub seed: Option<u64>,
    /// Number of alternatives per token; `Some(0)` is the chosen token's only.
    pub logprobs: Option<u8>,
}

impl Query {
    /// Makes the conversation key the tenant's own: two tenants that use the same key share no conversation.
    pub fn belongs_to(&mut self, tenant: &str) {
        let of = |key: u64| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&key.to_le_bytes()).update(tenant.as_bytes());
            short(&hasher)
        };
        (self.session, self.user) = (self.session.map(of), self.user.map(of));
    }

    /// Which conversation of a tenant this is: by its key, else, if wanted, by its user, else by its first messages.
    pub fn conversation(&self, user: bool, prefix: bool, tenant: &str) -> Option<u64> {
        self.session.or(self.user.filter(|_| user)).or_else(|| prefix.then(|| self.beginning(tenant)).flatten())
    }

    /// Hash of all messages up to the first of the user: later turns begin with the same.
    fn beginning(&self, tenant: &str) -> Option<u64> {
        let first = self.messages.iter().position(|message| message.role == "user")?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(tenant.len() as u64).to_le_bytes()).update(tenant.as_bytes());
        for message in self.messages.iter().take(first + 1) {
            for part in [&message.role, &message.content] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
        }
        Some(short(&hasher))
    }
}

fn short(hasher: &blake3::Hasher) -> u64 {
    hasher.finalize().as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("endpoint", &self.endpoint)
            .field("model", &self.model)
            .field("stream", &self.stream)
            .field("body_bytes", &self.body.len())
            .field("messages", &self.messages.len())
            .field("needs", &self.needs)
            .field("beyond_embedded", &self.beyond_embedded)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("role", &self.role).field("bytes", &self.content.len()).finish()
    }
}

impl fmt::Debug for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampling")
            .field("temperature", &self.temperature)
            .field("top_p", &self.top_p)
            .field("max_tokens", &self.max_tokens)
            .field("stops", &self.stop.len())
            .field("seed", &self.seed)
            .field("logprobs", &self.logprobs)
            .finish()
    }
}

impl Default for Sampling {
    /// OpenAI's defaults.
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, max_tokens: None, stop: Vec::new(), seed: None, logprobs: None }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::api;

    #[test]
    fn a_second_header_line_does_not_take_privacy_back() {
        let body = Bytes::from_static(br#"{"model":"auto","messages":[{"role":"user","content":"hi"}]}"#);
        for lines in [["false", "true"], ["true", "false"]] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-wattroute-private", HeaderValue::from_static(line));
            }
            assert!(api::read_within(Endpoint::Chat, body.clone(), &headers, 64).unwrap().asked.private);
        }
    }

    #[test]
    fn two_tenants_with_the_same_session_share_no_conversation() {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-session-id"), HeaderValue::from_static("s"))]);
        let body = Bytes::from_static(br#"{"model":"auto","messages":[{"role":"user","content":"hi"}]}"#);
        let of = |tenant: &str| {
            let mut query = api::read_within(Endpoint::Chat, body.clone(), &headers, 64).unwrap();
            query.belongs_to(tenant);
            query.session
        };
        assert!(of("a").is_some());
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
    }

    #[test]
    fn later_turns_are_known_by_their_beginning_their_user_or_their_key() {
        let read = |body: &str| {
            let mut query =
                api::read_within(Endpoint::Chat, Bytes::copy_from_slice(body.as_bytes()), &HeaderMap::new(), 64)
                    .unwrap();
            query.belongs_to("t");
            query
        };
        let first = r#"{"role":"system","content":"s"},{"role":"user","content":"hi"}"#;
        let turn =
            |more: &str, fields: &str| read(&format!("{{\"model\":\"auto\",\"messages\":[{first}{more}]{fields}}}"));
        let (one, two) =
            (turn("", ""), turn(r#",{"role":"assistant","content":"ho"},{"role":"user","content":"x"}"#, ""));
        let by_prefix = |q: &Query, tenant: &str| q.conversation(false, true, tenant);
        assert!(by_prefix(&one, "t").is_some());
        assert_eq!(by_prefix(&one, "t"), by_prefix(&two, "t"));
        assert_ne!(by_prefix(&one, "t"), by_prefix(&one, "u"));
        assert_eq!(one.conversation(true, false, "t"), None);
        let user = turn("", r#","user":"u1""#);
        assert!(user.conversation(true, false, "t").is_some() && user.conversation(false, false, "t").is_none());
        assert_eq!(
            user.conversation(true, false, "t"),
            turn("", r#","metadata":{"session":"u1","x":"y"}"#).conversation(true, false, "t")
        );
        let keyed = turn("", r#","user":"u1","wattroute":{"session":"k"}"#);
        assert_eq!(keyed.conversation(true, true, "t"), keyed.session);
        for odd in [r#","user":7"#, r#","metadata":[1]"#, r#","metadata":{"session":""}"#, r#","user":"""#] {
            assert_eq!(turn("", odd).user, None, "{odd}");
        }
    }
}
