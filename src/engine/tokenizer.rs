//! Text to token ids and back, from the tables of a GGUF file.
//!
//! Invariant: [`Tokenizer::encode`] never yields a control or user-defined token, whatever the text says: those are not in
//! the vocabulary that the merges work on, and only a template places them by id. Sits between template and model.

use std::collections::{HashMap, HashSet};
use std::str;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::utils::SysRegex;
use tokenizers::{Model as _, NormalizedString, Normalizer as _};

use crate::engine::types::EngineError;
use crate::engine::vocabulary::{TokenKind, Vocabulary, clip};

/// Byte-level BPE with the pre-tokenizer that the file names.
pub struct Tokenizer {
    bpe: BPE,
    pre: Pre,
    /// Bytes of every token, end to end; token `i` is `ends[i - 1]..ends[i]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    kinds: Vec<TokenKind>,
    specials: HashMap<String, u32>,
    alphabet: [char; 256],
}

/// The limit of [`Tokenizer::encode`] was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Tokenizer {
    /// Builds the tables; refuses a pre-tokenizer that it does not know rather than splitting text wrongly.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, EngineError> {
        let pre = Pre::named(&vocabulary.pre)?;
        let alphabet = alphabet();
        let letters: HashMap<char, u8> = alphabet.iter().zip(0_u8..=255).map(|(c, b)| (*c, b)).collect();
        let mut mergeable = Vec::with_capacity(vocabulary.tokens.len());
        let mut specials = HashMap::new();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(vocabulary.tokens.len()));
        for ((id, token), kind) in (0_u32..).zip(&vocabulary.tokens).zip(&vocabulary.kinds) {
            match kind {
                TokenKind::Normal => {
                    mergeable.push((token.clone(), id));
                    for c in token.chars() {
                        match letters.get(&c) {
                            Some(byte) => bytes.push(*byte),
                            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                        }
                    }
                }
                TokenKind::Control | TokenKind::UserDefined => {
                    specials.entry(token.clone()).or_insert(id);
                    bytes.extend_from_slice(token.as_bytes());
                }
                TokenKind::Unused => {}
            }
            ends.push(bytes.len());
        }
        let merges = usable(vocabulary, &mergeable);
        let bpe = BPE::builder()
            .vocab_and_merges(mergeable.into_iter().collect::<Vocab>(), merges)
            .ignore_merges(pre.whole_words)
            .build()
            .map_err(|_| {
                EngineError::Load("the model file's merge table is broken: fetch the file again".to_owned())
            })?;
        Ok(Self { bpe, pre, bytes, ends, kinds: vocabulary.kinds.clone(), specials, alphabet })
    }

    /// Appends the ids of plain text; stops with [`TooLong`] once `out` holds more than `limit`.
    pub fn encode(&self, text: &str, limit: usize, out: &mut Vec<u32>) -> Result<(), TooLong> {
        if self.pre.nfc && !text.is_ascii() {
            let mut normal = NormalizedString::from(text);
            if NFC.normalize(&mut normal).is_ok() {
                return self.pieces(normal.get(), limit, out);
            }
        }
        self.pieces(text, limit, out)
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

    fn pieces(&self, text: &str, limit: usize, out: &mut Vec<u32>) -> Result<(), TooLong> {
        if !self.pre.digits_alone {
            return self.words(text, limit, out);
        }
        let mut rest = text;
        while let Some((at, digit)) = rest.char_indices().find(|(_, c)| c.is_numeric()) {
            let (before, from) = rest.split_at(at);
            let (number, after) = from.split_at(digit.len_utf8());
            self.words(before, limit, out)?;
            self.word(number, limit, out)?;
            rest = after;
        }
        self.words(rest, limit, out)
    }

    fn words(&self, text: &str, limit: usize, out: &mut Vec<u32>) -> Result<(), TooLong> {
        let mut done = 0;
        for (start, end) in self.pre.regex.find_iter(text) {
            // The patterns cover all text; a gap would only come from a match that ran into the engine's own limits.
            for (from, to) in [(done, start), (start, end)] {
                self.word(text.get(from..to).unwrap_or_default(), limit, out)?;
            }
            done = end;
        }
        self.word(text.get(done..).unwrap_or_default(), limit, out)
    }

    fn word(&self, word: &str, limit: usize, out: &mut Vec<u32>) -> Result<(), TooLong> {
        if word.is_empty() {
            return Ok(());
        }
        let spelled: String = word.bytes().filter_map(|b| self.alphabet.get(usize::from(b))).collect();
        if let Ok(tokens) = self.bpe.tokenize(&spelled) {
            out.extend(tokens.into_iter().map(|token| token.id));
        }
        if out.len() > limit { Err(TooLong) } else { Ok(()) }
    }
}

/// Merges whose three parts are ordinary tokens: a file cannot make a control token out of typed text by a merge.
fn usable(vocabulary: &Vocabulary, mergeable: &[(String, u32)]) -> Vec<(String, String)> {
    let known: HashSet<&str> = mergeable.iter().map(|(token, _)| token.as_str()).collect();
    let fine = |(left, right): &&(String, String)| {
        known.contains(left.as_str())
            && known.contains(right.as_str())
            && known.contains(format!("{left}{right}").as_str())
    };
    vocabulary.merges.iter().filter(fine).cloned().collect()
}

/// How text is cut before the merges; each is the rule that the models of that name were trained with.
struct Pre {
    regex: SysRegex,
    digits_alone: bool,
    whole_words: bool,
    nfc: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Pre {
    fn named(name: &str) -> Result<Self, EngineError> {
        let (pattern, digits_alone, whole_words, nfc) = match name {
            "smollm" | "starcoder" | "refact" | "command-r" => (GPT2, true, false, false),
            "default" | "gpt-2" => (GPT2, false, false, false),
            "qwen2" => (QWEN2, false, false, true),
            "llama-bpe" | "llama3" | "llama-v3" => (LLAMA3, false, true, false),
            _ => {
                return Err(EngineError::Load(format!(
                    "the model file's pre-tokenizer \"{}\" is not supported (supported: smollm, starcoder, gpt-2, qwen2, llama-bpe)",
                    clip(name)
                )));
            }
        };
        let regex = SysRegex::new(pattern).map_err(|e| EngineError::Load(format!("pre-tokenizer {name}: {e}")))?;
        Ok(Self { regex, digits_alone, whole_words, nfc })
    }
}

/// GPT-2's printable stand-in for every byte: itself where printable, else the next code point from 256 on.
fn alphabet() -> [char; 256] {
    let mut next = 256_u32;
    let mut letters = ['\0'; 256];
    for (byte, letter) in (0_u8..=255).zip(letters.iter_mut()) {
        *letter = match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
        };
    }
    letters
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
    fn every_byte_has_its_own_letter() {
        let letters: std::collections::HashSet<char> = alphabet().into_iter().collect();
        assert_eq!(letters.len(), 256);
        assert_eq!(alphabet()[usize::from(b' ')], 'Ġ');
        assert_eq!(alphabet()[usize::from(b'\n')], 'Ċ');
    }

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
