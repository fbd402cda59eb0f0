//! SentencePiece's BPE, the way of Llama 2, TinyLlama and Gemma: characters are joined into pieces, the pair whose piece has
//! the highest score first, the leftmost of equals; a character without a piece becomes its bytes.
//!
//! Invariant: only ordinary pieces come out of joining, and of the pieces that a model's authors defined only runs of blanks
//! and line ends (Gemma has such), so that typed text cannot become a mark. Source: T. Kudo, J. Richardson,
//! "SentencePiece", arXiv 1808.06226; the order of joins is that of its `bpe` model.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use crate::engine::tokenizer::TooLong;
use crate::engine::vocabulary::{TokenKind, Vocabulary};

/// What stands for a blank in a piece.
pub const BLANK: char = '\u{2581}';

/// The pieces of a vocabulary and their scores.
pub struct SentencePiece {
    pieces: HashMap<Box<str>, (u32, f32)>,
    /// Ids of the 256 byte tokens, as far as there are any.
    bytes: Vec<Option<u32>>,
    /// For what has neither piece nor byte.
    unknown: Option<u32>,
    /// Runs of blanks and line ends that are one piece each, the longest first.
    runs: Vec<(Box<str>, u32)>,
    space_prefix: bool,
    /// Whether a blank can only begin a piece, so that text may be cut before each.
    by_words: bool,
    /// Bytes of the longest piece.
    longest: usize,
}

impl SentencePiece {
    /// The tables; `scores` has an entry for each token.
    pub fn new(vocabulary: &Vocabulary, scores: &[f32], space_prefix: bool) -> Self {
        // Of the two zeros one, since the order of joins tells them apart.
        let score = |id: u32| usize::try_from(id).ok().and_then(|at| scores.get(at)).map_or(f32::MIN, |x| x + 0.0);
        let ordinary = || vocabulary.of(TokenKind::Normal).filter(|(_, piece)| !piece.is_empty());
        let mut bytes = vec![None; 256];
        for (id, _) in vocabulary.of(TokenKind::Byte) {
            if let Some(place) = vocabulary.byte(id).and_then(|byte| bytes.get_mut(usize::from(byte))) {
                *place = Some(id);
            }
        }
        let blank = |c: char| c == BLANK || c.is_whitespace();
        let mut runs: Vec<(Box<str>, u32)> = vocabulary
            .of(TokenKind::UserDefined)
            .filter(|(_, piece)| !piece.is_empty() && piece.chars().all(blank))
            .map(|(id, piece)| (piece.into(), id))
            .collect();
        runs.sort_by_key(|(piece, _)| Reverse(piece.len()));
        let longest = ordinary().map(|(_, piece)| piece.len()).chain(runs.iter().map(|(run, _)| run.len())).max();
        Self {
            pieces: ordinary().map(|(id, piece)| (piece.into(), (id, score(id)))).collect(),
            unknown: vocabulary.of(TokenKind::Control).find(|(_, token)| *token == "<unk>").map(|(id, _)| id),
            by_words: ordinary().all(|(_, piece)| !piece.trim_start_matches(BLANK).contains(BLANK)),
            longest: longest.unwrap_or(1).max(BLANK.len_utf8()),
            bytes,
            runs,
            space_prefix,
        }
    }

    /// Appends the ids of plain text; stops with [`TooLong`] once `out` holds more than `limit`, or it is certain to.
    pub fn encode(&self, text: &str, limit: usize, out: &mut Vec<u32>) -> Result<(), TooLong> {
        if text.is_empty() {
            return Ok(());
        }
        if text.len() / self.longest > limit {
            return Err(TooLong);
        }
        let mut written = String::with_capacity(text.len() + text.len() / 4 + BLANK.len_utf8());
        written.extend(self.space_prefix.then_some(BLANK));
        written.extend(text.chars().map(|c| if c == ' ' { BLANK } else { c }));
        let mut rest = written.as_str();
        while let Some((at, len, id)) = self.run(rest) {
            let (before, behind) = rest.split_at(at);
            self.words(before, limit, out)?;
            out.push(id);
            rest = behind.get(len..).unwrap_or_default();
        }
        self.words(rest, limit, out)?;
        if out.len() > limit { Err(TooLong) } else { Ok(()) }
    }

