//! Connections to one upstream: taken from this worker's shelf or opened, and put back when an answer was read to its end.
//!
//! A connection lives on the runtime that opened it, so each thread has its own shelf and none is shared. Invariants: an
//! idle connection is closed by us before its time is over; a request comes to be sent again only if the connection had been
//! used before and it comes back unwritten, or the connection closed on it at once, see [`NoAnswer::Stale`]; at most
//! [`MAX_IDLE`] connections rest per worker and upstream.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::{ConnectError, Connector};
use super::line::{Broken, Line};
use crate::clock::{self, Instant};

/// Idle connections kept per worker.
const MAX_IDLE: usize = 64;
/// An HTTP/2 upstream that does not answer a ping for this long is gone.
const PING: Duration = Duration::from_secs(20);
/// Shelves are looked through this many times within the life of an idle connection.
const SWEEPS: u32 = 8;

/// A used connection that ends within this time of a request, without a byte of an answer, had ended before: the news was on
/// its way. Later, the upstream may have died of the request.
const STALE: Duration = Duration::from_secs(1);

/// A request as it is sent.
pub type Outgoing = Request<Full<Bytes>>;
type Shared = http2::SendRequest<Full<Bytes>>;

/// One upstream, as its connections see it.
pub struct Origin {
    /// Names its shelves.
    id: u64,
    connector: Connector,
    /// How long a connection may rest.
    idle: Duration,
    host: HeaderValue,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection, or what came over it, was no good.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The upstream closed a used connection as the request came. Some servers close after every streamed answer without
    /// saying so, llama.cpp's among them: the request may be sent once more, on a connection of its own.
    #[error(transparent)]
    Stale(hyper::Error),
}

