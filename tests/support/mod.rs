//! What the tests are made of: a scripted upstream, a rude client, a gateway in this process, canaries.

pub mod answers;
pub mod canary;
pub mod counter;
pub mod gateway;
pub mod http;
pub mod rude;
pub mod s3;
pub mod tiny;
pub mod tls;
pub mod upstream;

use std::time::Duration;

/// The longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until a condition holds.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
