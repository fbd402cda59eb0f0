//! Numbers in prose: `1,234.50`, `-$5`, `1/2`, `5e3`, `5 x 10^3`. Pure.

/// Every number of a text, in order.
pub fn all(text: &str) -> Vec<f64> {
    let (mut found, mut rest, mut before) = (Vec::new(), text, ' ');
    while let Some(c) = rest.chars().next() {
        let after = match number(rest, before) {
            Some((value, after)) => {
                found.push(value);
                after
            }
            None => rest.get(c.len_utf8()..).unwrap_or(""),
        };
        before = rest.get(..rest.len() - after.len()).and_then(|read| read.chars().next_back()).unwrap_or(c);
        rest = after;
    }
    found
}

/// A number at the start of `text`, and what follows it.
fn number(text: &str, before: char) -> Option<(f64, &str)> {
    // In `5-3` and `item-3` the sign is a stroke between two things.
    let minus = text.strip_prefix(['-', '\u{2212}']).filter(|_| !before.is_alphanumeric() && before != ')');
    let unsigned = minus.map_or(text, |rest| rest.strip_prefix(['$', '\u{20ac}', '\u{a3}']).unwrap_or(rest));
    let (size, rest) = plain(unsigned).filter(|_| before != '.' || !unsigned.starts_with('.'))?;
    let divided = rest.strip_prefix('/').and_then(plain).map(|(by, after)| (size / by, after));
    let (size, rest) = divided.filter(|(x, _)| x.is_finite()).unwrap_or((size, rest));
    let (size, rest) = tens(rest).map_or((size, rest), |(factor, after)| (size * factor, after));
    size.is_finite().then_some((if minus.is_some() { -size } else { size }, rest))
}

/// Digits with thousands commas, a fraction and an exponent.
fn plain(text: &str) -> Option<(f64, &str)> {
    let mut clean = String::new();
    let mut rest = take(text, &mut clean);
    while let Some(after) = rest.strip_prefix(',').filter(|after| !clean.is_empty() && digits(after) == 3) {
        rest = take(after, &mut clean);
    }
    if let Some(after) = rest.strip_prefix('.').filter(|after| digits(after) > 0) {
        clean.push('.');
        rest = take(after, &mut clean);
    }
    if clean.is_empty() {
        return None;
    }
    if let Some(after) = rest.strip_prefix(['e', 'E']) {
        let power = after.strip_prefix(['+', '-']).unwrap_or(after);
        if (1..=3).contains(&digits(power)) {
            clean.push_str(if after.starts_with('-') { "e-" } else { "e" });
            rest = take(power, &mut clean);
        }
    }
    Some((clean.parse().ok()?, rest))
}

/// ` x 10^3`, as a factor.
fn tens(text: &str) -> Option<(f64, &str)> {
    let sign = text.trim_start_matches(' ').strip_prefix(['x', '*', '\u{d7}', '\u{b7}'])?;
    let power = sign.trim_start_matches(' ').strip_prefix("10^")?;
    let bare = power.strip_prefix('{').unwrap_or(power);
    let size = bare.strip_prefix(['-', '\u{2212}']).unwrap_or(bare);
    let mut clean = String::new();
    let rest = take(size, &mut clean);
    let exponent: i32 = clean.parse().ok().filter(|n| (0..=300).contains(n))?;
    let signed = if size.len() < bare.len() { -exponent } else { exponent };
    Some((10_f64.powi(signed), rest.strip_prefix('}').unwrap_or(rest)))
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Moves the leading digits into `clean`.
fn take<'a>(text: &'a str, clean: &mut String) -> &'a str {
    let (taken, rest) = text.split_at(digits(text));
    clean.push_str(taken);
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_meant() {
        for (text, want) in [
            ("x=1,y=2", vec![1.0, 2.0]),
            ("1,234 and 1,2", vec![1234.0, 1.0, 2.0]),
            ("5-3", vec![5.0, 3.0]),
            ("from -3 to .5", vec![-3.0, 0.5]),
            ("3/0", vec![3.0, 0.0]),
            ("60 km/h", vec![60.0]),
            ("2e-3 and 2eggs", vec![0.002, 2.0]),
            ("5 * 10^{-2}", vec![0.05]),
            ("a. b", vec![]),
        ] {
            assert_eq!(all(text), want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_number_is_lost(text in "\\PC{0,80}", n in 0_u32..100_000) {
            all(&text);
            prop_assert_eq!(all(&format!("{n} {text}")).first().copied(), Some(f64::from(n)));
        }
    }
}
