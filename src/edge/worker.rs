//! One worker: accepts while there is room, and at the end waits for what runs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::connection::{Terms, run};
use super::service::Handler;
use crate::clock;
use crate::gate::Conn;
use crate::meter;

/// How long accepting rests after an error such as too few file descriptors, which only closing others can cure.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// One thread's share of a listener.
pub struct Worker {
    /// What its connections share.
    pub terms: Terms,
    /// Connections at once. More wait in the kernel, which resets what it cannot keep.
    pub connections: usize,
    /// How long running answers may take after a drain has begun.
    pub grace: Duration,
    /// Dropped when the worker has ended.
    pub alive: mpsc::Sender<()>,
}

impl Worker {
    /// Serves until the drain is over.
    pub async fn run<H: Handler>(self, socket: std::net::TcpListener, make: impl Fn() -> H) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the listener cannot be used"),
        };
        let handler = Arc::new(make());
        let room = Arc::new(Semaphore::new(self.connections.min(Semaphore::MAX_PERMITS)));
        let all = u32::try_from(room.available_permits()).unwrap_or(u32::MAX);
        tokio::select! {
            () = self.terms.drain.draining() => {}
            () = self.accept_all(&listener, &handler, &room) => {}
        }
        // Those whom the kernel has greeted already are served, and told that this is the last answer.
        while let Ok(permit) = room.clone().try_acquire_owned() {
            let Some(Ok((socket, peer))) = listener.accept().now_or_never() else { break };
            self.start(socket, peer, permit, &handler);
        }
        drop(listener);
        if timeout(self.grace, room.acquire_many(all)).await.is_err() {
            tracing::warn!("the grace is over: running answers are cut");
        }
        drop(self.alive);
    }

    async fn accept_all<H: Handler>(&self, listener: &TcpListener, handler: &Arc<H>, room: &Arc<Semaphore>) {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((socket, peer)) => self.start(socket, peer, permit, handler),
                Err(error) => rest(&error).await,
            }
        }
    }

    fn start<H: Handler>(&self, socket: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit, handler: &Arc<H>) {
        let conn = Conn { peer, tls: self.terms.tls.is_some() };
        let serving = run(socket, conn, self.terms.clone(), handler.clone());
        let open = Open::count();
        drop(clock::spawn(async move {
            serving.await;
            drop((permit, open));
        }));
    }
}

/// One open connection, in the metrics.
struct Open;

impl Open {
    fn count() -> Self {
        meter::connections(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        meter::connections(-1.0);
    }
}

/// One client's misfortune is no reason to wait; a lack of descriptors or memory is.
async fn rest(error: &io::Error) {
    let of_one = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    if !of_one.contains(&error.kind()) {
        tracing::warn!(%error, "cannot accept connections");
        sleep(ACCEPT_REST).await;
    }
}
