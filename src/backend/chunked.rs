//! The chunked coding of an upstream's body: its data, gathered from as many chunks as are at hand.
//!
//! As lenient as hyper, which reads all other bodies: extensions and trailers are skipped within a bound, spaces may follow a
//! size, and a bare LF is no line end. Pure.

use bytes::BytesMut;

/// Bytes of extensions, and of trailers, in one body.
const SKIPPED_MAX: u32 = 16 * 1024;

/// A body that is being decoded.
#[derive(Debug, Default)]
pub struct Chunked {
    at: At,
    /// Bytes of data left in the chunk, or its size as far as it was read.
    size: u64,
    extensions: u32,
    trailers: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    Size,
    SizeBlank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    Over,
    Malformed,
}

impl Chunked {
    /// Appends the data in `bytes` to `out`; how many bytes were looked at. Those after the body's end, or after its first
    /// mistake, are not.
    pub fn decode(&mut self, bytes: &[u8], out: &mut BytesMut) -> usize {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            match self.at {
                At::Over | At::Malformed => break,
                At::Data => {
                    let length = usize::try_from(self.size).unwrap_or(usize::MAX).min(rest.len());
                    if out.is_empty() {
                        out.reserve(rest.len());
                    }
                    out.extend_from_slice(rest.get(..length).unwrap_or_default());
                    self.size -= length as u64;
                    used += length;
                    if self.size == 0 {
                        self.at = At::DataCr;
                    }
                }
                _ => {
                    self.at = rest.first().map_or(self.at, |byte| self.step(*byte));
                    used += 1;
                }
            }
        }
        used
    }

    /// Whether more of it is to come.
    pub fn is_open(&self) -> bool {
        !self.is_over() && !self.is_malformed()
    }

    /// Whether the body has ended.
    pub fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Whether it is not in the chunked coding.
    pub fn is_malformed(&self) -> bool {
        self.at == At::Malformed
    }

    /// One byte of structure.
    fn step(&mut self, byte: u8) -> At {
        match (self.at, byte) {
            (At::Start, byte) => {
                self.size = 0;
                self.digit(byte)
            }
            (At::Size, b'\r') | (At::SizeBlank, b'\r') | (At::Extension, b'\r') => At::SizeLf,
            (At::Size | At::SizeBlank, b' ' | b'\t') => At::SizeBlank,
            (At::Size | At::SizeBlank, b';') => At::Extension,
            (At::Size, byte) => self.digit(byte),
            (At::Extension, byte) if byte != b'\n' => skipped(&mut self.extensions, At::Extension),
            (At::SizeLf, b'\n') if self.size == 0 => At::TrailerStart,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Start,
            (At::TrailerStart, b'\r') => At::LastLf,
            (At::LastLf, b'\n') => At::Over,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::TrailerStart | At::Trailer, byte) if byte != b'\n' => skipped(&mut self.trailers, At::Trailer),
            _ => At::Malformed,
        }
    }

    fn digit(&mut self, byte: u8) -> At {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        match digit.and_then(|digit| self.size.checked_mul(16)?.checked_add(digit)) {
            Some(size) => {
                self.size = size;
                At::Size
            }
            None => At::Malformed,
        }
    }
}

fn skipped(count: &mut u32, at: At) -> At {
    *count += 1;
    if *count < SKIPPED_MAX { at } else { At::Malformed }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data, bytes left over after the end (none before it), and whether there was a mistake.
    fn decode(bytes: &[u8], step: usize) -> (Vec<u8>, Option<usize>, bool) {
        let (mut chunked, mut data, mut used) = (Chunked::default(), BytesMut::new(), 0);
        for piece in bytes.chunks(step.max(1)) {
            let mut out = BytesMut::new();
            used += chunked.decode(piece, &mut out);
            data.extend_from_slice(&out);
        }
        (data.to_vec(), chunked.is_over().then(|| bytes.len() - used), chunked.is_malformed())
    }

    #[test]
    fn data_comes_out_and_what_follows_the_end_is_left() {
        for (body, data, rest) in [
            ("0\r\n\r\nHTTP", "", Some(4)),
            ("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!", Some(0)),
            ("A \t;a=\"b\"\r\n0123456789\r\n00\r\n\r\n", "0123456789", Some(0)),
            ("1;\r\nx\r\n0;y\r\nA: b\r\nC: d\r\n\r\nz", "x", Some(1)),
            ("5\r\nhel", "hel", None),
            ("5\r\nhello\r\n", "hello", None),
            ("5\r\nhello\r\n0\r\n", "hello", None),
        ] {
            for step in 1..=body.len() {
                let want = (data.as_bytes().to_vec(), rest, false);
                assert_eq!(decode(body.as_bytes(), step), want, "{body:?} in {step}");
            }
        }
    }

    #[test]
    fn what_hyper_refuses_is_refused_after_the_data_before_it() {
        for tail in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1\nx",
            "1 1\r\n",
            "1;a\nx",
            "1\rx",
            "1\r\nxy",
            "1\r\nx\ry",
            "10000000000000000\r\n",
            "0\r\n\n",
            "0\r\n\rx",
            "0\r\na: b\n",
            "0\r\na: b\rx",
        ] {
            let body = format!("2\r\nok\r\n{tail}");
            for step in 1..=body.len() {
                let (data, rest, malformed) = decode(body.as_bytes(), step);
                assert!(malformed && rest.is_none() && data.starts_with(b"ok"), "{body:?} in {step}");
            }
        }
        for endless in [format!("1;{}", "a".repeat(20_000)), format!("0\r\n{}", "a: b\r\n".repeat(5_000))] {
            assert!(decode(endless.as_bytes(), 1000).2);
        }
    }

    proptest! {
        #[test]
        fn any_split_decodes_alike(bytes in "[0-3a\r\n; ]{0,40}", step in 1_usize..41) {
            prop_assert_eq!(decode(bytes.as_bytes(), step), decode(bytes.as_bytes(), 64));
        }
    }
}
