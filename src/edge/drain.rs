//! Stopping in order: not ready any more, then no new connections, then the running answers to their end.

use std::sync::Arc;

use tokio::sync::watch;

/// How far the stopping has come. Clones are the same drain.
#[derive(Clone, Debug)]
pub struct Drain {
    stage: Arc<watch::Sender<Stage>>,
}

/// Stages, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    Leaving,
    Draining,
}

impl Drain {
    /// Nothing stops yet.
    pub fn new() -> Self {
        Self { stage: Arc::new(watch::Sender::new(Stage::Serving)) }
    }

    /// `/readyz` fails from now on; requests are still served.
    pub fn leave(&self) {
        self.reach(Stage::Leaving);
    }

    /// No new connections from now on; the running answers go to their end, within the grace.
    pub fn begin(&self) {
        self.reach(Stage::Draining);
    }

    /// Whether new requests are wanted.
    pub fn is_serving(&self) -> bool {
        *self.stage.borrow() == Stage::Serving
    }

    /// Whether new connections are refused.
    pub fn is_draining(&self) -> bool {
        *self.stage.borrow() == Stage::Draining
    }

    /// Resolves when [`Drain::begin`] has been called.
    pub async fn draining(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Draining).await;
    }

    fn reach(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let later = stage > *now;
            *now = stage.max(*now);
            later
        });
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}
