//! An upstream of raw sockets against [`Http`] and the relay: what leaves, and what odd answers turn into.

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
use crate::policy::types::{Capabilities, Place};
use crate::relay::{Completion, RelayBody, Timing, relay};

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
    /// Closes with a reset.
    Reset,
    /// Reads the next request on the same connection.
    Next,
}

struct Upstream {
    port: u16,
    /// Every request, byte for byte.
    seen: Arc<Mutex<Vec<String>>>,
    /// One message when a held connection was closed by the peer.
    closed: UnboundedReceiver<()>,
}

async fn upstream(steps: Vec<Step>) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (tell, closed) = unbounded_channel();
    let record = Arc::clone(&seen);
    clock::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            clock::spawn(play(socket, steps.clone(), Arc::clone(&record), tell.clone()));
        }
    });
    Upstream { port, seen, closed }
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
    let caps = Capabilities {
        context: 8192,
        tools: true,
        images: true,
        audio: true,
        json: true,
        many: true,
        logprobs: true,
        any_field: true,
    };
    Backend {
        name: "local/up".into(),
        place,
        kind: Kind::OpenAi(endpoint),
        caps,
        price: None,
        table: None,
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

#[tokio::test]
async fn what_leaves_is_built_from_nothing() {
    let upstream = upstream(vec![response("200 OK\r\ncontent-type: application/json", ANSWER)]).await;
    let answer = http(upstream.port).ask(&query(",\"x\": 1.0"), None).await.unwrap();
    assert_eq!(text(&answer), ANSWER);
    assert_eq!((answer.usage.input, answer.usage.output, answer.usage.source), (Some(3), Some(2), Source::Upstream));
    assert_eq!((answer.usage.finish.as_deref(), answer.usage.model.as_deref()), (Some("stop"), Some("m-1")));
    let request = upstream.seen.lock().unwrap()[0].clone();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines.remove(0), "POST /v1/chat/completions HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: 127.0.0.1:{}", upstream.port);
    let length = format!("content-length: {}", body.len());
    let mut expected = vec![
        "accept: application/json",
        "accept-encoding: identity",
        "authorization: Bearer sk-canary-1",
        "content-type: application/json",
        "idempotency-key: k",
        concat!("user-agent: wattroute/", env!("CARGO_PKG_VERSION")),
        &host,
        &length,
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
    assert_eq!(body, "{\"model\":\"up/m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"x\": 1.0}");
}

#[tokio::test]
async fn a_stream_passes_and_its_hidden_usage_is_counted() {
    let answer = ask(vec![sse(EVENTS)], STREAM).await.unwrap();
    let (out, clean, completion) = through(answer, waits()).await;
    let usage = EVENTS.split_inclusive("\n\n").find(|event| event.contains("usage")).unwrap();
    assert!(clean);
    assert_eq!(out, EVENTS.replace(usage, ""));
    assert_eq!((completion.outcome, completion.fault), (Outcome::Ok, None));
    assert_eq!((completion.usage.input, completion.usage.output), (Some(3), Some(2)));
    assert_eq!(completion.bytes, out.len() as u64);
    assert!(completion.first_token >= completion.first_byte.map(|at| at - Duration::from_secs(1)));
}

#[tokio::test]
async fn a_usage_event_that_was_asked_for_stays() {
    let fields = ",\"stream\":true,\"stream_options\":{\"include_usage\":true}";
    let (out, clean, _) = through(ask(vec![sse(EVENTS)], fields).await.unwrap(), waits()).await;
    assert!(clean && out == EVENTS);
}

/// The row whose failure ends trust: whatever byte an upstream stops at, the client can tell.
#[tokio::test]
async fn a_stream_cut_at_any_byte_never_looks_finished() {
    let Step::Write(whole) = sse(EVENTS) else { unreachable!() };
    let done = whole.windows(13).position(|w| w == b"data: [DONE]\n").unwrap() + 14;
    for cut in 0..whole.len() {
        let reset = cut % 2 == 0;
        let mut steps = vec![Step::Write(whole[..cut].to_vec())];
        if reset {
            steps.push(Step::Reset);
        }
        let answer = match ask(steps, STREAM).await {
            Ok(answer) => answer,
            Err(fault) => {
                let early = matches!(fault.kind, FaultKind::UpstreamCut | FaultKind::UpstreamProtocol);
                assert!(early, "cut at {cut}: {fault}");
                continue;
            }
        };
        let (out, clean, completion) = through(answer, waits()).await;
        if cut >= done {
            assert!(out.contains("[DONE]"), "cut at {cut}");
            continue;
        }
        assert!(!clean && !out.contains("[DONE]"), "cut at {cut}: {out}");
        let last = out.trim_end().lines().last().unwrap();
        let event: serde_json::Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(event["error"]["type"], "upstream_error", "cut at {cut}");
        assert_eq!(completion.outcome, Outcome::Fault);
        for data in out.lines().filter_map(|line| line.strip_prefix("data:")) {
            serde_json::from_str::<serde_json::Value>(data).unwrap();
        }
    }
}

#[tokio::test]
async fn a_clean_end_without_done_is_a_broken_answer() {
    let short = EVENTS.split_inclusive("\n\n").take(3).collect::<String>();
    let (out, clean, completion) = through(ask(vec![sse(&short)], STREAM).await.unwrap(), waits()).await;
    assert!(!clean && out.starts_with(&short) && out.contains("\"code\":\"upstream_cut\""));
    assert_eq!((completion.usage.output, completion.usage.source), (Some(1), Source::Deltas));
}

#[tokio::test]
async fn an_upstreams_own_error_event_is_the_last_word() {
    let events = "data: {\"error\":{\"message\":\"boom\"}}\n\n";
    let (out, clean, completion) = through(ask(vec![sse(events)], STREAM).await.unwrap(), waits()).await;
    assert_eq!((out.as_str(), clean, completion.outcome), (events, false, Outcome::Upstream));
}

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

#[tokio::test]
async fn without_a_permit_no_cloud_socket_is_opened() {
    let upstream = upstream(vec![response("200 OK", ANSWER)]).await;
    let base = format!("http://127.0.0.1:{}/v1", upstream.port);
    let cloud = Http::new(&backend(&base, Place::Cloud, waits())).unwrap();
    assert_eq!(cloud.ask(&query(""), None).await.err().unwrap().kind, FaultKind::Internal);
    assert!(upstream.seen.lock().unwrap().is_empty());
}

#[test]
fn endpoints_that_would_leak_are_refused_at_start() {
    for (base, place) in [
        ("http://api.example.com/v1", Place::Cloud),
        ("http://1.1.1.1/v1", Place::Local),
        ("https://user:pass@api.example.com/v1", Place::Cloud),
        ("https://api.example.com/v1?x=1", Place::Cloud),
        ("ftp://api.example.com/v1", Place::Cloud),
    ] {
        assert!(Http::new(&backend(base, place, waits())).is_err(), "{base}");
    }
}

/// An HTTP/2 upstream behind TLS whose stream begins and never ends; says when the stream is dropped.
async fn tls_upstream(
    names: Vec<String>,
) -> (u16, std::path::PathBuf, tempfile::TempDir, UnboundedReceiver<&'static str>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, ca_pem).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls::pki_types::PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = unbounded_channel();
    clock::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            let tell = tell.clone();
            clock::spawn(async move {
                let service = hyper::service::service_fn(move |_| {
                    let tell = tell.clone();
                    async move { Ok::<_, std::convert::Infallible>(endless(tell)) }
                });
                let executor = hyper_util::rt::TokioExecutor::new();
                let server = hyper::server::conn::http2::Builder::new(executor);
                let _ = server.serve_connection(hyper_util::rt::TokioIo::new(tls), service).await;
            });
        }
    });
    (port, ca, folder, told)
}

