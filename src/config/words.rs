//! A command line as a shell would split it: blanks part words, quotes and backslashes keep them together. Nothing is expanded.

/// The words of a line.
///
/// # Errors
/// A quote that is not closed, or a backslash at the end.
pub fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    // None between two words: '' is a word too.
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => loop {
                let own = word.get_or_insert_default();
                match chars.next() {
                    Some('\'') => break,
                    Some(inside) => own.push(inside),
                    None => return Err("has a ' that is not closed"),
                }
            },
            '"' => loop {
                let own = word.get_or_insert_default();
                match chars.next() {
                    Some('"') => break,
                    Some('\\') => match chars.next() {
                        Some(escaped @ ('"' | '\\' | '$' | '`')) => own.push(escaped),
                        Some(other) => own.extend(['\\', other]),
                        None => return Err("has a \" that is not closed"),
                    },
                    Some(inside) => own.push(inside),
                    None => return Err("has a \" that is not closed"),
                }
            },
            '\\' => match chars.next() {
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err("ends with a backslash"),
            },
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        for (line, want) in [
            ("plug-watts --follow", &["plug-watts", "--follow"][..]),
            ("  a\t b  ", &["a", "b"]),
            ("sh -c 'while :; do cat /w; sleep 1; done'", &["sh", "-c", "while :; do cat /w; sleep 1; done"]),
            (r#"awk "{print \"$1\"}" a\ b"#, &["awk", r#"{print "$1"}"#, "a b"]),
            (r#"a'b'"c" '' "\n""#, &["abc", "", r"\n"]),
            ("", &[]),
        ] {
            assert_eq!(split(line).unwrap(), want, "{line}");
        }
        for line in ["sh -c 'a", "a \"b", "a\\", "\"a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
