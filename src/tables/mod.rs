//! Intelligence-per-watt and coverage tables: what was measured for one (model, device, runtime, attention).
//!
//! Invariants: a loaded table has passed [`check`]; unknown figures are null, never 0. Off the request path: `predict`
//! prepares what a query needs from a table once.

mod check;
mod shipped;
pub mod show;
pub mod stats;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::check::check_text;
pub use self::shipped::{names, shipped, texts};
use self::stats::Shrunk;
use crate::classify::domain::Domain;
use crate::config::problem::{Problem, Problems, did_you_mean};
use crate::energy::Basis;

/// Version of the schema that this program reads and writes.
pub const SCHEMA: u32 = 1;

/// One measured table. Files under `eval/tables/` are this, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Version of this schema; 1.
    pub schema: u32,
    /// Model name as people write it, `SmolLM2-135M-Instruct`.
    pub model: String,
    /// What it ran on, `2 cores of an AMD EPYC` or `8x H100`.
    pub device: String,
    /// `wattroute embedded`, `llama.cpp`, `vLLM`, `provider`.
    pub runtime: String,
    /// `softmax` or the settings of local linear attention.
    pub attention: String,
    /// Where the joule figures come from.
    pub basis: Basis,
    /// Who made it, when, with which command, from which data, and what is known to be wrong with it.
    pub provenance: Provenance,
    /// Energy and speed per token, over all domains.
    pub tokens: TokenCosts,
    /// Over all scored queries.
    pub overall: Row,
    /// Per domain.
    pub domains: BTreeMap<Domain, Row>,
}

/// Whether `n` and `correct` were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counts {
    /// Every query was counted.
    #[default]
    Exact,
    /// The source prints shares without counts: `n` is a stated, conservative number and `correct` follows from it.
    Nominal,
}

/// How a table came to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Paper with table number, or our own profiler.
    pub source: String,
    /// Date, ISO 8601.
    pub date: String,
    /// Command that reproduces it, if there is one.
    pub command: Option<String>,
    /// Question sets, with licence.
    pub suites: Vec<String>,
    /// Licence of the figures.
    pub licence: String,
    /// Whether the counts of the rows are real.
    #[serde(default)]
    pub counts: Counts,
    /// Known inconsistencies and limits, in words.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Energy and speed per token. Unknown is null, never 0.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCosts {
    /// J per prompt token.
    pub joules_per_input_token: Option<f64>,
    /// J per generated token.
    pub joules_per_output_token: Option<f64>,
    /// Relative uncertainty of the two figures above, 0.3 = plus or minus 30 %.
    pub relative_uncertainty: Option<f64>,
    /// Seconds to the first token.
    pub ttft_s: Option<f64>,
    /// Prompt tokens per second.
    pub input_tokens_per_s: Option<f64>,
    /// Generated tokens per second.
    pub output_tokens_per_s: Option<f64>,
    /// Mean watts while answering.
    pub watts: Option<f64>,
}

/// One domain's figures, or the overall ones.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Scored queries.
    pub n: u32,
    /// Answered correctly. A published share without counts is rounded to `n` and noted in the provenance.
    pub correct: u32,
    /// Share correct, `correct / n`.
    pub coverage: f64,
    /// Wilson interval of the coverage at 95 %.
    pub coverage_low: f64,
    /// Upper end of it.
    pub coverage_high: f64,
    /// Coverage of the baseline on the same queries, if it was run.
    pub baseline_coverage: Option<f64>,
    /// Baseline minus this model: what a switch to the baseline would gain.
    pub gain: Option<f64>,
    /// E\[acc\] / E\[W\], in 1/W.
    pub ipw: Option<f64>,
    /// E\[acc\] / E\[J\], in 1/J.
    pub ipj: Option<f64>,
    /// Mean J per query.
    pub joules_per_query: Option<f64>,
    /// Mean seconds per query.
    pub seconds_per_query: Option<f64>,
    /// Mean generated tokens.
    pub output_tokens: Option<f64>,
}

impl Table {
    /// Coverage of every domain, shrunk.
    pub fn shrunk(&self) -> Shrunk {
        Shrunk::of(&self.overall, self.domains.iter().map(|(d, r)| (*d, r)))
    }
}

/// Reads and checks a table file.
///
/// # Errors
/// Every problem found, with row and key.
pub fn load(path: &Path) -> Result<Table, Problems> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Problem::new("", format!("cannot be read: {}", e.kind())).file(name.clone()))?;
    read(&text, &name)
}

/// Every problem of a table file; empty for a good one.
pub fn check(path: &Path) -> Vec<Problem> {
    load(path).err().map(|p| p.0).unwrap_or_default()
}

/// The table that a backend's configuration means: a file, the name of a shipped table, or, with neither, the shipped
/// one of the same model if there is one.
///
/// # Errors
/// A file with problems, or a name that is not shipped.
pub fn find(named: Option<&Path>, model: &str) -> Result<Option<Arc<Table>>, Problems> {
    let Some(path) = named else { return Ok(shipped(model)) };
    let text = path.to_string_lossy();
    if text.contains(['/', '\\']) || text.ends_with(".json") {
        return load(path).map(|t| Some(Arc::new(t)));
    }
    match shipped(&text) {
        Some(table) => Ok(Some(table)),
        None => {
            let near = did_you_mean(&text, names()).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            Err(Problem::new("table", format!("no shipped table of that name{near}")).into())
        }
    }
}

fn read(text: &str, file: &str) -> Result<Table, Problems> {
    let problems = check_text(text, file);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    serde_json::from_str(text).map_err(|e| Problem::new("", format!("cannot be read: {e}")).file(file).into())
}
