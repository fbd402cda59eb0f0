//! Between an upstream's socket and hyper: heads are hyper's, a chunked body can be led past it.
//!
//! A token of a stream costs hyper's client three turns of its state machine and a buffer of its own; here it is one read, one
//! decoding and one small copy. Hyper still sends every request, judges every head and every body that is not plainly chunked,
//! and decides whether the connection can be used again: to it, a body that went past was an empty one. Invariant: a
//! byte goes to hyper or past it, never both, and which way is settled at the end of a head.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

use super::chunked::Chunked;
use super::socket::Socket;

/// Bytes read at once: what a token needs is in the processor's caches already, unlike a buffer for each connection.
const READ_BYTES: usize = 16 * 1024;
/// A chunked body's end.
const END: &[u8] = b"0\r\n\r\n";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Hyper's end of a connection.
pub struct Sluice(Arc<Mutex<Flow>>);

/// Our end of it.
pub struct Tap(Arc<Mutex<Flow>>);

struct Flow {
    socket: Socket,
    way: Way,
    /// Read and not passed on.
    held: BytesMut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To hyper, up to the end of the next head.
    Head,
    /// A head went to hyper, whole, and all after it waits for us.
    Past,
    /// To hyper.
    Hyper,
}

/// Both ends of a connection.
pub fn both(socket: Socket) -> (Sluice, Tap) {
    let flow = Arc::new(Mutex::new(Flow { socket, way: Way::Hyper, held: BytesMut::new() }));
    (Sluice(Arc::clone(&flow)), Tap(flow))
}

fn lock(flow: &Mutex<Flow>) -> MutexGuard<'_, Flow> {
    flow.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tap {
    /// The next bytes are the head of an answer.
    pub fn expect_head(&self) {
        let mut flow = lock(&self.0);
        if flow.held.is_empty() {
            flow.way = Way::Head;
        }
    }

    /// Whether a body waits for us.
    pub fn is_past(&self) -> bool {
        lock(&self.0).way == Way::Past
    }

    /// Leaves everything to hyper, which has to be polled then.
    pub fn leave(&self) {
        lock(&self.0).way = Way::Hyper;
    }

    /// Hyper is to see the end of a body that went past it, and what came after. It has to be polled then.
    pub fn end(&self) {
        let mut flow = lock(&self.0);
        let rest = flow.held.split();
        flow.held.extend_from_slice(END);
        flow.held.extend_from_slice(&rest);
        flow.way = Way::Hyper;
    }

    /// Reads on in a body that goes past hyper; none at its end.
    pub fn poll_data(&self, chunked: &mut Chunked, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let flow = &mut *lock(&self.0);
        if !flow.held.is_empty() || !chunked.is_open() {
            let held = flow.held.split();
            if let Some(found) = flow.decode(chunked, &held) {
                return Poll::Ready(found);
            }
        }
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut read = ReadBuf::new(scratch);
                ready!(Pin::new(&mut flow.socket).poll_read(cx, read.unfilled()))?;
                if read.filled().is_empty() {
                    return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
                }
                if let Some(found) = flow.decode(chunked, read.filled()) {
                    return Poll::Ready(found);
                }
            }
        })
    }
}

impl Flow {
    /// What bytes of a body bring: its data, its end or a mistake; none if more bytes are needed.
    fn decode(&mut self, chunked: &mut Chunked, bytes: &[u8]) -> Option<io::Result<Option<Bytes>>> {
        let mut data = BytesMut::new();
        let used = chunked.decode(bytes, &mut data);
        if chunked.is_over() {
            self.held.extend_from_slice(bytes.get(used..).unwrap_or_default());
        }
        match chunked {
            _ if !data.is_empty() => Some(Ok(Some(data.freeze()))),
            chunked if chunked.is_over() => Some(Ok(None)),
            chunked if chunked.is_malformed() => Some(Err(ErrorKind::InvalidData.into())),
            _ => None,
        }
    }

    /// Passes a head to hyper, and nothing after it if a chunked body follows.
    fn poll_head(&mut self, cx: &mut Context<'_>, to: &mut ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let room = to.remaining().min(READ_BYTES);
            let mut read = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
            ready!(Pin::new(&mut self.socket).poll_read(cx, read.unfilled()))?;
            let bytes = read.filled();
            let end = chunked_head(bytes);
            let (head, body) = end.and_then(|end| bytes.split_at_checked(end)).unwrap_or((bytes, &[]));
            to.put_slice(head);
            self.held.extend_from_slice(body);
            self.way = if end.is_some() { Way::Past } else { Way::Hyper };
            Poll::Ready(Ok(()))
        })
    }
}

/// Where the head of a good answer in the chunked coding ends, if these bytes begin with one. One that comes in pieces or has
/// other line ends than CR LF is not looked for: hyper reads on then.
fn chunked_head(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(b"HTTP/1.1 2") {
        return None;
    }
    let (mut from, mut chunked) = (0, false);
    for end in memchr::memchr_iter(b'\n', bytes) {
        let line = bytes.get(from..end)?.strip_suffix(b"\r")?;
        if line.is_empty() {
            return chunked.then_some(end + 1);
        }
        let name = line.split_at_checked(TRANSFER_ENCODING.len()).map(|(name, _)| name);
        chunked |= name.is_some_and(|name| name.eq_ignore_ascii_case(TRANSFER_ENCODING));
        from = end + 1;
    }
    None
}

impl Read for Sluice {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let flow = &mut *lock(&self.0);
        match flow.way {
            // Whoever reads the body polls hyper again when that is over.
            Way::Past => Poll::Pending,
            Way::Head => flow.poll_head(cx, &mut to),
            Way::Hyper if flow.held.is_empty() => Pin::new(&mut flow.socket).poll_read(cx, to),
            Way::Hyper => {
                let length = flow.held.len().min(to.remaining());
                to.put_slice(&flow.held.split_to(length));
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Write for Sluice {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut lock(&self.0).socket).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).socket).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).socket.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut lock(&self.0).socket).poll_write_vectored(cx, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_plain_head_of_a_chunked_answer_is_found() {
        let head = "HTTP/1.1 200 OK\r\nserver: x\r\nTransfer-encoding: chunked\r\n\r\n";
        assert_eq!(chunked_head(format!("{head}5\r\nhello\r\n").as_bytes()), Some(head.len()));
        for end in 0..head.len() {
            assert_eq!(chunked_head(&head.as_bytes()[..end]), None, "{end}");
        }
        for (from, to) in [("200", "100"), ("200", "500"), ("1.1", "1.0"), ("r: x\r\n", "r: x\n"), ("Tr", "x")] {
            assert_eq!(chunked_head(head.replacen(from, to, 1).as_bytes()), None, "{to}");
        }
        assert_eq!(chunked_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\n\r\n5\r\n\r\n"), None);
    }
}
