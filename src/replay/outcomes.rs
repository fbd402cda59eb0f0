//! Outcome tables: `NAME.jsonl.gz`, one query a line with one entry per model in its arrays, and `NAME.models.json` with the
//! order of those models.
//!
//! Any key but `id` and one of `ok` and `score` may be missing. A row may tell what was done live: `action` (`local` or `cloud`),
//! its `propensity`, and the `reward` it got. `mean_logprob`, `min_logprob` and `cut` (ended by its token limit) of the weak model's
//! answer are what a cascade checks. Pure but for [`Models::beside`].

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::arrays::{mean, most, number, pair, signed};
use super::case::{Arm, Case, Logged, hash, stem};
use crate::config::problem::did_you_mean;
use crate::store;
use crate::verify::{Evidence, Expected};

/// Characters of one token, where a log counts characters.
pub const CHARS_PER_TOKEN: f64 = 4.0;

/// Who answered, in the order of the arrays.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Models {
    /// What the table is of.
    #[serde(default)]
    pub dataset: String,
    /// Its licence.
    #[serde(default)]
    pub licence: String,
    /// The most that a `score` can be, if stated.
    #[serde(default, alias = "scale", alias = "max_score")]
    pub score_max: Option<f64>,
    /// The models.
    pub models: Vec<Model>,
}

/// One model of a table.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Model {
    /// Its name.
    pub id: String,
    /// All its parameters, billions; none where they are not public.
    #[serde(default)]
    pub params_b: Option<f64>,
    /// Those that a token passes through, billions.
    #[serde(default)]
    pub active_b: Option<f64>,
    /// `weak`, `mid` or `strong`, by whoever made the table.
    #[serde(default)]
    pub role: Option<String>,
    /// `local`, `open`, `cloud`.
    #[serde(default)]
    pub kind: Option<String>,
}

