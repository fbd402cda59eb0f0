//! Stop strings across token borders.
//!
//! Invariant: no part of a stop string is ever emitted, and text is held back only while it could still become one.

/// Looks for stop strings in text that arrives in pieces of whole characters.
pub struct Stop {
    strings: Vec<String>,
    held: String,
}

/// What one piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Text that is safe to send; possibly empty.
    Text(String),
    /// The text before a stop string, which ends the answer.
    Stop(String),
}

impl Stop {
    /// Empty strings are ignored: they would end every answer at once.
    pub fn new(strings: &[String]) -> Self {
        Self { strings: strings.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Adds text.
    pub fn push(&mut self, text: &str) -> Found {
        if self.strings.is_empty() {
            return Found::Text(text.to_owned());
        }
        self.held.push_str(text);
        if let Some(at) = self.strings.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            self.held.truncate(at);
            return Found::Stop(std::mem::take(&mut self.held));
        }
        let keep = self.possible();
        let rest = self.held.split_off(self.held.len() - keep);
        Found::Text(std::mem::replace(&mut self.held, rest))
    }

    /// Text held back for a stop string that did not come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes of the longest end of `held` that begins a stop string.
    fn possible(&self) -> usize {
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let starts = self.held.char_indices().map(|(at, _)| at);
        let mut ends = starts.map(|at| self.held.get(at..).unwrap_or_default()).filter(|end| end.len() < longest);
        ends.find(|end| self.strings.iter().any(|s| s.starts_with(end))).map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(strings: &[&str], pieces: &[&str]) -> (String, bool) {
        let strings: Vec<String> = strings.iter().map(|s| (*s).to_owned()).collect();
        let mut stop = Stop::new(&strings);
        let mut out = String::new();
        for piece in pieces {
            match stop.push(piece) {
                Found::Text(text) => out.push_str(&text),
                Found::Stop(text) => {
                    out.push_str(&text);
                    return (out, true);
                }
            }
        }
        out.push_str(&stop.finish());
        (out, false)
    }

    #[test]
    fn found_at_every_split() {
        let text = "one two«END»three";
        let chars: Vec<(usize, char)> = text.char_indices().collect();
        for (a, _) in &chars {
            for (b, _) in chars.iter().filter(|(b, _)| b >= a) {
                let got = run(&["«END»", "zzz"], &[&text[..*a], &text[*a..*b], &text[*b..]]);
                assert_eq!(got, ("one two".to_owned(), true), "split at {a} and {b}");
            }
        }
    }

    #[test]
    fn the_earliest_of_several_wins_and_half_a_stop_is_given_back() {
        assert_eq!(run(&["b", "ab"], &["xaby"]), ("x".to_owned(), true));
        assert_eq!(run(&["</s>"], &["a <", "/", "s", "x"]), ("a </sx".to_owned(), false));
        assert_eq!(run(&["</s>"], &["a </s"]), ("a </s".to_owned(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".to_owned(), true));
        assert_eq!(run(&[""], &["abc"]), ("abc".to_owned(), false));
    }

    proptest! {
        #[test]
        fn same_as_searching_the_whole_text(text in "[ab€]{0,24}", stops in prop::collection::vec("[ab€]{1,4}", 0..3),
                                            cuts in prop::collection::vec(0_usize..24, 0..8)) {
            let chars: Vec<char> = text.chars().collect();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c < chars.len()).collect();
            cuts.extend([0, chars.len()]);
            cuts.sort_unstable();
            let pieces: Vec<String> = cuts.windows(2).map(|w| chars[w[0]..w[1]].iter().collect()).collect();
            let got = run(&stops.iter().map(String::as_str).collect::<Vec<_>>(), &pieces.iter().map(String::as_str).collect::<Vec<_>>());
            // The first stop string to be complete ends the text, as it does when letters come one by one.
            let at = stops.iter().filter_map(|s| text.find(s.as_str())).min();
            match at {
                None => prop_assert_eq!(got, (text, false)),
                Some(at) => {
                    prop_assert!(got.1);
                    prop_assert!(got.0.len() >= at && text.starts_with(&got.0));
                    prop_assert!(stops.iter().all(|s| !got.0.contains(s.as_str())));
                }
            }
        }
    }
}
