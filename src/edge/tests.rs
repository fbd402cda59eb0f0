//! The edge from outside, over real sockets.

use std::time::Duration;

use crate::config::checked::Limits;

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
        write_stall: long,
    }
}
