//! A user's labelled rows: JSONL with a text and a label per row, plain or gzipped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::topics::{FOLDS, Sample};
use crate::classify::taxonomy::Taxonomy;

/// A longer line is no prompt.
const LINE_BYTES: u64 = 64 << 20;
/// Errors told before reading stops.
const MOST_TOLD: usize = 10;
/// With fewer rows than this nothing can be measured on what is held out.
const FEWEST_ROWS: usize = 20;
/// Letters and digits of a text's beginning that say on which side it is: near-identical texts stay together.
const STEM_CHARS: usize = 80;

/// Which fields of a row mean what.
#[derive(Clone, Debug)]
pub struct Fields {
    /// The text.
    pub text: String,
    /// The label.
    pub label: String,
    /// Where it comes from, where rows say so.
    pub source: Option<String>,
}

/// Labelled texts on their sides.
#[derive(Default)]
pub struct Sides {
    /// Fitted on.
    pub train: Vec<Sample>,
    /// Temperature and threshold are set on it, where there is enough.
    pub dev: Vec<Sample>,
    /// Only measured, as asked without answer options.
    pub test: Vec<Sample>,
    /// The same with answer options, where rows have any.
    pub test_options: Vec<Sample>,
    /// Rows whose text has nothing to go on; left out.
    pub empty: usize,
}

/// Reads rows. All that is wrong with the first rows is told together, each with its place.
///
/// Rows may say `split` (train, dev or test); without it one in five is test, by a hash of the beginning of its text. Rows may
/// have `options`, a list of answers; such a row is trained on with and without them.
pub fn read(path: &Path, taxonomy: &Taxonomy, fields: &Fields) -> Result<Sides, String> {
    let shown = path.display().to_string();
    let file = File::open(path).map_err(|e| format!("{shown}: {e}"))?;
    let source: Box<dyn Read> =
        if path.extension().is_some_and(|e| e == "gz") { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
    let mut reader = BufReader::new(source);
    let (mut sides, mut told, mut number, mut rows) = (Sides::default(), Vec::new(), 0usize, 0usize);
    let mut line = Vec::new();
    while told.len() < MOST_TOLD {
        line.clear();
        let got = (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line).map_err(|e| format!("{shown}: {e}"))?;
        if got == 0 {
            break;
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        rows += 1;
        if let Err(why) = row(&line, taxonomy, fields).and_then(|row| place(row, &mut sides)) {
            told.push(format!("{shown}:{number}: {why}"));
        }
    }
    if !told.is_empty() {
        return Err(told.join("\n"));
    }
    if rows < FEWEST_ROWS {
        return Err(format!("{shown}: {rows} rows; at least {FEWEST_ROWS} are needed, a few hundred are enough"));
    }
    Ok(sides)
}

struct Labelled {
    text: String,
    options: Vec<String>,
    label: usize,
    split: Option<String>,
    source: u64,
}

fn row(line: &[u8], taxonomy: &Taxonomy, fields: &Fields) -> Result<Labelled, String> {
    let value: Value = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let Value::Object(mut all) = value else { return Err("not a JSON object".into()) };
    let mut string = |field: &str| match all.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("field `{field}` is not a string")),
        None => Err(format!("no field `{field}`")),
    };
    let (text, label) = (string(&fields.text)?, string(&fields.label)?);
    let split = if all.contains_key("split") {
        Some(match all.remove("split") {
            Some(Value::String(split)) => split,
            _ => return Err("field `split` is not a string".into()),
        })
    } else {
        None
    };
    let options = match all.remove("options") {
        Some(Value::Array(list)) => list.iter().filter_map(|o| o.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    let source = fields.source.as_ref().and_then(|field| all.get(field)).and_then(Value::as_str).map_or(0, hashed);
    Ok(Labelled { text, options, label: taxonomy.label(&label)?, split, source })
}

fn hashed(text: &str) -> u64 {
    u64::from_le_bytes(blake3::hash(text.as_bytes()).as_bytes().first_chunk().copied().unwrap_or_default())
}

fn place(row: Labelled, sides: &mut Sides) -> Result<(), String> {
    if crate::classify::features::scan(&row.text, |_, _| ()).is_void() {
        sides.empty += 1;
        return Ok(());
    }
    let stem: String =
        row.text.chars().filter(|c| c.is_alphanumeric()).take(STEM_CHARS).flat_map(char::to_lowercase).collect();
    let hash = blake3::hash(stem.as_bytes());
    let [first, second] = hash.as_bytes().first_chunk::<2>().copied().unwrap_or_default();
    let (label, source, fold) = (row.label, row.source, usize::from(second) % FOLDS);
    let sample = |text: String, weight: f32| Sample { text, label, weight, fold, source };
    let mut full = row.text.clone();
    for (letter, option) in ('A'..='Z').zip(&row.options) {
        full.push_str(&format!("\n{letter}. {option}"));
    }
    let both = !row.options.is_empty();
    let side = match (row.split.as_deref(), first % 5) {
        (Some("train"), _) | (None, 1..) => &mut sides.train,
        (Some("dev"), _) => &mut sides.dev,
        (Some("test"), _) | (None, 0) => {
            sides.test.push(sample(row.text, 1.0));
            if both {
                sides.test_options.push(sample(full, 1.0));
            }
            return Ok(());
        }
        (Some(other), _) => return Err(format!("unknown split `{other}`: train, dev or test")),
    };
    let weight = if both { 0.5 } else { 1.0 };
    side.push(sample(row.text, weight));
    if both {
        side.push(sample(full, weight));
    }
    Ok(())
}

/// Rows per label, for telling which are thin.
pub fn counts(samples: &[Sample]) -> BTreeMap<usize, usize> {
    let mut all = BTreeMap::new();
    for sample in samples {
        *all.entry(sample.label).or_insert(0) += 1;
    }
    all
}
