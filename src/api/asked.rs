//! What a client asks of the gateway itself: the body's `wattroute` member and a few headers.
//!
//! Invariant: it can only tighten privacy, and the names it may give can never be a path or a host.

use std::ops::Range;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::fields;
use super::query::Query;
use super::read::MAX_DEPTH;
use super::scan::{self, Member, Object};
use crate::fault::Fault;

const SESSION: HeaderName = HeaderName::from_static("x-session-id");
const POLICY: HeaderName = HeaderName::from_static("x-wattroute-policy");
const PRIVATE: HeaderName = HeaderName::from_static("x-wattroute-private");
/// Headers that travel upstream.
const PASSED: [HeaderName; 2] = [HeaderName::from_static("traceparent"), HeaderName::from_static("idempotency-key")];
/// Bytes of a conversation key.
const MAX_SESSION: usize = 256;

/// The gateway's own field; unknown keys in it are errors because a misspelt `private` must not go unnoticed.
pub fn from_member(query: &mut Query, object: &Object<'_>, place: usize, member: &Member<'_>) -> Result<(), Fault> {
    query.spans.wattroute = Some(span_with_comma(object, place, member));
    if member.raw == "null" {
        return Ok(());
    }
    let wrong = || fields::bad("wattroute", "must be an object with `policy`, `private` or `session`");
    let inner = scan::object(member.raw, MAX_DEPTH).map_err(|_| wrong())?;
    let mut seen: Vec<&str> = Vec::new();
    for ask in &inner.members {
        let path = format!("wattroute.{}", fields::shown(&ask.key));
        if seen.contains(&&*ask.key) {
            return Err(fields::bad(&path, "is there twice"));
        }
        seen.push(&ask.key);
        match &*ask.key {
            "private" => query.asked.private |= fields::boolean(&path, ask.raw)?,
            "policy" => query.asked.policy = Some(policy_name(&path, &text_of(&path, ask.raw)?)?),
            "session" => query.session = Some(session(&path, text_of(&path, ask.raw)?.as_bytes())?),
            _ => return Err(fields::bad(&path, "is not known: there are `policy`, `private` and `session`")),
        }
    }
    Ok(())
}

/// Notes who a conversation is with, for stickiness only: `user`, or `metadata.session`. What is no such key is passed over.
pub fn user(query: &mut Query, name: &str, raw: &str) {
    let raw = match name {
        "user" => Some(raw),
        "metadata" => scan::object(raw, MAX_DEPTH)
            .ok()
            .and_then(|object| object.members.iter().find(|member| member.key == "session").map(|member| member.raw)),
        _ => None,
    };
    let key = raw.and_then(|raw| serde_json::from_str::<String>(raw).ok());
    query.user = key.and_then(|key| session(name, key.as_bytes()).ok()).or(query.user);
}

/// Reads the headers that a client may set, and keeps those that travel upstream.
pub fn from_headers(query: &mut Query, headers: &HeaderMap) -> Result<(), Fault> {
    if let Some(value) = headers.get(SESSION) {
        query.session = Some(session("x-session-id", value.as_bytes())?);
    }
    if let Some(value) = headers.get(POLICY) {
        query.asked.policy = Some(policy_name("x-wattroute-policy", value.to_str().unwrap_or_default())?);
    }
    // Every one of them counts: a second line must not hide a wish for privacy.
    for value in headers.get_all(PRIVATE) {
        query.asked.private |= fields::boolean("x-wattroute-private", value.to_str().unwrap_or_default())?;
    }
    for name in PASSED {
        if let Some(value) = headers.get(&name).filter(|value| short_and_visible(value)) {
            query.pass.push((name, value.clone()));
        }
    }
    Ok(())
}

/// A member with the comma after it, or before it if it is the last.
fn span_with_comma(object: &Object<'_>, place: usize, member: &Member<'_>) -> Range<usize> {
    let before = place.checked_sub(1).and_then(|at| object.members.get(at));
    match (object.members.get(place + 1), before) {
        (Some(_), _) => member.start..member.comma,
        (None, Some(before)) => before.comma - 1..member.value.end,
        (None, None) => member.start..member.value.end,
    }
}

fn short_and_visible(value: &HeaderValue) -> bool {
    value.len() <= 255 && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn text_of(path: &str, raw: &str) -> Result<String, Fault> {
    serde_json::from_str::<String>(raw).map_err(|_| fields::bad(path, "must be a string"))
}

/// A name that can never be a path.
fn policy_name(path: &str, name: &str) -> Result<String, Fault> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fine) {
        return Err(fields::bad(path, "must be 1 to 64 letters, digits, `-` or `_`"));
    }
    Ok(name.to_owned())
}

fn session(path: &str, key: &[u8]) -> Result<u64, Fault> {
    if key.is_empty() || key.len() > MAX_SESSION {
        return Err(fields::bad(path, "must be 1 to 256 bytes"));
    }
    let hash = blake3::hash(key);
    Ok(hash.as_bytes().first_chunk().map(|first| u64::from_le_bytes(*first)).unwrap_or_default())
}
