//! A checked request: the typed head that routing needs, and the body exactly as it came.

use bytes::Bytes;

/// Which endpoint the query came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completions,
}

/// One request: the body as received plus what was read from it. Fields that nobody here understands stay in the body.
#[derive(Clone, Debug)]
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
    /// Conversation for the embedded engine; text parts only.
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
}

/// How much of the last user message the classifier reads.
pub const TEXT_BYTES: usize = 8 * 1024;

/// One message of a conversation, flattened to text.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq)]
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