impl Models {
    /// The file that must lie beside a table.
    pub fn path(table: &Path) -> PathBuf {
        let name = table.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let bare = [".gz", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        let bare =
            [".jsonl", ".ndjson", ".json", ".parquet"].iter().find_map(|end| bare.strip_suffix(end)).unwrap_or(bare);
        table.with_file_name(format!("{bare}.models.json"))
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is missing, is not this format, or names no model or one twice.
    pub fn beside(table: &Path) -> Result<Self, String> {
        let path = Self::path(table);
        let file = path.display();
        let text = store::bytes(&path).map_err(|e| {
            format!("{e}; an outcome table needs this file beside it, with `models`: the order of its arrays")
        })?;
        let models: Self = serde_json::from_slice(&text).map_err(|e| format!("{file}:{}: {e}", e.line()))?;
        let twice = models.models.iter().enumerate().find(|(i, m)| models.models.iter().take(*i).any(|o| o.id == m.id));
        match twice {
            _ if models.models.is_empty() => Err(format!("{file}: `models` is empty")),
            Some((_, m)) => Err(format!("{file}: `{}` is listed twice", m.id)),
            None => Ok(models),
        }
    }

    /// The model that a name means: its id, its id without owner, or any part of it that only one has; case does not count.
    ///
    /// # Errors
    /// None or several have it: with the nearest, or with all that match.
    pub fn find(&self, wanted: &str) -> Result<usize, String> {
        let low = wanted.trim().to_lowercase();
        let tail = |id: &str| id.rsplit('/').next().unwrap_or(id).to_lowercase();
        let tests: [&dyn Fn(&str) -> bool; 4] =
            [&|id| id == wanted, &|id| id.to_lowercase() == low, &|id| tail(id) == low, &|id| {
                !low.is_empty() && id.to_lowercase().contains(&low)
            }];
        for test in tests {
            let found: Vec<usize> = (0..).zip(&self.models).filter(|(_, m)| test(&m.id)).map(|(i, _)| i).collect();
            match found.as_slice() {
                [] => {}
                [one] => return Ok(*one),
                many => {
                    let names: Vec<&str> =
                        many.iter().filter_map(|i| self.models.get(*i)).map(|m| m.id.as_str()).collect();
                    return Err(format!("`{wanted}` is ambiguous: {}", names.join(", ")));
                }
            }
        }
        let names: Vec<String> = self.models.iter().flat_map(|m| [m.id.clone(), tail(&m.id)]).collect();
        let near = did_you_mean(&low, names.iter().map(String::as_str));
        let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        let all: Vec<&str> = self.models.iter().map(|m| m.id.as_str()).collect();
        Err(format!("the log has no model `{wanted}`{near}\nmodels in it: {}", all.join(", ")))
    }
}

/// Which two models of a table are compared.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Columns {
    /// Index of the weak one.
    pub weak: usize,
    /// Index of the strong one.
    pub strong: usize,
    /// Models in all.
    pub models: usize,
    /// Keep the text of the prompt.
    pub text: bool,
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    domain: Option<Cow<'a, str>>,
    #[serde(default)]
    prompt: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    options: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ok: Option<&'a RawValue>,
    #[serde(borrow, default)]
    score: Option<&'a RawValue>,
    #[serde(borrow, default)]
    out_chars: Option<&'a RawValue>,
    #[serde(borrow, default)]
    out_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    in_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cost_usd: Option<&'a RawValue>,
    #[serde(borrow, default)]
    latency_ms: Option<&'a RawValue>,
    #[serde(default)]
    arrival_ms: Option<f64>,
    #[serde(borrow, default)]
    mean_logprob: Option<&'a RawValue>,
    #[serde(borrow, default)]
    min_logprob: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cut: Option<&'a RawValue>,
    #[serde(default)]
    action: Option<Cow<'a, str>>,
    #[serde(default)]
    propensity: Option<f64>,
    #[serde(default)]
    reward: Option<f64>,
}

/// A row, and whether its labels are grades and its lengths were counted in characters.
pub struct Read {
    /// The query.
    pub case: Case,
    /// `score` instead of `ok`.
    pub graded: bool,
    /// Tokens are characters over four.
    pub by_chars: bool,
    /// The largest score of any model in this row.
    pub top: f64,
    /// Mean label over all models of this row, where text is kept.
    pub ease: Option<f64>,
}

/// Reads one line.
///
/// # Errors
/// What is wrong with it, for people.
pub fn read(line: u64, bytes: &[u8], columns: Columns) -> Result<Read, String> {
    let row: Row<'_> = serde_json::from_slice(bytes).map_err(|e| format!("is not a row of an outcome table: {e}"))?;
    let id = match row.id.map(RawValue::get) {
        Some(raw) => serde_json::from_str::<String>(raw).unwrap_or_else(|_| raw.to_owned()),
        None => return Err("has no `id`".to_owned()),
    };
    let both = |raw: Option<&RawValue>, key: &str| -> Result<[Option<f64>; 2], String> {
        raw.map_or(Ok([None, None]), |raw| pair(raw.get(), key, columns))
    };
    let (graded, labels) = labels(&row, both)?;
    let (chars, tokens) = (both(row.out_chars, "out_chars")?, both(row.out_tokens, "out_tokens")?);
    let by_chars = |[w, s]: [Option<f64>; 2]| [w, s].map(|c| c.map(|c| c / CHARS_PER_TOKEN));
    let ([cw, cs], [tw, ts]) = (by_chars(chars), tokens);
    let ([uw, us], [lw, ls]) = (both(row.cost_usd, "cost_usd")?, both(row.latency_ms, "latency_ms")?);
    let prompt = row.prompt.as_deref().unwrap_or_default();
    let arm = |ok, output_tokens, usd, ms: Option<f64>| Arm { ok, output_tokens, usd, seconds: ms.map(|x| x / 1e3) };
    let [a, b] = labels;
    let case = Case {
        line,
        domain: row.domain.as_deref().unwrap_or_default().into(),
        domain_index: 0,
        stem: if prompt.is_empty() { hash(&id) } else { stem(prompt) },
        id: id.into(),
        text: columns.text.then(|| with_options(prompt, row.options)),
        input_tokens: input_tokens(&row, prompt, columns)?,
        arrival_s: row.arrival_ms.map(|ms| ms / 1e3),
        weak: arm(a, tw.or(cw), uw, lw),
        strong: arm(b, ts.or(cs), us, ls),
        expected: None,
        evidence: evidence(&row, tw, columns)?,
        logged: Logged::read(row.action.as_deref(), row.propensity, row.reward)?,
    };
    let top = if graded { row.score.map_or(0.0, |raw| most(raw.get())) } else { 1.0 };
    let ease = if columns.text { row.ok.or(row.score).and_then(|raw| mean(raw.get())) } else { None };
    Ok(Read { case, graded, ease, by_chars: row.out_tokens.is_none() && row.out_chars.is_some(), top })
}

/// What the weak model's answer shows of itself; none without its log-probabilities and its length.
fn evidence(row: &Row<'_>, tokens: Option<f64>, columns: Columns) -> Result<Option<Evidence>, String> {
    let weak = |raw: Option<&RawValue>, key: &str| -> Result<Option<f64>, String> {
        let [weak, _] = raw.map_or(Ok([None, None]), |raw| signed(raw.get(), key, columns))?;
        Ok(weak)
    };
    let (mean, least) = (weak(row.mean_logprob, "mean_logprob")?, weak(row.min_logprob, "min_logprob")?);
    let [cut, _] = row.cut.map_or(Ok([None, None]), |raw| pair(raw.get(), "cut", columns))?;
    Ok(mean.zip(least).zip(tokens).map(|((mean, least), tokens)| Evidence {
        // What was expected is the decision's to say.
        expected: Expected { prior: 0.5, tokens: 1.0, prompt: 1.0 },
        tokens: tokens.min(f64::from(u32::MAX)) as u32,
        whole: true,
        mean_logprob: Some(mean),
        min_logprob: Some(least),
        cut: cut.is_some_and(|cut| cut > 0.0),
        empty: tokens < 1.0,
        refuses: false,
        loops: false,
        stated: None,
    }))
}

/// Whether labels are grades, and both of them.
fn labels<'a>(
    row: &Row<'a>,
    both: impl Fn(Option<&'a RawValue>, &str) -> Result<[Option<f64>; 2], String>,
) -> Result<(bool, [Option<f64>; 2]), String> {
    match (row.ok, row.score) {
        (None, None) => Err("has neither `ok` nor `score`".to_owned()),
        (None, score) => Ok((true, both(score, "score")?)),
        (ok, _) => {
            let labels = both(ok, "ok")?;
            let fine = labels.iter().flatten().all(|x| (0.0..=1.0).contains(x));
            if fine { Ok((false, labels)) } else { Err("`ok` is not 0, 1 or null".to_owned()) }
        }
    }
}

fn input_tokens(row: &Row<'_>, prompt: &str, columns: Columns) -> Result<f64, String> {
    let counted = match row.in_tokens.map(RawValue::get) {
        Some(raw) if raw.starts_with('[') => pair(raw, "in_tokens", columns)?.into_iter().flatten().next(),
        Some(raw) => number(raw).map_err(|what| format!("`in_tokens` is {what}"))?,
        None => None,
    };
    let written = prompt.len() + row.options.map_or(0, |o| o.get().len());
    Ok(counted.unwrap_or(written as f64 / CHARS_PER_TOKEN))
}

fn with_options(prompt: &str, options: Option<&RawValue>) -> Box<str> {
    let options: Vec<String> = options.and_then(|o| serde_json::from_str(o.get()).ok()).unwrap_or_default();
    let mut text = prompt.to_owned();
    for (letter, option) in ('A'..='Z').zip(&options) {
        text.push_str(&format!("\n{letter}. {option}"));
    }
    text.into()
}
