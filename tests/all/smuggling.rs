//! What a client frames is what reaches the upstream: never more requests, never fields that it slipped in.

use crate::support::answers::well;
use crate::support::gateway::Gateway;
use crate::support::rude::{self, Rude};
use crate::support::upstream::Upstream;
use crate::support::{canary, http::End};

/// What must become of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Refused with a 4xx or 5xx or a bare close, connection closed, nothing upstream.
    Refused,
    /// Answered or refused, but nothing upstream.
    Unsent,
    /// Reaches the upstream exactly once with exactly this body; the connection stays in step.
    Once,
    /// Either of refused and once.
    Either,
}
use Fate::{Either, Once, Refused, Unsent};

const HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\n";
/// A request hidden where a body should be. If it is ever answered or forwarded, the test fails.
const HIDDEN: &str = "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2\r\n\r\n{}";

fn body() -> String {
    String::from_utf8(rude::chat("cloud/far", false)).unwrap()
}

fn key() -> String {
    format!("authorization: Bearer {}\r\n", canary::CLIENT_KEY)
}

/// A POST with these raw header lines (after Host and key) and this raw rest.
fn post(lines: &str, rest: &str) -> Vec<u8> {
    format!("{HEAD}host: 127.0.0.1\r\n{}{lines}\r\n{rest}", key()).into_bytes()
}

fn length(text: &str) -> String {
    format!("content-length: {}\r\n", text.len())
}

fn chunked(size: &str) -> Vec<u8> {
    post("transfer-encoding: chunked\r\n", &format!("{size}\r\n{}\r\n0\r\n\r\n{HIDDEN}", body()))
}

fn framing() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let b = body();
    let size = format!("{:x}", b.len());
    let whole = format!("{size}\r\n{b}\r\n0\r\n\r\n");
    let both = |cl: usize| format!("content-length: {cl}\r\ntransfer-encoding: chunked\r\n");
    let te = |value: &str| post(&format!("transfer-encoding: {value}\r\n"), &format!("{whole}{HIDDEN}"));
    let cl = |value: &str| post(&format!("content-length: {value}\r\n"), &format!("{b}{HIDDEN}"));
    let n = b.len();
    vec![
        ("length shorter than the chunks", post(&both(4), &format!("{whole}{HIDDEN}")), Refused),
        (
            "length longer than the chunks",
            post(&both(whole.len() + HIDDEN.len()), &format!("{whole}{HIDDEN}")),
            Refused,
        ),
        ("chunked before length", post(&format!("transfer-encoding: chunked\r\n{}", length(&b)), &whole), Refused),
        ("chunked twice in one field", te("chunked, chunked"), Refused),
        ("chunked in two fields", te("chunked\r\ntransfer-encoding: chunked"), Refused),
        ("unknown coding after chunked", te("chunked\r\ntransfer-encoding: cow"), Refused),
        ("coding that starts alike", te("chunkedx"), Refused),
        ("coding that ends alike", te("xchunked"), Refused),
        ("identity", te("identity"), Refused),
        ("gzip then chunked", te("gzip, chunked"), Refused),
        ("chunked not last", te("chunked, gzip"), Refused),
        ("empty coding", te(""), Refused),
        ("vertical tab in the coding", te("\x0bchunked"), Refused),
        ("space before the colon", post("transfer-encoding : chunked\r\n", &whole), Refused),
        ("folded coding", post("transfer-encoding:\r\n chunked\r\n", &whole), Refused),
        (
            "coding in HTTP/1.0",
            String::from_utf8(te("chunked")).unwrap().replacen("1.1", "1.0", 1).into_bytes(),
            Refused,
        ),
        ("two different lengths", cl(&format!("{n}\r\ncontent-length: {}", n + 1)), Refused),
        ("two equal lengths", post(&(length(&b) + &length(&b)), &b), Either),
        ("a list of equal lengths", post(&format!("content-length: {n}, {n}\r\n"), &b), Either),
        ("length with a plus", cl(&format!("+{n}")), Refused),
        ("negative length", cl("-1"), Refused),
        ("hexadecimal length", cl("0x10"), Refused),
        ("length with a space inside", cl("1 1"), Refused),
        ("length over 64 bits", cl("18446744073709551617"), Refused),
        ("empty length", cl(""), Refused),
        ("length with a fraction", cl(&format!("{n}.0")), Refused),
        ("underscore instead of a hyphen", post(&format!("content_length: {n}\r\n"), &format!("{b}{HIDDEN}")), Refused),
        ("negative chunk size", chunked(&format!("-{size}")), Refused),
        ("chunk size with a prefix", chunked(&format!("0x{size}")), Refused),
        ("chunk size over 64 bits", chunked(&format!("10000000000000000{size}")), Refused),
        ("chunk size with a space first", chunked(&format!(" {size}")), Refused),
        ("no chunk size", chunked(""), Refused),
        ("bare line feed in a chunk extension", chunked(&format!("{size};a\nb")), Refused),
        (
            "no line end after a chunk",
            post("transfer-encoding: chunked\r\n", &format!("{size}\r\n{b}XX0\r\n\r\n{HIDDEN}")),
            Refused,
        ),
        ("plain chunks", post("transfer-encoding: chunked\r\n", &whole), Once),
        ("a length", post(&length(&b), &b), Once),
    ]
}

