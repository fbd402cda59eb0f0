//! The edge: sockets, TLS, strict framing, every deadline of the client's side, and stopping in order.
//!
//! Invariants: nothing reaches the handler but whole request heads that two readers cannot read differently; every wait
//! for a client has a limit; one request's panic harms no other; a broken answer never looks finished. The edge knows
//! nothing of models, policies or JSON beyond its own errors. It never upgrades, tunnels or detects a protocol.
//!
//! One thread per worker, each with its own runtime and its own listening socket on the shared port, so that a request
//! stays on one core. First stage of a request; [`crate::gate`] is the next.

pub mod admin;
pub mod body;
pub mod tls;

mod answer;
mod chunks;
mod connection;
mod drain;
mod guard;
mod head;
mod listen;
mod requests;
mod service;
mod stall;
mod stop;
#[cfg(test)]
mod tests;
mod wait;
mod watch;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::config::checked::Limits;

pub use answer::{fault_response, json};
pub use drain::Drain;
pub use listen::{BindError, Bound, bind};
pub use service::Handler;
pub use stop::on_signals;

/// How a listener serves.
#[derive(Clone)]
pub struct Settings {
    /// Waits and sizes.
    pub limits: Limits,
    /// TLS, if it is spoken; see [`tls::acceptor`].
    pub tls: Option<TlsAcceptor>,
    /// How long running answers may take once a drain has begun.
    pub grace: Duration,
    /// Told the fault code of each request that is refused here, before any handler sees it.
    pub refused: Refused,
}

/// Whoever counts refusals.
pub type Refused = Arc<dyn Fn(&'static str) + Send + Sync>;

/// A listener at work.
#[derive(Debug)]
pub struct Serving {
    addr: SocketAddr,
    workers: Vec<JoinHandle<()>>,
    /// Closes when the last worker has ended.
    ended: mpsc::Receiver<()>,
}

/// Starts one thread per socket of `bound`. `make` gives each worker, by its number, the handler for its requests; it is
/// called on the worker's thread, inside its runtime, so that what belongs to one runtime can be made there.
pub fn serve<H: Handler>(
    bound: Bound,
    settings: Settings,
    drain: &Drain,
    make: impl Fn(usize) -> H + Send + Sync + 'static,
) -> io::Result<Serving> {
    let addr = bound.addr();
    let sockets = bound.into_sockets();
    let (alive, ended) = mpsc::channel(1);
    let connections = settings.limits.connections.div_ceil(sockets.len().max(1)).max(1);
    let terms = connection::Terms {
        limits: Arc::new(settings.limits),
        tls: settings.tls,
        drain: drain.clone(),
        refused: settings.refused,
    };
    let make = Arc::new(make);
    let mut workers = Vec::with_capacity(sockets.len());
    for (number, socket) in sockets.into_iter().enumerate() {
        let worker = worker::Worker { terms: terms.clone(), connections, grace: settings.grace, alive: alive.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let make = make.clone();
        let thread = std::thread::Builder::new().name(format!("edge-{number}"));
        workers.push(thread.spawn(move || {
            runtime.block_on(worker.run(socket, || make(number)));
            // Cuts what the grace did not see end, and waits for no blocking call of anybody's.
            runtime.shutdown_background();
        })?);
    }
    Ok(Serving { addr, workers, ended })
}

impl Serving {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Resolves when the drain is over: all answers have ended, or the grace has.
    pub async fn ended(mut self) {
        // Nobody sends: the channel only closes.
        while self.ended.recv().await.is_some() {}
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker of the edge panicked");
            }
        }
    }
}
