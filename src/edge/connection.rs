//! One client connection from accept to close.
//!
//! The protocol is settled before hyper is asked: HTTP/2 only where TLS agreed on it by ALPN, else HTTP/1. Detection by
//! looking at the first bytes is never used: its first stage has no deadline.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;

use super::Refused;
use super::answer::fault_response;
use super::drain::Drain;
use super::guard::Guard;
use super::head::Refusal;
use super::service::{Handler, answer_h1, answer_h2};
use super::stall::Stall;
use super::watch::Watch;
use crate::clock;
use crate::config::checked::Limits;
use crate::gate::Conn;

/// hyper's buffers per connection, and what HTTP/2 holds for all streams of one. With the socket's own buffer a client
/// that stops reading costs less than 512 KiB.
const BUFFER_BYTES: usize = 64 * 1024;
/// Header fields that hyper reads without allocating.
const HYPER_FIELDS: usize = 100;
/// Requests that one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 128;
/// What an HTTP/2 client may send ahead on one stream, and on all of them.
const WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How long an HTTP/2 client may take to close after it was told that nothing more is wanted.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long bytes of an abandoned request are read away, so that closing does not destroy our last words (a reset
/// takes unread answers with it), and the longest gap between them.
const LINGER: Duration = Duration::from_secs(3);
const LINGER_GAP: Duration = Duration::from_millis(500);

/// What all connections of one listener share.
#[derive(Clone)]
pub struct Terms {
    /// Waits and sizes.
    pub limits: Arc<Limits>,
    /// TLS, if it is spoken.
    pub tls: Option<TlsAcceptor>,
    /// When to stop.
    pub drain: Drain,
    /// Told of refusals.
    pub refused: Refused,
}

/// Serves one accepted socket to its end.
pub async fn run<H: Handler>(socket: TcpStream, conn: Conn, terms: Terms, handler: Arc<H>) {
    let watch = Watch::new();
    let Some(acceptor) = terms.tls.clone() else {
        return h1(socket, conn, terms, handler, watch).await;
    };
    let handshake = async {
        let mut shaken = pin!(timeout(terms.limits.first_byte, acceptor.accept(socket)));
        tokio::select! {
            biased;
            done = &mut shaken => done.ok()?.ok(),
            () = terms.drain.draining() => timeout(GOODBYE, shaken).await.ok()?.ok()?.ok(),
        }
    };
    let Some(stream) = Box::pin(handshake).await else { return };
    let wants_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    // The first byte of a request is waited for anew.
    let watch = Watch::new();
    let stream = Box::new(stream);
    if wants_h2 {
        Box::pin(h2(stream, conn, terms, handler, watch)).await;
    } else {
        Box::pin(h1(stream, conn, terms, handler, watch)).await;
    }
}

async fn h1<S, H>(socket: S, conn: Conn, terms: Terms, handler: Arc<H>, watch: Arc<Watch>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let guard = Guard::new(socket, terms.limits.clone(), watch.clone());
    let mut http = http1::Builder::new();
    http.half_close(false).header_read_timeout(None).max_buf_size(BUFFER_BYTES.max(terms.limits.head_bytes + 1024));
    // Parts of answers are small: copied behind each other they cost less than a list of them, here and in the kernel.
    http.writev(false);
    if terms.limits.header_fields > HYPER_FIELDS {
        http.max_headers(terms.limits.header_fields);
    }
    let answered = watch.clone();
    let service = service_fn(move |request| answer_h1(handler.clone(), request, conn, &answered));
    let mut http = http.serve_connection(guard, service);
    let mut draining = pin!(terms.drain.draining());
    let (mut waits, mut told) = (false, false);
    let ended = poll_fn(|cx| {
        watch.begin_turn();
        if let Poll::Ready(ended) = Pin::new(&mut http).poll(cx) {
            return Poll::Ready(ended);
        }
        // Until something changes, the first look is enough for this task to be woken.
        if told || (waits && terms.drain.is_serving()) {
            return Poll::Pending;
        }
        waits = true;
        told = draining.as_mut().poll(cx).is_ready();
        if !told {
            return Poll::Pending;
        }
        watch.drain();
        Pin::new(&mut http).graceful_shutdown();
        Pin::new(&mut http).poll(cx)
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
    let guard = http.into_parts().io;
    let (refused, mid_request) = (guard.refused(), guard.is_mid_request());
    let socket = guard.into_socket();
    if refused.is_some() || mid_request {
        if let Some(refusal) = refused {
            (terms.refused)(refusal.fault().code());
        }
        Box::pin(part(socket, refused)).await;
    }
}

/// Says why, if the client does not know yet, and reads what is still coming.
async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Stall<S>, refused: Option<Refusal>) {
    if let Some(refusal) = refused {
        tracing::debug!(reason = refusal.message, "request refused");
        if !matches!(timeout(LINGER, socket.write_all(&last_words(refusal))).await, Ok(Ok(()))) {
            return;
        }
    }
    if !matches!(timeout(LINGER, socket.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let mut sink = vec![0; 16 * 1024];
    let read_away = async { while let Ok(Ok(1..)) = timeout(LINGER_GAP, socket.read(&mut sink)).await {} };
    let _ = timeout(LINGER, read_away).await;
}

/// A whole response on the wire, for a request that hyper never saw.
fn last_words(refusal: Refusal) -> Vec<u8> {
    let fault = refusal.fault();
    let status = fault_response(&fault).status();
    let body = fault.body().to_string();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn h2<S, H>(socket: S, conn: Conn, terms: Terms, handler: Arc<H>, watch: Arc<Watch>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let (limits, judged) = (terms.limits.clone(), terms.clone());
    let mut http = http2::Builder::new(Tasks);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(BUFFER_BYTES)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX));
    let answered = watch.clone();
    let service =
        service_fn(move |request| answer_h2(handler.clone(), request, conn, answered.clone(), judged.clone()));
    let socket = TokioIo::new(Stall::new(socket, terms.limits.write_stall));
    let mut http = pin!(http.serve_connection(socket, service));
    let mut tick = interval(tick_of(&terms.limits));
    let mut goodbye = None;
    loop {
        tokio::select! {
            biased;
            _ = http.as_mut() => return,
            () = terms.drain.draining(), if goodbye.is_none() => {
                http.as_mut().graceful_shutdown();
                goodbye = Some(clock::now());
            }
            _ = tick.tick() => {
                if watch.longest_owed() >= terms.limits.write_stall {
                    tracing::debug!("the client stopped reading");
                    return;
                }
                let allowed = if watch.had_request() { terms.limits.idle } else { terms.limits.first_byte };
                let said = goodbye.map(|at| clock::now().saturating_duration_since(at));
                match said {
                    None if watch.quiet() >= allowed => {
                        http.as_mut().graceful_shutdown();
                        goodbye = Some(clock::now());
                    }
                    Some(since) if since.min(watch.quiet()) >= GOODBYE => return,
                    _ => {}
                }
            }
        }
    }
}

/// Often enough that no limit is overstepped by much, at most every quarter of a second.
fn tick_of(limits: &Limits) -> Duration {
    let shortest = limits.first_byte.min(limits.idle).min(limits.write_stall);
    (shortest / 8).clamp(Duration::from_millis(10), Duration::from_millis(250))
}

/// Runs HTTP/2's streams on the connection's own thread.
#[derive(Clone, Copy)]
struct Tasks;

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, stream: F) {
        drop(clock::spawn(stream));
    }
}
