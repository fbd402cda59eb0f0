//! The socket as hyper sees it on HTTP/1: only whole, strict request heads pass, one request at a time, each in time.
//!
//! Invariants: no byte of a refused head reaches hyper; a head passes only when the answer before it has ended, so that
//! hyper never holds a second request and always sees a hang-up; a connection that sends nothing, or a part of a head,
//! is closed at its deadline. hyper's own header timeout is not used: it would watch the same bytes again.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::head::Refusal;
use super::requests::{Found, Requests};
use super::stall::Stall;
use super::wait::Wait;
use super::watch::Watch;
use crate::clock;
use crate::config::checked::Limits;
use crate::fault::Kind;

/// Bytes asked of the socket at once: most requests fit, and an idle connection keeps no more than this.
const READ_BYTES_MIN: usize = 4 * 1024;
/// Bytes asked of the socket at once while a large body is read.
const READ_BYTES_MAX: usize = 64 * 1024;

const SLOW_HEAD: Refusal = Refusal { kind: Kind::SlowBody, message: "the request head did not arrive in time" };

/// An HTTP/1 connection's socket.
pub struct Guard<S> {
    socket: Stall<S>,
    limits: Arc<Limits>,
    watch: Arc<Watch>,
    requests: Requests,
    /// Read and not passed on.
    held: BytesMut,
    /// Bytes at the front of `held` that may pass.
    cleared: usize,
    refused: Option<Refusal>,
    /// `held` has grown for a body.
    large: bool,
    phase: Phase,
    wait: Wait,
}

/// What the client is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first byte of the connection.
    Fresh,
    /// The rest of a head.
    Head,
    /// The next request.
    Idle,
    /// Nothing: it is our turn, or the body's reader watches.
    Ours,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Guards `socket`, whose connection opened when `watch` was made.
    pub fn new(socket: S, limits: Arc<Limits>, watch: Arc<Watch>) -> Self {
        let mut wait = Wait::default();
        wait.until(watch.opened() + limits.first_byte);
        Self {
            socket: Stall::new(socket, limits.write_stall),
            limits,
            watch,
            requests: Requests::new(),
            held: BytesMut::new(),
            cleared: 0,
            refused: None,
            large: false,
            phase: Phase::Fresh,
            wait,
        }
    }

    /// Why the last head was refused, if it was and its sender is still to be told. A refused body's is told by hyper.
    pub fn refused(&self) -> Option<Refusal> {
        self.refused.filter(|_| self.requests.in_head())
    }

    /// Whether the client is in the middle of a request that nobody will read.
    pub fn is_mid_request(&self) -> bool {
        !self.requests.in_head() || !self.held.is_empty()
    }

    /// The socket, once hyper is done with it.
    pub fn into_socket(self) -> Stall<S> {
        self.socket
    }

    /// Judges what is held. Leaves a head alone while an answer runs.
    fn clear(&mut self) {
        if self.held.is_empty() || self.refused.is_some() || (self.requests.in_head() && self.watch.is_answering()) {
            return;
        }
        match self.requests.follow(&self.held, &self.limits) {
            Ok(Found::Incomplete) => {}
            Ok(Found::Body(length)) => self.cleared = length,
            Ok(Found::Head(length)) => {
                self.cleared = length;
                self.watch.asked();
            }
            Err(refusal) => self.refused = Some(refusal),
        }
    }

    /// Something that came too early is held: reads on when the answer before it has ended.
    fn wait_for_end(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.watch.wake_at_end(cx);
        Poll::Pending
    }

    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.large && self.held.is_empty() && self.requests.in_head() {
            self.held = BytesMut::new(); // A large body's buffer is not kept.
            self.large = false;
        }
        let size = self.requests.wanted().clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        self.large |= size > READ_BYTES_MIN;
        self.held.reserve(size);
        pin!(self.socket.read_buf(&mut self.held)).poll(cx)
    }

    /// Nothing came: whether the client is out of time, which ends the connection.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let phase = self.phase_now();
        if phase != self.phase {
            self.phase = phase;
            match phase {
                Phase::Fresh => {}
                Phase::Head => self.wait.until(clock::now() + self.limits.head),
                Phase::Idle => self.wait.until(self.watch.quiet_since() + self.limits.idle),
                Phase::Ours => self.wait.until(clock::now() + self.limits.idle),
            }
        }
        if matches!(phase, Phase::Fresh | Phase::Idle) && self.watch.is_draining() {
            return true;
        }
        if !self.wait.is_over(cx) {
            return false;
        }
        match phase {
            Phase::Fresh | Phase::Idle => true,
            Phase::Head => {
                self.refused = Some(SLOW_HEAD);
                true
            }
            // hyper does not read again when an answer ends, so this is how its end is noticed in time.
            Phase::Ours => {
                self.wait.until(clock::now() + self.limits.idle);
                self.wait.is_over(cx)
            }
        }
    }

    fn phase_now(&self) -> Phase {
        if self.watch.is_answering() || !self.requests.in_head() {
            Phase::Ours
        } else if !self.held.is_empty() {
            Phase::Head
        } else if self.watch.had_request() {
            Phase::Idle
        } else {
            Phase::Fresh
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Read for Guard<S> {
    /// An end (nothing put) makes hyper finish what it has and close.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.cleared == 0 {
                this.clear();
            }
            if this.cleared > 0 {
                let size = this.cleared.min(to.remaining());
                to.put_slice(this.held.get(..size).unwrap_or_default());
                this.held.advance(size);
                this.cleared -= size;
                return Poll::Ready(Ok(()));
            }
            if this.refused.is_some() {
                if !this.requests.in_head() {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the body is not well formed")));
                }
                // The answer before it goes first.
                return if this.watch.is_answering() { this.wait_for_end(cx) } else { Poll::Ready(Ok(())) };
            }
            if this.held.len() > this.limits.head_bytes {
                return this.wait_for_end(cx); // Requests sent ahead wait in the kernel.
            }
            match this.fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if this.is_late(cx) => return Poll::Ready(Ok(())),
                Poll::Pending if !this.held.is_empty() => return this.wait_for_end(cx),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused().is_some() {
            return Poll::Ready(Ok(())); // The refusal is still to be written.
        }
        ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}
