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
