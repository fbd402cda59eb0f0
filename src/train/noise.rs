//! Copies of training texts as people type and phrase them, so that a slip or a polite opening changes fewer decisions.
//!
//! The slips are random and the openings are others than those that robustness is measured with.

use super::topics::{EVERY_FOLD, Sample};

/// What a copy counts against its original.
const WEIGHT: f32 = 0.35;
/// One long word in so many gets a slip.
const EVERY: usize = 7;
/// A word shorter than this is left alone.
const LONG: usize = 4;

const OPENINGS: [&str; 12] = [
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
];

/// The samples and a noisy copy of each that the head sees, on the same fold.
pub fn doubled(samples: &[Sample], seed: u64) -> Vec<Sample> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x6e6f_6973);
    let mut all = samples.to_vec();
    all.extend(samples.iter().filter(|s| s.fold != EVERY_FOLD).map(|s| {
        let opening = OPENINGS.get(rng.usize(..OPENINGS.len())).copied().unwrap_or("");
        let text = format!("{opening}{}", slips(&s.text, &mut rng));
        Sample { text, weight: s.weight * WEIGHT, ..s.clone() }
    }));
    all
}

fn slips(text: &str, rng: &mut fastrand::Rng) -> String {
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
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
