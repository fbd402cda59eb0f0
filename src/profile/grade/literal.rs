//! What a piece of Python prints or returns: literals compared by value, not by how they are written.
//!
//! `'a'` equals `"a"`, `[1,2]` equals `[1, 2]`, `{1: 2, 3: 4}` equals `{3: 4, 1: 2}`, `(1,)` is not `[1]`, `True` is not 1 here
//! (a model that writes one for the other has misread the code).

use std::collections::BTreeMap;

/// Nested deeper than this it is no literal, so that no text can exhaust the stack.
const MOST_DEPTH: usize = 64;

/// A Python literal.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub enum Literal {
    /// `None`
    None,
    /// `True`, `False`
    Bool(bool),
    /// Whole numbers; large ones keep their digits.
    Int(String),
    /// Other numbers.
    Float(f64),
    /// Text.
    Text(String),
    /// `b'...'`, as written between the quotes.
    Bytes(String),
    /// `[...]`
    List(Vec<Literal>),
    /// `(...)`
    Tuple(Vec<Literal>),
    /// `{...}`, sorted.
    Set(Vec<Literal>),
    /// `{key: value}`, sorted by key.
    Dict(Vec<(Literal, Literal)>),
}

/// Whether an answer gives the literal `reference`: the first reading of it that is a literal counts, and no other. Readings
/// are the right side of the last `==`, the whole answer, its last line, what follows that line's last `: ` or ` is `; code
/// fences, surrounding marks and a trailing `# comment` are taken away. A reference that is no literal is compared as text.
pub fn matches(answer: &str, reference: &str) -> bool {
    let body = body(answer);
    match parse(reference) {
        Some(wanted) => {
            compared(body).or_else(|| readings(body).find_map(commented)).is_some_and(|said| said == wanted)
        }
        None => {
            let right = body.rfind("==").and_then(|at| body.get(at + 2..)).map(first_line);
            right.into_iter().chain(readings(body)).any(|text| bare(text) == reference.trim())
        }
    }
}

/// What is inside the answer's tags and code fence, if it has them.
fn body(answer: &str) -> &str {
    let tagged =
        answer.rfind("[ANSWER]").and_then(|at| answer.get(at + 8..)).map(|t| t.split("[/").next().unwrap_or(t));
    let body = tagged.unwrap_or(answer).trim();
    let fenced = body.rfind("```").and_then(|end| body.get(..end)).and_then(|head| {
        let start = head.rfind("```")? + 3;
        head.get(start..).map(|code| code.split_once('\n').map_or(code, |(_, rest)| rest).trim())
    });
    fenced.unwrap_or(body)
}

/// The literal behind the last comparison. A `==` inside a text has no literal behind it, so the one before it is tried.
fn compared(body: &str) -> Option<Literal> {
    let last = body.rfind("==")?;
    let start = body.get(..last)?.rfind('\n').map_or(0, |end| end + 1);
    body.get(start..last + 2)?.rmatch_indices("==").find_map(|(at, _)| {
        // The value may go on in the next lines.
        let right = body.get(start + at + 2..)?;
        commented(bare(first_line(right))).or_else(|| leading(right))
    })
}

/// Readings of an answer that compares nothing, best first.
fn readings(body: &str) -> impl Iterator<Item = &str> {
    let last = body.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("");
    let after = last.rfind(": ").and_then(|at| last.get(at + 2..));
    let said = last.rfind(" is ").and_then(|at| last.get(at + 4..));
    [Some(body), Some(last), after, said].into_iter().flatten().map(bare)
}

fn bare(text: &str) -> &str {
    text.trim().trim_start_matches('`').trim_end_matches(['.', ',', '`']).trim()
}

fn first_line(text: &str) -> &str {
    text.trim_start().lines().next().unwrap_or("")
}

/// A literal with nothing behind it but a comment.
fn commented(text: &str) -> Option<Literal> {
    let mut reader = Reader { rest: text.trim(), depth: 0 };
    let found = reader.value()?;
    let rest = reader.rest.trim();
    (rest.is_empty() || (rest.starts_with('#') && !rest.contains('\n'))).then_some(found)
}

