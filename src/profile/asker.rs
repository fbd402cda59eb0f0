//! Asks a backend one question through the gateway's own `backend::ask`, and sorts what can go wrong.
//!
//! Greedy and streaming, with usage and log-probabilities asked for. A server that refuses one of these fields is asked
//! with fewer, one that does not stream is asked for its answer in one piece, and the form that it takes is kept.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::listen::{Heard, listen};
use crate::api;
use crate::api::query::Endpoint;
use crate::backend::Backend;
use crate::backend::types::{Answer, Body};
use crate::clock::{self, Instant};
use crate::config::checked::Kind as BackendKind;
use crate::fault::{Fault, Kind};
use crate::policy::types::{CloudPermit, Place};

/// Forms of a request, from all we would like to what any server takes.
const FORMS: usize = 4;
/// The last form: no stream, the fields that servers have always known.
const WHOLE: usize = FORMS - 1;

/// Why an answer is not taken that is no stream.
const NO_STREAM: &str = "the backend did not answer with a stream";

/// A backend that is asked again and again.
pub struct Asker {
    backend: Backend,
    permit: Option<CloudPermit>,
    form: AtomicUsize,
}

/// One question, asked.
pub struct Asked {
    /// When the request began that was answered.
    pub began: Instant,
    /// When the answer ended or broke off.
    pub ended: Instant,
    /// What came.
    pub heard: Heard,
    /// Why it is not whole.
    pub trouble: Option<Trouble>,
    /// What came was no stream, though one was asked for.
    unstreamed: bool,
}

/// What can go wrong with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The backend does not take this question, now or later: too long for its context, for example.
    Refused(String),
    /// It may go better in a moment; after so long if the backend says so.
    Passing(String, Option<Duration>),
    /// Nobody listens where it should be: no matter of the question.
    Away(String),
    /// No question will be answered: a wrong key, a model that is not there.
    Fatal(String),
}

impl Trouble {
    /// The sentence.
    pub fn why(&self) -> &str {
        match self {
            Self::Refused(why) | Self::Passing(why, _) | Self::Away(why) | Self::Fatal(why) => why,
        }
    }
}

impl Trouble {
    /// How long the backend asks to be left alone.
    pub fn after(&self) -> Option<Duration> {
        if let Self::Passing(_, after) = self { *after } else { None }
    }
}

impl Asker {
    /// The person at the command line named this backend, which is the leave that a cloud one needs.
    pub fn new(backend: Backend) -> Self {
        let permit = (backend.config.place == Place::Cloud).then(CloudPermit::of_the_operator);
        Self { backend, permit, form: AtomicUsize::new(0) }
    }

    /// What is asked.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Asks one question, at most `max_tokens` of answer.
    pub async fn ask(&self, text: &str, max_tokens: u32) -> Asked {
        let form = self.form.load(Ordering::Relaxed);
        let mut asked = self.once(text, max_tokens, form).await;
        for fewer in form + 1..FORMS {
            if !matches!(asked.trouble, Some(Trouble::Refused(_))) {
                break;
            }
            if asked.unstreamed && fewer < WHOLE {
                continue;
            }
            let again = self.once(text, max_tokens, fewer).await;
            if again.trouble.is_none() {
                self.form.store(fewer, Ordering::Relaxed);
            }
            asked = again;
        }
        asked
    }

    async fn once(&self, text: &str, max_tokens: u32, form: usize) -> Asked {
        let began = clock::now();
        let (heard, trouble) = self.attempt(text, max_tokens, form, began).await;
        let unstreamed = matches!(&trouble, Some(Trouble::Refused(why)) if why == NO_STREAM);
        let ended = heard.ended.filter(|_| trouble.is_none()).unwrap_or_else(clock::now);
        Asked { began, ended, heard, trouble, unstreamed }
    }

