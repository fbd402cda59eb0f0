//! One pass over a JSON object: where its members are, that all of it is well formed, and that it is not too deep.
//!
//! Invariant: iterative, allocates only the list of top-level members (bounded by [`MAX_MEMBERS`]), and accepts exactly
//! what serde_json accepts, up to the depth limit. Flaws carry a byte position, never the bytes themselves.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

/// Members of one object. Real requests have about 20; the bound keeps a body of commas from growing a large list.
pub const MAX_MEMBERS: usize = 256;

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Byte offset in the text.
    pub at: usize,
    /// In our own words.
    pub what: &'static str,
}

/// One member of the object.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its key, unescaped.
    pub key: Cow<'a, str>,
    /// Offset of the key's opening quote.
    pub start: usize,
    /// The value, without white space around it.
    pub value: Range<usize>,
    /// Offset after the comma, or after the brace of the last member.
    pub comma: usize,
    /// The value's text.
    pub raw: &'a str,
}

/// An object's members in order.
#[derive(Debug)]
pub struct Object<'a> {
    /// Offset after the opening brace.
    pub inside: usize,
    /// In the order of the text; duplicates are kept.
    pub members: Vec<Member<'a>>,
}

/// Reads a whole text that must be one object with at most `max_depth` (<= 128) levels, itself the first.
pub fn object(text: &str, max_depth: u32) -> Result<Object<'_>, Flaw> {
    let mut scanner = Scanner { text, bytes: text.as_bytes(), at: 0, max_depth: max_depth.min(128) };
    scanner.space();
    if scanner.peek() != Some(b'{') {
        return Err(scanner.flaw("expected an object"));
    }
    scanner.at += 1;
    let inside = scanner.at;
    let members = scanner.members()?;
    scanner.space();
    if scanner.at != text.len() {
        return Err(scanner.flaw("expected the end of the text"));
    }
    Ok(Object { inside, members })
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    max_depth: u32,
}

