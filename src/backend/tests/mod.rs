//! An upstream of raw sockets against [`Http`] and the relay: what leaves, and what odd answers turn into.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::http::Http;
use super::types::{Answer, Body, Source};
use crate::api::query::{Endpoint as Path, Query};
use crate::api::read_query;
use crate::clock::{self, now};
use crate::config::checked::{Backend, Endpoint, EnergyModel, Kind, Waits};
use crate::fault::{Fault, Kind as FaultKind};
use crate::journal::record::Outcome;
use crate::policy::sample::ALL;
use crate::policy::types::Place;
use crate::relay::{Completion, RelayBody, Timing, relay};

mod faults;
mod leaving;
mod secure;
mod streams;

const ANSWER: &str = r#"{"id":"1","model":"m-1","choices":[{"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
const EVENTS: &str = concat!(
    ": hello\n\n",
    "data: {\"model\":\"m-1\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"h\u{e9}\"},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
    "data: [DONE]\n\n",
);

/// What the upstream does after it has read a request.
#[derive(Clone)]
enum Step {
    Write(Vec<u8>),
    /// Waits until the peer closes, and says so.
    Hold,
    /// Lets what was written arrive by itself.
    Pause,
    /// Closes with a reset.
    Reset,
    /// Reads the next request on the same connection.
    Next,
}

struct Upstream {
    port: u16,
    /// Every request, byte for byte.
    seen: Arc<Mutex<Vec<String>>>,
    /// Connections.
    met: Arc<AtomicUsize>,
    /// One message when a held connection was closed by the peer.
    closed: UnboundedReceiver<()>,
}

async fn upstream(steps: Vec<Step>) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (tell, closed) = unbounded_channel();
    let record = Arc::clone(&seen);
    let met = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&met);
    clock::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            clock::spawn(play(socket, steps.clone(), Arc::clone(&record), tell.clone()));
        }
    });
    Upstream { port, seen, met, closed }
}

async fn play(mut socket: TcpStream, steps: Vec<Step>, seen: Arc<Mutex<Vec<String>>>, tell: UnboundedSender<()>) {
    let Some(request) = read_request(&mut socket).await else { return };
    seen.lock().unwrap().push(request);
    for step in steps {
        match step {
            Step::Write(bytes) => {
                let _ = socket.write_all(&bytes).await;
            }
            Step::Hold => {
                let _ = socket.read(&mut [0; 64]).await;
                let _ = tell.send(());
            }
            Step::Pause => tokio::time::sleep(Duration::from_millis(30)).await,
            Step::Reset => {
                let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
                return;
            }
            Step::Next => {
                let Some(request) = read_request(&mut socket).await else { return };
                seen.lock().unwrap().push(request);
            }
        }
    }
}

async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
            if body.len() >= length.parse().unwrap() {
                return Some(text);
            }
        }
        let mut more = [0; 4096];
        let n = socket.read(&mut more).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&more[..n]);
    }
}

fn response(head: &str, body: &str) -> Step {
    Step::Write(format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

fn chunked(body: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat()
}

fn sse_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()
}

/// A whole stream of events without the first bytes of its head.
fn sse_rest() -> Vec<u8> {
    let Step::Write(bytes) = sse(EVENTS) else { unreachable!() };
    bytes.strip_prefix(b"HTTP/1.1").unwrap().to_vec()
}

/// A whole stream of events, each in its own chunk.
fn sse(events: &str) -> Step {
    let mut bytes = sse_head();
    for event in events.split_inclusive("\n\n") {
        bytes.extend(chunked(event.as_bytes()));
    }
    bytes.extend(b"0\r\n\r\n");
    Step::Write(bytes)
}

fn waits() -> Waits {
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(20));
    Waits { connect: long, first_token: short, gap: short, total: long }
}

fn backend(base: &str, place: Place, waits: Waits) -> Backend {
    let key = Some(Arc::new(SecretString::from("sk-canary-1")));
    let endpoint = Endpoint { base: base.parse().unwrap(), model: "up/m".into(), key, ca: None };
    Backend {
        region: None,
        name: "local/up".into(),
        place,
        kind: Kind::OpenAi(endpoint),
        caps: ALL,
        price: None,
        table: None,
        success: None,
        energy: EnergyModel::Unknown,
        waits,
        max_in_flight: 4,
        off: None,
    }
}

fn http(port: u16) -> Http {
    Http::new(&backend(&format!("http://127.0.0.1:{port}/v1/"), Place::Local, waits())).unwrap()
}

fn query(fields: &str) -> Query {
    let body = format!("{{\"model\":\"auto\",\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]{fields}}}");
    let mut headers = HeaderMap::new();
    for (name, value) in
        [("authorization", "Bearer client"), ("cookie", "c"), ("x-forwarded-for", "1.2.3.4"), ("idempotency-key", "k")]
    {
        headers.insert(name, value.parse().unwrap());
    }
    read_query(Path::Chat, Bytes::from(body), &headers).unwrap()
}

async fn ask(steps: Vec<Step>, fields: &str) -> Result<Answer, Fault> {
    http(upstream(steps).await.port).ask(&query(fields), None).await
}

async fn fault(steps: Vec<Step>, fields: &str) -> FaultKind {
    match ask(steps, fields).await {
        Ok(answer) => panic!("an answer with {}", answer.status),
        Err(fault) => {
            assert!(!fault.message.contains("127.0.0.1") && !fault.message.contains("canary"), "{fault}");
            fault.kind
        }
    }
}

fn text(answer: &Answer) -> String {
    match &answer.body {
        Body::Full(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        Body::Stream(_) => panic!("a stream"),
    }
}

/// Sends an answer through the relay: what the client gets, whether it ended cleanly, and the completion.
async fn through(answer: Answer, waits: Waits) -> (String, bool, Completion) {
    let (tell, mut told) = unbounded_channel();
    let timing = Timing { asked: now(), waits };
    let response = relay(answer, (), timing, move |completion| tell.send(completion).unwrap());
    let (out, clean) = drain(response.into_body()).await;
    let completion = told.recv().await.unwrap();
    assert!(told.recv().await.is_none(), "told once");
    (out, clean, completion)
}

async fn drain(mut body: RelayBody) -> (String, bool) {
    let mut out = Vec::new();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => out.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(_)) => return (String::from_utf8_lossy(&out).into_owned(), false),
            None => return (String::from_utf8_lossy(&out).into_owned(), true),
        }
    }
}

const STREAM: &str = ",\"stream\":true";
