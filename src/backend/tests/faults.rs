//! Limits, and upstreams that do not keep to what was agreed.

use super::*;

#[tokio::test]
async fn silence_is_cut_at_each_limit() {
    assert_eq!(fault(vec![Step::Hold], STREAM).await, FaultKind::FirstTokenTimeout);
    assert_eq!(fault(vec![Step::Write(sse_head()), Step::Hold], STREAM).await, FaultKind::FirstTokenTimeout);
    let started = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec();
    assert_eq!(fault(vec![Step::Write(started), Step::Hold], "").await, FaultKind::GapTimeout);
    let cases = [(1, "first_token_timeout"), (2, "first_token_timeout"), (3, "stream_stalled"), (4, "stream_stalled")];
    for (events, code) in cases {
        let mut bytes = sse_head();
        for event in EVENTS.split_inclusive("\n\n").take(events) {
            bytes.extend(chunked(event.as_bytes()));
        }
        let answer = ask(vec![Step::Write(bytes), Step::Hold], STREAM).await.unwrap();
        let (out, clean, completion) = through(answer, waits()).await;
        assert_eq!((clean, completion.fault), (false, Some(code)), "after {events} events: {out}");
        assert!(out.contains(code));
    }
}

#[tokio::test]
async fn comments_are_no_tokens() {
    let mut steps = vec![Step::Write(sse_head())];
    steps.extend((0..10_000).map(|_| Step::Write(chunked(b": busy\n\n"))));
    steps.push(Step::Hold);
    let (out, clean, completion) = through(ask(steps, STREAM).await.unwrap(), waits()).await;
    assert_eq!((clean, completion.fault), (false, Some("first_token_timeout")));
    assert!(out.starts_with(": busy\n\n: busy\n\n"), "comments pass at once");
}

#[tokio::test]
async fn what_was_not_agreed_is_a_protocol_fault() {
    for head in [
        "302 Found\r\nlocation: http://127.0.0.1:1/",
        "101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade",
        "200 OK\r\ncontent-encoding: gzip\r\ncontent-type: application/json",
        "204 No Content",
        "200 OK\r\ncontent-type: text/html",
        "999 What",
    ] {
        assert_eq!(fault(vec![response(head, "<html>")], "").await, FaultKind::UpstreamProtocol, "{head}");
    }
    assert_eq!(
        fault(vec![response("200 OK\r\ncontent-type: text/event-stream", EVENTS)], "").await,
        FaultKind::UpstreamProtocol
    );
    assert_eq!(
        fault(vec![response("200 OK\r\ncontent-type: application/json", ANSWER)], STREAM).await,
        FaultKind::UpstreamProtocol
    );
    assert_eq!(fault(vec![Step::Write(b"SSH-2.0-x\r\n\r\n".to_vec())], "").await, FaultKind::UpstreamProtocol);
    let bad_chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec();
    assert_eq!(fault(vec![Step::Write(bad_chunk)], "").await, FaultKind::UpstreamProtocol);
}

#[tokio::test]
async fn short_bodies_and_lost_connections_are_cuts() {
    let short = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}", ANSWER.len() + 1);
    assert_eq!(fault(vec![Step::Write(short.into_bytes())], "").await, FaultKind::UpstreamCut);
    assert_eq!(fault(vec![], "").await, FaultKind::UpstreamCut);
    assert_eq!(fault(vec![Step::Reset], STREAM).await, FaultKind::UpstreamCut);
    let nobody = http(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port());
    assert_eq!(nobody.ask(&query(""), None).await.err().unwrap().kind, FaultKind::Connect);
}

#[tokio::test]
async fn an_informational_response_is_skipped() {
    let continued =
        format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}", ANSWER.len());
    assert_eq!(ask(vec![Step::Write(continued.into_bytes())], "").await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn refusals_pass_with_status_and_retry_after() {
    let body = r#"{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}"#;
    let head = "429 Too Many Requests\r\nretry-after: 7\r\nretry-after-ms: 6500\r\nx-request-id: r1\r\nset-cookie: a=b";
    let answer = ask(vec![response(head, body)], STREAM).await.unwrap();
    assert_eq!((answer.status.as_u16(), text(&answer).as_str()), (429, body));
    assert_eq!(
        (&answer.headers["retry-after"], &answer.headers["x-upstream-request-id"]),
        (&"7".parse().unwrap(), &"r1".parse().unwrap())
    );
    assert!(!answer.headers.contains_key("set-cookie") && answer.worth_another_backend());
}
