//! Clients that leave, connections that are used again, backends that rest.

use super::*;

#[tokio::test]
async fn hanging_up_closes_the_upstream_and_frees_the_place() {
    for (steps, fields) in [
        (vec![Step::Hold], ""),
        (vec![Step::Hold], STREAM),
        (vec![Step::Write(sse_head()), Step::Hold], STREAM),
        (vec![Step::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec()), Step::Hold], ""),
    ] {
        let mut upstream = upstream(steps).await;
        let http = http(upstream.port);
        let query = query(fields);
        let mut asking = Box::pin(http.ask(&query, None));
        while upstream.seen.lock().unwrap().is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(5), &mut asking).await;
        }
        let _ = tokio::time::timeout(Duration::from_millis(20), &mut asking).await;
        drop(asking);
        tokio::time::timeout(Duration::from_millis(100), upstream.closed.recv()).await.unwrap().unwrap();
        assert_eq!(http.in_flight(), 0);
    }
}

#[tokio::test]
async fn hanging_up_mid_stream_closes_the_upstream_and_tells_once() {
    let mut bytes = sse_head();
    EVENTS.split_inclusive("\n\n").take(3).for_each(|event| bytes.extend(chunked(event.as_bytes())));
    let mut upstream = upstream(vec![Step::Write(bytes), Step::Hold]).await;
    let http = http(upstream.port);
    let answer = http.ask(&query(STREAM), None).await.unwrap();
    let (tell, mut told) = unbounded_channel();
    let timing = Timing { asked: now(), waits: waits() };
    let mut body = relay(answer, (), timing, move |c| tell.send(c).unwrap()).into_body();
    let mut out = Vec::new();
    while !String::from_utf8_lossy(&out).contains("h\u{e9}") {
        out.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(http.in_flight(), 1);
    drop(body);
    tokio::time::timeout(Duration::from_millis(100), upstream.closed.recv()).await.unwrap().unwrap();
    let completion = told.recv().await.unwrap();
    assert_eq!((completion.outcome, completion.usage.output), (Outcome::Hangup, Some(1)));
    assert_eq!(http.in_flight(), 0);
}

#[tokio::test]
async fn connections_are_used_again_and_a_closed_one_costs_no_request() {
    let answer = || response("200 OK\r\ncontent-type: application/json", ANSWER);
    let upstream = upstream(vec![answer(), Step::Next, answer()]).await;
    let http = http(upstream.port);
    for _ in 0..5 {
        http.ask(&query(""), None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(upstream.seen.lock().unwrap().len(), 5, "each request once");
}

/// A stream ends: what was read past hyper leaves a connection that hyper still judges.
#[tokio::test]
async fn a_connection_is_used_again_after_a_stream_unless_more_came_than_was_asked_for() {
    let streamed = |tail: &[u8]| {
        let Step::Write(bytes) = sse(EVENTS) else { unreachable!() };
        Step::Write([bytes.as_slice(), tail].concat())
    };
    let lone = |byte: &[u8]| Step::Write(byte.to_vec());
    for (steps, connections) in [
        (vec![streamed(b""), Step::Next, streamed(b""), Step::Next, streamed(b"")], 1),
        // A head in pieces is read by hyper, and so is its body.
        (
            vec![
                lone(b"HTTP/1.1"),
                Step::Pause,
                lone(&sse_rest()),
                Step::Next,
                streamed(b""),
                Step::Next,
                streamed(b""),
            ],
            1,
        ),
        (vec![streamed(b"HTTP/1.1 200 OK\r\n\r\n"), Step::Next], 3),
    ] {
        let upstream = upstream(steps).await;
        let http = http(upstream.port);
        for _ in 0..3 {
            let answer = http.ask(&query(STREAM), None).await.unwrap();
            let (out, clean, completion) = through(answer, waits()).await;
            assert!(clean && out.ends_with("data: [DONE]\n\n") && completion.outcome == Outcome::Ok, "{out}");
        }
        assert_eq!(upstream.seen.lock().unwrap().len(), 3, "each request once");
        assert_eq!(upstream.met.load(Ordering::Relaxed), connections);
    }
}

/// Bytes of a large request may still be on their way out when its answer begins.
#[tokio::test]
async fn a_stream_that_begins_before_its_request_was_read_brings_both_to_their_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = http(listener.local_addr().unwrap().port());
    let large = format!(",\"x\":\"{}\"{STREAM}", "y".repeat(16 << 20));
    let serve = clock::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(&sse_head()).await.unwrap();
        socket.write_all(&chunked(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n")).await.unwrap();
        let (mut buffer, mut read) = (vec![0; 1 << 16], 0);
        while read < 16 << 20 {
            read += socket.read(&mut buffer).await.unwrap();
        }
        socket.write_all(&chunked(b"data: [DONE]\n\n")).await.unwrap();
        socket.write_all(b"0\r\n\r\n").await.unwrap();
    });
    let patient = Waits { gap: Duration::from_secs(20), ..waits() };
    let (out, clean, _) = through(http.ask(&query(&large), None).await.unwrap(), patient).await;
    assert!(clean && out.ends_with("data: [DONE]\n\n"), "{out}");
    serve.await.unwrap();
}

/// Servers close a connection whose answer is over without saying so, and the next request meets the news on its way.
#[tokio::test]
async fn a_request_that_met_a_closing_connection_is_sent_once_more() {
    let answer = || response("200 OK\r\ncontent-type: application/json", ANSWER);
    let closing = upstream(vec![answer(), Step::Next]).await;
    let http_closing = http(closing.port);
    for _ in 0..3 {
        http_closing.ask(&query(""), None).await.unwrap();
    }
    assert_eq!(closing.seen.lock().unwrap().len(), 5, "the second and the third had to be sent twice");
    let dead = upstream(vec![Step::Reset]).await;
    assert!(http(dead.port).ask(&query(""), None).await.is_err());
    assert_eq!(dead.seen.lock().unwrap().len(), 1, "a new connection that closes says something about the upstream");
}

#[tokio::test]
async fn five_failures_rest_the_backend_and_429s_do_not() {
    let upstream_429 = upstream(vec![response("429 Too Many Requests", "{}")]).await;
    let limited = http(upstream_429.port);
    for _ in 0..20 {
        limited.ask(&query(""), None).await.unwrap();
    }
    assert_eq!(limited.closed(now()), None);
    let upstream_500 = upstream(vec![response("500 Oops", "{}")]).await;
    let sick = http(upstream_500.port);
    for _ in 0..20 {
        let _ = sick.ask(&query(""), None).await;
    }
    assert_eq!(upstream_500.seen.lock().unwrap().len(), 5);
    assert_eq!(sick.ask(&query(""), None).await.err().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}
