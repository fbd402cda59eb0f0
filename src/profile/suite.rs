//! A suite: questions with a domain and an answer that needs no judge, one JSON object a line.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::classify::domain::Domain;

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
    #[serde(default)]
    pub options: Vec<String>,
    /// Letter or number.
    pub answer: String,
}

/// How an answer is graded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// By letter.
    Choice,
    /// By number.
    Number,
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
                text.push_str("\nGive only the letter of the correct option.");
            }
            Kind::Number => text.push_str("\nWork it out briefly, then end with: The answer is NUMBER."),
        }
        text
    }

    /// Tokens the answer may take.
    pub fn max_tokens(&self) -> u32 {
        match self.kind {
            Kind::Choice => 16,
            Kind::Number => 256,
        }
    }

    /// Whether an answer is right; an answer without a letter or number is wrong.
    pub fn grade(&self, answer: &str) -> bool {
        match self.kind {
            Kind::Choice => {
                super::grade::letter(answer, self.options.len()).is_some_and(|l| self.answer == l.to_string())
            }
            Kind::Number => match (super::grade::number(answer), super::grade::number(&self.answer)) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * b.abs().max(1.0),
                _ => false,
            },
        }
    }
}

/// Reads a suite.
///
/// # Errors
/// Names file, line and field of every malformed row, ten at most.
pub fn load(path: &Path) -> Result<Vec<Question>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut questions = Vec::new();
    let mut bad = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        match serde_json::from_str::<Question>(line) {
            Ok(q) if q.kind == Kind::Choice && !(2..=10).contains(&q.options.len()) => {
                bad.push(format!("{}:{}: options: needs 2 to 10, has {}", path.display(), index + 1, q.options.len()));
            }
            Ok(q) => questions.push(q),
            Err(e) => bad.push(format!("{}:{}: {e}", path.display(), index + 1)),
        }
    }
    if !bad.is_empty() {
        bad.truncate(10);
        return Err(bad.join("\n"));
    }
    if questions.is_empty() {
        return Err(format!("{}: no questions in it", path.display()));
    }
    Ok(questions)
}
