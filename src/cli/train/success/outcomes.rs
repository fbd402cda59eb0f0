//! Outcomes from published tables and from profile records, as `train success` takes them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::SuccessArgs;
use crate::classify::Classifier;
use crate::predict::success::make::Outcome;
use crate::profile::pick;
use crate::profile::record;

/// Characters of a token, where a table has only characters.
const CHARS_PER_TOKEN: f64 = 4.0;
/// Longest file that is taken, unpacked.
const MOST_BYTES: u64 = 2 << 30;

/// What was gathered.
pub struct Gathered {
    /// Names in the order of each outcome's figures.
    pub models: Vec<String>,
    /// One per query.
    pub rows: Vec<Outcome>,
    /// Files with their hashes.
    pub sources: Value,
}

#[derive(Deserialize)]
struct Models {
    models: Vec<Model>,
    /// The most that a `score` can be, if stated.
    #[serde(default, alias = "scale", alias = "max_score")]
    score_max: Option<f64>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// A row of a table; other fields are for other uses.
#[derive(Deserialize)]
struct Row {
    prompt: String,
    #[serde(default)]
    options: Option<Vec<String>>,
    #[serde(default)]
    ok: Vec<Option<f64>>,
    #[serde(default)]
    score: Vec<Option<f64>>,
    #[serde(default)]
    out_chars: Vec<Option<f64>>,
    #[serde(default)]
    out_tokens: Vec<Option<f64>>,
}

/// By prompt: figures by model.
#[derive(Default)]
struct Table {
    names: Vec<String>,
    rows: BTreeMap<String, BTreeMap<String, Answer>>,
}

/// What is known of one model's answer to a prompt: its grade, and how many tokens it had.
type Answer = (Option<f64>, Option<f64>);

/// Gathers everything that the arguments name.
///
/// # Errors
/// A file that cannot be read or is no table, or a model that no file has.
pub fn gather(args: &SuccessArgs) -> Result<Gathered, String> {
    let mut table = Table::default();
    let mut sources = Vec::new();
    for path in &args.outcomes {
        published(path, &mut table)?;
        sources.push(source(path)?);
    }
    for path in &args.records {
        recorded(path, &args.suite, &mut table)?;
        sources.push(source(path)?);
    }
    let models = wanted(&args.models, &table.names)?;
    let classifier = Classifier::shipped();
    let rows = table.rows.into_iter().filter_map(|(text, mut by_model)| {
        let figures: Vec<_> = models.iter().map(|m| by_model.remove(m).unwrap_or_default()).collect();
        let any = figures.iter().any(|f| f.0.is_some());
        any.then(|| Outcome { posterior: classifier.posterior(&text), text, models: figures })
    });
    Ok(Gathered { rows: rows.collect(), models, sources: Value::Array(sources) })
}

fn source(path: &Path) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    Ok(json!({ "file": name, "blake3": blake3::hash(&bytes).to_hex().as_str() }))
}

/// The models asked for, by name with or without owner; all of them if none is.
fn wanted(asked: &[String], known: &[String]) -> Result<Vec<String>, String> {
    if asked.is_empty() {
        return Ok(known.to_vec());
    }
    let short = |name: &str| name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let find = |name: &String| {
        let found = known.iter().find(|k| short(k) == short(name)).cloned();
        found.ok_or_else(|| format!("no outcomes of {name}; there are those of {}", known.join(", ")))
    };
    asked.iter().map(find).collect()
}

