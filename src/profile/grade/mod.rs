//! Graders that need no model: letters, numbers, short answers, literals of code, checkable rules. Pure.

pub mod literal;
mod numbers;
pub mod rules;
pub mod short;

/// After these, `A` and `I` are letters of options: an article or a pronoun has a noun or a verb behind it.
const AFTER_A_LETTER: [&str; 7] = ["and", "or", "is", "because", "since", "which", "but"];
/// Words and marks that may stand between a denial and the letter that it denies.
const BETWEEN: [&str; 4] = ["option", "answer", "choice", "the"];

/// The option letter an answer settles on, `A`..=`J`, limited to the first `options` letters.
///
/// In order: what follows the last "answer is" or "answer:"; else a letter that stands alone at the start; else the only
/// letter that stands alone anywhere. Anything else is no answer. A word that merely begins with a capital is not a
/// letter, which is the fault of graders that take the first capital they meet; neither are the article A and the pronoun I,
/// nor a letter behind "not".
pub fn letter(answer: &str, options: usize) -> Option<char> {
    let last = char::from(b'A' + u8::try_from(options.clamp(1, 10) - 1).unwrap_or(0));
    let valid = |c: char| ('A'..=last).contains(&c);
    let lower = answer.to_ascii_lowercase();
    let stated =
        ["answer is", "answer:", "answer is:"].iter().filter_map(|m| lower.rfind(m).map(|at| at + m.len())).max();
    if let Some(found) = stated.and_then(|at| answer.get(at..)).and_then(|rest| alone(rest).next())
        && valid(found)
    {
        return Some(found);
    }
    let trimmed = answer.trim_start_matches(|c: char| c.is_whitespace() || "(*[\"'".contains(c));
    if let Some(first) = trimmed.chars().next()
        && valid(first)
        && is_alone(trimmed, 0, first)
    {
        return Some(first);
    }
    let mut all: Vec<char> = alone(answer).filter(|c| valid(*c)).collect();
    all.sort_unstable();
    all.dedup();
    match all.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

/// Capital letters that are no part of a word, no word of their own, and not denied.
fn alone(text: &str) -> impl Iterator<Item = char> + '_ {
    text.char_indices().filter(|(at, c)| is_alone(text, *at, *c)).map(|(_, c)| c)
}

fn is_alone(text: &str, at: usize, c: char) -> bool {
    let (before, after) = (text.get(..at).unwrap_or(""), text.get(at + c.len_utf8()..).unwrap_or(""));
    c.is_ascii_uppercase()
        && !before.ends_with(char::is_alphanumeric)
        && !after.starts_with(char::is_alphanumeric)
        && !contracted(after)
        && (!matches!(c, 'A' | 'I') || !is_word(after))
        && !denied(before)
}

/// `I'm`, with either apostrophe; the end of a quotation is none.
fn contracted(after: &str) -> bool {
    after.strip_prefix(['\'', '\u{2019}']).is_some_and(|rest| rest.starts_with(char::is_alphabetic))
}

/// "a cat", "I think": a small word follows that could not follow a letter.
fn is_word(after: &str) -> bool {
    let Some(rest) = after.strip_prefix(' ') else { return false };
    let next = rest.split(|c: char| !c.is_alphabetic()).next().unwrap_or("");
    next.starts_with(char::is_lowercase) && !AFTER_A_LETTER.contains(&next)
}

/// "not B", "isn't (B)", "not the option B".
fn denied(before: &str) -> bool {
    // A sentence that ended before the letter denies nothing in the next one.
    let clause = before.rsplit(['.', ',', ';', ':', '!', '?', '\n']).next().unwrap_or(before);
    let mut words =
        clause.rsplit(|c: char| !(c.is_alphanumeric() || "'\u{2019}".contains(c))).filter(|w| !w.is_empty());
    let word = words.find(|w| !BETWEEN.contains(&w.to_lowercase().as_str())).unwrap_or("").to_lowercase();
    word == "not" || word == "never" || word.ends_with("n't") || word.ends_with("n\u{2019}t")
}

/// Where the sentence or clause ends that states a number.
const CLAUSE_ENDS: [&str; 8] = ["\n", ". ", ", ", "; ", " (", " because ", " since ", " as "];

