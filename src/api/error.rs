//! Faults to bytes: a complete error response, and the last event of a broken stream.
//!
//! Invariant: nothing but a fault's own message, code and parameter reaches the client.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::fault::{Blame, Fault, Kind};

/// Official clients obey it: `false` keeps their own retries from multiplying ours.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Milliseconds; official clients prefer it to `retry-after`.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// The whole error response.
pub fn response(fault: &Fault) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(fault.body().to_string()));
    *response.status_mut() = fault.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(delay) = fault.retry_after {
        come_back(headers, delay);
    }
    if matches!(fault.blame(), Blame::Upstream) || matches!(fault.kind, Kind::Engine | Kind::Internal) {
        spent(headers);
    }
    response
}

/// One SSE event with the error object: the last thing that a broken stream says before it is aborted.
pub fn event(fault: &Fault) -> Bytes {
    Bytes::from(format!("data: {}\n\n", fault.body()))
}

/// Says that our own attempts are spent and another try by the client would only add load.
pub fn spent(headers: &mut HeaderMap) {
    headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
}

/// Says when to come back, in the two forms that clients read.
fn come_back(headers: &mut HeaderMap, delay: Duration) {
    let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000).max(1)));
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_openai_shape_and_says_when_to_come_back() {
        let fault = Fault::new(Kind::Overloaded, "full").retry_after(Duration::from_millis(1500));
        let response = response(&fault);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1500");
        assert!(!response.headers().contains_key("x-should-retry"));
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["error"]["code"], "overloaded");
        assert!(body["error"]["param"].is_null());
    }

    #[test]
    fn spent_attempts_stop_the_clients_retries() {
        let response = response(&Fault::new(Kind::Connect, "gone"));
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-should-retry"]),
            (502, &"false".parse().unwrap())
        );
    }

    #[test]
    fn a_stream_event_is_one_data_line() {
        let event = event(&Fault::new(Kind::UpstreamCut, "line\nbreak"));
        let text = std::str::from_utf8(&event).unwrap();
        assert!(text.starts_with("data: {") && text.ends_with("}\n\n"));
        assert_eq!(text.trim_end().lines().count(), 1);
    }
}
