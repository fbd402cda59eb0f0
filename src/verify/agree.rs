//! Whether two answers say the same, by their words.

use std::collections::HashMap;

/// F1 of the words of two texts, from 0 to 1: twice the common words (each as often as both have it) over all words of
/// both, as question answering is scored (Rajpurkar et al., SQuAD, 2016, section 6.1), without leaving any word out. A word
/// is a run of letters and digits in lower case; a letter of a script without spaces is a word of its own.
///
/// It tells a different answer from the same one better where answers are short. Two texts without a word agree.
pub fn agreement(one: &str, other: &str) -> f64 {
    let (mut left, total_one) = counted(one);
    let mut total_other = 0_u32;
    let mut common = 0_u32;
    each_word(other, |word| {
        total_other += 1;
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    });
    match total_one + total_other {
        0 => 1.0,
        all => f64::from(2 * common) / f64::from(all),
    }
}

fn counted(text: &str) -> (HashMap<String, u32>, u32) {
    let (mut words, mut total) = (HashMap::new(), 0);
    each_word(text, |word| {
        total += 1;
        match words.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(words.insert(word.to_owned(), 1)),
        }
    });
    (words, total)
}

fn each_word(text: &str, mut see: impl FnMut(&str)) {
    let lower = text.to_lowercase();
    let mut word = String::new();
    for c in lower.chars().chain([' ']) {
        let alone = matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{e00}'..='\u{e7f}');
        if (alone || !c.is_alphanumeric()) && !word.is_empty() {
            see(&word);
            word.clear();
        }
        if alone {
            see(c.encode_utf8(&mut [0; 4]));
        } else if c.is_alphanumeric() {
            word.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_in_common_count_once_each() {
        assert_eq!(agreement("Paris.", "paris"), 1.0);
        assert_eq!(agreement("The answer is B", "the answer is C"), 0.75);
        assert_eq!(agreement("no", "yes"), 0.0);
        assert_eq!(agreement("la la la", "la"), 0.5);
        assert_eq!(agreement("", "..."), 1.0);
        assert_eq!(agreement("", "word"), 0.0);
        assert_eq!(agreement("東京", "京都"), 0.5);
    }

    proptest! {
        #[test]
        fn it_is_a_share_and_takes_no_side(one in "\\PC{0,60}", other in "\\PC{0,60}") {
            let there = agreement(&one, &other);
            prop_assert!((0.0..=1.0).contains(&there));
            prop_assert_eq!(there, agreement(&other, &one));
            prop_assert_eq!(agreement(&one, &one), 1.0);
        }
    }
}
