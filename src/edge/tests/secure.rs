//! TLS: versions and protocols, stalled handshakes, HTTP/2's deadlines, and files that cannot be used.

use std::fs;
use std::path::PathBuf;

use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::checked::Tls;
use crate::edge::tls::acceptor;

struct Secure {
    server: Server,
    roots: RootCertStore,
    _folder: TempDir,
}

fn files(folder: &TempDir) -> (Tls, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    fs::write(path("cert.pem"), cert.pem()).unwrap();
    fs::write(path("key.pem"), signing_key.serialize_pem()).unwrap();
    (Tls { cert: path("cert.pem"), key: path("key.pem") }, cert.der().clone())
}

fn start_tls(limits: Limits) -> Secure {
    let folder = TempDir::new().unwrap();
    let (tls, cert) = files(&folder);
    let bound = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let server = start_on(bound, limits, Some(acceptor(&tls).unwrap().0));
    let mut roots = RootCertStore::empty();
    roots.add(cert).unwrap();
    Secure { server, roots, _folder: folder }
}

impl Secure {
    async fn connect(&self, protocols: &[&str]) -> TlsStream<tokio::net::TcpStream> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let socket = tokio::net::TcpStream::connect(self.server.addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
    }

    async fn h2(&self) -> http2::SendRequest<Empty<Bytes>> {
        let stream = self.connect(&["h2"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        drop(crate::clock::spawn(connection));
        sender
    }
}

fn ask(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Empty::new()).unwrap()
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, hyper::Error> {
    Ok(response.into_body().collect().await?.to_bytes())
}

#[tokio::test]
async fn http1_is_spoken_without_alpn_and_by_it() {
    let secure = start_tls(limits());
    for protocols in [&[][..], &["http/1.1"]] {
        let mut stream = secure.connect(protocols).await;
        stream.write_all(last_get("/").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
    }
}

#[tokio::test]
async fn http2_answers_many_streams_and_isolates_their_failures() {
    let secure = start_tls(limits());
    let mut sender = secure.h2().await;
    let waiting = sender.send_request(ask("/wait?100"));
    let panicked = sender.send_request(ask("/panic")).await.unwrap();
    assert_eq!(panicked.status(), 500);
    for path in ["/broken", "/early-panic"] {
        let broken = sender.send_request(ask(path)).await.unwrap();
        assert!(collect(broken).await.is_err(), "{path} looks finished");
    }
    assert_eq!(collect(waiting.await.unwrap()).await.unwrap(), "waited");
    assert_eq!(collect(sender.send_request(ask("/")).await.unwrap()).await.unwrap(), "hello");
}

#[tokio::test]
async fn http2_refuses_a_contradicting_host_before_the_handler() {
    let secure = start_tls(limits());
    let mut sender = secure.h2().await;
    let mut request = ask("/");
    request.headers_mut().insert("host", "evil.example".parse().unwrap());
    assert_eq!(sender.send_request(request).await.unwrap().status(), 400);
    assert_eq!(secure.server.seen.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_http2_hang_up_drops_the_answer() {
    let secure = start_tls(limits());
    let mut sender = secure.h2().await;
    let asked = crate::clock::spawn(sender.send_request(ask("/wait")));
    while secure.server.seen.running.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    asked.abort(); // A reset of this stream alone.
    let begun = crate::clock::now();
    while secure.server.seen.running.load(Ordering::SeqCst) == 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert_eq!(collect(sender.send_request(ask("/")).await.unwrap()).await.unwrap(), "hello");
}

#[test]
fn a_stalled_handshake_is_closed() {
    let limit = Duration::from_millis(200);
    let secure = start_tls(Limits { first_byte: limit, ..limits() });
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let begun = crate::clock::now();
        assert_eq!(talk(secure.server.addr, start), "");
        assert!(begun.elapsed() >= limit && begun.elapsed() < limit * 10, "{:?}", begun.elapsed());
    }
}

#[test]
fn plain_http_on_a_tls_port_is_closed() {
    let secure = start_tls(limits());
    let mut socket = connect(secure.server.addr);
    socket.write_all(get("/").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    assert_eq!(secure.server.seen.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_silent_or_idle_http2_client_is_closed() {
    let limit = Duration::from_millis(200);
    let secure = start_tls(Limits { first_byte: limit, idle: limit, ..limits() });
    for preface in [&b""[..], b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut stream = secure.connect(&["h2"]).await;
        stream.write_all(preface).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{preface:?} was kept");
    }
    let mut sender = secure.h2().await;
    assert_eq!(collect(sender.send_request(ask("/wait?600")).await.unwrap()).await.unwrap(), "waited");
    let begun = crate::clock::now();
    while !sender.is_closed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(begun.elapsed() < PATIENCE, "an idle HTTP/2 connection was kept");
    }
}

#[tokio::test]
async fn an_http2_drain_lets_running_streams_end_and_takes_no_more() {
    let mut secure = start_tls(limits());
    let mut sender = secure.h2().await;
    let running = sender.send_request(ask("/wait?200"));
    while secure.server.seen.running.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let begun = crate::clock::now();
    secure.server.drain.begin();
    assert_eq!(collect(running.await.unwrap()).await.unwrap(), "waited");
    secure.server.serving.take().unwrap().ended().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(sender.send_request(ask("/")).await.is_err());
}

#[tokio::test]
async fn an_http2_client_that_stops_taking_is_cut_and_costs_little() {
    let secure = start_tls(Limits { write_stall: Duration::from_millis(200), ..limits() });
    let mut sender = secure.h2().await;
    let stalled = sender.send_request(ask("/endless")).await.unwrap();
    let begun = crate::clock::now();
    while secure.server.seen.running.load(Ordering::SeqCst) == 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(begun.elapsed() < PATIENCE, "a stalled stream was kept");
    }
    assert!(secure.server.seen.given.load(Ordering::SeqCst) <= 3 * 1024 * 1024);
    drop(stalled);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = TempDir::new().unwrap();
    let (tls, _) = files(&folder);
    let (other, _) = files(&TempDir::new().unwrap());
    let junk = folder.path().join("junk.pem");
    fs::write(&junk, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    let foreign = folder.path().join("foreign.pem");
    fs::write(&foreign, generate_simple_self_signed(["b".to_owned()]).unwrap().signing_key.serialize_pem()).unwrap();
    for (cert, key, expected) in [
        (&other.cert, &tls.key, "server.tls.cert"),
        (&junk, &tls.key, "server.tls.cert"),
        (&tls.key, &tls.key, "no PEM certificate"),
        (&tls.cert, &other.key, "server.tls.key"),
        (&tls.cert, &tls.cert, "no PEM private key"),
        (&tls.cert, &foreign, "cannot be used"),
    ] {
        let error = acceptor(&Tls { cert: cert.clone(), key: key.clone() }).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    }
    assert!(acceptor(&tls).is_ok());
}