impl Origin {
    /// Connections made by `connector`, which rest for at most `idle`. `host` is what requests name.
    pub fn new(connector: Connector, idle: Duration, host: HeaderValue) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), connector, idle, host })
    }

    /// Sends a request to `uri`, an address of this upstream, and gives the head of the answer with its body to come. `fresh`
    /// asks for a new connection.
    pub async fn send(
        self: &Arc<Self>,
        mut request: Outgoing,
        uri: &Uri,
        fresh: bool,
    ) -> Result<Response<Reply>, NoAnswer> {
        let began = clock::now();
        loop {
            let rested = if fresh { None } else { self.take() };
            let used = rested.is_some();
            let way = match rested {
                Some(way) => way,
                None => Box::pin(self.connect()).await?,
            };
            let mut failed = match self.send_by(way, request, uri).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            match failed.take_message() {
                Some(unwritten) if used => request = unwritten,
                _ => {
                    let (error, at_once) = (failed.into_error(), clock::now() - began < STALE);
                    let stale = used && at_once && !error.is_parse() && !error.is_user();
                    return Err(if stale { NoAnswer::Stale(error) } else { error.into() });
                }
            }
        }
    }

    async fn send_by(
        self: &Arc<Self>,
        way: Way,
        mut request: Outgoing,
        uri: &Uri,
    ) -> Result<Response<Reply>, TrySendError<Outgoing>> {
        match way {
            Way::One(mut line) => {
                request.headers_mut().insert(HOST, self.host.clone());
                *request.uri_mut() = path_of(uri);
                let response = line.send(request).await?;
                Ok(response.map(|body| Reply { body, line: Some((line, Arc::clone(self))) }))
            }
            Way::Many(mut sender) => {
                request.headers_mut().remove(HOST);
                *request.uri_mut() = uri.clone();
                Ok(sender.try_send_request(request).await?.map(|body| Reply { body, line: None }))
            }
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<Way, NoAnswer> {
        let socket = self.connector.connect().await?;
        if !socket.is_h2() {
            return Ok(Way::One(Box::new(Line::open(socket).await?)));
        }
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).adaptive_window(true).keep_alive_interval(PING).keep_alive_timeout(PING);
        let (sender, conn) = http.handshake(socket).await?;
        TokioExecutor::new().execute(async move {
            if let Err(error) = conn.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        self.on_shelf(|shelf| shelf.shared = Some(sender.clone()));
        Ok(Way::Many(sender))
    }

    /// A connection that rests, if there is one: the one used last, so that those not needed grow old.
    fn take(self: &Arc<Self>) -> Option<Way> {
        self.on_shelf(|shelf| {
            if let Some(sender) = shelf.shared.as_ref().filter(|sender| !sender.is_closed()) {
                return Some(Way::Many(sender.clone()));
            }
            let (since, line) = shelf.lines.pop()?;
            if clock::now().saturating_duration_since(since) < self.idle {
                return Some(Way::One(line));
            }
            shelf.lines.clear(); // The others have rested for longer.
            None
        })
    }

    /// Keeps a connection for the next request, if it is good for one.
    fn put(self: &Arc<Self>, mut line: Box<Line>) {
        if !line.is_free() {
            return;
        }
        let sweep = self.on_shelf(|shelf| {
            if shelf.lines.len() < MAX_IDLE {
                shelf.lines.push((clock::now(), line));
            }
            !std::mem::replace(&mut shelf.swept, true)
        });
        if sweep {
            TokioExecutor::new().execute(sweep_shelf(self.id, self.idle));
        }
    }

    /// This thread's shelf.
    fn on_shelf<T>(self: &Arc<Self>, work: impl FnOnce(&mut Shelf) -> T) -> T {
        SHELVES.with_borrow_mut(|shelves| {
            if let Some(shelf) = shelves.iter_mut().find(|shelf| shelf.id == self.id) {
                return work(shelf);
            }
            let origin = Arc::downgrade(self);
            let mut shelf = Shelf { id: self.id, origin, lines: Vec::new(), shared: None, swept: false };
            let done = work(&mut shelf);
            shelves.push(shelf);
            done
        })
    }
}

/// How a request can go.
enum Way {
    /// A connection of its own.
    One(Box<Line>),
    /// HTTP/2, beside others.
    Many(Shared),
}

/// What rests on one thread.
struct Shelf {
    id: u64,
    /// A reloaded configuration leaves shelves of upstreams behind that are gone.
    origin: Weak<Origin>,
    /// Oldest first, each with when it was put here.
    lines: Vec<(Instant, Box<Line>)>,
    shared: Option<Shared>,
    /// Somebody looks after it.
    swept: bool,
}

thread_local! {
    static SHELVES: RefCell<Vec<Shelf>> = const { RefCell::new(Vec::new()) };
}

/// Closes connections that have rested for long enough or were closed by the upstream, until none is left.
async fn sweep_shelf(id: u64, idle: Duration) {
    loop {
        tokio::time::sleep(idle / SWEEPS).await;
        let now = clock::now();
        let left = SHELVES.with_borrow_mut(|shelves| {
            shelves.retain(|shelf| shelf.origin.strong_count() > 0);
            let Some(shelf) = shelves.iter_mut().find(|shelf| shelf.id == id) else { return false };
            let ends = idle - idle / SWEEPS; // It is not looked at again before its time is over.
            shelf.lines.retain_mut(|(since, line)| now.saturating_duration_since(*since) < ends && line.is_free());
            shelf.swept = !shelf.lines.is_empty();
            shelf.swept
        });
        if !left {
            return;
        }
    }
}

/// The address without scheme and host, as HTTP/1 sends it.
fn path_of(uri: &Uri) -> Uri {
    uri.path_and_query().map(|path| Uri::from(path.clone())).unwrap_or_default()
}

/// The body of an answer, with the connection that it comes over.
pub struct Reply {
    body: Incoming,
    /// None on HTTP/2, and once the answer was read to its end.
    line: Option<(Box<Line>, Arc<Origin>)>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let Some((line, _)) = &mut this.line else {
            return Pin::new(&mut this.body).poll_frame(cx).map(|next| Some(next?.map_err(Broken::Http)));
        };
        let polled = line.read(&mut this.body, cx);
        let over = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => this.body.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if let Some((line, origin)) = this.line.take_if(|_| over) {
            origin.put(line);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
