//! What passes and what is refused, as a client sees it; the table of cases is with the scanner.

use super::*;

fn is_refused(server: &Server, request: &str, status: &str) {
    let answer = talk(server.addr, request.as_bytes());
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?} gave {answer:?}");
    assert!(answer.contains("connection: close\r\n"), "{answer:?}");
    let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert!(body["error"]["message"].is_string() && body["error"]["code"].is_string(), "{body}");
}

#[test]
fn refused_requests_get_an_error_in_openai_s_shape_and_reach_nobody() {
    let server = start(limits());
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\r\n",
    ] {
        is_refused(&server, request, "400 Bad Request");
    }
    is_refused(&server, &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(64 * 1024)), "431");
    is_refused(&server, &format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100)), "431");
    assert_eq!(server.seen.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_head_passes_however_it_is_split() {
    let server = start(limits());
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    for cut in [1, 15, 20, request.len() - 7, request.len() - 5, request.len() - 1] {
        let mut socket = connect(server.addr);
        socket.set_nodelay(true).unwrap();
        socket.write_all(&request.as_bytes()[..cut]).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        socket.write_all(&request.as_bytes()[cut..]).unwrap();
        assert!(read_to_end(&mut socket).ends_with("\r\n\r\nhello"), "cut at {cut}");
    }
}

#[test]
fn requests_sent_ahead_are_answered_in_order_and_a_bad_one_after_them_is_refused() {
    let server = start(limits());
    let echo = |text: &str| {
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{text}\r\n0\r\n\r\n")
    };
    let ahead = [echo("one"), echo("two"), get("/wait?20"), "GET / HTTP/1.1\r\n\r\n".into(), echo("bad")].concat();
    let answer = talk(server.addr, ahead.as_bytes());
    let places: Vec<_> = ["one", "two", "waited", "400 Bad Request"].iter().map(|text| answer.find(text)).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{places:?} in {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 4);
    assert_eq!(server.seen.requests.load(Ordering::SeqCst), 3);
}

#[test]
fn a_badly_chunked_body_is_the_client_s_400_and_the_connection_ends() {
    let server = start(limits());
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["5;x=y\r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "zz\r\n", "5\r\nhello!\r\n0\r\n\r\n"] {
        let answer = talk(server.addr, format!("{head}{body}{}", get("/")).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?} gave {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer:?}");
    }
}

#[test]
fn body_limits_are_exact_and_a_claimed_length_is_refused_unread() {
    let server = start(Limits { body_bytes: 70_000, ..limits() });
    for (size, status) in [(69_999, "200"), (70_000, "200"), (70_001, "413")] {
        let body = "x".repeat(size);
        let plain =
            format!("POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n{body}");
        let chunked = format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"
        );
        for request in [plain, chunked] {
            let answer = talk(server.addr, request.as_bytes());
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{size}: {}", &answer[..answer.len().min(200)]);
        }
    }
    // Nothing of the body is sent, and no `100 Continue` asks for it.
    let claimed = "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 70001\r\n\r\n";
    assert!(talk(server.addr, claimed.as_bytes()).starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_large_refused_upload_still_hears_why() {
    let server = start(Limits { body_bytes: 1000, ..limits() });
    let mut socket = connect(server.addr);
    let size = 4 * 1024 * 1024;
    let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(&vec![b'x'; size]).unwrap();
    assert!(read_to_end(&mut socket).starts_with("HTTP/1.1 413 "));
}

#[test]
fn expect_continue_is_answered_when_the_body_is_wanted() {
    let server = start(limits());
    let mut socket = connect(server.addr);
    socket
        .write_all(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    assert!(read_until(&mut socket, "\r\n\r\n").starts_with("HTTP/1.1 100 "));
    socket.write_all(b"hello").unwrap();
    assert!(read_to_end(&mut socket).ends_with("\r\n\r\nhello"));
}
