//! One thing that is wrong with a file, and where: `wattroute.toml:12: backends.openai.base_url: must start with https://`.
//!
//! Never holds a secret: values from a file are shown through [`shown`] only.

use std::error::Error;
use std::fmt;

/// One problem. The text says what is wrong and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file, or `environment`, or empty for the built-in configuration.
    pub file: String,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// Key path, `backends.openai.base_url`; empty when the whole file is at fault.
    pub key: String,
    /// What is wrong and how to fix it.
    pub text: String,
}

impl Problem {
    /// A problem with one key.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { file: String::new(), line: None, key: key.into(), text: text.into() }
    }

    /// Names the file.
    #[must_use]
    pub fn file(mut self, file: impl Into<String>) -> Self {
        self.file = file.into();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// All problems found; empty while nothing is wrong. Displays one a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Notes a problem.
    pub fn add(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.0.push(Problem::new(key, text));
    }

    /// The value, or none and a problem.
    pub fn keep<T>(&mut self, key: &str, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(text) => {
                self.add(key, text);
                None
            }
        }
    }

    /// `value` if there were no problems.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            None if self.0.is_empty() => {
                Err(Self(vec![Problem::new("", "a value is missing and no problem was noted")]))
            }
            _ => Err(self),
        }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl Error for Problems {}

/// Longest value that a problem repeats.
const SHOWN_CHARS: usize = 40;

/// A value for a message: quoted when short and plainly not a key, else a word in its place.
pub fn shown(value: &str) -> String {
    if looks_secret(value) || value.chars().count() > SHOWN_CHARS || value.chars().any(char::is_control) {
        return "a value not shown here".to_owned();
    }
    format!("`{value}`")
}

/// Known prefixes of provider keys, or a long run without spaces that mixes letters and digits.
pub fn looks_secret(value: &str) -> bool {
    let prefixed = ["sk-", "gsk_", "hf_", "xai-", "Bearer ", "AIza", "ghp_"].iter().any(|p| value.contains(p));
    let run = value.split(|c: char| !c.is_ascii_alphanumeric()).map(str::len).max().unwrap_or(0);
    let mixed = value.chars().any(|c| c.is_ascii_digit()) && value.chars().any(|c| c.is_ascii_alphabetic());
    prefixed || (run >= 20 && mixed)
}

/// The known word closest to what was written, if it is close.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, k), strsim::jaro_winkler(&lower, k), k))
        .filter(|(edits, alike, k)| *edits <= 1 + k.len() / 5 || *alike > 0.88)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_file_line_and_key() {
        let mut p = Problem::new("server.listen", "must be ADDRESS:PORT").file("wattroute.toml");
        assert_eq!(p.to_string(), "wattroute.toml: server.listen: must be ADDRESS:PORT");
        p.line = Some(3);
        assert_eq!(p.to_string(), "wattroute.toml:3: server.listen: must be ADDRESS:PORT");
    }

    #[test]
    fn values_that_may_be_keys_are_never_shown() {
        for v in ["sk-canary", "gsk_x", "A1b2C3d4E5f6A1b2C3d4E5f6", "line\nbreak"] {
            assert_eq!(shown(v), "a value not shown here", "{v}");
        }
        assert_eq!(shown("ten seconds"), "`ten seconds`");
    }

    #[test]
    fn close_words_are_suggested_and_far_ones_are_not() {
        let known = ["listen", "admin", "workers"];
        assert_eq!(did_you_mean("lisen", known), Some("listen"));
        assert_eq!(did_you_mean("worker", known), Some("workers"));
        assert_eq!(did_you_mean("zebra", known), None);
    }
}
