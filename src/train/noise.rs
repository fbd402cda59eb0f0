//! Copies of training texts as people type and phrase them, so that a slip or a polite opening changes fewer decisions.
//!
//! Slips and left-out words are random, and the openings are others than the one that robustness is measured with: no word of
//! the measured rewording is looked up here.

use super::topics::{EVERY_FOLD, Sample};

/// How copies are made.
#[derive(Debug)]
pub struct Copies {
    /// What a copy counts against its original.
    weight: f32,
    /// One word in so many is left out: no single word of a question, such as what it asks to do, should decide.
    left_out: Option<usize>,
    /// How many of the openings are used.
    openings: usize,
}

/// Slips and openings. With more than that the 22 domains lost on wording of other authors than the training's.
pub const LIGHT: Copies = Copies { weight: 0.35, left_out: None, openings: 12 };
/// Words left out as well: exam questions stay where they are when they are reworded.
pub const HEAVY: Copies = Copies { weight: 0.5, left_out: Some(8), openings: OPENINGS.len() };

/// One long word in so many gets a slip.
const EVERY: usize = 7;
/// A word shorter than this is left alone.
const LONG: usize = 4;

const OPENINGS: [&str; 20] = [
    "",
    "",
    "",
    "hi, ",
    "I have a question. ",
    "Please answer: ",
    "Can you tell me ",
    "quick question: ",
    "I would like to know ",
    "for my homework: ",
    "Hello! I need some assistance here. ",
    "Give me the answer to this one, thanks. ",
    "Hey there, hope you are well. ",
    "I am stuck on something and hope somebody knows more about it. ",
    "Would you mind having a look? ",
    "So my friend asked me the other day: ",
    "Sorry to bother you, but I do not get it. ",
    "thx in advance!! ",
    "I could use some help. ",
    "Let us try another one. ",
];

/// The samples and a noisy copy of each that the head sees, on the same fold.
pub fn doubled(samples: &[Sample], copies: &Copies, seed: u64) -> Vec<Sample> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x6e6f_6973);
    let mut all = samples.to_vec();
    all.extend(samples.iter().filter(|s| s.fold != EVERY_FOLD).map(|s| {
        let opening = OPENINGS.get(rng.usize(..copies.openings)).copied().unwrap_or("");
        let text = format!("{opening}{}", slips(&s.text, copies.left_out, &mut rng));
        Sample { text, weight: s.weight * copies.weight, ..s.clone() }
    }));
    all
}

fn slips(text: &str, left_out: Option<usize>, rng: &mut fastrand::Rng) -> String {
    let mut kept: Vec<&str> = text.split(' ').filter(|_| left_out.is_none_or(|n| rng.usize(..n) > 0)).collect();
    if kept.is_empty() {
        kept = text.split(' ').collect();
    }
    let word = |word: &str| -> String {
        let mut letters: Vec<char> = word.chars().collect();
        if letters.len() < LONG || rng.usize(..EVERY) > 0 {
            return word.to_owned();
        }
        let at = rng.usize(1..letters.len() - 1);
        match rng.u8(..4) {
            0 => letters.swap(at, at + 1),
            1 => {
                letters.remove(at);
            }
            2 => letters.insert(at, letters.get(at).copied().unwrap_or('e')),
            _ => {
                if let Some(letter) = letters.get_mut(at) {
                    *letter = char::from(b'a' + rng.u8(..26));
                }
            }
        }
        letters.into_iter().collect()
    };
    kept.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::classify::measure::{Change, spoilt};

    fn pairs(text: &str) -> HashSet<(String, String)> {
        let words: Vec<String> =
            text.split_whitespace().map(|w| w.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()).collect();
        words.windows(2).map(|w| (w[0].clone(), w[1].clone())).collect()
    }

    #[test]
    fn robustness_is_measured_with_an_opening_that_is_not_trained_on() {
        let measured = pairs(&spoilt("", Change::Reworded));
        assert!(measured.len() > 4);
        for opening in OPENINGS {
            assert!(pairs(opening).is_disjoint(&measured), "{opening:?}");
        }
    }

    #[test]
    fn a_copy_is_never_empty_and_keeps_most_words() {
        let sample = |text: &str| Sample { text: text.into(), label: 0, weight: 1.0, fold: 0, source: 0 };
        let text = "one two three four five six seven eight nine ten ".repeat(40);
        let all = doubled(&[sample("x"), sample(text.trim_end())], &HEAVY, 1);
        assert!(all.len() == 4 && all[2].text.ends_with('x') && all[3].weight < 1.0);
        let words = all[3].text.split(' ').count();
        assert!((320..390).contains(&words), "{words}");
    }
}
