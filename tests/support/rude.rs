//! The rude client: raw bytes, half-closes, resets, splits. It says nothing that the test did not write.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::{self, End, Reply};
use super::{PATIENCE, canary};

/// One client connection.
pub struct Rude {
    stream: TcpStream,
    received: Vec<u8>,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Closes both ways, in order.
    Close,
    /// Closes its writing side and stays.
    HalfClose,
    /// Resets.
    Reset,
}

/// All of them.
pub const LEAVES: [Leave; 3] = [Leave::Close, Leave::HalfClose, Leave::Reset];

impl Rude {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Writes bytes; a peer that has closed already is no failure.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Writes in pieces, each in its own packet.
    pub async fn send_split(&mut self, bytes: &[u8], piece: usize) {
        for part in bytes.chunks(piece) {
            self.send(part).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The next answer on this connection, as far as it comes.
    pub async fn reply(&mut self) -> Reply {
        self.reply_within(PATIENCE).await
    }

    /// The next answer, as far as it comes within a limit.
    pub async fn reply_within(&mut self, limit: Duration) -> Reply {
        let end = tokio::time::Instant::now() + limit;
        let mut closed = None;
        loop {
            if let Some((reply, used)) = http::reply(&self.received, closed) {
                self.received.drain(..used);
                return reply;
            }
            closed = match tokio::time::timeout_at(end, self.read()).await {
                Err(_) => Some(End::Silent),
                Ok(closed) => closed,
            };
        }
    }

    /// Reads until the bytes received hold `needle`.
    pub async fn until(&mut self, needle: &str) {
        let found = async {
            while memchr::memmem::find(&self.received, needle.as_bytes()).is_none() {
                let closed = self.read().await;
                assert!(closed.is_none(), "closed before {needle:?}: {}", String::from_utf8_lossy(&self.received));
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{needle:?} did not come"));
    }

    /// Waits for the peer to close; true if it did so in time.
    pub async fn closes_within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, async { while self.read().await.is_none() {} }).await.is_ok()
    }

    /// Goes away. A half-closed connection is returned, to be kept open.
    pub async fn leave(mut self, how: Leave) -> Option<Self> {
        match how {
            Leave::Close => None,
            Leave::HalfClose => {
                self.stream.shutdown().await.unwrap();
                Some(self)
            }
            Leave::Reset => {
                SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
                None
            }
        }
    }

    async fn read(&mut self) -> Option<End> {
        match self.stream.read_buf(&mut self.received).await {
            Ok(0) => Some(End::Cut),
            Ok(_) => None,
            Err(_) => Some(End::Reset),
        }
    }
}

/// A well-formed request of the test tenant.
pub fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    request_with(method, path, &[], body)
}

/// The same with more header fields.
pub fn request_with(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {}\r\n", canary::CLIENT_KEY);
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A chat body with the canary prompt.
pub fn chat(model: &str, stream: bool) -> Vec<u8> {
    let body = serde_json::json!({
        "model": model,
        "messages": [{ "role": "user", "content": canary::PROMPT }],
        "stream": stream,
        "max_tokens": 16,
    });
    body.to_string().into_bytes()
}
