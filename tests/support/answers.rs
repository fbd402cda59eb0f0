//! Answers of upstreams, as bytes.

use serde_json::{Value, json};

use super::canary;
use super::upstream::Step;

/// A response with a length.
pub fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A JSON response with a length.
pub fn json_response(status: u16, headers: &[(&str, &str)], body: &Value) -> Vec<u8> {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    response(status, &all, body.to_string().as_bytes())
}

/// A whole chat completion with the canary answer.
pub fn completion() -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "far-model-2",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": canary::ANSWER }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15 },
    })
}

/// Answers every request on a connection with a whole completion.
pub fn well() -> Vec<Step> {
    vec![Step::Request, Step::Send(json_response(200, &[], &completion())), Step::Again]
}

/// Answers one request with these bytes and closes.
pub fn once(bytes: Vec<u8>) -> Vec<Step> {
    vec![Step::Request, Step::Send(bytes)]
}

/// One streamed delta.
pub fn delta(content: &str) -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "far-model-2",
        "choices": [{ "index": 0, "delta": { "content": content }, "finish_reason": null }],
    });
    format!("data: {chunk}\n\n")
}

/// The event that says why the answer ended.
pub fn finish(reason: &str) -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "far-model-2",
        "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }],
    });
    format!("data: {chunk}\n\n")
}

/// The usage event.
pub fn usage() -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "far-model-2", "choices": [],
        "usage": { "prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13 },
    });
    format!("data: {chunk}\n\n")
}

/// The end of a stream.
pub const DONE: &str = "data: [DONE]\n\n";

/// The head of a stream that ends with the connection.
pub const TO_CLOSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
/// The head of a chunked stream.
pub const CHUNKED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// One chunk.
pub fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Answers one request with a stream of this text, then closes.
pub fn streams(text: &str) -> Vec<Step> {
    once(format!("{TO_CLOSE}{text}").into_bytes())
}
