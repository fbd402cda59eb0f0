//! Text to hashed features and a few shape numbers, in one pass over the bytes.
//!
//! Invariant: nothing is allocated, every byte string is accepted, and a feature is reported once, however often it
//! occurs. Training and serving call the same [`scan`], so they cannot disagree.
#![allow(
    clippy::indexing_slicing,
    reason = "buffer positions are bounded by WORD_BYTES and BATCH, bitmap positions by the mask of the hash"
)]

use super::fresh::{BATCH, Fresh, MIX};

/// log2 of the buckets of word and word-pair features.
pub const WORD_BITS: u32 = 17;
/// log2 of the buckets of character features.
pub const CHAR_BITS: u32 = 16;
/// Bytes looked at; of a longer text the head and the tail, where instructions stand.
pub const WINDOW_BYTES: usize = 6 * 1024;
/// Part of the window taken from the end of a long text.
const TAIL_BYTES: usize = 2 * 1024;
/// Bytes of one word that give character features; a longer word counts by its beginning.
const WORD_BYTES: usize = 30;
/// Most features of one table that one word gives.
const MOST: usize = 3 * WORD_BYTES;
/// log2 of the words that a scanner remembers.
const BEFORE_BITS: u32 = 6;
/// Numbers in [`Shape::numbers`].
pub const SHAPES: usize = 14;

/// Which table a feature belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Words and pairs of neighbouring words.
    Word,
    /// Three to five neighbouring characters inside a word, its borders included.
    Char,
    /// Every word as it comes, repeats too, by 32 bits of its hash: what [`super::gist`] knows it by.
    Whole,
}

/// What a text looks like, whatever it says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    /// Bytes scanned.
    pub bytes: u32,
    /// Runs of letters and digits.
    pub words: u32,
    letters: u32,
    digits: u32,
    foreign: u32,
    code: u32,
    lines: u32,
    questions: u32,
    blanks: u32,
    maths: u32,
    options: u32,
    control: u32,
}

impl Shape {
    /// As numbers of about unit size, for the dense head; what is known is the share of features that training has seen.
    pub fn numbers(&self, known_words: f32, known_chars: f32) -> [f32; SHAPES] {
        let all = (self.bytes.max(1)) as f32;
        let words = self.words as f32;
        [
            (1.0 + self.bytes as f32).ln(),
            (1.0 + words).ln(),
            self.letters as f32 / words.max(1.0) / 5.0,
            (8.0 * self.digits as f32 / all).min(2.0),
            // Reserved: capitals say how a text is typed, not what it is about.
            0.0,
            (self.foreign as f32 / all).min(1.0),
            (16.0 * self.code as f32 / all).min(3.0),
            (1.0 + self.lines as f32).ln(),
            (self.questions as f32).min(2.0),
            (self.blanks as f32).min(2.0),
            (32.0 * self.maths as f32 / all).min(3.0),
            (self.options as f32 / 4.0).min(2.0),
            known_words,
            known_chars,
        ]
    }

    /// Nothing to go on, or bytes that are no text.
    pub fn is_void(&self) -> bool {
        self.letters + self.foreign < 2 || u64::from(self.control) * 10 > u64::from(self.bytes)
    }
}

/// Calls `sink` with the text's distinct features and its words, at most [`BATCH`] of a group at a time; returns its shape.
pub fn scan(text: &str, mut sink: impl FnMut(Group, &[u32])) -> Shape {
    let mut word_bits = [0; WORD_CELLS];
    let mut char_bits = [0; CHAR_CELLS];
    let mut word_batch = [0; BATCH];
    let mut char_batch = [0; BATCH];
    let mut scanner = Scanner {
        shape: Shape::default(),
        words: Fresh { seen: &mut word_bits, batch: &mut word_batch, len: 0 },
        chars: Fresh { seen: &mut char_bits, batch: &mut char_batch, len: 0 },
        whole: [0; BATCH],
        wholes: 0,
        before: [SEED; 1 << BEFORE_BITS],
        word: [b'<'; WORD_BYTES + 2],
        len: 0,
        hash: SEED,
        last: SEED,
    };
    let bytes = text.as_bytes();
    if bytes.len() <= WINDOW_BYTES {
        scanner.run(bytes, &mut sink);
    } else {
        let (head, _) = bytes.split_at(WINDOW_BYTES - TAIL_BYTES);
        let (_, tail) = bytes.split_at(bytes.len() - TAIL_BYTES);
        scanner.run(head, &mut sink);
        scanner.run(tail, &mut sink);
    }
    sink(Group::Word, scanner.words.drain());
    sink(Group::Char, scanner.chars.drain());
    sink(Group::Whole, &scanner.whole[..scanner.wholes]);
    scanner.shape
}

