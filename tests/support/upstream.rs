//! The scripted upstream: raw sockets that follow a list of steps and write down every byte and every connection.
//!
//! No HTTP library is behind it, so that it can lie, cut and stall at any byte. A test ends by asking what it saw.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::http::{self, Request};

/// One step of a connection. A script that ends closes the connection in order.
#[derive(Clone, Debug)]
pub enum Step {
    /// Reads one request, head and body.
    Request,
    /// Reads one request's head and leaves the body unread.
    Head,
    /// Writes bytes at once.
    Send(Vec<u8>),
    /// Writes the first bytes if the last request asked for a stream, else the second.
    Fitting(Vec<u8>, Vec<u8>),
    /// Writes in pieces of so many bytes, with a pause before each piece but the first.
    Drip(Vec<u8>, usize, Duration),
    /// Writes the bytes again and again, with a pause after each, until the peer closes.
    Endless(Vec<u8>, Duration),
    /// Waits.
    Gap(Duration),
    /// Waits until the peer closes.
    Hold,
    /// Closes the writing side, then waits until the peer closes.
    HalfClose,
    /// Drops the connection with a reset.
    Reset,
    /// Starts the script again: keep-alive.
    Again,
}

/// What happened on one connection.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Everything the peer sent, decrypted.
    pub bytes: Vec<u8>,
    /// When the peer closed or reset the connection, or went away during the handshake.
    pub closed: Option<Instant>,
    /// The script has come to its end.
    pub over: bool,
}

type Play = Arc<dyn Fn(usize) -> Vec<Step> + Send + Sync>;
type Log = Arc<Mutex<Vec<Seen>>>;

/// A listening upstream.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    play: Arc<Mutex<Play>>,
    log: Log,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// Every connection follows the same script.
    pub async fn always(steps: Vec<Step>) -> Self {
        Self::start(None, Arc::new(move |_| steps.clone())).await
    }

    /// The n-th connection follows the n-th script; the last one repeats.
    pub async fn each(scripts: Vec<Vec<Step>>) -> Self {
        Self::by(move |n| scripts[n.min(scripts.len() - 1)].clone()).await
    }

    /// A function from the connection's number to its script.
    pub async fn by(play: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(play)).await
    }

    /// Behind TLS; every connection follows the same script.
    pub async fn tls(acceptor: TlsAcceptor, steps: Vec<Step>) -> Self {
        Self::start(Some(acceptor), Arc::new(move |_| steps.clone())).await
    }

    async fn start(tls: Option<TlsAcceptor>, play: Play) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let play = Arc::new(Mutex::new(play));
        let accepting = tokio::spawn(accept(listener, tls, play.clone(), log.clone()));
        Self { address, play, log, accepting }
    }

    /// New connections follow another script from now on.
    pub fn now(&self, steps: Vec<Step>) {
        *lock(&self.play) = Arc::new(move |_| steps.clone());
    }

    /// `http://HOST:PORT/v1`
    pub fn base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        lock(&self.log).len()
    }

    /// Bytes received so far, on all connections.
    pub fn bytes(&self) -> usize {
        lock(&self.log).iter().map(|seen| seen.bytes.len()).sum()
    }

    /// What happened, by connection.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.log).clone()
    }

    /// Every request that arrived whole, in order of connections. Bytes that are no request fail the test.
    pub fn requests(&self) -> Vec<Request> {
        let mut requests = Vec::new();
        for seen in self.seen() {
            let mut rest = &seen.bytes[..];
            while let Some((request, used)) = http::request(rest).unwrap_or_else(|why| panic!("not HTTP: {why}")) {
                requests.push(request);
                rest = &rest[used..];
            }
        }
        requests
    }

    /// Waits until so many whole requests arrived.
    pub async fn await_requests(&self, count: usize) {
        super::eventually("a request upstream", || self.requests().len() >= count).await;
    }

    /// Waits until so many connections were opened.
    pub async fn await_connections(&self, count: usize) {
        super::eventually("a connection upstream", || self.connections() >= count).await;
    }

    /// Waits until the peer closed this connection and says when that was.
    pub async fn closed(&self, connection: usize) -> Instant {
        super::eventually("the upstream connection to close", || {
            lock(&self.log).get(connection).is_some_and(|seen| seen.closed.is_some())
        })
        .await;
        lock(&self.log)[connection].closed.unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An address where connections are refused, for as long as the socket is held.
pub fn refused() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// An address where a connection attempt gets no answer at all, for as long as the sockets are held.
pub fn unanswered() -> (Vec<Socket>, SocketAddr) {
    let (listener, address) = refused();
    listener.listen(0).unwrap();
    let mut held = vec![listener];
    // A full accept queue makes the kernel drop further SYNs.
    for _ in 0..4 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&address.into());
        held.push(filler);
    }
    (held, address)
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, play: Arc<Mutex<Play>>, log: Log) {
    while let Ok((stream, _)) = listener.accept().await {
        let n = {
            let mut log = lock(&log);
            log.push(Seen { bytes: Vec::new(), closed: None, over: false });
            log.len() - 1
        };
        let steps = {
            let play = lock(&play).clone();
            play(n)
        };
        let (tls, log) = (tls.clone(), log.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            match tls {
                None => Line { stream, n, log, buffer: Vec::new(), taken: Vec::new() }.follow(&steps).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => Line { stream, n, log, buffer: Vec::new(), taken: Vec::new() }.follow(&steps).await,
                    Err(_) => lock(&log)[n].closed = Some(Instant::now()),
                },
            }
        });
    }
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

