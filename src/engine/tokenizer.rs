//! Text to token ids and back, from the tables of a GGUF file.
//!
//! Invariant: [`Tokenizer::encode`] never yields a control token or a mark, whatever the text says: those are not in
//! the vocabulary that the merges work on, and only a template places them by id. Sits between template and model.

use std::collections::HashMap;
use std::str;

use crate::engine::byte_level::{ByteLevel, alphabet};
use crate::engine::sentence_piece::{BLANK, SentencePiece};
use crate::engine::types::EngineError;
use crate::engine::vocabulary::{TokenKind, Vocabulary, Way};

/// What turns text into ids and ids into bytes.
pub struct Tokenizer {
    encoder: Encoder,
    /// Bytes of every token, end to end; token `i` is `ends[i - 1]..ends[i]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    kinds: Vec<TokenKind>,
    specials: HashMap<String, u32>,
}

enum Encoder {
    ByteLevel(Box<ByteLevel>),
    SentencePiece(SentencePiece),
}

/// The limit of [`Tokenizer::encode`] was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Tokenizer {
    /// Builds the tables; refuses a pre-tokenizer that it does not know rather than splitting text wrongly.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, EngineError> {
        let mut specials = HashMap::new();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(vocabulary.tokens.len()));
        let spelling = Spelling::of(&vocabulary.way);
        for ((id, token), kind) in (0_u32..).zip(&vocabulary.tokens).zip(&vocabulary.kinds) {
            match kind {
                TokenKind::Normal => spelling.push(token, &mut bytes),
                TokenKind::Byte => bytes.extend(vocabulary.byte(id)),
                TokenKind::Control | TokenKind::UserDefined => {
                    bytes.extend_from_slice(token.replace(BLANK, " ").as_bytes())
                }
                TokenKind::Unused => {}
            }
            if matches!(kind, TokenKind::Control | TokenKind::UserDefined) {
                specials.entry(token.clone()).or_insert(id);
            }
            ends.push(bytes.len());
        }
        let encoder = match &vocabulary.way {
            Way::ByteLevel { merges } => {
                let ordinary = vocabulary.of(TokenKind::Normal).map(|(id, token)| (token.to_owned(), id)).collect();
                Encoder::ByteLevel(Box::new(ByteLevel::new(&vocabulary.pre, ordinary, merges)?))
            }
            Way::SentencePiece { scores, space_prefix } => {
                Encoder::SentencePiece(SentencePiece::new(vocabulary, scores, *space_prefix))
            }
        };
        Ok(Self { encoder, bytes, ends, kinds: vocabulary.kinds.clone(), specials })
    }

    /// Appends the ids of plain text; stops with [`TooLong`] once `out` holds more than `limit`.
    pub fn encode(&self, text: &str, limit: usize, out: &mut Vec<u32>) -> Result<(), TooLong> {
        match &self.encoder {
            Encoder::ByteLevel(it) => it.encode(text, limit, out),
            Encoder::SentencePiece(it) => it.encode(text, limit, out),
        }
    }

    /// The id of a control or user-defined token by its exact text.
    pub fn special(&self, text: &str) -> Option<u32> {
        self.specials.get(text).copied()
    }

    /// The bytes a generated token stands for; empty for a control token.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let Ok(at) = usize::try_from(id) else { return &[] };
        if self.kinds.get(at).is_none_or(|kind| *kind == TokenKind::Control) {
            return &[];
        }
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(at).and_then(|end| self.bytes.get(start..*end)).unwrap_or(&[])
    }

    /// Number of ids.
    pub fn size(&self) -> usize {
        self.ends.len()
    }
}

/// How a token of the file's table is written.
enum Spelling {
    /// A printable stand-in for each byte.
    Letters(HashMap<char, u8>),
    /// As it is, but for the mark of a blank.
    Blanks,
}

impl Spelling {
    fn of(way: &Way) -> Self {
        match way {
            Way::ByteLevel { .. } => {
                Self::Letters(alphabet().iter().zip(0_u8..=255).map(|(letter, byte)| (*letter, byte)).collect())
            }
            Way::SentencePiece { .. } => Self::Blanks,
        }
    }

    fn push(&self, token: &str, bytes: &mut Vec<u8>) {
        match self {
            Self::Blanks => bytes.extend_from_slice(token.replace(BLANK, " ").as_bytes()),
            Self::Letters(letters) => {
                for c in token.chars() {
                    match letters.get(&c) {
                        Some(byte) => bytes.push(*byte),
                        None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
            }
        }
    }
}

/// Bytes in, whole characters out: a character split over tokens waits for its rest.
#[derive(Default)]
pub struct Utf8 {
    pending: Vec<u8>,
}

impl Utf8 {
    /// Adds bytes and takes what is complete; bytes that can never become a character turn into U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match str::from_utf8(rest) {
                Ok(all) => {
                    text.push_str(all);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (good, tail) = rest.split_at(error.valid_up_to());
                    text.push_str(str::from_utf8(good).unwrap_or_default());
                    let Some(broken) = error.error_len() else {
                        rest = tail;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = tail.get(broken..).unwrap_or_default();
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }

    /// The end: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broken_bytes_become_replacement_characters_and_nothing_is_lost() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(&[0xE2, 0x82]), "");
        assert_eq!(utf8.push(&[0xAC, b'a', 0xFF]), "€a\u{FFFD}");
        assert_eq!(utf8.push(&[0xF0, 0x9F]), "");
        assert_eq!(utf8.finish(), "\u{FFFD}");
    }

    proptest! {
        #[test]
        fn any_split_of_text_yields_the_text(text in "\\PC{0,40}", cuts in prop::collection::vec(0_usize..160, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c < bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut utf8 = Utf8::default();
            let mut got = String::new();
            for pair in cuts.windows(2) {
                got.push_str(&utf8.push(&bytes[pair[0]..pair[1]]));
            }
            prop_assert_eq!(got, text);
            prop_assert_eq!(utf8.finish(), "");
        }
    }
}
