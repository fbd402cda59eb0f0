//! Numbers of a prompt that say how much work it asks for: length, quantities, sentences, form, code.
//!
//! One pass over the bytes of the classifier's window, no allocation, any bytes are accepted. Pure.

use crate::classify::features::WINDOW_BYTES;

/// Numbers in [`dense`].
pub const DENSE: usize = 32;

/// Names of the numbers, for reports.
pub const NAMES: [&str; DENSE] = [
    "ln tokens",
    "ln words",
    "letters per word",
    "long words",
    "ln numbers",
    "digits",
    "ln sentences",
    "words per sentence",
    "questions",
    "ln commas",
    "ln operators",
    "money and percent",
    "quantity words",
    "options",
    "numeric options",
    "ln code marks",
    "ln lines",
    "capitals",
    "maths marks",
    "blanks",
    "largest number",
    "decimals",
    "negations",
    "foreign",
    "ln quotes",
    "ln branches",
    "depth",
    "ln question part",
    "ln last line",
    "short words",
    "ln tokens squared",
    "numbers per sentence",
];

/// Words that announce a step of a calculation.
const QUANTITIES: [&[u8]; 28] = [
    b"half",
    b"twice",
    b"thrice",
    b"double",
    b"triple",
    b"third",
    b"quarter",
    b"each",
    b"every",
    b"per",
    b"times",
    b"more",
    b"less",
    b"fewer",
    b"than",
    b"total",
    b"left",
    b"remaining",
    b"rest",
    b"after",
    b"then",
    b"until",
    b"average",
    b"both",
    b"another",
    b"also",
    b"many",
    b"much",
];
/// Words that turn a question round.
const NEGATIONS: [&[u8]; 8] = [b"not", b"except", b"false", b"incorrect", b"never", b"least", b"neither", b"none"];
/// Words that branch or repeat in a program.
const BRANCHES: [&[u8]; 9] = [b"for", b"while", b"if", b"else", b"elif", b"return", b"lambda", b"while", b"try"];
/// Longest word that is compared with the lists.
const WORD_BYTES: usize = 12;

/// Counts of one pass.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    words: f32,
    letters: f32,
    long: f32,
    short: f32,
    numbers: f32,
    digits: f32,
    largest: f32,
    decimals: f32,
    sentences: f32,
    questions: f32,
    commas: f32,
    operators: f32,
    money: f32,
    quantities: f32,
    negations: f32,
    branches: f32,
    options: f32,
    numeric_options: f32,
    first_option: f32,
    code: f32,
    lines: f32,
    last_line: f32,
    capitals: f32,
    maths: f32,
    blanks: f32,
    foreign: f32,
    quotes: f32,
    marks: f32,
    depth: f32,
    deepest: f32,
}

/// The numbers of a text, each of about unit size and finite.
pub fn dense(text: &str) -> [f32; DENSE] {
    let bytes = text.as_bytes();
    let (bytes, _) = bytes.split_at(bytes.len().min(WINDOW_BYTES));
    let c = count(bytes);
    let all = (bytes.len().max(1)) as f32;
    let ln = |x: f32| x.max(0.0).ln_1p();
    let words = c.words.max(1.0);
    let sentences = c.sentences.max(1.0);
    // A token of a byte-pair vocabulary is about a word of six letters, a mark, or three digits.
    let tokens = c.words + (c.letters / 6.0 - c.words).max(0.0) * 0.5 + c.marks + c.digits / 2.0 + c.foreign / 2.0;
    [
        ln(tokens),
        ln(c.words),
        c.letters / words / 5.0,
        c.long / words,
        ln(c.numbers),
        (8.0 * c.digits / all).min(3.0),
        ln(c.sentences),
        ln(c.words / sentences),
        c.questions.min(3.0),
        ln(c.commas),
        ln(c.operators),
        ln(c.money),
        ln(c.quantities),
        c.options.min(12.0) / 4.0,
        c.numeric_options / c.options.max(1.0),
        ln(c.code),
        ln(c.lines),
        (16.0 * c.capitals / all).min(3.0),
        (32.0 * c.maths / all).min(3.0),
        c.blanks.min(3.0),
        c.largest / 4.0,
        ln(c.decimals),
        c.negations.min(3.0),
        (c.foreign / all).min(1.0),
        ln(c.quotes),
        ln(c.branches),
        c.deepest.min(8.0) / 2.0,
        ln(if c.options > 0.0 { c.first_option } else { all }),
        ln(all - c.last_line),
        c.short / words,
        ln(tokens) * ln(tokens) / 5.0,
        c.numbers / sentences,
    ]
}

fn count(bytes: &[u8]) -> Counts {
    let mut c = Counts::default();
    let mut rest = bytes;
    let mut line_start = true;
    let mut before = b' ';
    while let Some((&raw, after)) = rest.split_first() {
        let taken = match raw {
            b'0'..=b'9' => c.number(rest),
            b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => {
                let n = c.word(rest);
                // "A. text" or "B) text" at the beginning of a line is an option.
                if n == 1 && line_start && matches!(after.first(), Some(b'.' | b')')) {
                    let at = (bytes.len() - rest.len()) as f32;
                    if c.options == 0.0 {
                        c.first_option = at;
                    }
                    c.options += 1.0;
                    let value = after.iter().skip(1).find(|b| !matches!(b, b' ' | b'$' | b'-'));
                    c.numeric_options += f32::from(u8::from(value.is_some_and(u8::is_ascii_digit)));
                }
                n
            }
            _ => {
                c.mark(raw, before, after.first().copied());
                if raw == b'\n' && !after.is_empty() {
                    c.last_line = (bytes.len() - after.len()) as f32;
                }
                1
            }
        };
        line_start = raw == b'\n' || (line_start && raw == b' ');
        let (done, left) = rest.split_at(taken.min(rest.len()));
        before = done.last().copied().unwrap_or(b' ');
        rest = left;
    }
    c
}

