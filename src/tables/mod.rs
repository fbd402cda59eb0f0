//! Intelligence-per-watt and coverage tables: what was measured for one (model, device, runtime, attention).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::classify::domain::Domain;
use crate::energy::Basis;

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

/// How a table came to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
