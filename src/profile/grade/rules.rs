//! Instructions whose keeping can be checked by counting: lengths, words, forms. An answer is right if it keeps all of them.

use serde::{Deserialize, Serialize};

/// One checkable instruction. Counts include their limits; words and letters compare without case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule", deny_unknown_fields)]
pub enum Rule {
    /// Words, split at white space.
    Words(Range),
    /// Sentences: ends of `.`, `!` or `?` followed by space or the end.
    Sentences(Range),
    /// Paragraphs, split at empty lines.
    Paragraphs(Range),
    /// Lines that begin with `-`, `*` or a bullet sign.
    Bullets(Range),
    /// Lines that begin with a number and a full stop or bracket.
    Numbered(Range),
    /// Lines that are not empty.
    Lines(Range),
    /// Each of these stands in the answer as whole words.
    Contains {
        /// Words or phrases.
        words: Vec<String>,
    },
    /// None of these does.
    Avoids {
        /// Words or phrases.
        words: Vec<String>,
    },
    /// A word stands so many times.
    Repeats {
        /// The word.
        word: String,
        /// At least so often.
        #[serde(default)]
        min: Option<usize>,
        /// At most so often.
        #[serde(default)]
        max: Option<usize>,
    },
    /// A letter occurs so many times.
    Letter {
        /// The letter.
        letter: char,
        /// At least so often.
        #[serde(default)]
        min: Option<usize>,
        /// At most so often.
        #[serde(default)]
        max: Option<usize>,
    },
    /// The answer begins with this.
    Begins {
        /// Exact text.
        with: String,
    },
    /// The answer ends with this.
    Ends {
        /// Exact text.
        with: String,
    },
    /// No capital letter.
    Lowercase {},
    /// No small letter.
    Uppercase {},
    /// This character does not occur.
    Without {
        /// The character.
        character: char,
    },
    /// The whole answer is JSON, code fence allowed; with these keys at the top if any are named.
    Json {
        /// Keys of the object.
        #[serde(default)]
        keys: Vec<String>,
    },
    /// A title in double angle brackets: `<<title>>`.
    Title {},
    /// The whole answer in double quotes.
    Quoted {},
    /// So many placeholders in square brackets, such as `[name]`.
    Placeholders(Range),
    /// A paragraph that begins with `P.S.`
    Postscript {},
}

/// A count's limits, both included; at least one must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// At least so many.
    #[serde(default)]
    pub min: Option<usize>,
    /// At most so many.
    #[serde(default)]
    pub max: Option<usize>,
}

impl Range {
    fn holds(self, count: usize) -> bool {
        self.min.is_none_or(|min| count >= min) && self.max.is_none_or(|max| count <= max)
    }

    fn sound(self) -> bool {
        match (self.min, self.max) {
            (None, None) => false,
            (Some(min), Some(max)) => min <= max,
            _ => true,
        }
    }
}

/// Whether an answer keeps all rules; an empty answer keeps none.
pub fn all_hold(answer: &str, rules: &[Rule]) -> bool {
    !answer.trim().is_empty() && rules.iter().all(|rule| rule.holds(answer))
}

impl Rule {
    /// Whether an answer keeps it.
    pub fn holds(&self, answer: &str) -> bool {
        let text = answer.trim();
        let lines = || text.lines().map(str::trim_start).filter(|l| !l.is_empty());
        match self {
            Self::Words(range) => range.holds(text.split_whitespace().count()),
            Self::Sentences(range) => range.holds(sentences(text)),
            Self::Paragraphs(range) => range.holds(paragraphs(text).count()),
            Self::Bullets(range) => {
                range.holds(lines().filter(|l| ["- ", "* ", "\u{2022}"].iter().any(|b| l.starts_with(b))).count())
            }
            Self::Numbered(range) => range.holds(lines().filter(|l| numbered(l)).count()),
            Self::Lines(range) => range.holds(lines().count()),
            Self::Contains { words } => words.iter().all(|w| occurrences(text, w) > 0),
            Self::Avoids { words } => words.iter().all(|w| occurrences(text, w) == 0),
            Self::Repeats { word, min, max } => Range { min: *min, max: *max }.holds(occurrences(text, word)),
            Self::Letter { letter, min, max } => {
                let wanted = letter.to_lowercase().to_string();
                Range { min: *min, max: *max }.holds(text.to_lowercase().matches(&wanted).count())
            }
            Self::Begins { with } => text.starts_with(with.trim()),
            Self::Ends { with } => text.ends_with(with.trim()),
            Self::Lowercase {} => !text.chars().any(char::is_uppercase),
            Self::Uppercase {} => !text.chars().any(char::is_lowercase),
            Self::Without { character } => !text.contains(*character),
            Self::Json { keys } => json(text, keys),
            Self::Title {} => text.split_once("<<").is_some_and(|(_, rest)| {
                rest.split_once(">>").is_some_and(|(title, _)| !title.trim().is_empty() && !title.contains('\n'))
            }),
            Self::Quoted {} => text.len() > 2 && text.starts_with('"') && text.ends_with('"'),
            Self::Placeholders(range) => range.holds(placeholders(text)),
            Self::Postscript {} => paragraphs(text).any(|p| p.trim_start().starts_with("P.S.")),
        }
    }