    async fn attempt(&self, text: &str, max_tokens: u32, form: usize, began: Instant) -> (Heard, Option<Trouble>) {
        let body = Bytes::from(self.body(text, max_tokens, form).to_string());
        let query = match api::read::read_query(Endpoint::Chat, body, &HeaderMap::new()) {
            Ok(query) => query,
            Err(fault) => return (Heard::default(), Some(Trouble::Refused(fault.message))),
        };
        match self.backend.ask(&query, self.permit.as_ref()).await {
            Err(fault) if fault.kind == Kind::UpstreamProtocol && form < WHOLE => {
                (Heard::default(), Some(Trouble::Refused(NO_STREAM.to_owned())))
            }
            Err(fault) => (Heard::default(), Some(trouble(&fault))),
            Ok(answer) if !answer.status.is_success() => (Heard::default(), Some(refusal(&answer))),
            Ok(answer) => {
                let (heard, broken) = listen(answer, began, &self.backend.config.waits).await;
                (heard, broken.as_ref().map(trouble))
            }
        }
    }

    fn body(&self, text: &str, max_tokens: u32, form: usize) -> Value {
        let mut body = json!({
            "model": &*self.backend.config.name,
            "messages": [{ "role": "user", "content": text }],
        });
        let Some(fields) = body.as_object_mut() else { return body };
        if form < WHOLE {
            fields.insert("stream".to_owned(), json!(true));
            fields.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
        if form != 2 {
            fields.insert("temperature".to_owned(), json!(0));
            fields.insert("max_tokens".to_owned(), json!(max_tokens));
        } else {
            fields.insert("max_completion_tokens".to_owned(), json!(max_tokens));
        }
        if form == 0 {
            fields.insert("seed".to_owned(), json!(0));
            fields.insert("logprobs".to_owned(), json!(true));
            let server = matches!(self.backend.config.kind, BackendKind::OpenAi(_));
            if server && self.backend.config.place == Place::Local {
                // llama.cpp would answer a repeated question from its cache, and the repetition would cost nothing.
                fields.insert("cache_prompt".to_owned(), json!(false));
            }
        }
        body
    }
}

fn trouble(fault: &Fault) -> Trouble {
    let why = format!("{} ({})", fault.message, fault.code());
    match fault.kind {
        Kind::BadRequest | Kind::Unsupported | Kind::ContextLength | Kind::TooLarge => Trouble::Refused(why),
        Kind::Unauthorized | Kind::Forbidden | Kind::ModelNotFound | Kind::Internal => Trouble::Fatal(why),
        Kind::Connect => Trouble::Away(why),
        _ => Trouble::Passing(why, fault.retry_after),
    }
}

/// An error status of the backend itself.
fn refusal(answer: &Answer) -> Trouble {
    let body = match &answer.body {
        Body::Full(body) => serde_json::from_slice::<Value>(body).unwrap_or_default(),
        Body::Stream(_) => Value::Null,
    };
    let said = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let why = format!("status {}: {}", answer.status.as_u16(), said("/error/message"));
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Trouble::Fatal(why),
        _ if said("/error/code") == "upstream_credentials" => Trouble::Fatal(why),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Trouble::Passing(why, retry_after(answer)),
        status if status.is_server_error() => Trouble::Passing(why, retry_after(answer)),
        _ => Trouble::Refused(why),
    }
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    let value = answer.headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::types::Usage;

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let of = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            refusal(&Answer::full(status, Bytes::copy_from_slice(body.as_bytes()), Usage::default()))
        };
        assert_eq!(of(400, r#"{"error":{"message":"too long"}}"#), Trouble::Refused("status 400: too long".to_owned()));
        assert!(matches!(of(429, "{}"), Trouble::Passing(_, None)));
        assert!(matches!(of(503, "nonsense"), Trouble::Passing(..)));
        assert!(matches!(of(404, "{}"), Trouble::Fatal(_)));
        assert!(matches!(of(502, r#"{"error":{"message":"key","code":"upstream_credentials"}}"#), Trouble::Fatal(_)));
        assert!(matches!(trouble(&Fault::new(Kind::ContextLength, "long")), Trouble::Refused(_)));
        assert!(matches!(trouble(&Fault::new(Kind::Connect, "down")), Trouble::Away(_)));
        assert!(matches!(trouble(&Fault::new(Kind::GapTimeout, "slow")), Trouble::Passing(..)));
    }
}