fn published(path: &Path, table: &mut Table) -> Result<(), String> {
    let beside = models_file(path)?;
    let text = std::fs::read_to_string(&beside).map_err(|e| format!("{}: {e}", beside.display()))?;
    let models: Models = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", beside.display()))?;
    let names: Vec<String> = models.models.into_iter().map(|m| m.id).collect();
    for name in &names {
        table.know(name);
    }
    let (mut rows, mut top, mut graded) = (Vec::new(), 0.0f64, 0);
    for (number, line) in reader(path)?.lines().enumerate() {
        let at = |e: &dyn std::fmt::Display| format!("{}:{}: {e}", path.display(), number + 1);
        let line = line.map_err(|e| at(&e))?;
        if line.trim().is_empty() {
            continue;
        }
        let row: Row = serde_json::from_str(&line).map_err(|e| at(&e))?;
        let labels = if row.ok.is_empty() { &row.score } else { &row.ok };
        if labels.len() != names.len() {
            return Err(at(&format!("has {} outcomes for {} models", labels.len(), names.len())));
        }
        graded += usize::from(row.ok.is_empty());
        top = labels.iter().flatten().fold(top, |top, score| top.max(*score));
        rows.push(row);
    }
    if graded > 0 && graded < rows.len() {
        let right = rows.len() - graded;
        return Err(format!(
            "{}: {right} rows have `ok` and {graded} have `score`: one table, one kind",
            path.display()
        ));
    }
    let full = if graded > 0 { models.score_max.unwrap_or(top).max(f64::MIN_POSITIVE) } else { 1.0 };
    for row in rows {
        let tokens = |i: usize| {
            let chars = row.out_chars.get(i).copied().flatten().map(|c| c / CHARS_PER_TOKEN);
            row.out_tokens.get(i).copied().flatten().or(chars)
        };
        let figures = table.rows.entry(with_options(&row)).or_default();
        let labels = if row.ok.is_empty() { &row.score } else { &row.ok };
        for (i, (name, label)) in names.iter().zip(labels).enumerate() {
            figures.insert(name.clone(), (label.map(|l| l / full), tokens(i)));
        }
    }
    Ok(())
}

impl Table {
    fn know(&mut self, name: &str) {
        if !self.names.iter().any(|n| n == name) {
            self.names.push(name.to_owned());
        }
    }
}

/// NAME.models.json beside NAME.jsonl or NAME.jsonl.gz.
fn models_file(path: &Path) -> Result<PathBuf, String> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".gz").unwrap_or(&name).strip_suffix(".jsonl");
    let stem = stem.ok_or_else(|| format!("{}: must end in .jsonl or .jsonl.gz", path.display()))?;
    Ok(path.with_file_name(format!("{stem}.models.json")))
}

fn reader(path: &Path) -> Result<Box<dyn BufRead>, String> {
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if path.extension().is_some_and(|e| e == "gz") {
        return Ok(Box::new(BufReader::new(flate2::read::GzDecoder::new(file).take(MOST_BYTES))));
    }
    Ok(Box::new(BufReader::new(file.take(MOST_BYTES))))
}

fn with_options(row: &Row) -> String {
    let mut text = row.prompt.clone();
    for (letter, option) in ('A'..='Z').zip(row.options.iter().flatten()) {
        text.push_str(&format!("\n{letter}. {option}"));
    }
    text
}

/// Graded answers; their prompts are in the suites, by the hash that a run names.
fn recorded(path: &Path, suites: &[String], table: &mut Table) -> Result<(), String> {
    let file = record::read(path)?;
    let model = file.runs.first().map(|r| r.model.clone()).unwrap_or_default();
    if model.is_empty() {
        return Err(format!("{}: no run names its model", path.display()));
    }
    table.know(&model);
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for suite in file.runs.iter().flat_map(|r| &r.suites) {
        names.insert(&suite.hash, &suite.name);
    }
    let mut texts: BTreeMap<(String, String), String> = BTreeMap::new();
    let shipped: Vec<String> = names.values().map(|n| (*n).to_owned()).collect();
    let chosen = if suites.is_empty() { &shipped } else { suites };
    for name in chosen {
        let suite = pick::open(name)?;
        for q in &suite.questions {
            texts.insert((suite.hash.to_string(), q.id.clone()), q.text());
        }
    }
    let mut found = 0;
    for r in &file.answers {
        let Some(text) = texts.get(&(r.suite.clone(), r.id.clone())) else { continue };
        let quality = r.correct.map(|c| f64::from(u8::from(c))).or(r.judged);
        let tokens = r.tokens_out.map(f64::from);
        table.rows.entry(text.clone()).or_default().insert(model.clone(), (quality, tokens));
        found += 1;
    }
    if found == 0 {
        return Err(format!(
            "{}: none of its {} answers is to a question of {}; give the suites with --suite",
            path.display(),
            file.answers.len(),
            chosen.join(", ")
        ));
    }
    Ok(())
}