/// A literal over several lines, whose last line ends with it.
fn leading(text: &str) -> Option<Literal> {
    let mut reader = Reader { rest: text.trim_start(), depth: 0 };
    let found = reader.value()?;
    let rest = bare(reader.rest.lines().next().unwrap_or(""));
    (rest.is_empty() || rest.starts_with('#')).then_some(found)
}

/// Reads a literal; none if the text is not one whole.
pub fn parse(text: &str) -> Option<Literal> {
    let mut reader = Reader { rest: text.trim(), depth: 0 };
    let found = reader.value()?;
    reader.space();
    reader.rest.is_empty().then_some(found)
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        self.rest.strip_prefix(token).map(|rest| self.rest = rest).is_some()
    }

    fn value(&mut self) -> Option<Literal> {
        self.space();
        for (word, literal) in [("None", Literal::None), ("True", Literal::Bool(true)), ("False", Literal::Bool(false))]
        {
            let after = self.rest.strip_prefix(word);
            if let Some(after) = after.filter(|a| !a.starts_with(|c: char| c.is_alphanumeric() || c == '_')) {
                self.rest = after;
                return Some(literal);
            }
        }
        if self.rest.starts_with("set()") {
            self.rest = self.rest.get(5..)?;
            return Some(Literal::Set(Vec::new()));
        }
        match self.rest.chars().next()? {
            '[' => self.nested(|r| Some(Literal::List(r.items("[", "]")?.0))),
            '(' => self.nested(Self::tuple),
            '{' => self.nested(Self::braces),
            '\'' | '"' => self.text().map(Literal::Text),
            'b' if self.rest.starts_with("b'") || self.rest.starts_with("b\"") => {
                self.rest = self.rest.get(1..)?;
                self.text().map(Literal::Bytes)
            }
            _ => self.number(),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<Literal>) -> Option<Literal> {
        if self.depth == MOST_DEPTH {
            return None;
        }
        self.depth += 1;
        let found = read(self);
        self.depth -= 1;
        found
    }

    /// Values between brackets, and whether a comma came last.
    fn items(&mut self, open: &str, close: &str) -> Option<(Vec<Literal>, bool)> {
        self.eat(open).then_some(())?;
        let (mut found, mut comma) = (Vec::new(), false);
        while !self.eat(close) {
            if !found.is_empty() && !comma {
                return None;
            }
            found.push(self.value()?);
            comma = self.eat(",");
        }
        Some((found, comma))
    }

    fn tuple(&mut self) -> Option<Literal> {
        let (mut items, comma) = self.items("(", ")")?;
        // (1) is 1, (1,) is a tuple.
        if items.len() == 1 && !comma { items.pop() } else { Some(Literal::Tuple(items)) }
    }

    fn braces(&mut self) -> Option<Literal> {
        self.eat("{").then_some(())?;
        let (mut set, mut dict) = (Vec::new(), Vec::new());
        let mut comma = true;
        while !self.eat("}") {
            if !comma {
                return None;
            }
            let key = self.value()?;
            if self.eat(":") {
                dict.push((key, self.value()?));
            } else {
                set.push(key);
            }
            comma = self.eat(",");
        }
        match (set.is_empty(), dict.is_empty()) {
            (true, _) => {
                // The last value of a key counts, as in Python.
                let last: BTreeMap<String, (Literal, Literal)> =
                    dict.into_iter().map(|(k, v)| (format!("{k:?}"), (k, v))).collect();
                Some(Literal::Dict(last.into_values().collect()))
            }
            (false, true) => {
                set.sort_by_cached_key(|item| format!("{item:?}"));
                set.dedup();
                Some(Literal::Set(set))
            }
            (false, false) => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.rest.chars().next()?;
        let mut chars = self.rest.char_indices().skip(1);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = self.rest.get(at + 1..)?;
                    return Some(text);
                }
                '\n' => return None,
                '\\' => match chars.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'x' => {
                        let digits: String = [chars.next()?.1, chars.next()?.1].iter().collect();
                        text.push(char::from(u8::from_str_radix(&digits, 16).ok()?));
                    }
                    c @ ('\\' | '\'' | '"') => text.push(c),
                    other => text.extend(['\\', other]),
                },
                c => text.push(c),
            }
        }
        None
    }

    fn number(&mut self) -> Option<Literal> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_')));
        let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let literal = if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            let plain = digits.trim_start_matches('0');
            let sign = if text.starts_with('-') && !plain.is_empty() { "-" } else { "" };
            Literal::Int(format!("{sign}{}", if plain.is_empty() { "0" } else { plain }))
        } else {
            let starts = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
            Literal::Float(text.parse().ok().filter(|x: &f64| starts && x.is_finite())?)
        };
        self.rest = rest;
        Some(literal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_count_and_spelling_does_not() {
        for (a, b) in [
            ("'a'", "\"a\""),
            ("[1,2, 3]", "[1, 2, 3,]"),
            ("{1: 'x', 2: 'y'}", "{2:\"y\",1:\"x\"}"),
            ("{3, 1, 1}", "{1,3}"),
            ("('a',)", "( 'a' , )"),
            ("(1)", "1"),
            ("-007", "-7"),
            ("1.50", "1.5"),
            (r"'it\'s'", "\"it's\""),
            (r"'\x41\n'", "'A\\n'"),
            ("{}", "{ }"),
        ] {
            assert_eq!(parse(a).unwrap(), parse(b).unwrap(), "{a} {b}");
        }
        for (a, b) in [("[1]", "(1,)"), ("1", "True"), ("1", "1.0"), ("'1'", "1"), ("{}", "set()"), ("[]", "()")] {
            assert_ne!(parse(a).unwrap(), parse(b).unwrap(), "{a} {b}");
        }
        for bad in ["", "[1 2]", "f(1)", "'a", "[1", "{1: 2, 3}", "1 2", "nan", "inf", "x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&"[".repeat(100_000)), None);
    }

    #[test]
    fn the_result_is_found_in_an_answer() {
        let reference = "[(4, 1), (4, 1)]";
        for (answer, want) in [
            ("[(4, 1), (4, 1)]", true),
            ("assert f([1, 1]) == [(4, 1), (4, 1)]", true),
            ("The function counts.\n\n```python\nassert f([1]) == [(4,1),(4,1)]\n```", true),
            ("[ANSWER]\nf([1]) == [(4, 1), (4, 1)]\n[/ANSWER]", true),
            ("Therefore the output is `[(4, 1), (4, 1)]`.", true),
            ("Output: [(4, 1), (4, 1)]", true),
            ("[[4, 1], [4, 1]]", false),
            ("[(4, 1)] and then [(4, 1), (4, 2)]", false),
            ("assert f([1]) == [\n    (4, 1),\n    (4, 1),\n]\n", true),
            ("assert f([1]) == [(4, 1), (4, 1)]  # both are there", true),
            ("", false),
        ] {
            assert_eq!(matches(answer, reference), want, "{answer:?}");
        }
        assert!(matches("SomeError", "SomeError"));
        assert!(matches("assert f('a==b') == 'x==y'", "'x==y'") && matches("f(2) == 'a # b'", "'a # b'"));
    }

    #[test]
    fn an_answer_gives_one_result_and_no_second_one_counts() {
        for (answer, right, wrong) in [
            ("assert f(1) == 5\n6", "5", "6"),
            ("f(1) == '5' is wrong; it is 6", "6", "'5'"),
            ("5\nor rather: 6", "6", "5"),
            ("The result is 3: 4", "4", "3"),
        ] {
            assert!(matches(answer, right) && !matches(answer, wrong), "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}", reference in ".{0,40}") {
            matches(&text, &reference);
        }
    }
}