    /// What is wrong with the rule itself; none if it can be kept.
    pub fn problem(&self) -> Option<&'static str> {
        let range = match self {
            Self::Words(r) | Self::Sentences(r) | Self::Paragraphs(r) | Self::Bullets(r) => *r,
            Self::Numbered(r) | Self::Lines(r) | Self::Placeholders(r) => *r,
            Self::Repeats { word, .. } if word.trim().is_empty() => return Some("the word is empty"),
            Self::Repeats { min, max, .. } | Self::Letter { min, max, .. } => Range { min: *min, max: *max },
            Self::Contains { words } | Self::Avoids { words } => {
                let empty = words.is_empty() || words.iter().any(|w| w.trim().is_empty());
                return empty.then_some("words must be named");
            }
            Self::Begins { with } | Self::Ends { with } => {
                return with.trim().is_empty().then_some("the text is empty");
            }
            _ => return None,
        };
        (!range.sound()).then_some("needs min, max or both, min not above max")
    }
}

fn sentences(text: &str) -> usize {
    let mut count = 0;
    let mut open = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if matches!(c, '.' | '!' | '?') && open {
            // Closing quotes and brackets belong to the sentence.
            while chars.next_if(|c| matches!(c, '.' | '!' | '?' | '"' | '\'' | ')' | '*')).is_some() {}
            if chars.peek().is_none_or(|c| c.is_whitespace()) {
                count += 1;
                open = false;
            }
        } else if c.is_alphanumeric() {
            open = true;
        }
    }
    count + usize::from(open)
}

fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").filter(|p| !p.trim().is_empty())
}

fn numbered(line: &str) -> bool {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < line.len() && (rest.starts_with('.') || rest.starts_with(')'))
}

/// Whole-word occurrences without case.
fn occurrences(text: &str, word: &str) -> usize {
    let (text, word) = (text.to_lowercase(), word.trim().to_lowercase());
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    text.match_indices(&word)
        .filter(|(at, found)| {
            let before = text.get(..*at).and_then(|t| t.chars().next_back());
            let after = text.get(at + found.len()..).and_then(|t| t.chars().next());
            edge(before) && edge(after)
        })
        .count()
}

fn placeholders(text: &str) -> usize {
    text.split('[')
        .skip(1)
        .filter(|part| part.split_once(']').is_some_and(|(inside, _)| !inside.trim().is_empty()))
        .count()
}

fn json(text: &str, keys: &[String]) -> bool {
    let inner = text.strip_prefix("```json").or_else(|| text.strip_prefix("```")).and_then(|t| t.strip_suffix("```"));
    let Ok(value) = serde_json::from_str::<serde_json::Value>(inner.unwrap_or(text).trim()) else { return false };
    keys.iter().all(|key| value.get(key).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_rule_is_kept_and_broken_as_a_reader_would_say() {
        for (json, kept, broken) in [
            (r#"{"rule":"words","max":3}"#, "one two three", "one two three four"),
            (r#"{"rule":"sentences","min":2,"max":2}"#, "It is 3.5 km. Really?!", "Only one here"),
            (r#"{"rule":"paragraphs","min":2}"#, "a\n\nb", "a\nb"),
            (r#"{"rule":"bullets","min":2,"max":2}"#, "- a\n* b\nc", "- a"),
            (r#"{"rule":"numbered","min":2}"#, "1. a\n2) b", "one. a\n2 b"),
            (r#"{"rule":"lines","max":2}"#, "a\n\nb", "a\nb\nc"),
            (r#"{"rule":"contains","words":["solar panel"]}"#, "A Solar panel.", "solar panels"),
            (r#"{"rule":"avoids","words":["very"]}"#, "every day", "very good"),
            (r#"{"rule":"repeats","word":"tide","min":2,"max":2}"#, "Tide in, tide out", "tidetide tide"),
            (r#"{"rule":"letter","letter":"z","min":2}"#, "Zig zag", "zig"),
            (r#"{"rule":"begins","with":"Dear"}"#, " Dear all", "Hello Dear"),
            (r#"{"rule":"ends","with":"Yours."}"#, "x Yours.\n", "Yours. x"),
            (r#"{"rule":"lowercase"}"#, "all small 1", "Not"),
            (r#"{"rule":"uppercase"}"#, "LOUD 1!", "LOUd"),
            (r#"{"rule":"without","character":","}"#, "a b", "a, b"),
            (r#"{"rule":"json","keys":["a"]}"#, "```json\n{\"a\": 1}\n```", "{\"b\": 1}"),
            (r#"{"rule":"title"}"#, "<<A title>>\ntext", "<< >>"),
            (r#"{"rule":"quoted"}"#, "\"all of it\"", "\"not\" all"),
            (r#"{"rule":"placeholders","min":2}"#, "[name] and [address]", "[name] []"),
            (r#"{"rule":"postscript"}"#, "Text.\n\nP.S. more", "Text P.S. more"),
        ] {
            let rule = rule(json);
            assert!(rule.holds(kept), "{json} {kept:?}");
            assert!(!rule.holds(broken), "{json} {broken:?}");
            assert_eq!(rule.problem(), None, "{json}");
            assert_eq!(serde_json::from_str::<Rule>(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
        }
        assert!(!all_hold("  ", &[rule(r#"{"rule":"lowercase"}"#)]));
    }

    #[test]
    fn a_rule_nobody_can_keep_is_a_problem() {
        for json in [
            r#"{"rule":"words"}"#,
            r#"{"rule":"words","min":3,"max":2}"#,
            r#"{"rule":"contains","words":[]}"#,
            r#"{"rule":"begins","with":" "}"#,
            r#"{"rule":"repeats","word":"","min":1}"#,
        ] {
            assert!(rule(json).problem().is_some(), "{json}");
        }
        assert!(serde_json::from_str::<Rule>(r#"{"rule":"wrods","min":1}"#).is_err());
    }
}
