//! Headers to and from upstreams, both by allow-list.
//!
//! Invariant: a request is built from nothing, so no header of a client travels by accident; the upstream's key is
//! exposed here and nowhere else.

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};

use super::pool::Outgoing;
use super::scrub::Scrub;
use crate::api::query::Query;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// The `Authorization` of an upstream; its `Debug` is masked.
pub fn authorization(key: &SecretString) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
        .map_err(|_| "the key holds characters that cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A request upstream; its address is set where it is sent.
pub fn request(query: &Query, authorization: Option<&HeaderValue>, body: Bytes) -> Outgoing {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    let accept = if query.stream { "text/event-stream" } else { "application/json" };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("wattroute/", env!("CARGO_PKG_VERSION"))));
    if let Some(key) = authorization {
        headers.insert(AUTHORIZATION, key.clone());
    }
    for (name, value) in &query.pass {
        headers.insert(name, value.clone());
    }
    request
}

/// What of an upstream's headers the client gets. The upstream's request id keeps its value under another name.
pub fn response(upstream: &HeaderMap, scrub: &Scrub) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    for (name, value) in upstream {
        let name = match name {
            id if id == X_REQUEST_ID => X_UPSTREAM_REQUEST_ID,
            name if passes(name) => name.clone(),
            _ => continue,
        };
        if !scrub.finds(value.as_bytes()) {
            headers.insert(name, value.clone());
        }
    }
    headers
}

fn passes(name: &HeaderName) -> bool {
    [CONTENT_TYPE, RETRY_AFTER, RETRY_AFTER_MS, PROCESSING_MS].contains(name)
        || name.as_str().starts_with("x-ratelimit-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_headers_come_back() {
        let upstream = [
            ("content-type", "application/json"),
            ("set-cookie", "a=b"),
            ("location", "http://169.254.169.254/"),
            ("server", "x"),
            ("x-request-id", "req_1"),
            ("x-ratelimit-remaining-tokens", "5"),
            ("retry-after", "3"),
            ("openai-organization", "org"),
            ("openai-processing-ms", "Bearer sk-canary"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
        ];
        let upstream: HeaderMap =
            upstream.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
        let key = HeaderValue::from_static("Bearer sk-canary");
        let headers = response(&upstream, &Scrub::new(Some(&key), "up.example"));
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "retry-after", "x-ratelimit-remaining-tokens", "x-upstream-request-id"]);
    }

    #[test]
    fn a_key_is_masked_in_debug_output() {
        let value = authorization(&SecretString::from("sk-canary")).unwrap();
        assert!(!format!("{value:?}").contains("canary"));
        assert!(authorization(&SecretString::from("a\nb")).is_err());
    }
}
