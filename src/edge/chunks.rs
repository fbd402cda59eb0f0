//! Where a chunked body ends. Follows the coding, byte by byte where there is structure, and keeps nothing.
//!
//! hyper decodes the chunks; this only has to agree with it about the end, and refuses what is read in different ways:
//! bare LF, chunk extensions, signs and spaces around the size, endless trailers.

use super::head::{Refusal, bad};

/// Hexadecimal digits of a chunk's size: 2^60 bytes are enough, and nothing wraps.
const SIZE_DIGITS_MAX: u8 = 15;
/// Trailer bytes. Nobody here reads trailers.
const TRAILER_BYTES_MAX: u16 = 4096;

/// A chunked body that is being followed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chunks {
    at: At,
    size: u64,
    digits: u8,
    trailer: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
}

impl Chunks {
    /// Follows `bytes`: how many belong to this body, and whether it ends with them.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut used = 0;
        while let Some(byte) = bytes.get(used) {
            if self.at == At::Data {
                let left = bytes.len() - used;
                let step = usize::try_from(self.size).unwrap_or(usize::MAX).min(left);
                self.size -= step as u64;
                used += step;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            used += 1;
            if self.step(*byte)? {
                return Ok((used, true));
            }
        }
        Ok((used, false))
    }

    /// One byte of structure; whether it was the last of the body.
    fn step(&mut self, byte: u8) -> Result<bool, Refusal> {
        self.at = match (self.at, byte) {
            (At::Size, b'\r') if self.digits > 0 => At::SizeLf,
            (At::Size, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(bad("a chunk's size is not a plain number"))?;
                self.digits += 1;
                if self.digits > SIZE_DIGITS_MAX {
                    return Err(bad("a chunk's size is too large"));
                }
                self.size = self.size << 4 | u64::from(digit);
                At::Size
            }
            (At::SizeLf, b'\n') if self.size == 0 => At::TrailerStart,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.digits = 0;
                At::Size
            }
            (At::TrailerStart, b'\r') => At::LastLf,
            (At::LastLf, b'\n') => return Ok(true),
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::TrailerStart | At::Trailer, byte) if byte != b'\n' => {
                self.trailer += 1;
                if self.trailer > TRAILER_BYTES_MAX {
                    return Err(bad("the trailers are too large"));
                }
                At::Trailer
            }
            _ => return Err(bad("the chunked body is not well formed")),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that belong to the body and whether it ended, fed in pieces of `step` bytes.
    fn check(bytes: &[u8], step: usize) -> Result<(usize, bool), &'static str> {
        let (mut chunks, mut total) = (Chunks::default(), 0);
        for piece in bytes.chunks(step.max(1)) {
            let (used, done) = chunks.follow(piece).map_err(|refusal| refusal.message)?;
            total += used;
            if done {
                return Ok((total, true));
            }
            assert_eq!(used, piece.len());
        }
        Ok((total, false))
    }

    #[test]
    fn the_end_is_found_and_what_follows_is_left() {
        for (body, rest) in [
            ("0\r\n\r\n", "GET"),
            ("5\r\nhello\r\n0\r\n\r\n", ""),
            ("5\r\nhel\r\n\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n"),
            ("A\r\n0123456789\r\n00\r\n\r\n", "x"),
            ("1\r\nx\r\n0\r\nDigest: 1\r\nOther: 2\r\n\r\n", "y"),
        ] {
            let bytes = format!("{body}{rest}");
            for step in 1..bytes.len() {
                assert_eq!(check(bytes.as_bytes(), step), Ok((body.len(), true)), "{body:?} in {step}");
            }
        }
    }

    #[test]
    fn unclear_coding_is_refused() {
        for body in [
            "\r\n",
            "5\nhello\r\n",
            "5;ext=1\r\nhello\r\n",
            "5 \r\nhello\r\n",
            " 5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n",
            "g\r\n",
            "5\r\nhello!\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\rX",
            "FFFFFFFFFFFFFFFF\r\n",
            "0000000000000000\r\n",
            "0\r\n\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\r\r\n",
            "0\r\n\rX",
        ] {
            let whole = check(body.as_bytes(), body.len());
            assert!(whole.is_err(), "{body:?} gave {whole:?}");
            assert_eq!(check(body.as_bytes(), 1), whole, "{body:?}");
        }
        let endless = format!("0\r\n{}", "A: b\r\n".repeat(2_000));
        assert!(check(endless.as_bytes(), 100).is_err());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_verdict(bytes in "[0-9a-f\r\n:;x ]{0,40}", step in 1_usize..41) {
            prop_assert_eq!(check(bytes.as_bytes(), step), check(bytes.as_bytes(), 64));
        }

        #[test]
        fn what_a_sender_frames_is_followed_to_its_end(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6), step in 1_usize..50) {
            let mut body = Vec::new();
            for part in &parts {
                body.extend(format!("{:x}\r\n", part.len()).into_bytes());
                body.extend(part);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let length = body.len();
            body.extend(b"5\r\nmore");
            prop_assert_eq!(check(&body, step), Ok((length, true)));
        }
    }
}