impl<'a> Scanner<'a> {
    fn members(&mut self) -> Result<Vec<Member<'a>>, Flaw> {
        let mut members = Vec::with_capacity(16);
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(members);
        }
        loop {
            if members.len() == MAX_MEMBERS {
                return Err(self.flaw("too many fields"));
            }
            let start = self.at;
            let key = self.key()?;
            let begin = self.at;
            self.value()?;
            let value = begin..self.at;
            let raw = self.text.get(value.clone()).unwrap_or_default();
            self.space();
            let separator = self.next();
            members.push(Member { key, start, value, comma: self.at, raw });
            match separator {
                Some(b',') => self.space(),
                Some(b'}') => return Ok(members),
                _ => return Err(self.flaw_before("expected a comma or a closing brace")),
            }
        }
    }

    /// A key with its colon, up to the value.
    fn key(&mut self) -> Result<Cow<'a, str>, Flaw> {
        let start = self.at;
        let escaped = self.string()?;
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        let key = if escaped {
            let decoded = serde_json::from_str::<String>(quoted);
            Cow::Owned(decoded.map_err(|_| Flaw { at: start, what: "a key is not valid Unicode" })?)
        } else {
            Cow::Borrowed(quoted.trim_matches('"'))
        };
        self.colon()?;
        Ok(key)
    }

    fn colon(&mut self) -> Result<(), Flaw> {
        self.space();
        if self.next() != Some(b':') {
            return Err(self.flaw_before("expected a colon"));
        }
        self.space();
        Ok(())
    }

    /// Any value. `kinds` is the stack of open containers, one bit each: 1 is an object, 0 an array.
    fn value(&mut self) -> Result<(), Flaw> {
        let (mut kinds, mut open) = (0_u128, 0_u32);
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.space();
                    let closing = if bracket == b'{' { b'}' } else { b']' };
                    if open + 2 > self.max_depth {
                        return Err(self.flaw_before("nested too deeply"));
                    }
                    if self.peek() == Some(closing) {
                        self.at += 1;
                    } else {
                        kinds = kinds << 1 | u128::from(bracket == b'{');
                        open += 1;
                        if bracket == b'{' {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                _ => self.word()?,
            }
            if !self.close(&mut kinds, &mut open)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes containers until another value must follow (`true`) or none is open (`false`).
    fn close(&mut self, kinds: &mut u128, open: &mut u32) -> Result<bool, Flaw> {
        while *open > 0 {
            self.space();
            let in_object = *kinds & 1 == 1;
            match (self.next(), in_object) {
                (Some(b','), true) => {
                    self.space();
                    self.skip_key()?;
                    return Ok(true);
                }
                (Some(b','), false) => {
                    self.space();
                    return Ok(true);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    *kinds >>= 1;
                    *open -= 1;
                }
                _ => return Err(self.flaw_before("expected a comma or a closing bracket")),
            }
        }
        Ok(false)
    }

    fn skip_key(&mut self) -> Result<(), Flaw> {
        self.string()?;
        self.colon()
    }

    /// A string with its quotes; whether it has escapes.
    fn string(&mut self) -> Result<bool, Flaw> {
        if self.next() != Some(b'"') {
            return Err(self.flaw_before("expected a string"));
        }
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(stop) = memchr2(b'"', b'\\', rest) else {
                return Err(Flaw { at: self.bytes.len(), what: "a string does not end" });
            };
            let plain = rest.get(..stop).unwrap_or_default();
            // Without an early exit, so that it is vectorised.
            if plain.iter().fold(false, |so_far, byte| so_far | (*byte < 0x20)) {
                return Err(self.flaw("a string holds a control character"));
            }
            self.at += stop + 1;
            if rest.get(stop) == Some(&b'"') {
                return Ok(escaped);
            }
            escaped = true;
            self.escape()?;
        }
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let digits = self.bytes.get(self.at..self.at + 4).unwrap_or_default();
                if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(self.flaw("expected four hexadecimal digits"));
                }
                self.at += 4;
                Ok(())
            }
            _ => Err(self.flaw_before("no such escape")),
        }
    }

    fn number(&mut self) -> Result<(), Flaw> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next() {
            Some(b'0') => {}
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.flaw_before("expected a digit")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), Flaw> {
        let first = self.peek().is_some_and(|byte| byte.is_ascii_digit());
        self.digits();
        if first { Ok(()) } else { Err(self.flaw("expected a digit")) }
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn word(&mut self) -> Result<(), Flaw> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        for word in [b"null".as_slice(), b"true", b"false"] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(());
            }
        }
        Err(self.flaw("expected a value"))
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn flaw(&self, what: &'static str) -> Flaw {
        Flaw { at: self.at, what }
    }

    /// A flaw at the byte that [`next`](Self::next) just took.
    fn flaw_before(&self, what: &'static str) -> Flaw {
        Flaw { at: self.at.saturating_sub(1), what }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn agrees(text: &str) -> Result<(), TestCaseError> {
        let theirs = serde_json::from_str::<&RawValue>(text).is_ok() && text.trim_start().starts_with('{');
        prop_assert_eq!(object(text, 100).is_ok(), theirs, "{}", text);
        Ok(())
    }

    #[test]
    fn finds_members_with_their_places() {
        let text = " { \"a\" : 1 ,\"b\":[{\"c\":\"}\\\"\"}], \"a\":null, \"\\u0061\":-1.5e+3 } ";
        let object = object(text, 8).unwrap();
        let keys: Vec<&str> = object.members.iter().map(|m| &*m.key).collect();
        assert_eq!(keys, ["a", "b", "a", "a"]);
        assert_eq!(object.members[1].raw, "[{\"c\":\"}\\\"\"}]");
        assert_eq!(&text[object.members[3].value.clone()], "-1.5e+3");
        assert_eq!(text.as_bytes()[object.members[1].start], b'"');
    }

    #[test]
    fn depth_is_limited_exactly() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(object(&nested(63), 64).is_ok());
        assert_eq!(object(&nested(64), 64).unwrap_err().what, "nested too deeply");
        let bomb = format!("{{\"a\":{}", "[".repeat(5_000_000));
        assert_eq!(object(&bomb, 64).unwrap_err().what, "nested too deeply");
    }

    #[test]
    fn a_crowd_of_fields_is_refused() {
        let crowd: Vec<String> = (0..=MAX_MEMBERS).map(|i| format!("\"{i}\":0")).collect();
        assert_eq!(object(&format!("{{{}}}", crowd.join(",")), 64).unwrap_err().what, "too many fields");
    }

    #[test]
    fn malformed_texts_are_refused_like_serde_does() {
        let texts = [
            "",
            "{",
            "}",
            "[]",
            "1",
            "{]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":+1}",
            "{\"a\":1e}",
            "{\"a\":-}",
            "{\"a\":nul}",
            "{\"a\":nullx}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"",
            "{\"a\":[1 2]}",
            "{\"a\":[1,]}",
            "{\"a\":{\"b\":1]}",
            "{}{}",
            "{} x",
            "\u{feff}{}",
            "{'a':1}",
            "{a:1}",
            "{\"a\":NaN}",
            "{\"a\":1}\0",
            "{\"a\":\"\\",
        ];
        for text in texts {
            assert!(object(text, 64).is_err(), "{text}");
            assert!(serde_json::from_str::<&RawValue>(text).is_err() || !text.starts_with('{'), "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_anything(text in "[{}\\[\\]\",:a0-9eE+.\\\\ u\\-\n]{0,40}") {
            agrees(&format!("{{{text}"))?;
            agrees(&format!("{{\"k\":{text}}}"))?;
            agrees(&format!("{{\"k\":\"{text}\"}}"))?;
        }
    }
}