fn endless(
    tell: UnboundedSender<&'static str>,
) -> http::Response<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>> {
    struct Told(UnboundedSender<&'static str>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    tell.send("asked").unwrap();
    let told = Told(tell);
    let first =
        futures_util::stream::iter([Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n")]);
    let never = futures_util::stream::poll_fn(move |_| {
        let _ = &told;
        std::task::Poll::Pending
    });
    let frames = futures_util::StreamExt::chain(first, never);
    let frames = futures_util::StreamExt::map(frames, |data| Ok(http_body::Frame::data(data)));
    let body = http_body_util::StreamBody::new(frames);
    http::Response::builder().header("content-type", "text/event-stream").body(BodyExt::boxed(body)).unwrap()
}

fn with_ca(base: &str, ca: Option<std::path::PathBuf>) -> Result<Http, String> {
    let mut backend = backend(base, Place::Local, waits());
    let Kind::OpenAi(endpoint) = &mut backend.kind else { unreachable!() };
    endpoint.ca = ca;
    Http::new(&backend)
}

#[tokio::test]
async fn http2_over_tls_streams_and_a_hang_up_resets_it() {
    let (port, ca, _folder, mut told) = tls_upstream(vec!["localhost".into()]).await;
    let http = with_ca(&format!("https://localhost:{port}/v1"), Some(ca)).unwrap();
    let answer = http.ask(&query(STREAM), None).await.unwrap();
    assert_eq!(told.recv().await, Some("asked"));
    drop(answer);
    let reset = tokio::time::timeout(Duration::from_millis(100), told.recv()).await;
    assert_eq!(reset.unwrap(), Some("dropped"));
}

#[tokio::test]
async fn certificates_are_checked() {
    let (port, ca, _folder, mut told) = tls_upstream(vec!["elsewhere.example".into()]).await;
    let wrong_name = with_ca(&format!("https://localhost:{port}/v1"), Some(ca)).unwrap();
    assert_eq!(wrong_name.ask(&query(""), None).await.err().unwrap().kind, FaultKind::Connect);
    // Machines without any root certificate refuse at start, the others at the handshake.
    let (port, _, _folder, mut told_too) = tls_upstream(vec!["localhost".into()]).await;
    if let Ok(unknown_root) = with_ca(&format!("https://localhost:{port}/v1"), None) {
        assert_eq!(unknown_root.ask(&query(""), None).await.err().unwrap().kind, FaultKind::Connect);
    }
    assert!(told.try_recv().is_err() && told_too.try_recv().is_err(), "no request was sent");
    assert!(with_ca("https://localhost/v1", Some("/nonexistent.pem".into())).is_err());
}