struct Line<S> {
    stream: S,
    n: usize,
    log: Log,
    /// Received and not yet taken by a step.
    buffer: Vec<u8>,
    /// What the last step took.
    taken: Vec<u8>,
}

/// The peer has gone.
struct Gone;

impl<S: Wire> Line<S> {
    async fn follow(mut self, steps: &[Step]) {
        let mut at = 0;
        while let Some(step) = steps.get(at) {
            at += 1;
            let done = match step {
                Step::Request => self.take(|bytes| Ok(http::request(bytes)?.map(|(_, used)| used))).await,
                Step::Head => self.take(|bytes| Ok(http::end_of_head(bytes))).await,
                Step::Send(bytes) => self.send(bytes).await,
                Step::Fitting(stream, whole) => {
                    let streams = memchr::memmem::find(&self.taken, b"\"stream\":true").is_some();
                    self.send(if streams { stream } else { whole }).await
                }
                Step::Drip(bytes, piece, pause) => self.drip(bytes, *piece, *pause).await,
                Step::Endless(bytes, pause) => self.endless(bytes, *pause).await,
                Step::Gap(pause) => self.gap(*pause).await,
                Step::Hold => self.hold().await,
                Step::HalfClose => {
                    let _ = self.stream.shutdown().await;
                    self.hold().await
                }
                Step::Reset => {
                    SockRef::from(self.stream.socket()).set_linger(Some(Duration::ZERO)).unwrap();
                    break;
                }
                Step::Again => {
                    at = 0;
                    Ok(())
                }
            };
            if done.is_err() {
                break;
            }
        }
        lock(&self.log)[self.n].over = true;
    }

    async fn take(&mut self, whole: impl Fn(&[u8]) -> Result<Option<usize>, String>) -> Result<(), Gone> {
        loop {
            match whole(&self.buffer) {
                Ok(Some(used)) => {
                    self.taken = self.buffer.drain(..used).collect();
                    return Ok(());
                }
                Ok(None) => self.read().await?,
                Err(_) => return Err(Gone),
            }
        }
    }

    async fn read(&mut self) -> Result<(), Gone> {
        let mut piece = vec![0; 16 * 1024];
        let count = self.stream.read(&mut piece).await.unwrap_or(0);
        let mut log = lock(&self.log);
        let seen = &mut log[self.n];
        if count == 0 {
            seen.closed.get_or_insert_with(Instant::now);
            return Err(Gone);
        }
        seen.bytes.extend_from_slice(&piece[..count]);
        drop(log);
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok() {
            return Ok(());
        }
        lock(&self.log)[self.n].closed.get_or_insert_with(Instant::now);
        Err(Gone)
    }

    async fn drip(&mut self, bytes: &[u8], piece: usize, pause: Duration) -> Result<(), Gone> {
        for (i, part) in bytes.chunks(piece).enumerate() {
            if i > 0 {
                self.gap(pause).await?;
            }
            self.send(part).await?;
        }
        Ok(())
    }

    async fn endless(&mut self, bytes: &[u8], pause: Duration) -> Result<(), Gone> {
        loop {
            self.send(bytes).await?;
            self.gap(pause).await?;
        }
    }

    /// Waits while watching for the peer's close.
    async fn gap(&mut self, pause: Duration) -> Result<(), Gone> {
        let end = tokio::time::Instant::now() + pause;
        loop {
            match tokio::time::timeout_at(end, self.read()).await {
                Err(_) => return Ok(()),
                Ok(read) => read?,
            }
        }
    }

    async fn hold(&mut self) -> Result<(), Gone> {
        loop {
            self.read().await?;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
