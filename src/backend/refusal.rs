//! An upstream's error status to an answer: its body as it is where that is OpenAI's shape and holds no secret of
//! ours, wrapped otherwise.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::scrub::Scrub;
use super::types::{Answer, Body, Usage};

/// Code of an answer whose cause is the gateway's own key.
const KEY_REFUSED: &[u8] = b"\"upstream_credentials\"";
/// An upstream's unstructured words are passed on up to this many bytes.
const MAX_WORDS: usize = 1024;

/// The answer for the client. `body` is none when it could not be read whole.
pub fn answer(status: StatusCode, headers: HeaderMap, body: Option<Bytes>, scrub: &Scrub, name: &str) -> Answer {
    // The key is ours, so to the client this is no 401; and what providers say about a key shows parts of it.
    let about_key = matches!(status.as_u16(), 401 | 403 | 407);
    let (status, body) = if about_key {
        let message = format!("backend `{name}` refused the gateway's own credentials (status {})", status.as_u16());
        (StatusCode::BAD_GATEWAY, error(&message, "upstream_error", Some("upstream_credentials")))
    } else {
        (status, shaped(status, body.unwrap_or_default(), scrub, name))
    };
    let mut headers = headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Answer { headers, ..Answer::full(status, body, Usage::default()) }
}

/// Whether the upstream refused our key: its fault or ours, but no sign of ill health.
pub fn is_about_the_key(answer: &Answer) -> bool {
    matches!(&answer.body, Body::Full(body) if memchr::memmem::find(body, KEY_REFUSED).is_some())
}

/// Whether the upstream says that the prompt does not fit its context window, in OpenAI's words, llama.cpp's or vLLM's.
pub fn is_too_long(answer: &Answer) -> bool {
    let Body::Full(body) = &answer.body else { return false };
    if !matches!(answer.status.as_u16(), 400 | 413 | 422) {
        return false;
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return false };
    let error = value.get("error");
    let says = |key: &str, word: &str| {
        error.and_then(|e| e.get(key)).and_then(Value::as_str).is_some_and(|text| text.contains(word))
    };
    says("code", "context_length_exceeded")
        || says("type", "exceed_context_size_error")
        || says("message", "maximum context length")
}

fn shaped(status: StatusCode, body: Bytes, scrub: &Scrub, name: &str) -> Bytes {
    let Ok(mut value) = serde_json::from_slice::<Value>(&body) else {
        return wrapped(status, None, name);
    };
    let openai = value.get("error").and_then(|error| error.get("message")).is_some_and(Value::is_string);
    if openai && !scrub.finds_in(&value) && !scrub.finds(&body) {
        return body;
    }
    scrub.clean_in(&mut value);
    if openai {
        return Bytes::from(value.to_string());
    }
    // Other servers: {"error": "..."}, {"message": "..."}, {"detail": "..."}.
    let words = ["error", "message", "detail"].iter().find_map(|key| value.get(key).and_then(Value::as_str));
    wrapped(status, words, name)
}

fn wrapped(status: StatusCode, words: Option<&str>, name: &str) -> Bytes {
    let (kind, code) = match status.as_u16() {
        429 => ("rate_limit_error", Some("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", None),
        _ => ("upstream_error", None),
    };
    let own = format!("backend `{name}` answered with status {}", status.as_u16());
    let words = words.map(|words| words.get(..words.floor_char_boundary(MAX_WORDS)).unwrap_or_default());
    error(words.filter(|words| !words.is_empty()).unwrap_or(&own), kind, code)
}

fn error(message: &str, kind: &str, code: Option<&str>) -> Bytes {
    Bytes::from(json!({ "error": { "message": message, "type": kind, "param": null, "code": code } }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> (u16, Value, String) {
        let key = HeaderValue::from_static("Bearer sk-canary/1");
        let scrub = Scrub::new(Some(&key), "api.up.example");
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = answer(StatusCode::from_u16(status).unwrap(), HeaderMap::new(), Some(body), &scrub, "cloud/x");
        let Body::Full(bytes) = answer.body else { unreachable!() };
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        (answer.status.as_u16(), serde_json::from_str(&text).unwrap(), text)
    }

    #[test]
    fn openai_errors_pass_byte_for_byte() {
        let body = r#"{ "error" : {"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"} }"#;
        assert_eq!(refused(400, body).2, body);
        assert_eq!(refused(429, body).0, 429);
    }

    #[test]
    fn other_shapes_are_wrapped() {
        assert_eq!(refused(404, "{\"error\":\"no such model\"}").1["error"]["message"], "no such model");
        assert_eq!(refused(422, "{\"detail\":\"bad\"}").1["error"]["type"], "invalid_request_error");
        assert_eq!(
            refused(500, "<html>api.up.example").1["error"]["message"],
            "backend `cloud/x` answered with status 500"
        );
        assert_eq!(refused(503, "").1["error"]["type"], "upstream_error");
        assert_eq!(refused(429, "[]").1["error"]["code"], "rate_limit_exceeded");
    }

    #[test]
    fn keys_and_hosts_are_taken_out_even_when_escaped() {
        for body in [
            r#"{"error":{"message":"key sk-canary/1 at https://api.up.example/v1 is bad"}}"#,
            r#"{"error":{"message":"key sk-c\u0061nary\/1 at api.up.example","extra":["sk-canary/1"],"sk-canary/1":1}}"#,
            r#"{"error":"sk-canary/1"}"#,
        ] {
            let (status, value, text) = refused(400, body);
            assert!(status == 400 && !text.contains("canary") && !text.contains("up.example"), "{text}");
            assert!(value["error"]["message"].as_str().unwrap().contains("[key]"), "{text}");
        }
    }

    #[test]
    fn a_prompt_that_is_too_long_is_told_in_several_ways() {
        let told = |status: u16, error: Value| {
            let body = Bytes::from(json!({ "error": error }).to_string());
            is_too_long(&Answer::full(StatusCode::from_u16(status).unwrap(), body, Usage::default()))
        };
        assert!(told(400, json!({ "message": "x", "code": "context_length_exceeded" })));
        assert!(told(400, json!({ "message": "x", "type": "exceed_context_size_error", "code": 400 })));
        assert!(told(400, json!({ "message": "This model's maximum context length is 4096 tokens." })));
        assert!(!told(400, json!({ "message": "bad `temperature`" })) && !told(400, json!("x")));
        assert!(!told(500, json!({ "code": "context_length_exceeded" })));
    }

    #[test]
    fn a_refused_key_is_not_the_clients_401() {
        let (status, value, text) = refused(401, r#"{"error":{"message":"Incorrect API key provided: sk-can*y"}}"#);
        assert_eq!((status, &value["error"]["code"]), (502, &json!("upstream_credentials")));
        assert!(!text.contains("sk-can"));
    }
}
