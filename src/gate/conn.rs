//! What is known of the connection a request came in on. The edge makes one per connection; it holds nothing a client wrote.

use std::net::SocketAddr;

/// A client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn {
    /// The other end.
    pub peer: SocketAddr,
    /// Whether TLS was spoken.
    pub tls: bool,
}
