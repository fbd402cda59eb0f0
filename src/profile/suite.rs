//! A suite: questions with a domain and what a right answer is, one JSON object a line.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::classify::domain::Domain;
use crate::profile::grade::{self, literal, rules, rules::Rule, short};

/// One question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Unique in the suite.
    pub id: String,
    /// Its domain.
    pub domain: Domain,
    /// How the answer is graded.
    pub kind: Kind,
    /// The question's text.
    pub prompt: String,
    /// Options of multiple choice, A first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Letter, number, literal, or the reference answer that a judge compares with; without one only another run's answer can
    /// be compared with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
    /// Wordings of a short answer that are right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<String>,
    /// Instructions that the answer must keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// How an answer is graded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// By letter.
    Choice,
    /// By number.
    Number,
    /// By one of the accepted wordings.
    Short,
    /// By the value of a Python literal.
    Literal,
    /// By counting what the instructions ask for.
    Rules,
    /// By a judge that compares it with the reference answer.
    Pair,
}

/// What a list, a tuple, a set or a text begins with, and what only ends one.
const LITERALS: [char; 8] = ['[', '(', '{', '\'', '"', ']', ')', '}'];

impl Kind {
    /// The word in suite and record files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Choice => "choice",
            Self::Number => "number",
            Self::Short => "short",
            Self::Literal => "literal",
            Self::Rules => "rules",
            Self::Pair => "pair",
        }
    }
}

impl Question {
    /// What the model is asked.
    pub fn text(&self) -> String {
        let mut text = self.prompt.trim().to_owned();
        match self.kind {
            Kind::Choice => {
                for (letter, option) in ('A'..='J').zip(&self.options) {
                    text.push_str(&format!("\n{letter}. {option}"));
                }
                // Small models explain unless they are shown the form, and a letter named in it would be their favourite.
                text.push_str("\n\nDo not explain. Reply in this form: The answer is (letter).");
            }
            Kind::Number => text.push_str("\nWork it out briefly, then end with: The answer is NUMBER."),
            Kind::Short => text.push_str("\nAnswer in a few words."),
            Kind::Literal => text.push_str("\nGive only the completed assertion."),
            Kind::Rules | Kind::Pair => {}
        }
        text
    }

    /// Tokens the answer may take.
    pub fn max_tokens(&self) -> u32 {
        match self.kind {
            Kind::Choice => 128,
            Kind::Short => 32,
            Kind::Literal => 192,
            // At 256, 23 of 33 answers of a 1.5B model to gsm8k were cut before their number.
            Kind::Number | Kind::Rules | Kind::Pair => 512,
        }
    }

    /// Whether an answer is right; none where only a judge can say. An answer without a letter, number or literal is wrong.
    pub fn grade(&self, answer: &str) -> Option<bool> {
        match self.kind {
            Kind::Choice => {
                Some(grade::letter(answer, self.options.len()).is_some_and(|l| self.answer == l.to_string()))
            }
            Kind::Number => Some(match (grade::number(answer), grade::number(&self.answer)) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * b.abs().max(1.0),
                _ => false,
            }),
            Kind::Short => Some(short::matches(answer, &self.accepted)),
            Kind::Literal => Some(literal::matches(answer, &self.answer)),
            Kind::Rules => Some(rules::all_hold(answer, &self.rules)),
            Kind::Pair => None,
        }
    }

    /// Whether an answer holds what its grader looks for; one that does not counts as wrong, and many of them say that the
    /// question was not understood or the answer was cut.
    pub fn readable(&self, answer: &str) -> bool {
        match self.kind {
            Kind::Choice => grade::letter(answer, self.options.len()).is_some(),
            Kind::Number => grade::number(answer).is_some(),
            Kind::Short | Kind::Literal | Kind::Rules | Kind::Pair => !answer.trim().is_empty(),
        }
    }

    /// What is wrong with the row: the field and why.
    fn problem(&self) -> Option<String> {
        let letter = || {
            let mut chars = self.answer.chars();
            let last = ('A'..='J').nth(self.options.len().saturating_sub(1)).unwrap_or('A');
            matches!((chars.next(), chars.next()), (Some(c), None) if ('A'..=last).contains(&c))
        };
        match self.kind {
            _ if self.id.trim().is_empty() => Some("id: is empty".to_owned()),
            _ if self.prompt.trim().is_empty() => Some("prompt: is empty".to_owned()),
            Kind::Choice if !(2..=10).contains(&self.options.len()) => {
                Some(format!("options: needs 2 to 10, has {}", self.options.len()))
            }
            Kind::Choice if !letter() => Some("answer: must be the letter of one of the options".to_owned()),
            Kind::Number if grade::number(&self.answer).is_none() => Some("answer: must hold a number".to_owned()),
            Kind::Literal if self.answer.trim().is_empty() => Some("answer: is empty".to_owned()),
            Kind::Literal if self.answer.trim().starts_with(LITERALS) && literal::parse(&self.answer).is_none() => {
                Some("answer: begins like a Python literal and is none".to_owned())
            }
            Kind::Short if !self.accepted.iter().any(|a| !a.trim().is_empty()) => {
                Some("accepted: needs at least one wording".to_owned())
            }
            Kind::Rules if self.rules.is_empty() => Some("rules: needs at least one".to_owned()),
            Kind::Rules => {
                let found = self.rules.iter().enumerate().find_map(|(i, r)| Some((i, r.problem()?)));
                found.map(|(i, why)| format!("rules[{i}]: {why}"))
            }
            _ => None,
        }
    }
}

