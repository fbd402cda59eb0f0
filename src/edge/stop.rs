//! Signals of a running server: the first begins the drain, the second ends the program at once.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::drain::Drain;

/// Between `/readyz` failing and no more accepting, when a supervisor asks us to stop (SIGTERM): time for a load balancer
/// to look. A person at a terminal (SIGINT) does not wait for it.
const NOTICE: Duration = Duration::from_millis(500);

/// Waits for the first SIGTERM or SIGINT, begins the drain, and then ends the program at the second. Never resolves
/// after the first signal, so race it against the drain's end.
pub async fn on_signals(drain: &Drain) -> io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let asked = tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    };
    tracing::info!(signal = asked, "draining: running answers go to their end; a second signal ends at once");
    drain.leave();
    let second = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    let mut second = std::pin::pin!(second);
    if asked == "SIGTERM" && timeout(NOTICE, &mut second).await.is_ok() {
        end_now();
    }
    drain.begin();
    second.await;
    end_now()
}

fn end_now() -> ! {
    tracing::warn!("second signal: ending at once, running answers are cut");
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[tokio::test]
    async fn the_first_signal_fails_readiness_then_begins_the_drain() {
        let drain = Drain::new();
        let other = drain.clone();
        // Never resolves after the first signal, so it is dropped with the test.
        let _listening = clock::spawn(async move { on_signals(&other).await });
        tokio::task::yield_now().await; // The handler is in place before the signal is sent.
        let sent = std::process::Command::new("kill").arg("-TERM").arg(std::process::id().to_string()).status();
        assert!(sent.unwrap().success());
        while drain.is_serving() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!drain.is_draining(), "the drain began without notice");
        let left = clock::now();
        drain.draining().await;
        assert!(left.elapsed() >= NOTICE / 2);
    }
}