    /// The first run that is a piece: where it begins, its bytes and its id.
    fn run(&self, text: &str) -> Option<(usize, usize, u32)> {
        if self.runs.is_empty() {
            return None;
        }
        text.char_indices().filter(|(_, c)| *c == BLANK || c.is_whitespace()).find_map(|(at, _)| {
            let here = text.get(at..)?;
            let (run, id) = self.runs.iter().find(|(run, _)| here.starts_with(&**run))?;
            Some((at, run.len(), *id))
        })
    }

    /// Joins within words where no piece reaches over a word's beginning, else over the whole text.
    fn words(&self, text: &str, limit: usize, out: &mut Vec<u32>) -> Result<(), TooLong> {
        let mut rest = text;
        while !rest.is_empty() {
            let first = rest.len() - rest.trim_start_matches(BLANK).len();
            let next = rest.get(first..).and_then(|word| word.find(BLANK)).map_or(rest.len(), |at| first + at);
            let (word, after) = rest.split_at(if self.by_words { next } else { rest.len() });
            self.join(word, out);
            if out.len() > limit {
                return Err(TooLong);
            }
            rest = after;
        }
        Ok(())
    }

    fn join(&self, word: &str, out: &mut Vec<u32>) {
        let mut parts = Parts::of(word);
        let mut heap = BinaryHeap::new();
        for left in 0..parts.all.len() {
            heap.extend(self.pair(word, &parts, left));
        }
        while let Some(pair) = heap.pop() {
            let Some(before) = parts.merge(&pair) else { continue };
            heap.extend(self.pair(word, &parts, pair.left));
            heap.extend(before.and_then(|left| self.pair(word, &parts, left)));
        }
        for part in parts.all.iter().filter(|part| part.len > 0) {
            let piece = word.get(part.at..part.at + part.len).unwrap_or_default();
            match self.pieces.get(piece) {
                Some((id, _)) => out.push(*id),
                None => self.spell(piece, out),
            }
        }
    }

    /// The join of a part and the one behind it, if that is a piece.
    fn pair(&self, word: &str, parts: &Parts, left: usize) -> Option<Pair> {
        let first = parts.all.get(left).filter(|part| part.len > 0)?;
        let second = parts.all.get(first.next?)?;
        let len = first.len + second.len;
        let (_, score) = self.pieces.get(word.get(first.at..first.at + len)?)?;
        Some(Pair { score: *score, left, len })
    }

    /// A character without a piece, by its bytes.
    fn spell(&self, character: &str, out: &mut Vec<u32>) {
        let ids: Option<Vec<u32>> =
            character.bytes().map(|byte| self.bytes.get(usize::from(byte)).copied().flatten()).collect();
        match ids {
            Some(ids) => out.extend(ids),
            None => out.extend(self.unknown),
        }
    }
}

/// A word's parts, linked; one that was joined to the part before it has no length.
struct Parts {
    all: Vec<Part>,
}

struct Part {
    at: usize,
    len: usize,
    before: Option<usize>,
    next: Option<usize>,
}

impl Parts {
    fn of(word: &str) -> Self {
        let count = word.chars().count();
        let all = word.char_indices().enumerate().map(|(i, (at, c))| Part {
            at,
            len: c.len_utf8(),
            before: i.checked_sub(1),
            next: (i + 1 < count).then_some(i + 1),
        });
        Self { all: all.collect() }
    }

    /// Joins the pair, unless one of its parts has changed since; gives the part before it.
    fn merge(&mut self, pair: &Pair) -> Option<Option<usize>> {
        let first = self.all.get(pair.left).filter(|part| part.len > 0)?;
        let (own, before, right) = (first.len, first.before, first.next?);
        let second = self.all.get_mut(right)?;
        if own + second.len != pair.len {
            return None;
        }
        second.len = 0;
        let next = second.next;
        if let Some(after) = next.and_then(|at| self.all.get_mut(at)) {
            after.before = Some(pair.left);
        }
        let first = self.all.get_mut(pair.left)?;
        (first.len, first.next) = (pair.len, next);
        Some(before)
    }
}

