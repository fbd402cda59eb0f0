//! A connection's life: kept, hung up on, broken off, drained, or made to wait for room.

use std::thread;

use super::*;

#[test]
fn one_connection_carries_many_requests() {
    let server = start(limits());
    let mut socket = connect(server.addr);
    for _ in 0..50 {
        socket.write_all(get("/").as_bytes()).unwrap();
        read_until(&mut socket, "hello");
    }
    assert_eq!(server.seen.requests.load(Ordering::SeqCst), 50);
}

#[test]
fn a_hang_up_drops_the_answer_even_with_more_requests_sent_ahead() {
    let server = start(limits());
    for request in [get("/wait"), get("/endless"), get("/wait") + &get("/"), get("/wait") + "GET / HT"] {
        let mut socket = connect(server.addr);
        socket.write_all(request.as_bytes()).unwrap();
        eventually("the answer runs", || server.seen.running.load(Ordering::SeqCst) == 1);
        thread::sleep(Duration::from_millis(20));
        let begun = crate::clock::now();
        drop(socket);
        eventually("the answer is dropped", || server.seen.running.load(Ordering::SeqCst) == 0);
        assert!(begun.elapsed() < Duration::from_millis(500), "{request:?} took {:?}", begun.elapsed());
    }
}

#[test]
fn a_panic_is_that_caller_s_500_and_nobody_else_s() {
    let server = start(limits());
    let mut other = connect(server.addr);
    other.write_all(get("/wait?150").as_bytes()).unwrap();
    let mut socket = connect(server.addr);
    socket.write_all(get("/panic").as_bytes()).unwrap();
    let answer = read_until(&mut socket, "}}");
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("\"server_error\""), "{answer}");
    assert!(!answer.contains("on request"), "the panic's text reached the client: {answer}");
    // Its connection goes on, and so does everybody else's.
    socket.write_all(get("/").as_bytes()).unwrap();
    read_until(&mut socket, "hello");
    read_until(&mut other, "waited");
}

#[test]
fn a_broken_answer_never_looks_finished() {
    let server = start(limits());
    for path in ["/broken", "/early-panic"] {
        let answer = talk(server.addr, get(path).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("part"), "{answer:?}");
        assert!(!answer.ends_with("0\r\n\r\n"), "{path} looks finished: {answer:?}");
    }
}

#[test]
fn connections_over_the_cap_wait_and_are_served_when_there_is_room() {
    let bound = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let server = start_on(bound, Limits { connections: 4, ..limits() }, None);
    let held: Vec<_> = (0..4)
        .map(|_| {
            let mut socket = connect(server.addr);
            socket.write_all(get("/").as_bytes()).unwrap();
            read_until(&mut socket, "hello");
            socket
        })
        .collect();
    let mut waiting = connect(server.addr);
    waiting.write_all(last_get("/").as_bytes()).unwrap();
    waiting.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(waiting.read(&mut [0; 1]).is_err(), "served over the cap");
    drop(held);
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(read_to_end(&mut waiting).ends_with("hello"));
}

/// Begins the drain and waits for its end; how long it took.
fn drain(server: &mut Server) -> Duration {
    let begun = crate::clock::now();
    server.drain.begin();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(server.serving.take().unwrap().ended());
    begun.elapsed()
}

#[test]
fn a_drain_lets_running_answers_end_whole_and_takes_no_more() {
    let mut server = start(limits());
    let running: Vec<_> = (0..10)
        .map(|_| {
            let mut socket = connect(server.addr);
            socket.write_all(get("/drip").as_bytes()).unwrap();
            thread::spawn(move || read_to_end(&mut socket))
        })
        .collect();
    let idle = connect(server.addr);
    let mut kept = connect(server.addr);
    kept.write_all(get("/").as_bytes()).unwrap();
    read_until(&mut kept, "hello");
    let partial = connect(server.addr);
    (&partial).write_all(b"GET / HT").unwrap();
    eventually("answers run", || server.seen.running.load(Ordering::SeqCst) == 10);
    drop(partial);
    let took = drain(&mut server);
    assert!(took < Duration::from_secs(4), "the drain took {took:?}");
    for answer in running {
        let answer = answer.join().unwrap();
        assert!(answer.ends_with("0\r\n\r\n") && answer.contains('9'), "an answer was cut: {answer:?}");
    }
    for mut socket in [idle, kept] {
        assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0, "an idle connection was kept");
    }
    assert!(std::net::TcpStream::connect(server.addr).is_err(), "the listener is still open");
}

#[test]
fn a_drain_ends_at_its_grace() {
    let bound = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
    let grace = Duration::from_millis(200);
    let drain = Drain::new();
    let settings = Settings { limits: limits(), tls: None, grace, refused: std::sync::Arc::new(|_| ()) };
    let seen = Arc::new(Seen::default());
    let for_handler = seen.clone();
    let serving = serve(bound, settings, &drain, move |_worker| {
        let seen = for_handler.clone();
        move |request: Request<Incoming>, _conn: Conn| answer(request, seen.clone(), Arc::new(limits()))
    });
    let serving = serving.unwrap();
    let mut socket = connect(serving.addr());
    socket.write_all(get("/wait").as_bytes()).unwrap();
    eventually("the answer runs", || seen.running.load(Ordering::SeqCst) == 1);
    let mut server = Server { addr: serving.addr(), drain, seen, serving: Some(serving) };
    let took = super::life::drain(&mut server);
    assert!(took >= grace && took < grace + Duration::from_secs(1), "{took:?}");
    assert_eq!(server.seen.running.load(Ordering::SeqCst), 0);
    assert_eq!(read_to_end(&mut socket), "");
}

#[test]
fn an_idle_server_drains_at_once() {
    let mut server = start(limits());
    assert!(server.drain.is_serving());
    server.drain.leave();
    assert!(!server.drain.is_serving() && !server.drain.is_draining());
    assert!(talk(server.addr, last_get("/").as_bytes()).ends_with("hello"), "leaving still serves");
    assert!(drain(&mut server) < Duration::from_secs(1));
}
