//! Graders that need no model: letters, numbers, short answers, literals of code, checkable rules. Pure.

pub mod literal;
pub mod rules;
pub mod short;

/// The option letter an answer settles on, `A`..=`J`, limited to the first `options` letters.
///
/// In order: what follows the last "answer is" or "answer:"; else a letter that stands alone at the start; else the only
/// letter that stands alone anywhere. Anything else is no answer. A word that merely begins with a capital is not a
/// letter, which is the fault of graders that take the first capital they meet.
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
        && !trimmed.chars().nth(1).is_some_and(|c| c.is_alphanumeric() || c == '\'')
        && !(first == 'A' && trimmed.chars().nth(1) == Some(' '))
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

/// Capital letters with no letter or digit beside them; the article "A word" is skipped.
fn alone(text: &str) -> impl Iterator<Item = char> + '_ {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().filter_map(move |(i, b)| {
        let before = i.checked_sub(1).and_then(|j| bytes.get(j)).is_some_and(u8::is_ascii_alphanumeric);
        let next = bytes.get(i + 1).copied().unwrap_or(b'.');
        let article = *b == b'A' && next == b' ' && bytes.get(i + 2).is_some_and(u8::is_ascii_lowercase);
        (b.is_ascii_uppercase() && !before && !next.is_ascii_alphanumeric() && next != b'\'' && !article)
            .then(|| char::from(*b))
    })
}

/// The number an answer settles on: after the last `####` or "answer is", else the last number in it. Thousands commas,
/// a leading `$` and a trailing full stop are dropped.
pub fn number(answer: &str) -> Option<f64> {
    let lower = answer.to_ascii_lowercase();
    let stated = ["####", "answer is", "answer:"].iter().filter_map(|m| lower.rfind(m).map(|at| at + m.len())).max();
    if let Some(found) = stated.and_then(|at| answer.get(at..)).and_then(|rest| numbers(rest).first().copied()) {
        return Some(found);
    }
    numbers(answer).last().copied()
}

fn numbers(text: &str) -> Vec<f64> {
    let mut found = Vec::new();
    let mut current = String::new();
    for c in text.chars().chain([' ']) {
        let sign = c == '-' && current.is_empty();
        if c.is_ascii_digit() || sign || ((c == '.' || c == ',') && !current.is_empty()) {
            current.push(c);
            continue;
        }
        let clean: String = current.trim_end_matches(['.', ',']).chars().filter(|c| *c != ',').collect();
        if let Ok(n) = clean.parse::<f64>() {
            found.push(n);
        }
        current.clear();
    }
    found
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
            ("J", None),
            ("", None),
        ] {
            assert_eq!(letter(text, 5), want, "{text:?}");
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
}
