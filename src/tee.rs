//! The exact-answer cache's two ends: keeping what passes, and replaying it.
//!
//! Invariant: only an answer that ended well is kept, as the bytes that the backend sent; a replay goes through the same
//! relay as a live answer, so that a usage event nobody asked for is taken out of it alike.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;
use http::StatusCode;

use crate::backend::types::{Answer, Body, Usage};
use crate::cache::{Cache, Hit, Key};
use crate::config::checked::Waits;
use crate::energy::Joules;
use crate::policy::types::Place;

/// A replay is in memory: these limits are never reached, but the relay asks for some.
pub const REPLAY_WAITS: Waits = Waits {
    connect: Duration::from_secs(1),
    first_token: Duration::from_secs(30),
    gap: Duration::from_secs(30),
    total: Duration::from_secs(30),
};

/// An answer on its way to the client that may be kept.
pub struct Keep {
    cache: Cache,
    key: Key,
    backend: Arc<str>,
    place: Place,
    stream: bool,
    /// None once it is too large to keep.
    bytes: Arc<Mutex<Option<BytesMut>>>,
}

/// Begins to keep an answer; none for an answer that is no success.
pub fn keep(cache: &Cache, key: Key, answer: &mut Answer, backend: &Arc<str>, place: Place) -> Option<Keep> {
    if answer.status != StatusCode::OK {
        return None;
    }
    let bytes = Arc::new(Mutex::new(Some(BytesMut::new())));
    let most = cache.largest();
    let body = std::mem::replace(&mut answer.body, Body::Full(Bytes::new()));
    let stream = matches!(body, Body::Stream(_));
    answer.body = match body {
        Body::Full(whole) => {
            collect(&bytes, &whole, most);
            Body::Full(whole)
        }
        Body::Stream(events) => {
            let collected = Arc::clone(&bytes);
            Body::Stream(Box::pin(events.inspect(move |event| {
                if let Ok(chunk) = event {
                    collect(&collected, chunk, most);
                }
            })))
        }
    };
    Some(Keep { cache: cache.clone(), key, backend: Arc::clone(backend), place, stream, bytes })
}

impl Keep {
    /// The answer ended well, to a question of this domain, and took these joules.
    pub fn done(self, usage: &Usage, domain: &'static str, joules: Joules) {
        let Some(bytes) = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let hit = Hit {
            body: bytes.freeze(),
            stream: self.stream,
            backend: self.backend,
            place: self.place,
            usage: usage.clone(),
            domain,
            joules,
        };
        self.cache.put(self.key, hit);
    }
}

fn collect(bytes: &Mutex<Option<BytesMut>>, chunk: &Bytes, most: usize) {
    let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = bytes.as_ref().is_some_and(|b| b.len() + chunk.len() <= most);
    match bytes.as_mut() {
        Some(b) if fits => b.extend_from_slice(chunk),
        _ => *bytes = None,
    }
}

/// A kept answer as a new one.
pub fn replay(hit: &Hit, hide_usage: bool) -> Answer {
    if !hit.stream {
        return Answer::full(StatusCode::OK, hit.body.clone(), hit.usage.clone());
    }
    let whole = hit.body.clone();
    let answer = Answer::stream(stream::once(async move { Ok(whole) }), hit.usage.clone());
    Answer { hide_usage, ..answer }
}