impl Counts {
    /// A number with its groups and decimals; returns its bytes.
    fn number(&mut self, bytes: &[u8]) -> usize {
        let (mut whole, mut digits, mut n, mut decimal) = (0.0f32, 0u32, 0usize, false);
        for (i, b) in bytes.iter().enumerate() {
            let next = bytes.get(i + 1).is_some_and(u8::is_ascii_digit);
            match b {
                b'0'..=b'9' => digits += 1,
                b'.' if next && !decimal => decimal = true,
                b',' if next && !decimal => {}
                _ => break,
            }
            if b.is_ascii_digit() && !decimal {
                whole += 1.0;
            }
            n += 1;
        }
        self.numbers += 1.0;
        self.digits += digits as f32;
        self.decimals += f32::from(u8::from(decimal));
        self.largest = self.largest.max(whole.min(12.0));
        n.max(1)
    }

    /// A word; returns its bytes.
    fn word(&mut self, bytes: &[u8]) -> usize {
        let inside = |b: &u8| b.is_ascii_alphabetic() || *b >= 0x80;
        let n = bytes.iter().take_while(|b| inside(b)).count();
        let (word, _) = bytes.split_at(n);
        self.words += 1.0;
        self.letters += n as f32;
        self.long += f32::from(u8::from(n >= 9));
        self.short += f32::from(u8::from(n <= 3));
        self.foreign += word.iter().filter(|b| **b >= 0x80).count() as f32;
        self.capitals += word.iter().filter(|b| b.is_ascii_uppercase()).count() as f32;
        if n <= WORD_BYTES {
            let is = |list: &[&[u8]]| f32::from(u8::from(list.iter().any(|w| w.eq_ignore_ascii_case(word))));
            self.quantities += is(&QUANTITIES);
            self.negations += is(&NEGATIONS);
            self.branches += is(&BRANCHES);
        }
        n.max(1)
    }

    fn mark(&mut self, raw: u8, before: u8, after: Option<u8>) {
        self.marks += f32::from(u8::from(raw > b' '));
        let ends = after.is_none_or(|b| b.is_ascii_whitespace());
        match raw {
            b'.' | b'!' if ends => self.sentences += 1.0,
            b'?' => {
                self.questions += 1.0;
                self.sentences += 1.0;
            }
            b',' | b';' => self.commas += 1.0,
            b'$' | b'%' => self.money += 1.0,
            b'\n' => self.lines += 1.0,
            b'_' if before == b'_' => self.blanks += 1.0,
            b'"' | b'\'' => self.quotes += 1.0,
            b'(' | b'[' | b'{' => {
                self.depth += 1.0;
                self.deepest = self.deepest.max(self.depth);
            }
            b')' | b']' | b'}' => self.depth = (self.depth - 1.0).max(0.0),
            _ => {}
        }
        self.operators += f32::from(u8::from(matches!(raw, b'+' | b'-' | b'*' | b'/' | b'=' | b'^' | b'<' | b'>')));
        self.maths += f32::from(u8::from(matches!(raw, b'\\' | b'^' | b'$' | b'+' | b'*' | b'/' | b'=')));
        let code = matches!(raw, b'{' | b'}' | b'=' | b'`' | b'[' | b']' | b'_' | b';');
        self.code += f32::from(u8::from(code || (raw == b'(' && before.is_ascii_alphanumeric())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, name: &str) -> f32 {
        dense(text)[NAMES.iter().position(|n| *n == name).unwrap()]
    }

    #[test]
    fn numbers_sentences_and_quantity_words_are_counted() {
        let text = "Ann has 1,200 eggs. She eats 3.5 more than half each day! How many are left?";
        assert!((of(text, "ln numbers") - 3f32.ln()).abs() < 1e-6);
        assert!((of(text, "ln sentences") - 4f32.ln()).abs() < 1e-6);
        assert!((of(text, "decimals") - 2f32.ln()).abs() < 1e-6);
        assert!((of(text, "largest number") - 1.0).abs() < 1e-6);
        // more, than, half, each, many, left
        assert!((of(text, "quantity words") - 7f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn options_are_told_from_sentences() {
        let text = "Which is it?\nA. 12\nB. $30\nC. none of these";
        assert!((of(text, "options") - 0.75).abs() < 1e-6);
        assert!((of(text, "numeric options") - 2.0 / 3.0).abs() < 1e-6);
        assert!(of("Plan A. Then plan B.", "options").abs() < 1e-6);
    }

    #[test]
    fn a_longer_prompt_has_more_tokens() {
        assert!(
            of("a short one", "ln tokens") < of("a much longer one that goes on, and on, for a while", "ln tokens")
        );
    }

    #[test]
    fn any_bytes_give_finite_numbers() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..300 {
            let bytes: Vec<u8> = (0..rng.usize(0..9000)).map(|_| rng.u8(..)).collect();
            assert!(dense(&String::from_utf8_lossy(&bytes)).iter().all(|x| x.is_finite()));
        }
        assert!(dense("").iter().all(|x| x.is_finite()));
    }
}
