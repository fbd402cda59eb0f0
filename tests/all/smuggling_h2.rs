//! The same promise over HTTP/2, with frames written by hand: one library's reading is no proof of another's.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::answers::well;
use crate::support::gateway::{Gateway, Plan, cloud};
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;
use crate::support::{canary, rude};

type Fields = Vec<(String, String)>;

/// One frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals, none indexed, none compressed: what is written is what is sent.
fn block(fields: &Fields) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            match u8::try_from(text.len()) {
                Ok(n) if n < 127 => bytes.push(n),
                _ => {
                    bytes.push(127);
                    let mut rest = text.len() - 127;
                    while rest >= 128 {
                        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    bytes.push(u8::try_from(rest).unwrap());
                }
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

fn fields(more: &[(&str, &str)]) -> Fields {
    let key = format!("Bearer {}", canary::CLIENT_KEY);
    let base = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "127.0.0.1"),
        (":path", "/v1/chat/completions"),
        ("authorization", &key),
        ("content-type", "application/json"),
    ];
    base.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Without, or with another value of, one field.
fn changed(name: &str, value: Option<&str>) -> Fields {
    let mut all = fields(&[]);
    match value {
        Some(value) => all.iter_mut().filter(|(n, _)| n == name).for_each(|(_, v)| *v = value.to_owned()),
        None => all.retain(|(n, _)| n != name),
    }
    all
}

/// Sends one request on stream 1 and says whether it was answered with 200.
async fn ask(authority: &Authority, gateway: &Gateway, fields: &Fields, body: &[u8]) -> bool {
    let mut stream = authority.connect_with(gateway.data, "127.0.0.1", b"h2").await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    bytes.extend(frame(1, 4, 1, &block(fields)));
    bytes.extend(frame(0, 1, 1, body));
    let _ = stream.write_all(&bytes).await;
    let mut received = Vec::new();
    let end = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        let mut rest = &received[..];
        while rest.len() >= 9 {
            let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
            if rest.len() < 9 + length {
                break;
            }
            match rest[3] {
                // 0x88 is `:status: 200` of the static table; a size update may stand before it.
                1 => return rest[9..9 + length].iter().find(|byte| **byte & 0xe0 != 0x20) == Some(&0x88),
                3 | 7 => return false,
                _ => rest = &rest[9 + length..],
            }
        }
        let read = tokio::time::timeout_at(end, stream.read_buf(&mut received)).await;
        match read.expect("no answer") {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn what_http2_carries_is_framed_anew_or_refused() {
    let upstream = Upstream::always(well()).await;
    let plan = Plan::new(&cloud("far", &upstream.base()));
    let authority = plan.authority();
    authority.write_leaf("server", &["127.0.0.1"]);
    let gateway = plan.set("server.tls.cert", "server.pem").set("server.tls.key", "server.key").start().await;
    let body = rude::chat("cloud/far", false);
    let good = [
        ("plain", fields(&[])),
        ("with a length", fields(&[("content-length", &body.len().to_string())])),
        ("a Host that agrees", fields(&[("host", "127.0.0.1")])),
        ("fields that upstreams trust", fields(&[("x-forwarded-host", "evil.example"), ("cookie", "a=b")])),
    ];
    for (sent, (name, fields)) in good.iter().enumerate() {
        assert!(ask(&authority, &gateway, fields, &body).await, "{name}");
        assert_eq!(upstream.requests().len(), sent + 1, "{name}");
    }
    let short = (body.len() - 3).to_string();
    let long = (body.len() + 3).to_string();
    let inner = "x\r\nhost: evil.example";
    let bad = [
        ("length below the data", fields(&[("content-length", &short)])),
        ("length above the data", fields(&[("content-length", &long)])),
        ("two lengths", fields(&[("content-length", &short), ("content-length", &long)])),
        ("a transfer coding", fields(&[("transfer-encoding", "chunked")])),
        ("connection", fields(&[("connection", "close")])),
        ("upgrade", fields(&[("upgrade", "h2c")])),
        ("keep-alive", fields(&[("keep-alive", "1")])),
        ("upper case", fields(&[("X-Upper", "1")])),
        ("line break in a value", fields(&[("x-a", inner)])),
        ("line break in a name", fields(&[("x-a\r\nhost", "evil")])),
        ("NUL in a value", fields(&[("x-a", "a\0b")])),
        ("colon in a name", fields(&[("x-a: b", "c")])),
        ("empty name", fields(&[("", "x")])),
        ("a Host that contradicts", fields(&[("host", "evil.example")])),
        ("a late pseudo field", fields(&[(":path", "/admin")])),
        ("an unknown pseudo field", [vec![(":evil".to_owned(), "x".to_owned())], fields(&[])].concat()),
        ("two methods", [vec![(":method".to_owned(), "GET".to_owned())], fields(&[])].concat()),
        ("no method", changed(":method", None)),
        ("no path", changed(":path", None)),
        ("empty path", changed(":path", Some(""))),
        ("path with a space", changed(":path", Some("/v1/chat/completions HTTP/1.1\r\nhost: evil"))),
        ("path as a URL", changed(":path", Some("http://evil.example/v1/chat/completions"))),
        ("CONNECT", changed(":method", Some("CONNECT"))),
        ("method with a line break", changed(":method", Some("POST / HTTP/1.1\r\nx: y"))),
        ("authority with a user", changed(":authority", Some("127.0.0.1@evil.example"))),
        ("authority with a path", changed(":authority", Some("127.0.0.1/evil"))),
    ];
    for (name, fields) in &bad {
        assert!(!ask(&authority, &gateway, fields, &body).await, "{name}");
        assert_eq!(upstream.requests().len(), good.len(), "{name} went upstream");
    }
    for request in upstream.requests() {
        assert_eq!(request.line, "POST /v1/chat/completions HTTP/1.1");
        assert_eq!(request.header("host").unwrap(), upstream.address.to_string());
        assert!(!request.headers.iter().any(|(name, _)| name.starts_with("x-f") || name == "cookie"));
    }
    gateway.finish().await;
}
