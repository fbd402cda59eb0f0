//! The edge from outside, over real sockets on port 0.

mod framing;
mod life;
mod secure;
mod slow;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use tokio_rustls::TlsAcceptor;

use super::{Bound, Drain, Serving, Settings, bind, body, fault_response, serve};
use crate::config::checked::Limits;
use crate::fault::{Fault, Kind};
use crate::gate::Conn;

/// Nothing in a test waits longer for a socket.
const PATIENCE: Duration = Duration::from_secs(10);

/// Limits of a test: generous, so that each test shortens what it looks at.
pub fn limits() -> Limits {
    let long = Duration::from_secs(20);
    Limits {
        first_byte: long,
        head: long,
        idle: long,
        body_gap: Duration::from_secs(10),
        body_total: Duration::from_secs(30),
        head_bytes: 32 * 1024,
        header_fields: 100,
        body_bytes: 10 * 1024 * 1024,
        json_depth: 64,
        connections: 64,
        in_flight: 64,
        tenant_in_flight: 64,
        write_stall: long,
    }
}

/// What the handler has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests that reached it.
    pub requests: AtomicUsize,
    /// Answers that are being made or streamed.
    pub running: AtomicUsize,
    /// Bytes that it gave to `/endless`.
    pub given: AtomicUsize,
}

/// Counts itself.
struct Running(Arc<Seen>);

impl Running {
    fn enter(seen: &Arc<Seen>) -> Self {
        seen.running.fetch_add(1, Ordering::SeqCst);
        Self(seen.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A server of the test's own.
pub struct Server {
    pub addr: SocketAddr,
    pub drain: Drain,
    pub seen: Arc<Seen>,
    pub serving: Option<Serving>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

pub fn start(limits: Limits) -> Server {
    start_on(bind("127.0.0.1:0".parse().unwrap(), 2).unwrap(), limits, None)
}

pub fn start_on(bound: Bound, limits: Limits, tls: Option<TlsAcceptor>) -> Server {
    let (drain, seen) = (Drain::new(), Arc::new(Seen::default()));
    let settings = Settings { limits: limits.clone(), tls, grace: Duration::from_secs(5), refused: Arc::new(|_| ()) };
    let for_handler = seen.clone();
    let serving = serve(bound, settings, &drain, move |_worker| {
        let (seen, limits) = (for_handler.clone(), Arc::new(limits.clone()));
        move |request: Request<Incoming>, _conn: Conn| answer(request, seen.clone(), limits.clone())
    });
    let serving = serving.unwrap();
    Server { addr: serving.addr(), drain, seen, serving: Some(serving) }
}

type Answer = Response<UnsyncBoxBody<Bytes, Fault>>;

async fn answer(request: Request<Incoming>, seen: Arc<Seen>, limits: Arc<Limits>) -> Answer {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let running = Running::enter(&seen);
    let (head, incoming) = request.into_parts();
    let body = match body::read(incoming, &head.headers, &limits).await {
        Ok(body) => body,
        Err(fault) => return fault_response(&fault).map(|body| body.map_err(|never| match never {}).boxed_unsync()),
    };
    let whole = |bytes: Bytes| Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    match head.uri.path() {
        "/echo" => whole(body),
        "/panic" => panic!("on request"),
        "/early-panic" | "/broken" => {
            let panics = head.uri.path() == "/early-panic";
            let frames = stream::unfold(0, move |count| async move {
                assert!(!(panics && count == 1), "on request");
                let frame = Frame::data(Bytes::from("part"));
                Some((if count == 0 { Ok(frame) } else { Err(Fault::new(Kind::UpstreamCut, "cut")) }, count + 1))
            });
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
        "/endless" => {
            let frames = stream::unfold(running, |running| async move {
                running.0.given.fetch_add(16 * 1024, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Some((Ok(Frame::data(Bytes::from(vec![b'x'; 16 * 1024]))), running))
            });
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
        "/wait" => {
            let ms = head.uri.query().and_then(|query| query.parse().ok()).unwrap_or(30_000);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            whole(Bytes::from("waited"))
        }
        "/drip" => {
            // Ten parts of about 30 ms.
            let frames = stream::unfold((0, running), |(count, running)| async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                (count < 10).then(|| (Ok(Frame::data(Bytes::from(format!("{count}")))), (count + 1, running)))
            });
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
        _ => whole(Bytes::from("hello")),
    }
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends `bytes` and reads until the server closes.
pub fn talk(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = connect(addr);
    socket.write_all(bytes).unwrap();
    read_to_end(&mut socket)
}

/// Everything until the server closes; a reset counts as closing, a wait over [`PATIENCE`] does not.
pub fn read_to_end(socket: &mut impl Read) -> String {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match socket.read(&mut part) {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the server did not close: {error}, after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8(all).unwrap()
}

/// Reads until `text` has come.
pub fn read_until(socket: &mut impl Read, text: &str) -> String {
    let (mut all, mut byte) = (Vec::new(), [0; 1]);
    while !all.ends_with(text.as_bytes()) {
        assert_eq!(socket.read(&mut byte).unwrap(), 1, "closed after {:?}", String::from_utf8_lossy(&all));
        all.push(byte[0]);
    }
    String::from_utf8(all).unwrap()
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

pub fn last_get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Waits until `holds`, a little at a time.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = crate::clock::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
