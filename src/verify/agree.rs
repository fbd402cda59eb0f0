//! Whether two answers say the same: by what they settle on where both say it, else by their words.

use std::collections::HashMap;

/// What announces a result.
const ANNOUNCED: [&str; 4] = ["answer is", "answer:", "####", "\\boxed{"];
/// Characters that may stand between the announcement and the result.
const MOST_AHEAD: usize = 12;

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

/// Whether two answers settle on the same number or letter: 1 or 0; none where one of them does not say. Where a model works
/// its way to a result this tells a right answer from a wrong one, and shared words do not (`eval/verify/README.md`).
pub fn same_result(one: &str, other: &str) -> Option<f64> {
    let (one, other) = (result(one)?, result(other)?);
    let same = match (one, other) {
        (Settled::Number(a), Settled::Number(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        (a, b) => a == b,
    };
    Some(if same { 1.0 } else { 0.0 })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Settled {
    Number(f64),
    Letter(char),
}

/// What stands behind the last words that announce a result.
fn result(answer: &str) -> Option<Settled> {
    // Only ASCII letters change, so places are those of the answer.
    let lower = answer.to_ascii_lowercase();
    let behind = |mark: &str| lower.rfind(mark).map(|at| at + mark.len());
    let rest = answer.get(ANNOUNCED.iter().filter_map(|mark| behind(mark)).max()?..)?;
    // Bold, brackets, currency.
    let mut from = rest.char_indices().take(MOST_AHEAD).skip_while(|(_, c)| !(c.is_ascii_alphanumeric() || *c == '-'));
    let said = rest.get(from.next()?.0..)?;
    let end = said.find(|c: char| !(c.is_ascii_alphanumeric() || ".,-".contains(c))).unwrap_or(said.len());
    let said = said.get(..end)?.trim_end_matches(['.', ',']);
    let mut letters = said.chars();
    match (letters.next()?, letters.next()) {
        (letter, None) if letter.is_ascii_uppercase() => Some(Settled::Letter(letter)),
        (first, _) if first.is_ascii_digit() || first == '-' => {
            let number: f64 = said.replace(',', "").parse().ok()?;
            number.is_finite().then_some(Settled::Number(number))
        }
        _ => None,
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
    fn results_are_compared_where_both_say_one() {
        let same = |one, other| same_result(one, other);
        assert_eq!(same("So 6 x 7. The answer is 42.", "### Thus\nThe answer is **42.0**"), Some(1.0));
        assert_eq!(same("The answer is $1,250.", "Final answer: 1250"), Some(1.0));
        assert_eq!(same("\\boxed{-3}", "#### -3"), Some(1.0));
        assert_eq!(same("The answer is (B).", "the answer is B"), Some(1.0));
        assert_eq!(same("The answer is (B).", "The answer is C because of B."), Some(0.0));
        assert_eq!(same("The answer is 3, or so I thought. The answer is 4", "The answer is 3"), Some(0.0));
        for none in [
            "",
            "four",
            "The answer is unclear.",
            "The answer is",
            "the answer is -",
            "answer: \u{1f600}",
            "The answer is a lot",
        ] {
            assert_eq!(same(none, "The answer is 4"), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_result_or_none(one in ".{0,40}", other in "(answer is|####)?.{0,20}") {
            prop_assert!(same_result(&one, &other).is_none_or(|same| same == 0.0 || same == 1.0));
            prop_assert!(same_result(&other, &other).is_none_or(|same| same == 1.0));
        }
    }

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
