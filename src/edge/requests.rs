//! Follows the bytes of one HTTP/1 connection from request to request: head, body, head, body.
//!
//! Says how many of the bytes at hand may be passed on. A head is passed on whole or not at all.

use crate::config::checked::Limits;

use super::chunks::Chunks;
use super::head::{Framing, Head, Refusal};

/// What a body of unknown length is read by.
const CHUNKED_READ_BYTES: usize = 16 * 1024;

/// A connection's request side.
#[derive(Debug)]
pub struct Requests {
    at: At,
}

#[derive(Debug)]
enum At {
    Head(Head),
    Length(u64),
    Chunked(Chunks),
}

/// What [`Requests::follow`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// More bytes are needed before any may pass.
    Incomplete,
    /// A head of this many bytes; a body may follow.
    Head(usize),
    /// This many bytes of a body.
    Body(usize),
}

impl Requests {
    /// Before the first request.
    pub fn new() -> Self {
        Self { at: At::Head(Head::default()) }
    }

    /// Whether the next byte starts, or continues, a head.
    pub fn in_head(&self) -> bool {
        matches!(self.at, At::Head(_))
    }

    /// How many more bytes are worth asking for.
    pub fn wanted(&self) -> usize {
        match self.at {
            At::Head(_) => 0,
            At::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
            At::Chunked(_) => CHUNKED_READ_BYTES,
        }
    }

    /// Judges `bytes`: everything that was read and not passed on yet.
    pub fn follow(&mut self, bytes: &[u8], limits: &Limits) -> Result<Found, Refusal> {
        match &mut self.at {
            At::Head(head) => {
                let Some((length, framing)) = head.read(bytes, limits)? else { return Ok(Found::Incomplete) };
                self.at = match framing {
                    Framing::None => At::Head(Head::default()),
                    Framing::Length(length) => At::Length(length),
                    Framing::Chunked => At::Chunked(Chunks::default()),
                };
                Ok(Found::Head(length))
            }
            At::Length(left) => {
                let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= step as u64;
                if *left == 0 {
                    self.at = At::Head(Head::default());
                }
                Ok(Found::Body(step))
            }
            At::Chunked(chunks) => {
                let (used, done) = chunks.follow(bytes)?;
                if done {
                    self.at = At::Head(Head::default());
                }
                Ok(Found::Body(used))
            }
        }
    }
}
