//! Upstreams whose heads, codings and endings are odd, and those that keep a request waiting.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::odd_upstream::plain;
use crate::support::answers::{CHUNKED, chunk, completion, delta, json_response};
use crate::support::gateway::{Gateway, Plan, cloud};
use crate::support::http::End;
use crate::support::upstream::{Step, Upstream};

#[tokio::test]
async fn an_early_informational_answer_is_skipped() {
    let answer = [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n".to_vec(),
        json_response(200, &[], &completion()),
    ]
    .concat();
    assert_eq!(plain(answer).await.json(), completion());
}

#[tokio::test]
async fn an_answer_before_the_body_is_read_is_passed_on() {
    let body = json!({ "error": { "message": "no", "type": "invalid_request_error", "param": null, "code": "nope" } });
    let upstream = Upstream::always(vec![Step::Head, Step::Send(json_response(400, &[], &body))]).await;
    let gateway = Gateway::before(&upstream.base()).await;
    let reply = gateway.chat("cloud/far", false).await;
    assert!(reply.status == 400 && reply.json() == body || reply.status == 502, "{reply:?}");
    gateway.finish().await;
}

/// The gateway asks for no coding; an upstream that compresses all the same is not taken for text.
#[tokio::test]
async fn a_compressed_answer_is_marked_or_refused() {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(completion().to_string().as_bytes()).unwrap();
    let body = gzip.finish().unwrap();
    let answer = crate::support::answers::response(
        200,
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
        &body,
    );
    let reply = plain(answer).await;
    assert!(reply.status == 502 || reply.header("content-encoding") == Some("gzip") && reply.body == body, "{reply:?}");
}

#[tokio::test]
async fn an_endless_answer_ends_at_a_limit() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = chunk(&" ".repeat(1 << 20)).into_bytes();
    let upstream = Upstream::always(vec![Step::Request, Step::Send(head), Step::Endless(chunk, Duration::ZERO)]).await;
    let gateway = Gateway::before(&upstream.base()).await;
    let reply = gateway.chat("cloud/far", false).await;
    assert_eq!((reply.status, reply.end), (502, End::Whole), "{} {:?}", reply.status, reply.end);
    upstream.closed(0).await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_endless_head_ends_at_a_limit() {
    let upstream = Upstream::always(vec![
        Step::Request,
        Step::Send(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Step::Endless(b"x-a: bbbbbbbbbbbbbbbbbbbbbbbb\r\n".repeat(500), Duration::ZERO),
    ])
    .await;
    let gateway = Gateway::before(&upstream.base()).await;
    let reply = gateway.chat("cloud/far", false).await;
    assert_eq!((reply.status, reply.end), (502, End::Whole), "{reply:?}");
    gateway.finish().await;
}

/// Waits of a backend, one at a time.
#[tokio::test]
async fn each_wait_has_its_own_limit_and_its_own_code() {
    let head = Step::Send(CHUNKED.into());
    let token = Step::Send(chunk(&delta("canaryanswer")).into_bytes());
    let slow = Step::Endless(chunk(&delta("x")).into_bytes(), Duration::from_millis(20));
    let cases = [
        ("first_token = \"80ms\"", vec![Step::Request, Step::Hold], "first_token_timeout"),
        ("first_token = \"80ms\"", vec![Step::Request, head.clone(), Step::Hold], "first_token_timeout"),
        (
            "first_token = \"80ms\"",
            vec![Step::Request, head.clone(), Step::Endless(chunk(": hm\n\n").into_bytes(), Duration::from_millis(20))],
            "first_token_timeout",
        ),
        ("gap = \"80ms\"", vec![Step::Request, head.clone(), token, Step::Hold], "stream_stalled"),
        ("total = \"120ms\"", vec![Step::Request, head, slow], "total_timeout"),
    ];
    for (wait, steps, code) in cases {
        let upstream = Upstream::always(steps).await;
        let gateway =
            Plan::new(&format!("{}[backends.far.waits]\n{wait}\n", cloud("far", &upstream.base()))).start().await;
        let asked = Instant::now();
        let reply = gateway.chat("cloud/far", true).await;
        assert!(asked.elapsed() < Duration::from_secs(2), "{wait}: {:?}", asked.elapsed());
        assert!(reply.text().contains(code), "{wait}: {reply:?}");
        assert!(
            reply.status == 504 && reply.end == End::Whole || reply.status == 200 && reply.end != End::Whole,
            "{wait}: {reply:?}"
        );
        let entry = gateway.finish().await.remove(0);
        assert_eq!((&entry["outcome"], &entry["fault"]), (&json!("fault"), &json!(code)));
    }
}

/// An upstream that closes its writing side only has still ended its answer: defined, and at once.
#[tokio::test]
async fn a_half_closed_upstream_is_an_error_at_once() {
    let token = chunk(&delta("canaryanswer"));
    for sent in [String::new(), CHUNKED.to_owned(), format!("{CHUNKED}{token}")] {
        let begun = sent.contains("canaryanswer");
        let upstream = Upstream::always(vec![Step::Request, Step::Send(sent.into_bytes()), Step::HalfClose]).await;
        let gateway = Gateway::before(&upstream.base()).await;
        let asked = Instant::now();
        let reply = gateway.chat("cloud/far", true).await;
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert_eq!(reply.status == 200 && reply.end != End::Whole, begun, "{reply:?}");
        assert!(begun || reply.status == 502 && reply.end == End::Whole, "{reply:?}");
        upstream.closed(0).await;
        gateway.finish().await;
    }
}