fn heads() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let b = body();
    let with = |line: &str| post(&format!("{line}\r\n{}", length(&b)), &b);
    let start = |line: &str| format!("{line}\r\nhost: 127.0.0.1\r\n{}{}\r\n{b}", key(), length(&b)).into_bytes();
    let path = "/v1/chat/completions";
    let many = (0..120).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    vec![
        ("no Host", format!("{HEAD}{}{}\r\n{b}", key(), length(&b)).into_bytes(), Refused),
        ("two Hosts", with("host: evil.example"), Refused),
        (
            "Host with a path",
            format!("{HEAD}host: 127.0.0.1/evil\r\n{}{}\r\n{b}", key(), length(&b)).into_bytes(),
            Refused,
        ),
        ("target that contradicts Host", start(&format!("POST http://evil.example{path} HTTP/1.1")), Refused),
        ("target that agrees with Host", start(&format!("POST http://127.0.0.1{path} HTTP/1.1")), Either),
        ("target with a user", start(&format!("POST http://127.0.0.1@evil.example{path} HTTP/1.1")), Refused),
        (
            "bare line feeds",
            String::from_utf8(post(&length(&b), &b)).unwrap().replace("\r\n", "\n").into_bytes(),
            Refused,
        ),
        (
            "CONNECT",
            format!("CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n{}\r\n", key()).into_bytes(),
            Refused,
        ),
        ("version 1.2", start(&format!("POST {path} HTTP/1.2")), Refused),
        ("version 2.0 in a line", start(&format!("POST {path} HTTP/2.0")), Refused),
        ("space in the target", start(&format!("POST {path} x HTTP/1.1")), Refused),
        ("line without a version", start(&format!("POST {path}")), Refused),
        ("carriage return in a value", with("x-a: b\rcontent-length: 3"), Refused),
        ("NUL in a value", with("x-a: b\0c"), Refused),
        ("space in a name", with("content length: 3"), Refused),
        ("line without a colon", with("nonsense"), Refused),
        (
            "first line folded",
            format!("{HEAD} x: y\r\nhost: 127.0.0.1\r\n{}{}\r\n{b}", key(), length(&b)).into_bytes(),
            Refused,
        ),
        ("folded value", with("x-a: b\r\n c: d"), Refused),
        ("too many fields", post(&(many + &length(&b)), &b), Refused),
        ("a field of 64 KiB", with(&format!("x-a: {}", "y".repeat(64 << 10))), Refused),
        ("target of 70 KB", start(&format!("POST {path}?{} HTTP/1.1", "y".repeat(70_000))), Refused),
        ("method in lower case", start(&format!("post {path} HTTP/1.1")), Unsent),
        ("TRACE", start(&format!("TRACE {path} HTTP/1.1")), Unsent),
        (
            "GET with a request for a body",
            format!("GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n{}{}\r\n{HIDDEN}", key(), length(HIDDEN))
                .into_bytes(),
            Unsent,
        ),
        (
            "upgrade to h2c",
            with("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__"),
            Either,
        ),
        ("upgrade to a web socket", with("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x"), Either),
        ("expectation", with("expect: 100-continue"), Once),
        ("unknown expectation", with("expect: 200-maybe"), Either),
        ("fields named by Connection", with("connection: authorization, content-length, x-a\r\nx-a: b"), Either),
        (
            "trailers",
            post(
                "transfer-encoding: chunked\r\ntrailer: authorization\r\n",
                &format!("{:x}\r\n{b}\r\n0\r\nauthorization: Bearer evil\r\ncontent-length: 3\r\n\r\n", b.len()),
            ),
            Either,
        ),
        ("empty line first", [b"\r\n".to_vec(), post(&length(&b), &b)].concat(), Either),
        (
            "fields that upstreams trust",
            with(
                "x-forwarded-host: evil.example\r\nx-forwarded-for: 10.0.0.1\r\nforwarded: host=evil\r\nvia: 1.1 evil\r\nx-original-url: /admin\r\nx-rewrite-url: /admin\r\nx-http-method-override: DELETE\r\ncookie: a=b\r\nproxy-authorization: Basic eA==\r\nopenai-organization: evil\r\nte: trailers\r\naccept-encoding: gzip\r\nx-unknown: 1",
            ),
            Once,
        ),
    ]
}

/// Everything that the gateway may say upstream.
const SAID_UPSTREAM: [&str; 8] = [
    "host",
    "authorization",
    "content-type",
    "content-length",
    "accept",
    "user-agent",
    "x-request-id",
    "accept-encoding",
];

