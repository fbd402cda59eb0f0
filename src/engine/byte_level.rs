//! Byte-level BPE, the way of Llama 3, Qwen and SmolLM: text is cut by a pattern, each part spelled in printable stand-ins
//! for its bytes, and pairs merged in the order of the file's list.
//!
//! Invariant: only ordinary tokens take part in merges, so that typed text cannot become a mark.

use std::collections::HashSet;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::utils::SysRegex;
use tokenizers::{Model as _, NormalizedString, Normalizer as _};

use crate::engine::tokenizer::TooLong;
use crate::engine::types::EngineError;
use crate::engine::vocabulary::clip;

/// Byte-level BPE with the pre-tokenizer that the file names.
pub struct ByteLevel {
    bpe: BPE,
    pre: Pre,
    alphabet: [char; 256],
}

impl ByteLevel {
    /// Builds the tables from ordinary tokens with their ids and pairs in rank order; refuses a pre-tokenizer that it does
    /// not know rather than splitting text wrongly.
    pub fn new(pre: &str, ordinary: Vec<(String, u32)>, merges: &[(String, String)]) -> Result<Self, EngineError> {
        let pre = Pre::named(pre)?;
        let merges = usable(merges, &ordinary);
        let bpe = BPE::builder()
            .vocab_and_merges(ordinary.into_iter().collect::<Vocab>(), merges)
            .ignore_merges(pre.whole_words)
            .build()
            .map_err(|_| {
                EngineError::Load("the model file's merge table is broken: fetch the file again".to_owned())
            })?;
        Ok(Self { bpe, pre, alphabet: alphabet() })
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
fn usable(merges: &[(String, String)], ordinary: &[(String, u32)]) -> Vec<(String, String)> {
    let known: HashSet<&str> = ordinary.iter().map(|(token, _)| token.as_str()).collect();
    let fine = |(left, right): &&(String, String)| {
        known.contains(left.as_str())
            && known.contains(right.as_str())
            && known.contains(format!("{left}{right}").as_str())
    };
    merges.iter().filter(fine).cloned().collect()
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
pub fn alphabet() -> [char; 256] {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_letter() {
        let letters: HashSet<char> = alphabet().into_iter().collect();
        assert_eq!(letters.len(), 256);
        assert_eq!(alphabet()[usize::from(b' ')], 'Ġ');
        assert_eq!(alphabet()[usize::from(b'\n')], 'Ċ');
    }
}
