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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::edge::tests::limits;
    use crate::fault::Kind;

    /// What became of a connection's bytes.
    #[derive(Debug, PartialEq, Eq)]
    struct Verdict {
        /// Each request that passed: bytes of its head and of its body.
        passed: Vec<(usize, usize)>,
        refused: Option<Refusal>,
        /// Bytes that were neither passed nor refused yet.
        held: usize,
    }

    fn small() -> Limits {
        Limits { head_bytes: 400, header_fields: 10, ..limits() }
    }

    /// Feeds `bytes` in pieces of `step`, as the guard does.
    fn judge(bytes: &[u8], step: usize) -> Verdict {
        let (mut requests, mut held, mut passed, limits) = (Requests::new(), Vec::new(), Vec::new(), small());
        for piece in bytes.chunks(step.max(1)) {
            held.extend_from_slice(piece);
            while !held.is_empty() {
                match requests.follow(&held, &limits) {
                    Ok(Found::Incomplete) => break,
                    Ok(Found::Head(length)) => {
                        passed.push((length, 0));
                        held.drain(..length);
                    }
                    Ok(Found::Body(length)) => {
                        passed.last_mut().unwrap().1 += length;
                        held.drain(..length);
                    }
                    Err(refused) => return Verdict { passed, refused: Some(refused), held: 0 },
                }
            }
        }
        Verdict { passed, refused: None, held: held.len() }
    }

    fn passes(requests: &[(&str, &str)]) {
        let bytes: String = requests.iter().map(|(head, body)| format!("{head}{body}")).collect();
        let passed: Vec<_> = requests.iter().map(|(head, body)| (head.len(), body.len())).collect();
        for step in [1, 2, 3, 7, bytes.len()] {
            let expected = Verdict { passed: passed.clone(), refused: None, held: 0 };
            assert_eq!(judge(bytes.as_bytes(), step), expected, "{bytes:?} in {step}");
        }
    }

    fn refuses(request: &[u8], kind: Kind) {
        for step in [1, 2, 3, 7, request.len()] {
            let verdict = judge(request, step);
            let text = String::from_utf8_lossy(request);
            assert_eq!(verdict.refused.map(|refused| refused.kind), Some(kind), "{text:?} in {step}: {verdict:?}");
            assert_eq!(verdict.passed, [], "{text:?} in {step}");
        }
    }

    #[test]
    fn plain_requests_pass() {
        for (head, body) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
            ("POST /v1/chat HTTP/1.1\r\nHost: a:8080\r\nContent-Length: 5\r\n\r\n", "hello"),
            ("POST / HTTP/1.1\r\nhost:a\r\ntransfer-encoding:Chunked\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            ("GET http://a.example/x?y HTTP/1.1\r\nHost: A.example:80\r\n\r\n", ""),
            ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nExpect: 100-Continue\r\n\r\n", ""),
            ("GET / HTTP/1.0\r\n\r\n", ""),
            ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nX:\r\nY: \tobs\u{e9} \r\n\r\n", ""),
        ] {
            passes(&[(head, body)]);
        }
    }

    #[test]
    fn requests_follow_one_another() {
        let one = ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", "ok");
        let two = ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "");
        passes(&[one, two, one]);
        // A good request before a bad one has passed; nothing after it does.
        let verdict = judge(format!("{}okGET / HTTP/1.1\r\n\r\n{}", one.0, two.0).as_bytes(), 5);
        assert_eq!(verdict.passed, [(one.0.len(), 2)]);
        assert!(verdict.refused.is_some());
    }

    #[test]
    fn request_lines_that_can_be_misread_are_refused() {
        for line in [
            "GET / HTTP/1.1 ",
            "GET  / HTTP/1.1",
            " GET / HTTP/1.1",
            "GET /",
            "GET",
            "GET / HTTP/2.0",
            "GET / HTTP/1.2",
            "GET / HTTP/0.9",
            "GET / http/1.1",
            "GET / HTTP/1.1\r",
            "GET\t/ HTTP/1.1",
            "get / HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET /a\u{0} HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "GET ftp://a/ HTTP/1.1",
            "GET http:// HTTP/1.1",
            "GET http://u@a/ HTTP/1.1",
            "CONNECT a:443 HTTP/1.1",
            "PRI * HTTP/2.0",
            "\r\n\r\n\r\nGET / HTTP/1.1",
        ] {
            refuses(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), Kind::BadRequest);
        }
    }

    #[test]
    fn fields_that_can_be_misread_are_refused() {
        for fields in [
            "",
            "Host:\r\n",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nHost: b\r\n",
            "Host: a, b\r\n",
            "Host: a b\r\n",
            "Host: u@a\r\n",
            "Host: a/b\r\n",
            "Host: a:\r\n",
            "Host: a:x\r\n",
            "Host: [::1\r\n",
            "Host : a\r\n",
            "Host: a\n",
            "Host: a\r\nX: y\n",
            "Host: a\r\nX: y\rz\r\n",
            "Host: a\r\nX: y\u{0}z\r\n",
            "Host: a\r\n folded\r\n",
            "Host: a\r\nX: y\r\n\tfolded\r\n",
            "Host: a\r\nno colon\r\n",
            "Host: a\r\n: empty\r\n",
            "Host: a\r\nX y: z\r\n",
            "Host: a\r\nX\u{e9}: z\r\n",
            "Host: a\r\nContent-Length: +5\r\n",
            "Host: a\r\nContent-Length: -5\r\n",
            "Host: a\r\nContent-Length: 5, 5\r\n",
            "Host: a\r\nContent-Length: 0x5\r\n",
            "Host: a\r\nContent-Length: 5 5\r\n",
            "Host: a\r\nContent-Length:\r\n",
            "Host: a\r\nContent-Length: 99999999999999999999\r\n",
            "Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
            "Host: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
            "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n",
            "Host: a\r\nTransfer-Encoding: chunked, chunked\r\n",
            "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n",
            "Host: a\r\nTransfer-Encoding: identity\r\n",
            "Host: a\r\nTransfer-Encoding: xchunked\r\n",
            "Host: a\r\nTransfer-Encoding: chunked;q=1\r\n",
            "Host: a\r\nTransfer-Encoding:\u{b}chunked\r\n",
            "Host: a\r\nTransfer-Encoding:\r\n",
            "Host: a\r\nContent_Length: 5\r\n",
            "Host: a\r\ntransfer_encoding: chunked\r\n",
            "Host: a\r\nExpect: 200-ok\r\n",
            "Host: a\r\nUpgrade: websocket\r\n",
            "Host: a\r\nUpgrade: TLS/1.0\r\n",
        ] {
            refuses(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes(), Kind::BadRequest);
        }
        refuses(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Kind::BadRequest);
        refuses(b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", Kind::BadRequest);
        refuses(b"GET http://a:80/ HTTP/1.1\r\nHost: a:443\r\n\r\n", Kind::BadRequest);
        refuses(b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", Kind::BadRequest);
        refuses(b"GET / HTTP/1.1\nHost: a\n\n", Kind::BadRequest);
        refuses(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x0a\r\n", Kind::BadRequest);
    }

    #[test]
    fn limits_of_the_head_are_exact() {
        let of_size = |size: usize| {
            let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
            format!("{start}{}\r\n\r\n", "x".repeat(size - start.len() - 4))
        };
        let limit = small().head_bytes;
        passes(&[(&of_size(limit - 1), "")]);
        passes(&[(&of_size(limit), "")]);
        refuses(of_size(limit + 1).as_bytes(), Kind::HeadTooLarge);
        refuses("x".repeat(limit + 1).as_bytes(), Kind::HeadTooLarge);
        let of_fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
        let fields = small().header_fields;
        passes(&[(&of_fields(fields), "")]);
        refuses(of_fields(fields + 1).as_bytes(), Kind::HeadTooLarge);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_verdict(
            lines in prop::collection::vec(prop_oneof![
                Just("GET / HTTP/1.1\r\n"), Just("POST /x HTTP/1.1\r\n"), Just("Host: a\r\n"), Just("Host: b\r\n"), Just("\r\n"),
                Just("Content-Length: 3\r\n"), Just("Transfer-Encoding: chunked\r\n"), Just("abc"), Just("3\r\nabc\r\n"),
                Just("0\r\n\r\n"), Just("X: y\n"), Just("\r"), Just("\n"), Just(" "), Just(":"),
            ], 0..14),
            step in 1_usize..40,
        ) {
            let bytes = lines.concat();
            prop_assert_eq!(judge(bytes.as_bytes(), step), judge(bytes.as_bytes(), bytes.len()));
        }

        #[test]
        fn arbitrary_bytes_are_judged_alike_however_they_come(bytes in prop::collection::vec(any::<u8>(), 0..600), step in 1_usize..700) {
            prop_assert_eq!(judge(&bytes, step), judge(&bytes, bytes.len()));
        }
    }
}