/// Cells of 64 bits for a bit of each bucket.
const WORD_CELLS: usize = 1 << (WORD_BITS - 6);
const CHAR_CELLS: usize = 1 << (CHAR_BITS - 6);

struct Scanner<'a> {
    shape: Shape,
    words: Fresh<'a, WORD_CELLS>,
    chars: Fresh<'a, CHAR_CELLS>,
    /// Words not handed on yet, and how many.
    whole: [u32; BATCH],
    wholes: usize,
    /// Hashes of words whose features were offered before, by their high bits: most words of a text are repeats.
    before: [u64; 1 << BEFORE_BITS],
    word: [u8; WORD_BYTES + 2],
    len: usize,
    hash: u64,
    last: u64,
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// What a byte is in a word: letters in lower case, digits all as 0, others as they are; 0 for a byte outside words.
static FOLD: [u8; 256] = {
    let mut fold = [0; 256];
    let mut raw = 0;
    while raw < 256 {
        fold[raw] = match raw as u8 {
            b'0'..=b'9' => b'0',
            letter @ (b'A'..=b'Z' | b'a'..=b'z') => letter | 0x20,
            foreign @ 0x80.. => foreign,
            _ => 0,
        };
        raw += 1;
    }
    fold
};
/// Places of the counts of letters, digits and other bytes of words in one number: a window has less than 2^16 bytes.
const LETTERS: u32 = 0;
const DIGITS: u32 = 16;
const FOREIGN: u32 = 32;
/// What a byte adds to these.
static COUNTS: [u64; 256] = {
    let mut counts = [0; 256];
    let mut raw = 0;
    while raw < 256 {
        counts[raw] = match raw as u8 {
            b'0'..=b'9' => 1 << DIGITS,
            b'A'..=b'Z' | b'a'..=b'z' => 1 << LETTERS,
            0x80.. => 1 << FOREIGN,
            _ => 0,
        };
        raw += 1;
    }
    counts
};

