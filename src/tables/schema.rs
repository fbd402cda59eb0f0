//! What a table file holds: every key with its unit.
//!
//! Invariant: unknown is null or left out, never 0. Keys that came after the first version have defaults, so that older
//! files load; `check` knows every key of this file (a test keeps the two equal).

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
    /// The machine's and the run's settings.
    #[serde(default, skip_serializing_if = "Setup::is_empty")]
    pub setup: Setup,
    /// Energy and speed per token, over all domains.
    pub tokens: TokenCosts,
    /// Over all scored queries.
    pub overall: Row,
    /// Per domain.
    pub domains: BTreeMap<Domain, Row>,
    /// Energy and speed by how many queries ran at a time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub concurrency: BTreeMap<u32, Level>,
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

/// Settings that make two measurements comparable or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Setup {
    /// Version of the accelerator's driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Enforced power limit, W.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_cap_w: Option<f64>,
    /// Version of the runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_version: Option<String>,
    /// Hash of each suite's file. Which of its questions were asked is in `questions`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suite_hashes: Vec<String>,
    /// Hash of the ids of the questions that were asked: two tables with the same one are of the same questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<String>,
    /// Watts of the idle machine that net joules leave out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_w: Option<f64>,
    /// How often each question was asked; above 1, a row's `n` still counts questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u32>,
    /// Whose answers `baseline_coverage` is of: the model, and its device where a table was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
}

impl Setup {
    /// Nothing is stated.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Energy and speed per token. Unknown is null, never 0.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCosts {
    /// J per prompt token.
    pub joules_per_input_token: Option<f64>,
    /// J per generated token.
    pub joules_per_output_token: Option<f64>,
    /// Relative uncertainty of the two figures above, 0.3 = plus or minus 30 %: what the meter and its model may be wrong by.
    pub relative_uncertainty: Option<f64>,
    /// Seconds to the first token.
    pub ttft_s: Option<f64>,
    /// Prompt tokens per second.
    pub input_tokens_per_s: Option<f64>,
    /// Generated tokens per second.
    pub output_tokens_per_s: Option<f64>,
    /// Mean watts while answering.
    pub watts: Option<f64>,
    /// 95 % interval of the prompt figure by the spread of the queries alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_interval: Option<[f64; 2]>,
    /// The same of the answer figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_interval: Option<[f64; 2]>,
    /// `regression` of joules on tokens in and out, or `phases`: joules before and after the first token by their tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Why the regression was refused, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Share of the joules' variation about zero that the regression explains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
}

/// One domain's figures, or the overall ones. Joules are gross (idle power included) unless they say net.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Coverage pulled towards the overall share as far as the row is thin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrunk: Option<f64>,
    /// Its interval at 95 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrunk_interval: Option<[f64; 2]>,
    /// Interval of the gain at 95 %: paired where both answered the same questions, else Newcombe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain_interval: Option<[f64; 2]>,
    /// Interval of the IPW at 95 %, by the spread of the queries alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipw_interval: Option<[f64; 2]>,
    /// Interval of the IPJ at 95 %, by the spread of the queries alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipj_interval: Option<[f64; 2]>,
    /// Interval of the mean J per query at 95 %, by the spread of the queries alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_interval: Option<[f64; 2]>,
    /// Mean J per query without the idle machine's watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_joules_per_query: Option<f64>,
    /// J spent for one correct answer: all joules over all correct answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_per_correct: Option<f64>,
    /// Mean J before the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_joules: Option<f64>,
    /// Mean J after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_joules: Option<f64>,
    /// Mean seconds before the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_s: Option<f64>,
    /// Mean seconds after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_s: Option<f64>,
    /// Median seconds to the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_p50_s: Option<f64>,
    /// Its 95th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_p95_s: Option<f64>,
    /// Median seconds between two tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_p50_s: Option<f64>,
    /// Its 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_p99_s: Option<f64>,
    /// Mean over the queries of each query's mean watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts: Option<f64>,
    /// Mean prompt tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<f64>,
    /// Spread of the generated tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_quantiles: Option<Quantiles>,
    /// Answers that nobody could grade; in no figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscored: Option<u32>,
    /// Scored queries whose joules are known, where these are not all: figures with joules are of them alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metered: Option<u32>,
    /// Questions without an answer; in no figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<u32>,
}

/// Quantiles of a length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantiles {
    /// 5 % are at most this.
    pub p5: f64,
    /// A quarter.
    pub p25: f64,
    /// Half.
    pub p50: f64,
    /// Three quarters.
    pub p75: f64,
    /// 95 %.
    pub p95: f64,
}

/// Energy and speed while so many queries ran at a time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Queries.
    pub n: u32,
    /// Mean J per query.
    pub joules_per_query: Option<f64>,
    /// Its interval at 95 %, by the spread of the queries alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_interval: Option<[f64; 2]>,
    /// All joules over all generated tokens.
    pub joules_per_output_token: Option<f64>,
    /// Mean seconds of one query.
    pub seconds_per_query: Option<f64>,
    /// Generated tokens per second of all queries together.
    pub output_tokens_per_s: Option<f64>,
    /// Median seconds to the first token.
    pub ttft_p50_s: Option<f64>,
}
