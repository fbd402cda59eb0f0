//! Clients that keep us waiting: each is closed at its limit, and none sooner.

use super::*;

const LIMIT: Duration = Duration::from_millis(200);
/// On a busy machine a closing may come this much later.
const LATE: Duration = Duration::from_secs(2);

/// Sends `bytes` and expects the server to close after [`LIMIT`], having said something with `answer` in it, or nothing.
fn check(server: &Server, bytes: &str, answer: Option<&str>) {
    let begun = crate::clock::now();
    let said = talk(server.addr, bytes.as_bytes());
    let took = begun.elapsed();
    assert!(took >= LIMIT && took < LIMIT + LATE, "{bytes:?} was closed after {took:?}");
    match answer {
        Some(text) => assert!(said.contains(text), "{bytes:?} gave {said:?}"),
        None => assert_eq!(said, "", "{bytes:?}"),
    }
}

#[test]
fn a_client_that_sends_nothing_is_closed() {
    check(&start(Limits { first_byte: LIMIT, ..limits() }), "", None);
}

#[test]
fn a_part_of_a_head_is_closed_with_a_word() {
    let server = start(Limits { head: LIMIT, ..limits() });
    for part in ["G", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n"] {
        let answer = if part.starts_with("PRI") { "400 Bad Request" } else { "408 Request Timeout" };
        if part.starts_with("PRI") {
            assert!(talk(server.addr, part.as_bytes()).contains(answer));
        } else {
            check(&server, part, Some(answer));
        }
    }
    assert_eq!(server.seen.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_head_that_drips_has_one_deadline_as_a_whole() {
    let server = start(Limits { head: LIMIT, ..limits() });
    let mut socket = connect(server.addr);
    let begun = crate::clock::now();
    let mut sender = socket.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        while sender.write_all(b"x").is_ok() {
            std::thread::sleep(LIMIT / 10);
        }
    });
    assert!(read_to_end(&mut socket).contains("408"));
    assert!(begun.elapsed() < LIMIT + LATE);
    drop(socket);
    dripping.join().unwrap();
}

#[test]
fn a_body_that_stops_is_closed_with_a_word() {
    let server = start(Limits { body_gap: LIMIT, ..limits() });
    check(&server, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", Some("408 Request Timeout"));
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(&server, chunked, Some("408 Request Timeout"));
    check(&server, &format!("{chunked}5\r\nhel"), Some("408 Request Timeout"));
}

#[test]
fn a_kept_connection_is_closed_when_it_is_idle() {
    let server = start(Limits { idle: LIMIT, ..limits() });
    check(&server, &get("/"), Some("200 OK"));
}

#[test]
fn an_answer_may_take_longer_than_any_limit_of_the_client_s_side() {
    let short = Duration::from_millis(50);
    let server =
        start(Limits { first_byte: short, head: short, idle: short, body_gap: short, write_stall: short, ..limits() });
    assert!(talk(server.addr, last_get("/wait?300").as_bytes()).ends_with("waited"));
    assert!(talk(server.addr, last_get("/drip").as_bytes()).contains("0\r\n\r\n"));
}

#[test]
fn a_client_that_stops_reading_is_cut_and_costs_little() {
    let server = start(Limits { write_stall: LIMIT, ..limits() });
    let socket = connect(server.addr);
    (&socket).write_all(get("/endless").as_bytes()).unwrap();
    eventually("the answer starts", || server.seen.running.load(Ordering::SeqCst) == 1);
    eventually("the answer is dropped", || server.seen.running.load(Ordering::SeqCst) == 0);
    // hyper's buffer, our socket's, and what the client's kernel took in; the last is not ours.
    let given = server.seen.given.load(Ordering::SeqCst);
    let theirs = socket2::SockRef::from(&socket).recv_buffer_size().unwrap();
    assert!(given <= 512 * 1024 + 2 * theirs.max(3 * 1024 * 1024), "{given} bytes were drawn, {theirs} are theirs");
}

#[test]
fn a_reader_that_pauses_and_resumes_loses_nothing() {
    let server = start(Limits { write_stall: Duration::from_secs(5), ..limits() });
    let mut socket = connect(server.addr);
    socket.write_all(get("/endless").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let paused_at = server.seen.given.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(server.seen.given.load(Ordering::SeqCst), paused_at, "the source goes on while nobody reads");
    let mut part = vec![0; 64 * 1024];
    let mut taken = 0;
    while taken < paused_at + 1024 * 1024 {
        let count = socket.read(&mut part).unwrap();
        assert!(count > 0);
        taken += count;
    }
    assert!(server.seen.given.load(Ordering::SeqCst) > paused_at);
}

#[test]
fn slow_clients_do_not_keep_others_waiting() {
    let server = start(Limits { connections: 200, ..limits() });
    let slow: Vec<_> = (0..60)
        .map(|number| {
            let mut socket = connect(server.addr);
            socket.write_all(&get("/").as_bytes()[..number % 20]).unwrap();
            socket
        })
        .collect();
    let begun = crate::clock::now();
    for _ in 0..20 {
        assert!(talk(server.addr, last_get("/").as_bytes()).ends_with("hello"));
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(slow);
}
