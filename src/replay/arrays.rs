//! Arrays of an outcome table's row: one entry per model, of which two are wanted. Pure.

use super::outcomes::Columns;

/// The entries of two models in an array of numbers from 0 up and nulls.
///
/// # Errors
/// It is no array, has an entry too many or too few, or one of the two is no such number.
pub fn pair(raw: &str, key: &str, columns: Columns) -> Result<[Option<f64>; 2], String> {
    two(raw, key, columns, &number)
}

/// The same of an array of any numbers: logarithms.
///
/// # Errors
/// As [`pair`].
pub fn signed(raw: &str, key: &str, columns: Columns) -> Result<[Option<f64>; 2], String> {
    two(raw, key, columns, &|text| match text {
        "null" => Ok(None),
        other => match other.parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(Some(x)),
            _ => Err(format!("{other}, not a number or null")),
        },
    })
}

fn two(
    raw: &str,
    key: &str,
    columns: Columns,
    read: &dyn Fn(&str) -> Result<Option<f64>, String>,
) -> Result<[Option<f64>; 2], String> {
    let inside = raw.strip_prefix('[').and_then(|r| r.strip_suffix(']'));
    let Some(inside) = inside else { return Err(format!("`{key}` is not an array with one entry per model")) };
    let (mut out, mut n) = ([None, None], 0);
    for part in inside.as_bytes().split(|byte| *byte == b',') {
        for (cell, wanted) in out.iter_mut().zip([columns.weak, columns.strong]) {
            if n == wanted {
                let text = str::from_utf8(part).unwrap_or_default();
                *cell = read(text.trim()).map_err(|what| format!("`{key}`[{n}] is {what}"))?;
            }
        }
        n += 1;
    }
    if n != columns.models {
        return Err(format!("`{key}` has {n} entries, the models file lists {}", columns.models));
    }
    Ok(out)
}

/// A number from 0 up, or a label.
///
/// # Errors
/// It is neither, nor null.
pub fn number(text: &str) -> Result<Option<f64>, String> {
    match text {
        "null" => Ok(None),
        "true" => Ok(Some(1.0)),
        "false" => Ok(Some(0.0)),
        other => match other.parse::<f64>() {
            Ok(x) if x.is_finite() && x >= 0.0 => Ok(Some(x)),
            _ => Err(format!("{other}, not a number from 0 up or null")),
        },
    }
}

/// Mean of the numbers of an array; none where it has none.
pub fn mean(raw: &str) -> Option<f64> {
    let known = raw.trim_matches(['[', ']']).split(',').filter_map(|p| number(p.trim()).ok().flatten());
    let (n, sum) = known.fold((0.0, 0.0), |(n, sum), x| (n + 1.0, sum + x));
    (n > 0.0).then(|| sum / n)
}

/// The largest of them; 0 where there is none.
pub fn most(raw: &str) -> f64 {
    let parts = raw.trim_matches(['[', ']']).split(',');
    parts.filter_map(|p| p.trim().parse::<f64>().ok()).fold(0.0, f64::max)
}
