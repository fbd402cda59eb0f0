//! Text to hashed features and a few shape numbers, in one pass over the bytes.
//!
//! Invariant: nothing is allocated and every byte string is accepted. A feature is reported once per text, however often it
//! occurs. Training and serving call the same [`scan`], so they cannot disagree.
#![allow(
    clippy::indexing_slicing,
    reason = "buffer positions are bounded by WORD_BYTES, bitmap positions by the mask of the hash"
)]

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
/// Numbers in [`Shape::numbers`].
pub const SHAPES: usize = 14;

/// Which table a feature belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Words and pairs of neighbouring words.
    Word,
    /// Three to five neighbouring characters inside a word, its borders included.
    Char,
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
    /// As numbers of about unit size, for the dense head. `known_words` and `known_chars` are the shares of features that
    /// training has seen.
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

/// Calls `sink` once for each distinct feature of the text and returns its shape.
pub fn scan(text: &str, mut sink: impl FnMut(Group, u32)) -> Shape {
    let mut scanner = Scanner::new();
    let bytes = text.as_bytes();
    if bytes.len() <= WINDOW_BYTES {
        scanner.run(bytes, &mut sink);
    } else {
        let (head, _) = bytes.split_at(WINDOW_BYTES - TAIL_BYTES);
        let (_, tail) = bytes.split_at(bytes.len() - TAIL_BYTES);
        scanner.run(head, &mut sink);
        scanner.run(tail, &mut sink);
    }
    scanner.shape
}

struct Scanner {
    shape: Shape,
    seen_words: [u64; 1 << (WORD_BITS - 6)],
    seen_chars: [u64; 1 << (CHAR_BITS - 6)],
    word: [u8; WORD_BYTES + 2],
    len: usize,
    hash: u64,
    last: u64,
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Scanner {
    fn new() -> Self {
        Self {
            shape: Shape::default(),
            seen_words: [0; 1 << (WORD_BITS - 6)],
            seen_chars: [0; 1 << (CHAR_BITS - 6)],
            word: [b'<'; WORD_BYTES + 2],
            len: 0,
            hash: SEED,
            last: SEED,
        }
    }

    fn run(&mut self, bytes: &[u8], sink: &mut impl FnMut(Group, u32)) {
        self.shape.bytes += bytes.len() as u32;
        let mut line_start = true;
        let mut before = b' ';
        for &raw in bytes {
            if raw.is_ascii_alphanumeric() || raw >= 0x80 {
                self.letter(raw);
            } else {
                if self.len == 1 && line_start && (raw == b'.' || raw == b')') {
                    self.shape.options += 1;
                }
                // An apostrophe inside a word is dropped: "don't" and "dont" are one word.
                if raw == b'\'' && self.len > 0 {
                    continue;
                }
                line_start = raw == b'\n' || (line_start && self.len == 0);
                self.flush(sink);
                self.punctuation(raw, before);
            }
            before = raw;
        }
        self.flush(sink);
        self.last = SEED;
    }

    fn letter(&mut self, raw: u8) {
        let folded = match raw {
            b'0'..=b'9' => {
                self.shape.digits += 1;
                b'0'
            }
            b'A'..=b'Z' => {
                self.shape.letters += 1;
                raw | 0x20
            }
            0x80.. => {
                self.shape.foreign += 1;
                raw
            }
            _ => {
                self.shape.letters += 1;
                raw
            }
        };
        self.hash = (self.hash ^ u64::from(folded)).wrapping_mul(0x0100_0000_01b3);
        if self.len < WORD_BYTES {
            self.word[self.len + 1] = folded;
            self.len += 1;
        }
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
    fn flush(&mut self, sink: &mut impl FnMut(Group, u32)) {
        if self.len == 0 {
            return;
        }
        self.shape.words += 1;
        let word = self.hash;
        self.offer_word(word.wrapping_mul(MIX), sink);
        if self.last != SEED {
            self.offer_word((self.last.rotate_left(23) ^ word).wrapping_mul(MIX ^ 0x5bd1_e995_0000), sink);
        }
        let end = self.len + 2;
        self.word[end - 1] = b'>';
        let mut packed = 0u64;
        for (at, &b) in self.word[..end].iter().enumerate() {
            packed = (packed << 8) | u64::from(b);
            for n in 3..=5u64 {
                if at as u64 + 1 >= n {
                    let gram = (packed & ((1 << (8 * n)) - 1)) | (n << 48);
                    offer(&mut self.seen_chars, CHAR_BITS, gram.wrapping_mul(MIX), Group::Char, sink);
                }
            }
        }
        self.last = word;
        self.hash = SEED;
        self.len = 0;
    }

    fn offer_word(&mut self, mixed: u64, sink: &mut impl FnMut(Group, u32)) {
        offer(&mut self.seen_words, WORD_BITS, mixed, Group::Word, sink);
    }
}

/// Reports a feature the first time it is seen in a text.
#[inline]
fn offer(seen: &mut [u64], bits: u32, mixed: u64, group: Group, sink: &mut impl FnMut(Group, u32)) {
    let bucket = ((mixed ^ (mixed >> 29)).wrapping_mul(MIX) >> (64 - bits)) as u32;
    let cell = &mut seen[(bucket >> 6) as usize];
    let bit = 1u64 << (bucket & 63);
    if *cell & bit == 0 {
        *cell |= bit;
        sink(group, bucket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(text: &str) -> Vec<(Group, u32)> {
        let mut all = Vec::new();
        scan(text, |g, f| all.push((g, f)));
        all
    }

    #[test]
    fn casing_and_apostrophes_do_not_change_the_features() {
        assert_eq!(features("Don't panic"), features("dont PANIC"));
        assert_ne!(features("dont panic"), features("panic dont"));
    }

    #[test]
    fn a_feature_is_reported_once() {
        let once = features("bread butter");
        let many = features("bread butter\n".repeat(40).as_str());
        assert!(many.len() <= once.len() + 1, "only the pair `butter bread` is new");
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