impl Scanner<'_> {
    fn run(&mut self, bytes: &[u8], sink: &mut impl FnMut(Group, &[u32])) {
        self.shape.bytes += bytes.len() as u32;
        let mut line_start = true;
        let mut before = b' ';
        let mut rest = bytes;
        while let Some((&raw, after)) = rest.split_first() {
            if FOLD[usize::from(raw)] != 0 {
                (before, rest) = self.letters(rest);
                continue;
            }
            if self.len == 1 && line_start && (raw == b'.' || raw == b')') {
                self.shape.options += 1;
            }
            rest = after;
            // An apostrophe inside a word is dropped: "don't" and "dont" are one word.
            if raw == b'\'' && self.len > 0 {
                continue;
            }
            line_start = raw == b'\n' || (line_start && self.len == 0);
            self.flush(sink);
            self.punctuation(raw, before);
            before = raw;
        }
        self.flush(sink);
        self.last = SEED;
    }

    /// Takes letters and digits into the word up to the first byte that is neither; returns the last one and the rest.
    /// In local variables: each byte's hash needs the last one's.
    fn letters<'a>(&mut self, bytes: &'a [u8]) -> (u8, &'a [u8]) {
        let (mut hash, mut len, mut counts, mut taken) = (self.hash, self.len, 0u64, 0);
        for &raw in bytes {
            let folded = FOLD[usize::from(raw)];
            if folded == 0 {
                break;
            }
            taken += 1;
            counts += COUNTS[usize::from(raw)];
            hash = (hash ^ u64::from(folded)).wrapping_mul(0x0100_0000_01b3);
            if len < WORD_BYTES {
                self.word[len + 1] = folded;
                len += 1;
            }
        }
        (self.hash, self.len) = (hash, len);
        let count = |shift: u32| (counts >> shift) as u32 & 0xffff;
        self.shape.letters += count(LETTERS);
        self.shape.digits += count(DIGITS);
        self.shape.foreign += count(FOREIGN);
        let (word, rest) = bytes.split_at(taken);
        (word.last().copied().unwrap_or(b' '), rest)
    }

    fn punctuation(&mut self, raw: u8, before: u8) {
        match raw {
            b'{' | b'}' | b';' | b'=' | b'`' | b'[' | b']' | b'<' | b'>' | b'|' => self.shape.code += 1,
            b'\\' | b'^' | b'$' | b'+' | b'*' | b'/' => self.shape.maths += 1,
            b'_' if before == b'_' => self.shape.blanks += 1,
            b'_' => self.shape.code += 1,
            b'(' if before.is_ascii_alphanumeric() => self.shape.code += 1,
            b'\n' => self.shape.lines += 1,
            b'?' => self.shape.questions += 1,
            b'\t' | b'\r' => {}
            0..0x20 | 0x7f => self.shape.control += 1,
            _ => {}
        }
    }

    /// Ends a word: itself, the pair with the word before it, and its character features.
    fn flush(&mut self, sink: &mut impl FnMut(Group, &[u32])) {
        if self.len == 0 {
            return;
        }
        self.shape.words += 1;
        let word = self.hash;
        let mixed = word.wrapping_mul(MIX);
        self.whole[self.wholes] = (mixed >> 32) as u32;
        self.wholes = (self.wholes + 1) % BATCH;
        if self.wholes == 0 {
            sink(Group::Whole, &self.whole);
        }
        // Words of one hash are one word to the table of words; here, too.
        let known = &mut self.before[(mixed >> (64 - BEFORE_BITS)) as usize];
        if *known != word {
            *known = word;
            self.words.offer(mixed);
            self.characters();
        }
        if self.last != SEED {
            self.words.offer((self.last.rotate_left(23) ^ word).wrapping_mul(MIX ^ 0x5bd1_e995_0000));
        }
        if self.words.room() < MOST {
            sink(Group::Word, self.words.drain());
        }
        if self.chars.room() < MOST {
            sink(Group::Char, self.chars.drain());
        }
        self.last = word;
        self.hash = SEED;
        self.len = 0;
    }

    /// All runs of 3, 4 and 5 characters of the word, its borders included.
    fn characters(&mut self) {
        let end = self.len + 2;
        self.word[end - 1] = b'>';
        let (first, rest) = self.word[..end].split_at(2);
        let mut packed = first.iter().fold(0u64, |packed, b| (packed << 8) | u64::from(*b));
        for (at, &b) in rest.iter().enumerate() {
            packed = (packed << 8) | u64::from(b);
            let mut gram = |n: u64| self.chars.offer(((packed & ((1 << (8 * n)) - 1)) | (n << 48)).wrapping_mul(MIX));
            gram(3);
            if at >= 1 {
                gram(4);
            }
            if at >= 2 {
                gram(5);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn features(text: &str) -> Vec<(Group, u32)> {
        let mut all = Vec::new();
        scan(text, |g, batch| all.extend(batch.iter().filter(|_| g != Group::Whole).map(|f| (g, *f))));
        all
    }

    #[test]
    fn casing_and_apostrophes_do_not_change_the_features() {
        assert_eq!(features("Don't panic"), features("dont PANIC"));
        assert_ne!(features("dont panic"), features("panic dont"));
    }

    /// Every feature of a short text, repeats included, the plain way.
    fn plainly(text: &str) -> Vec<(Group, u32)> {
        let bucket = |mixed: u64, bits: u32| ((mixed ^ (mixed >> 29)).wrapping_mul(MIX) >> (64 - bits)) as u32;
        let folded = text.to_ascii_lowercase().replace('\'', "");
        let folded: Vec<u8> = folded.bytes().map(|b| if b.is_ascii_digit() { b'0' } else { b }).collect();
        let words = folded.split(|b| !b.is_ascii_alphanumeric() && *b < 0x80).filter(|w| !w.is_empty());
        let (mut all, mut last) = (Vec::new(), None);
        for word in words {
            let hash = word.iter().fold(SEED, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
            all.push((Group::Word, bucket(hash.wrapping_mul(MIX), WORD_BITS)));
            if let Some(last) = last.replace(hash) {
                let pair = (u64::rotate_left(last, 23) ^ hash).wrapping_mul(MIX ^ 0x5bd1_e995_0000);
                all.push((Group::Word, bucket(pair, WORD_BITS)));
            }
            let framed = [b"<", &word[..word.len().min(WORD_BYTES)], b">"].concat();
            for n in 3..=5 {
                let grams = framed.windows(n).map(|w| w.iter().fold(n as u64, |g, b| (g << 8) | u64::from(*b)));
                // The length stands above 48 bits of text, whatever the length is.
                let placed = grams.map(|g| (g & ((1 << (8 * n)) - 1)) | ((n as u64) << 48));
                all.extend(placed.map(|g| (Group::Char, bucket(g.wrapping_mul(MIX), CHAR_BITS))));
            }
        }
        all
    }

    #[test]
    fn batches_hold_exactly_the_features_of_the_text() {
        let mut rng = fastrand::Rng::with_seed(21);
        for round in 0..500 {
            let letters: &[u8] = if round % 2 == 0 { b"abcdefghijklmnopqrstuvwxyz" } else { b"aB1 '\n.(x" };
            let word = |rng: &mut fastrand::Rng| -> String {
                (0..rng.usize(0..45)).map(|_| char::from(letters[rng.usize(..letters.len())])).collect()
            };
            let words: Vec<String> = (0..rng.usize(0..60)).map(|_| word(&mut rng)).collect();
            // Apostrophes that begin a word are no part of it; here they are left out with all others.
            let text = words.join(" ").replace(" '", " ").replace("\n'", "\n");
            let found = features(&text);
            let distinct: BTreeSet<_> = found.iter().copied().collect();
            assert_eq!(distinct.len(), found.len(), "a feature came twice: {text:?}");
            assert_eq!(distinct, plainly(&text).into_iter().collect(), "{text:?}");
        }
    }

    #[test]
    fn a_feature_is_reported_once() {
        let once = features("bread butter");
        let many = features("bread butter\n".repeat(40).as_str());
        assert!(many.len() <= once.len() + 1, "only the pair `butter bread` is new");
    }

    #[test]
    fn every_word_is_handed_on_as_it_comes() {
        let words = |text: &str| {
            let mut all: Vec<u32> = Vec::new();
            scan(text, |g, batch| all.extend(batch.iter().filter(|_| g == Group::Whole)));
            all
        };
        let one = words("bread");
        assert_eq!(words(&"Bread, ".repeat(700)), vec![one[0]; 700]);
        assert_eq!(words("bread butter"), [one[0], words("butter")[0]]);
    }

    #[test]
    fn a_long_text_is_read_at_its_head_and_tail() {
        let text = format!("alpha {} omega", "x ".repeat(5_000_000));
        let shape = scan(&text, |_, _| ());
        assert_eq!(shape.bytes as usize, WINDOW_BYTES);
        let found = features(&text);
        for end in ["alpha", "omega"] {
            assert!(features(end).iter().filter(|f| f.0 == Group::Char).all(|f| found.contains(f)), "{end}");
        }
    }

    #[test]
    fn void_is_empty_or_binary() {
        assert!(scan("", |_, _| ()).is_void());
        assert!(scan(" ?! 12", |_, _| ()).is_void());
        assert!(scan("\u{1}\u{2}ab\u{3}\u{0}cd\u{7}", |_, _| ()).is_void());
        assert!(!scan("hi", |_, _| ()).is_void());
        assert!(!scan("水の沸点は?", |_, _| ()).is_void());
    }
}
