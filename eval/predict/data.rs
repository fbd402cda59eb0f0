//! Outcome tables: what was asked, and what two models made of it.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::GzDecoder;
use serde::Deserialize;
use wattroute::predict::quality::Both;

/// A pair of models on one table.
#[derive(Clone, Debug, Deserialize)]
pub struct Pair {
    /// Name of the table.
    pub table: String,
    /// The cheaper model.
    pub weak: String,
    /// The better one.
    pub strong: String,
}

/// One query with every model's outcome.
pub struct Row {
    /// The question alone.
    pub question: String,
    /// The question with its lettered options, as a client would send it.
    pub text: String,
    /// Coarse domain by the benchmark.
    pub domain: String,
    /// Fine topic by the benchmark.
    pub subject: String,
    /// Right (1) or wrong (0) by model; none where it did not answer.
    pub ok: Vec<Option<f64>>,
}

/// A table.
pub struct Table {
    /// Names of its models, in the order of the outcomes.
    pub models: Vec<String>,
    /// Its queries.
    pub rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Models {
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

#[derive(Deserialize)]
struct Line {
    prompt: String,
    options: Option<Vec<String>>,
    domain: Option<String>,
    subject: Option<String>,
    ok: Vec<Option<f64>>,
}

impl Table {
    /// Reads `NAME.jsonl.gz` and `NAME.models.json` of a folder; none where the table is not there.
    pub fn read(folder: &Path, name: &str) -> Result<Option<Self>, Box<dyn Error>> {
        let path = folder.join(format!("{name}.jsonl.gz"));
        if !path.exists() {
            return Ok(None);
        }
        let listed: Models = serde_json::from_slice(&fs::read(folder.join(format!("{name}.models.json")))?)?;
        let last = |id: &str| id.rsplit('/').next().unwrap_or(id).to_owned();
        let mut rows = Vec::new();
        for line in BufReader::new(GzDecoder::new(File::open(path)?)).lines() {
            rows.push(Row::of(serde_json::from_str(&line?)?));
        }
        Ok(Some(Self { models: listed.models.iter().map(|m| last(&m.id)).collect(), rows }))
    }

    /// The rows that both models answered, with their outcomes.
    pub fn pair(&self, pair: &Pair) -> Option<(Vec<&Row>, Vec<Both>)> {
        let place = |name: &str| self.models.iter().position(|m| m == name);
        let (weak, strong) = (place(&pair.weak)?, place(&pair.strong)?);
        let of = |row: &Row, at: usize| row.ok.get(at).copied().flatten();
        let both = |row| Some(Both { weak: of(row, weak)?, strong: of(row, strong)? });
        Some(self.rows.iter().filter_map(|row| Some((row, both(row)?))).unzip())
    }
}

impl Row {
    fn of(line: Line) -> Self {
        let mut text = line.prompt.clone();
        for (letter, option) in ('A'..).zip(line.options.iter().flatten()) {
            text.push_str(&format!("\n{letter}. {option}"));
        }
        Self {
            question: line.prompt,
            text,
            domain: line.domain.unwrap_or_default(),
            subject: line.subject.unwrap_or_default(),
            ok: line.ok,
        }
    }

    /// Share of the table's models that got it right.
    pub fn ease(&self) -> Option<f64> {
        let (sum, n) = self.ok.iter().flatten().fold((0.0, 0.0), |(s, n), v| (s + v, n + 1.0));
        (n > 0.0).then(|| sum / n)
    }
}