/// Reads a suite.
///
/// # Errors
/// Names file, line and field of every malformed row, ten at most; ids must be unique.
pub fn load(path: &Path) -> Result<Vec<Question>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&text, &path.display().to_string())
}

/// One row; else the field and what is wrong with it.
fn row(line: &str) -> Result<Question, String> {
    let mut json = serde_json::Deserializer::from_str(line);
    let told = |e: &serde_json::Error| {
        let text = e.to_string();
        // A row is one line, which is named already; its column stays.
        match text.rsplit_once(" at line 1 ") {
            Some((why, column)) if !e.is_data() => format!("{why} at {column}"),
            Some((why, _)) => why.to_owned(),
            None => text,
        }
    };
    let question: Question = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        // What is no JSON breaks off at a field that has no name yet.
        let field = e.path().to_string();
        let named = field.trim_end_matches(['.', '?']);
        if named.is_empty() { told(e.inner()) } else { format!("{named}: {}", told(e.inner())) }
    })?;
    json.end().map_err(|e| told(&e))?;
    Ok(question)
}

/// Reads a suite's text; `name` is what errors call it.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, name: &str) -> Result<Vec<Question>, String> {
    let mut questions: Vec<Question> = Vec::new();
    let mut seen = HashSet::new();
    let mut bad = Vec::new();
    // Some editors put a mark of the byte order first.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let at = format!("{name}:{}", index + 1);
        match row(line) {
            Err(why) => bad.push(format!("{at}: {why}")),
            Ok(question) => match question.problem() {
                Some(why) => bad.push(format!("{at}: {why}")),
                None if !seen.insert(question.id.clone()) => {
                    bad.push(format!("{at}: id: {} is there twice", question.id))
                }
                None => questions.push(question),
            },
        }
    }
    if !bad.is_empty() {
        let more = bad.len().saturating_sub(10);
        bad.truncate(10);
        if more > 0 {
            bad.push(format!("and {more} more"));
        }
        return Err(bad.join("\n"));
    }
    if questions.is_empty() {
        return Err(format!("{name}: no questions in it"));
    }
    Ok(questions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"id":"1","domain":"None","kind":"short","prompt":"p","accepted":["yes"]}"#;

    #[test]
    fn every_bad_row_is_named_with_its_line_and_field() {
        for (row, want) in [
            (r#"{"id":"","domain":"None","kind":"number","prompt":"p","answer":"3"}"#, "s:2: id: is empty"),
            (
                r#"{"id":"2","domain":"None","kind":"number","prompt":"p","answer":"three"}"#,
                "answer: must hold a number",
            ),
            (
                r#"{"id":"2","domain":"None","kind":"choice","prompt":"p","options":["a"],"answer":"A"}"#,
                "options: needs 2",
            ),
            (
                r#"{"id":"2","domain":"None","kind":"choice","prompt":"p","options":["a","b"],"answer":"C"}"#,
                "answer: must be the letter",
            ),
            (r#"{"id":"2","domain":"None","kind":"short","prompt":"p"}"#, "accepted: needs"),
            (r#"{"id":"2","domain":"None","kind":"rules","prompt":"p"}"#, "rules: needs"),
            (
                r#"{"id":"2","domain":"None","kind":"rules","prompt":"p","rules":[{"rule":"words"}]}"#,
                "rules[0]: needs min",
            ),
            (r#"{"id":"1","domain":"None","kind":"number","prompt":"p","answer":"3"}"#, "id: 1 is there twice"),
            (r#"{"id":"2","domian":"None"}"#, "unknown field `domian`"),
            (r#"{"id":7}"#, "s:2: id: invalid type: integer `7`, expected a string"),
            (r#"{"id":"2","domain":"None","kind":"shrt"}"#, "s:2: kind: unknown variant `shrt`"),
            (r#"{"id":"2","domain":"Nowhere"}"#, "s:2: domain: "),
            (r#"{"id":"2","options":["a",1]}"#, "s:2: options[1]: invalid type"),
            (
                r#"{"id":"2","domain":"None","kind":"number","prompt":"p","answer":"3"} x"#,
                "s:2: trailing characters at column",
            ),
            (
                r#"{"id":"2","domain":"None","kind":"rules","prompt":"p","rules":[{"rule":"contains","words":["a"],"wrds":1}]}"#,
                "s:2: rules[0]: unknown field `wrds`",
            ),
            (
                r#"{"id":"2","domain":"None","kind":"rules","prompt":"p","rules":[{"rule":"lowercase","words":1}]}"#,
                "s:2: rules[0]: unknown field `words`",
            ),
            (r#"{"id":"2","domain":"None","kind":"literal","prompt":"p","answer":"]["}"#, "answer: begins like"),
            ("{", "s:2: EOF"),
        ] {
            let said = parse(&format!("{GOOD}\n{row}\n"), "s").unwrap_err();
            assert!(said.contains(want), "{row}: {said}");
        }
        assert_eq!(parse("\n\n", "s").unwrap_err(), "s: no questions in it");
        let many = "x\n".repeat(15);
        assert!(parse(&many, "s").unwrap_err().ends_with("and 5 more"));
        assert_eq!(parse(GOOD, "s").unwrap().len(), 1);
        assert_eq!(parse(&format!("\u{feff}{GOOD}\n"), "s").unwrap().len(), 1);
    }

    #[test]
    fn each_kind_is_graded_by_its_own_grader() {
        let question = |row: &str| parse(row, "s").unwrap().remove(0);
        for (row, answer, want) in [
            (GOOD, "Yes, it is", Some(true)),
            (
                r#"{"id":"1","domain":"None","kind":"literal","prompt":"p","answer":"[1, 2]"}"#,
                "assert f() == [1,2]",
                Some(true),
            ),
            (
                r#"{"id":"1","domain":"None","kind":"rules","prompt":"p","rules":[{"rule":"words","max":2}]}"#,
                "one two three",
                Some(false),
            ),
            (r#"{"id":"1","domain":"None","kind":"pair","prompt":"p","answer":"r"}"#, "anything", None),
        ] {
            assert_eq!(question(row).grade(answer), want, "{row}");
        }
    }

    #[test]
    fn every_shipped_suite_is_sound() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("eval/suites");
        let mut kinds = HashSet::new();
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.extension().is_some_and(|x| x == "jsonl") {
                kinds.extend(load(&entry).unwrap().into_iter().map(|q| format!("{:?}", q.kind)));
                files += 1;
            }
        }
        assert!(files >= 6 && kinds.len() >= 5, "{files} {kinds:?}");
    }

    #[test]
    fn a_literal_suite_scores_its_own_answers_as_right() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("eval/suites/cruxeval.jsonl");
        let questions = load(&file).unwrap();
        let own = questions.iter().filter(|q| q.grade(&q.answer) == Some(true)).count();
        assert_eq!(own, questions.len());
        let others = questions.iter().zip(questions.iter().skip(1)).filter(|(a, b)| a.answer != b.answer);
        assert!(others.clone().count() > 100 && others.filter(|(a, b)| a.grade(&b.answer) == Some(true)).count() == 0);
    }
}