/// A possible join: the higher score first, of equals the leftmost.
struct Pair {
    score: f32,
    left: usize,
    len: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left)).then(other.len.cmp(&self.len))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::engine::tokenizer::Tokenizer;
    use crate::engine::vocabulary::Way;

    const REFERENCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sentencepiece.json"));

    /// A text and its ids.
    type Case = (String, Vec<u32>);

    /// The two vocabularies of the fixture, with their texts and ids.
    fn reference() -> Vec<(Vocabulary, Vec<Case>)> {
        let file: Value = serde_json::from_str(REFERENCE).unwrap();
        file["vocabularies"].as_array().unwrap().iter().map(read).collect()
    }

    fn read(it: &Value) -> (Vocabulary, Vec<Case>) {
        let of = |key: &str| it[key].as_array().unwrap().iter();
        let vocabulary = Vocabulary {
            way: Way::SentencePiece {
                scores: of("scores").map(|x| x.as_f64().unwrap() as f32).collect(),
                space_prefix: it["space_prefix"].as_bool().unwrap(),
            },
            pre: String::new(),
            architecture: "llama".into(),
            tokens: of("tokens").map(|x| x.as_str().unwrap().to_owned()).collect(),
            kinds: of("kinds").map(|x| TokenKind::of(x.as_i64().unwrap())).collect(),
            bos: Some(1),
            ends: vec![2],
            add_bos: true,
            template_hash: None,
            thinking_switch: false,
            turns: None,
        };
        let ids = |case: &Value| case["ids"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect();
        let cases = of("cases").map(|case| (case["text"].as_str().unwrap().to_owned(), ids(case))).collect();
        (vocabulary, cases)
    }

    #[test]
    fn ids_are_those_of_sentencepiece() {
        for (vocabulary, cases) in reference() {
            let tokenizer = Tokenizer::new(&vocabulary).unwrap();
            for (text, expected) in cases {
                let mut ids = Vec::new();
                tokenizer.encode(&text, usize::MAX, &mut ids).unwrap();
                assert_eq!(ids, expected, "{text:?}");
            }
        }
    }

    #[test]
    fn words_by_themselves_give_what_the_whole_text_gives() {
        for (vocabulary, cases) in reference() {
            let Way::SentencePiece { scores, space_prefix } = &vocabulary.way else { panic!("another way") };
            let mut pieces = SentencePiece::new(&vocabulary, scores, *space_prefix);
            assert!(pieces.by_words);
            pieces.by_words = false;
            for (text, expected) in cases {
                let mut ids = Vec::new();
                pieces.encode(&text, usize::MAX, &mut ids).unwrap();
                assert_eq!(ids, expected, "{text:?}");
            }
        }
    }

    #[test]
    fn a_text_that_cannot_fit_is_refused_before_it_is_read() {
        let (vocabulary, _) = reference().swap_remove(0);
        let tokenizer = Tokenizer::new(&vocabulary).unwrap();
        let mut ids = Vec::new();
        assert_eq!(tokenizer.encode(&"word ".repeat(1_000_000), 100, &mut ids), Err(TooLong));
        assert!(ids.is_empty());
        assert_eq!(tokenizer.encode("a word or two", 2, &mut ids), Err(TooLong));
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_never_as_a_mark(text in "\\PC{0,60}|(<s>|</s>|<unk>|<0x41>|\n|\t| |a|ing){0,12}") {
            for (vocabulary, _) in reference() {
                let tokenizer = Tokenizer::new(&vocabulary).unwrap();
                let mut ids = Vec::new();
                tokenizer.encode(&text, usize::MAX, &mut ids).unwrap();
                prop_assert!(ids.iter().all(|id| vocabulary.kinds[*id as usize] != TokenKind::Control));
                let back: Vec<u8> = ids.iter().flat_map(|id| tokenizer.bytes(*id).to_vec()).collect();
                let prefix = if tokenizer.special("\n").is_none() && !text.is_empty() { " " } else { "" };
                prop_assert_eq!(String::from_utf8(back).unwrap(), format!("{prefix}{}", text.replace(BLANK, " ")));
            }
        }
    }
}
