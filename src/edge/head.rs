//! One HTTP/1 request head, read strictly: everything that two readers could understand differently is refused.
//!
//! hyper accepts a missing or doubled Host, a target that contradicts Host, bare LF line ends, `chunked` twice, CONNECT
//! and Content-Length beside Transfer-Encoding. Another hop may read any of these in another way, which is how one
//! request becomes two. So they end here, and hyper sees only heads that passed. Pure; any split of the bytes gives
//! the same verdict, because lines are judged in order and only when complete.

use std::ops::Range;

use memchr::memchr;

use crate::config::checked::Limits;
use crate::fault::{Fault, Kind};

/// How the bytes after a head are delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunked coding.
    Chunked,
}

/// Why a request was refused before anybody else saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which error the client gets.
    pub kind: Kind,
    /// For the client.
    pub message: &'static str,
}

impl Refusal {
    /// For the response.
    pub fn fault(self) -> Fault {
        Fault::new(self.kind, self.message)
    }
}

/// Empty lines that a client may send before its request line (RFC 9112, 2.2: old clients end a body with one).
const LEADING_LINES_MAX: u8 = 2;
/// Digits of a Content-Length; nineteen always fit a u64.
const LENGTH_DIGITS_MAX: usize = 19;

/// A head that is being read. Positions count from the first byte given to [`Head::read`].
#[derive(Debug, Default)]
pub struct Head {
    /// Start of the line that is not complete yet.
    line: usize,
    /// Bytes already searched for a line end.
    searched: usize,
    leading: u8,
    fields: usize,
    started: bool,
    http10: bool,
    host: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
}

impl Head {
    /// Reads on in `bytes`, which start where they started in the last call. The head's length and its body's framing
    /// once it is complete.
    pub fn read(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<(usize, Framing)>, Refusal> {
        loop {
            let Some(feed) = memchr(b'\n', from(bytes, self.searched)) else {
                self.searched = bytes.len();
                return if bytes.len() > limits.head_bytes { Err(TOO_LONG) } else { Ok(None) };
            };
            let (start, end) = (self.line, self.searched + feed);
            if end >= limits.head_bytes {
                return Err(TOO_LONG);
            }
            (self.line, self.searched) = (end + 1, end + 1);
            let Some(line) = between(bytes, &(start..end)).strip_suffix(b"\r") else {
                return Err(bad("lines must end in CR LF"));
            };
            if line.is_empty() && self.started {
                return self.finish(bytes).map(|framing| Some((end + 1, framing)));
            }
            if line.is_empty() {
                self.leading += 1;
                if self.leading > LEADING_LINES_MAX {
                    return Err(bad("empty lines before the request line"));
                }
            } else if self.started {
                self.field(line, start, limits)?;
            } else {
                self.request_line(line, start)?;
            }
        }
    }

    fn request_line(&mut self, line: &[u8], start: usize) -> Result<(), Refusal> {
        self.started = true;
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("the request line must be METHOD TARGET HTTP/1.1"));
        };
        self.http10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(bad("only HTTP/1.1 and HTTP/1.0 are spoken here")),
        };
        if method.is_empty() || !all(method, |byte| byte.is_ascii_uppercase() || byte == b'-') {
            return Err(bad("the method is not well formed"));
        }
        if method == b"CONNECT" {
            return Err(bad("CONNECT is not supported: this is not a proxy"));
        }
        if !all(target, |byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(bad("the request target is not well formed"));
        }
        if target.first() == Some(&b'/') || (target == b"*" && method == b"OPTIONS") {
            return Ok(());
        }
        self.authority = Some(authority_of(target, start + method.len() + 1)?);
        Ok(())
    }

    fn field(&mut self, line: &[u8], start: usize, limits: &Limits) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > limits.header_fields {
            return Err(Refusal { kind: Kind::HeadTooLarge, message: "too many header fields" });
        }
        let colon = memchr(b':', line).ok_or(bad("a header field without a colon"))?;
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        if name.is_empty() || !all(name, is_token) {
            return Err(bad("a header field's name is not well formed"));
        }
        let value = from(value, 1);
        if !all(value, |byte| byte >= b' ' && byte != 0x7f || byte == b'\t') {
            return Err(bad("a header field's value has control characters"));
        }
        let trimmed = value.trim_ascii();
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => {
                let skipped = value.len() - value.trim_ascii_start().len();
                let at = start + colon + 1 + skipped;
                self.host(trimmed, at..at + trimmed.len())
            }
            6 if is(b"expect") && !trimmed.eq_ignore_ascii_case(b"100-continue") => {
                Err(bad("Expect: only 100-continue is understood"))
            }
            // Clients that offer HTTP/2 this way (Java's among them) take no answer for a no, as RFC 9110 7.8 lets us.
            7 if is(b"upgrade") && !trimmed.eq_ignore_ascii_case(b"h2c") => {
                Err(bad("Upgrade: no other protocol is spoken here"))
            }
            14 if is(b"content-length") => self.length(trimmed),
            17 if is(b"transfer-encoding") => self.coding(trimmed),
            // Some readers take an underscore for a hyphen.
            14 | 17 if is(b"content_length") || is(b"transfer_encoding") => {
                Err(bad("a framing field's name is spelt with an underscore"))
            }
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8], at: Range<usize>) -> Result<(), Refusal> {
        if !is_host(value) {
            return Err(bad("Host is not well formed"));
        }
        if self.host.replace(at).is_some() {
            return Err(bad("more than one Host"));
        }
        Ok(())
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if value.is_empty() || value.len() > LENGTH_DIGITS_MAX || !all(value, |byte| byte.is_ascii_digit()) {
            return Err(bad("Content-Length is not a number"));
        }
        let length = value.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        if self.length.replace(length).is_some() {
            return Err(bad("more than one Content-Length"));
        }
        Ok(())
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if !value.eq_ignore_ascii_case(b"chunked") || self.chunked {
            return Err(bad("Transfer-Encoding must be chunked, once"));
        }
        self.chunked = true;
        Ok(())
    }

    fn finish(&self, bytes: &[u8]) -> Result<Framing, Refusal> {
        match (&self.host, &self.authority) {
            (None, _) if !self.http10 => return Err(bad("Host is missing")),
            (Some(host), Some(authority)) if !same_host(between(bytes, host), between(bytes, authority)) => {
                return Err(bad("the request target contradicts Host"));
            }
            _ => {}
        }
        match (self.length, self.chunked) {
            (Some(_), true) => Err(bad("Content-Length beside Transfer-Encoding")),
            (None, true) if self.http10 => Err(bad("Transfer-Encoding in HTTP/1.0")),
            (None, true) => Ok(Framing::Chunked),
            (None | Some(0), false) => Ok(Framing::None),
            (Some(length), false) => Ok(Framing::Length(length)),
        }
    }
}