async fn check(name: &str, bytes: &[u8], fate: Fate, gateway: &Gateway, upstream: &Upstream) {
    let before = upstream.requests().len();
    let mut client = Rude::connect(gateway.data).await;
    client.send(bytes).await;
    let reply = client.reply().await;
    assert_ne!(reply.end, End::Silent, "{name}: no answer");
    assert_ne!(reply.status, 101, "{name}");
    assert!(!reply.text().contains("canary-cloud"), "{name}");
    let sent = upstream.requests().len() - before;
    let refused = reply.status >= 400 || reply.status == 0;
    match fate {
        Refused => assert!(refused, "{name}: {reply:?}"),
        Unsent => assert_eq!(sent, 0, "{name}"),
        Once => assert_eq!(reply.status, 200, "{name}: {reply:?}"),
        Either => {}
    }
    if refused {
        assert_eq!(sent, 0, "{name}: refused and sent");
    }
    if refused && fate != Unsent {
        assert!(client.closes_within(std::time::Duration::from_secs(2)).await, "{name}: left open after a refusal");
    } else if fate != Unsent {
        assert_eq!(sent, 1, "{name}");
        // In step: the next answer belongs to the next request and to nothing that was hidden before it.
        client.send(&rude::request("GET", "/v1/models", b"")).await;
        let next = client.reply().await;
        assert!(next.end != End::Whole || next.text().contains("\"list\""), "{name}: out of step: {next:?}");
        assert_eq!(upstream.requests().len() - before, 1, "{name}");
    }
    for request in &upstream.requests()[before..] {
        assert_eq!(request.line, "POST /v1/chat/completions HTTP/1.1", "{name}");
        assert_eq!(request.json()["model"], "far-model", "{name}");
        assert_eq!(request.json()["messages"][0]["content"], canary::PROMPT, "{name}");
        assert_eq!(request.header("host").unwrap(), upstream.address.to_string(), "{name}");
        assert_eq!(request.header("authorization").unwrap(), format!("Bearer {}", canary::CLOUD_KEY), "{name}");
        let unknown: Vec<_> = request.headers.iter().filter(|(n, _)| !SAID_UPSTREAM.contains(&n.as_str())).collect();
        assert!(unknown.is_empty(), "{name}: said upstream: {unknown:?}");
    }
}

async fn all(cases: Vec<(&'static str, Vec<u8>, Fate)>) {
    let upstream = Upstream::always(well()).await;
    let gateway = Gateway::before(&upstream.base()).await;
    for (name, bytes, fate) in cases {
        check(name, &bytes, fate, &gateway, &upstream).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn ambiguous_framing_never_reaches_an_upstream() {
    all(framing()).await;
}

#[tokio::test]
async fn odd_heads_never_reach_an_upstream() {
    all(heads()).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_sent_once_each() {
    let upstream = Upstream::always(well()).await;
    let gateway = Gateway::before(&upstream.base()).await;
    let mut client = Rude::connect(gateway.data).await;
    let chat = rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", false));
    let models = rude::request("GET", "/v1/models", b"");
    client.send(&[chat.clone(), models.clone(), chat, models].concat()).await;
    for object in ["chat.completion", "list", "chat.completion", "list"] {
        let reply = client.reply().await;
        assert_eq!(reply.json()["object"], object, "{reply:?}");
    }
    assert_eq!(upstream.requests().len(), 2);
    assert_eq!(gateway.finish().await.len(), 2);
}

#[tokio::test]
async fn a_request_split_at_any_place_arrives_as_one() {
    let upstream = Upstream::always(well()).await;
    let gateway = Gateway::before(&upstream.base()).await;
    let chat = rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", false));
    for piece in [1, 2, 3, 7, 64] {
        let mut client = Rude::connect(gateway.data).await;
        client.send_split(&chat, piece).await;
        assert_eq!(client.reply().await.status, 200, "{piece}");
    }
    assert_eq!(upstream.requests().len(), 5);
    gateway.finish().await;
}

/// An upstream's framing tricks do not reach the client either.
#[tokio::test]
async fn an_answer_with_ambiguous_framing_becomes_an_error() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n{}  ",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nraw",
        "HTTP/1.1 200 OK\r\nx y: z\r\ncontent-length: 2\r\n\r\n{}",
        "not http at all\r\n\r\n",
        "HTTP/1.1 99 Odd\r\ncontent-length: 2\r\n\r\n{}",
    ] {
        let upstream = Upstream::always(crate::support::answers::once(head.as_bytes().to_vec())).await;
        let gateway = Gateway::before(&upstream.base()).await;
        let mut client = Rude::connect(gateway.data).await;
        client.send(&rude::request("POST", "/v1/chat/completions", &rude::chat("cloud/far", false))).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.end), (502, End::Whole), "{head:?}: {reply:?}");
        assert!(["upstream_protocol", "upstream_cut"].contains(&reply.code().as_str()), "{reply:?}");
        // Nothing of the upstream's surplus is left over for the next answer.
        client.send(&rude::request("GET", "/v1/models", b"")).await;
        let next = client.reply().await;
        assert!(next.end != End::Whole || next.text().contains("\"list\""), "{next:?}");
        gateway.finish().await;
    }
}