/// The number an answer settles on: after the last `####` or "answer is", else the last number in it. Where the stating
/// clause computes (`5 + 3 = 8`) it is the value behind its last `=`. Thousands commas, a leading `$` and a trailing full
/// stop are dropped; `1/2`, `5e3` and `5 x 10^3` are read as what they mean.
pub fn number(answer: &str) -> Option<f64> {
    let lower = answer.to_ascii_lowercase();
    let stated = ["####", "answer is", "answer:"].iter().filter_map(|m| lower.rfind(m).map(|at| at + m.len())).max();
    if let Some(found) = stated.and_then(|at| answer.get(at..)).and_then(value) {
        return Some(found);
    }
    numbers::all(answer).last().copied()
}

/// The first number of a statement, or what its clause says that it equals.
fn value(rest: &str) -> Option<f64> {
    let first = *numbers::all(rest).first()?;
    let tail = rest.find(|c: char| c.is_ascii_digit()).and_then(|at| rest.get(at..)).unwrap_or(rest);
    let end = CLAUSE_ENDS.iter().filter_map(|mark| tail.find(mark)).min().unwrap_or(tail.len());
    let right = tail.get(..end).and_then(|clause| clause.rsplit_once('=')).map(|(_, right)| right);
    right.and_then(|right| numbers::all(right).first().copied()).or(Some(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_read_as_a_person_would() {
        for (text, want) in [
            ("C", Some('C')),
            ("(B) because", Some('B')),
            ("The answer is D.", Some('D')),
            ("Answer: **E**", Some('E')),
            ("I think the answer is (A).", Some('A')),
            ("B. Twelve", Some('B')),
            ("A cat sat.", None),
            ("Because it is so", None),
            ("Either B or C", None),
            ("ANSWER: C", Some('C')),
            ("The answer is 'B'.", Some('B')),
            ("A is right", Some('A')),
            ("J", None),
            ("", None),
        ] {
            assert_eq!(letter(text, 5), want, "{text:?}");
        }
    }

    #[test]
    fn the_pronoun_i_is_no_option() {
        for (text, want) in [
            ("I cannot determine which is right.", None),
            ("I think C is right.", Some('C')),
            ("I'm sure it is C.", Some('C')),
            ("I\u{2019}m sure it is C.", Some('C')),
            ("The answer is: I am not sure, but likely (D)", Some('D')),
            ("I", Some('I')),
            ("I. The ninth", Some('I')),
            ("(I) holds", Some('I')),
            ("The answer is I because nine come first.", Some('I')),
        ] {
            assert_eq!(letter(text, 10), want, "{text:?}");
        }
    }

    #[test]
    fn a_letter_that_is_denied_is_not_the_answer() {
        for (text, want) in [
            ("The answer is not B, it is C.", Some('C')),
            ("It isn't the option (A). D", Some('D')),
            ("The answer is not B.", None),
            ("I do not know. B", Some('B')),
        ] {
            assert_eq!(letter(text, 10), want, "{text:?}");
        }
    }

    #[test]
    fn a_number_is_the_stated_one_else_the_last() {
        for (text, want) in [
            ("She pays $1,234.50.", Some(1234.5)),
            ("2 + 2 = 4", Some(4.0)),
            ("The answer is 18, not 20", Some(18.0)),
            ("#### -7", Some(-7.0)),
            ("none", None),
        ] {
            assert_eq!(number(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_statement_that_computes_says_what_comes_out() {
        for (text, want) in [
            ("The answer is 5 + 3 = 8.", Some(8.0)),
            ("The answer is 5 apples + 3 apples = 8 apples.", Some(8.0)),
            ("The answer is x = 8", Some(8.0)),
            ("The answer is 40, since 60 = 100 - 40", Some(40.0)),
            ("The answer is 40 because 60 = 100 - 40", Some(40.0)),
            ("The answer is 1/2.", Some(0.5)),
            ("The answer is 5.0e3", Some(5000.0)),
            ("The answer is 3 \u{d7} 10^5 m", Some(300_000.0)),
            ("The answer is \u{2212}.5", Some(-0.5)),
            ("#### -$5", Some(-5.0)),
        ] {
            assert_eq!(number(text), want, "{text:?}");
        }
    }
}