const TOO_LONG: Refusal = Refusal { kind: Kind::HeadTooLarge, message: "the request head is too large" };

/// A refusal of something that is not well formed.
pub(super) const fn bad(message: &'static str) -> Refusal {
    Refusal { kind: Kind::BadRequest, message }
}

/// Where `http://authority/...` names its authority.
fn authority_of(target: &[u8], at: usize) -> Result<Range<usize>, Refusal> {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .ok_or(bad("the request target must be a path"))?;
    let rest = from(target, scheme.len());
    let authority = rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or_default();
    if !is_host(authority) {
        return Err(bad("the request target's authority is not well formed"));
    }
    let start = at + scheme.len();
    Ok(start..start + authority.len())
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; no user, no list, no path.
pub(super) fn is_host(text: &[u8]) -> bool {
    let (name, port) = match text.first() {
        Some(b'[') => {
            let Some(close) = memchr(b']', text) else { return false };
            let inside = between(text, &(1..close));
            if inside.is_empty() || !all(inside, |byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
                return false;
            }
            (inside, from(text, close + 1))
        }
        _ => text.split_at_checked(memchr(b':', text).unwrap_or(text.len())).unwrap_or_default(),
    };
    let name_ok = !name.is_empty() && all(name, |byte| is_token(byte) || byte == b':');
    let port_ok = match port.strip_prefix(b":") {
        None => port.is_empty(),
        Some(digits) => !digits.is_empty() && digits.len() <= 5 && all(digits, |byte| byte.is_ascii_digit()),
    };
    name_ok && port_ok
}

/// Whether both name the same place; a default port may be left out of one of them.
fn same_host(one: &[u8], other: &[u8]) -> bool {
    let plain = |host| <[u8]>::strip_suffix(host, b":80").or(<[u8]>::strip_suffix(host, b":443")).unwrap_or(host);
    let one_is_plain = plain(one).len() == one.len() || plain(other).len() == other.len();
    one.eq_ignore_ascii_case(other) || (one_is_plain && plain(one).eq_ignore_ascii_case(plain(other)))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Without an early exit, so that it is vectorised.
fn all(bytes: &[u8], holds: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |so_far, byte| so_far & holds(*byte))
}

fn from(bytes: &[u8], start: usize) -> &[u8] {
    bytes.get(start..).unwrap_or_default()
}

fn between<'b>(bytes: &'b [u8], range: &Range<usize>) -> &'b [u8] {
    bytes.get(range.clone()).unwrap_or_default()
}
