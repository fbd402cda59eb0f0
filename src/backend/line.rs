//! One HTTP/1 connection to an upstream, driven by the request that uses it.
//!
//! It has no task of its own: whoever waits for its answer polls it, so that bytes from the upstream reach the client's
//! connection in one wake-up, and dropping the request closes it at once. Invariant: it is offered again only after
//! its last answer was read to the end and hyper asks for the next request. A chunked body is read past hyper, see
//! [`super::sluice`].

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, Response, Version};
use http_body::{Body as _, Frame};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection, SendRequest};

use super::chunked::Chunked;
use super::sluice::{self, Sluice, Tap};
use super::socket::Socket;

/// Turns of a connection and its user within one poll. Two are usual (the user's wish for more data wakes the
/// connection); a task that has used up its share of the thread would take turns for ever.
const TURNS_MAX: usize = 4;

/// A connection.
pub struct Line {
    sender: SendRequest<Full<Bytes>>,
    /// None once it has ended.
    conn: Option<Connection<Sluice, Full<Bytes>>>,
    tap: Tap,
    /// The answer's body, while it goes past hyper.
    past: Option<Chunked>,
    alarm: Arc<Alarm>,
    /// The alarm's.
    waker: Waker,
}

impl Line {
    /// Speaks HTTP/1 on a socket.
    pub async fn open(socket: Socket) -> hyper::Result<Self> {
        let (sluice, tap) = sluice::both(socket);
        let (sender, conn) = http1::Builder::new().handshake(sluice).await?;
        let alarm = Arc::new(Alarm::default());
        Ok(Self { sender, conn: Some(conn), tap, past: None, waker: Waker::from(Arc::clone(&alarm)), alarm })
    }

    /// Sends a request and waits for the head of its answer. The error holds the request if none of it was written.
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        self.past = None;
        self.tap.expect_head();
        let mut sent = pin!(self.sender.try_send_request(request));
        let response = std::future::poll_fn(|cx| self.drive(cx, |inner| sent.as_mut().poll(inner))).await?;
        if self.tap.is_past() {
            if is_chunked(&response) {
                self.past = Some(Chunked::default());
                // The request may still be on its way out.
                self.alarm.state.store(ROUSED, Ordering::Release);
            } else {
                self.tap.leave();
            }
        }
        Ok(response)
    }

    /// Reads on in the answer's body.
    pub fn read(&mut self, body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.past.is_some() {
            if let Some(data) = ready!(self.read_past(cx)) {
                return Poll::Ready(Some(data.map(Frame::data).map_err(Broken::Past)));
            }
            self.past = None;
            self.tap.end();
        }
        self.drive(cx, |inner| Pin::new(&mut *body).poll_frame(inner)).map(|next| Some(next?.map_err(Broken::Http)))
    }

    /// Reads on past hyper; none when there is nothing more to read there.
    fn read_past(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.alarm.task.register(cx.waker());
        if self.alarm.state.swap(ASLEEP, Ordering::AcqRel) == ROUSED {
            self.turn();
        }
        match &mut self.past {
            Some(chunked) if self.conn.is_some() => self.tap.poll_data(chunked, cx).map(Result::transpose),
            _ => Poll::Ready(None),
        }
    }

    /// Whether the next request may be sent: the last answer is over, and the upstream has not closed.
    pub fn is_free(&mut self) -> bool {
        self.alarm.state.store(POLLING, Ordering::Release);
        self.turn();
        self.alarm.state.store(ASLEEP, Ordering::Release);
        drop(self.alarm.task.take());
        self.conn.is_some() && self.sender.is_ready()
    }

    /// Polls the connection and its user in turns until neither has more to do for the other.
    fn drive<T>(&mut self, cx: &Context<'_>, mut user: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.alarm.task.register(cx.waker());
        for _ in 0..TURNS_MAX {
            self.alarm.state.store(POLLING, Ordering::Release);
            self.turn();
            let polled = user(&mut Context::from_waker(&self.waker));
            if polled.is_ready() {
                self.alarm.state.store(ASLEEP, Ordering::Release);
                return polled;
            }
            if self.alarm.state.compare_exchange(POLLING, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        self.alarm.state.store(ASLEEP, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn turn(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        if Pin::new(conn).poll(&mut Context::from_waker(&self.waker)).is_ready() {
            // Its user is told why through the answer; a request that it had not begun comes back with this.
            self.conn = None;
        }
    }
}

const ASLEEP: u8 = 0;
const POLLING: u8 = 1;
const WOKEN: u8 = 2;
/// Woken from outside.
const ROUSED: u8 = 3;

/// Keeps wake-ups between a connection and its user within the poll that causes them; passes on those from outside.
#[derive(Default)]
struct Alarm {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let after = |state| Some(if matches!(state, POLLING | WOKEN) { WOKEN } else { ROUSED });
        let before = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, after);
        if matches!(before, Ok(ASLEEP | ROUSED)) {
            self.task.wake();
        }
    }
}

/// Whether a body is in the chunked coding and nothing else: what an answer in two minds says is for hyper to judge.
fn is_chunked(response: &Response<Incoming>) -> bool {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    let (first, second) = (codings.next(), codings.next());
    response.version() == Version::HTTP_11
        && !response.body().is_end_stream()
        && !response.headers().contains_key(CONTENT_LENGTH)
        && first.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        && second.is_none()
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// As hyper says.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// Read past hyper.
    #[error(transparent)]
    Past(io::Error),
}
