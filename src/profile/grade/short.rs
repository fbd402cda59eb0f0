//! Short answers: right if one of the accepted wordings is what the answer says.
//!
//! Case, accents of punctuation, articles and runs of space do not matter. An answer of a few words must be an accepted one;
//! in a longer answer an accepted one must stand as whole words, and no `not` directly before it.

/// Words after which an accepted answer does not count.
const DENIALS: [&str; 4] = ["not", "isn't", "never", "neither"];
/// Words that carry nothing.
const ARTICLES: [&str; 3] = ["the", "a", "an"];
/// An answer of at most this many words is taken to be the answer itself.
const BRIEF_WORDS: usize = 6;

/// Whether `answer` says one of `accepted`.
pub fn matches(answer: &str, accepted: &[String]) -> bool {
    let said = words(answer);
    accepted.iter().any(|one| {
        let wanted = words(one);
        if wanted.is_empty() {
            return false;
        }
        if said == wanted {
            return true;
        }
        // In "Sydney or Canberra" nothing is settled: a brief answer with an alternative is none.
        if said.len() <= BRIEF_WORDS && said.iter().any(|w| w == "or") && !wanted.iter().any(|w| w == "or") {
            return false;
        }
        said.windows(wanted.len()).enumerate().any(|(at, window)| {
            let before = at.checked_sub(1).and_then(|i| said.get(i));
            window == wanted.as_slice() && !before.is_some_and(|w| DENIALS.contains(&w.as_str()))
        })
    })
}

/// Lower-case words without punctuation and articles; digits keep their points, so 3.5 is not 35.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let keep = |c: char| c.is_alphanumeric() || matches!(c, '.' | '\'' | '-' | '%' | '+' | '/');
    lower
        .split(|c: char| !keep(c))
        .map(|w| w.trim_matches(|c: char| matches!(c, '.' | '\'' | '-')))
        .map(
            |w| {
                if w.chars().all(|c| c.is_ascii_digit() || c == '.') { w.to_owned() } else { w.replace(['-', '.'], "") }
            },
        )
        .filter(|w| !w.is_empty() && !ARTICLES.contains(&w.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wordings_of_the_same_answer_are_right_and_others_are_not() {
        let accepted = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (answer, list, want) in [
            ("Canberra", &["Canberra"][..], true),
            ("The capital is **Canberra**.", &["Canberra"], true),
            ("It is not Canberra, it is Sydney", &["Canberra"], false),
            ("Sydney or Canberra", &["Canberra"], false),
            ("canberra!", &["Canberra"], true),
            ("H2O", &["water", "H2O"], true),
            ("3.5", &["35"], false),
            ("about 3.5 litres", &["3.5"], true),
            ("U.S.A.", &["USA"], true),
            ("Marie-Curie", &["Marie Curie", "MarieCurie"], true),
            ("an orange", &["the orange"], true),
            ("oranges", &["orange"], false),
            ("", &["x"], false),
            ("anything", &[""], false),
        ] {
            assert_eq!(matches(answer, &accepted(list)), want, "{answer:?} for {list:?}");
        }
    }
}
