//! Answers that are none: empty ones, refusals, loops; and what an answer says of its own confidence.
//!
//! Words are English, as the shipped models' are; an answer in another language is simply not found to refuse.

/// Bytes at an answer's beginning in which a refusal stands if it is one.
const OPENING_BYTES: usize = 240;
/// Bytes at an answer's end that are looked at for a loop.
const TAIL_BYTES: usize = 512;
/// Bytes of the longest unit that a loop is made of.
const UNIT_BYTES: usize = 120;
/// A loop has at least so many bytes: shorter repeats stand in good answers, such as "ha ha ha".
const LOOP_BYTES: usize = 64;
/// And its unit comes at least so often.
const TIMES: usize = 4;

/// How refusals begin, in lower case with straight quotes.
const REFUSALS: [&str; 22] = [
    "i'm sorry, but",
    "i am sorry, but",
    "i apologize, but",
    "i can't assist",
    "i cannot assist",
    "i can't help",
    "i cannot help",
    "i can't provide",
    "i cannot provide",
    "i can't answer",
    "i cannot answer",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "as an ai",
    "as a language model",
    "i don't have access to",
    "i do not have access to",
    "i don't know",
    "i do not know",
    "cannot be determined from the",
];

/// Nothing that could be an answer: no letter and no digit.
pub fn is_empty(text: &str) -> bool {
    !text.chars().any(char::is_alphanumeric)
}

/// Begins as refusals do.
pub fn refuses(text: &str) -> bool {
    let opening: String = text.chars().take(OPENING_BYTES).collect();
    let opening = opening.to_lowercase().replace('\u{2019}', "'");
    REFUSALS.iter().any(|refusal| opening.contains(refusal))
}

/// Ends in one unit said again and again. Rules and blank tables, which have neither letter nor digit, are no loop.
pub fn loops(text: &str) -> bool {
    let bytes = text.as_bytes();
    let tail = bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
    (1..=UNIT_BYTES).any(|unit| {
        let needed = LOOP_BYTES.max(unit * TIMES);
        let Some(end) = tail.len().checked_sub(needed).and_then(|from| tail.get(from..)) else { return false };
        let repeats = end.iter().zip(end.iter().skip(unit)).all(|(a, b)| a == b);
        // Sixty-four times the same digit is a number's place to be, not a model's: letters and digits both count.
        repeats && end.iter().take(unit).any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii())
    })
}

/// The confidence that an answer states of itself, as a share: the last "confidence: 85%", "confidence is 0.85".
pub fn stated(text: &str) -> Option<f64> {
    let lower = text.to_lowercase();
    let (_, rest) = lower.rsplit_once("confidence")?;
    let rest = rest.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.' && c != '\n');
    let digits: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let number: f64 = digits.trim_end_matches('.').parse().ok()?;
    let after = rest.get(digits.len()..).unwrap_or_default().trim_start();
    let share =
        if after.starts_with('%') || after.starts_with("percent") || number > 1.0 { number / 100.0 } else { number };
    (0.0..=1.0).contains(&share).then_some(share)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn emptiness_is_the_lack_of_letters_and_digits_in_any_script() {
        assert!(is_empty("") && is_empty(" \n.,;--"));
        assert!(!is_empty("7") && !is_empty("ж") && !is_empty("答"));
    }

    #[test]
    fn refusals_are_found_at_the_beginning_only() {
        assert!(refuses("I\u{2019}m sorry, but I can't do that."));
        assert!(refuses("As an AI language model, I have no opinion."));
        assert!(!refuses("The capital of France is Paris."));
        let late = format!("{} I don't know.", "The answer is 12. ".repeat(30));
        assert!(!refuses(&late));
    }

    #[test]
    fn loops_are_found_at_the_end_and_rules_are_none() {
        assert!(loops(&format!("So: {}", "the answer is 3, because ".repeat(6))));
        assert!(loops(&"a".repeat(80)));
        assert!(loops(&"答案".repeat(30)));
        assert!(!loops(&"-".repeat(200)));
        assert!(!loops("ha ha ha ha ha ha"));
        assert!(!loops(&format!("{} and that is all there is to say of it.", "la ".repeat(90))));
        assert!(!loops("1. First step\n2. Second step\n3. Third step\n4. Fourth step\n5. Fifth step\n6. Sixth step\n"));
    }

    #[test]
    fn stated_confidence_is_a_share_however_it_is_written() {
        assert_eq!(stated("Answer: B. Confidence: 85%"), Some(0.85));
        assert_eq!(stated("confidence is 0.4."), Some(0.4));
        assert_eq!(stated("Confidence 90 percent"), Some(0.9));
        assert_eq!(stated("I have confidence in this"), None);
        assert_eq!(stated("confidence: 900%"), None);
        assert_eq!(stated("no such word"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at_without_a_panic(text in "\\PC{0,700}") {
            let _ = (is_empty(&text), refuses(&text), loops(&text));
            let said = stated(&format!("{text} confidence {text}"));
            prop_assert!(said.is_none_or(|p| (0.0..=1.0).contains(&p)));
        }
    }
}
