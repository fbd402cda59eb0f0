//! The record file: JSON lines, only ever appended to, from which every figure of a table follows.
//!
//! A line is one of four, told by its `line` field (a line without one is an answer):
//! - `run`: a run began. Who was asked, on what, with which settings, which rails were read, watts of the idle machine.
//! - `answer`: one question was asked and has ended, well or badly: [`Record`]. The last line of a key (id, repeat, streams)
//!   counts; earlier ones are attempts that failed, kept because their joules were spent.
//! - `window`: a stretch of measuring ended: [`Window`]. Over it, per rail, the sum of the answers' `rails` of that stretch +
//!   `unattributed` + `withheld` = `delta`, the meter's own difference.
//! - `verdict`: a judge scored an answer later: [`Verdict`].
//!
//! Invariants: unknown is null, never 0; a field that a later version adds has a default, so that old files stay readable,
//! and a field that is not known is skipped; the last line may be torn and is then dropped. Pure but for [`read`].

pub mod lines;
pub mod verdict;
pub mod window;

use std::collections::BTreeMap;
use std::path::Path;

use self::verdict::Verdict;
use self::window::Window;
use crate::classify::domain::Domain;
use crate::energy::Basis;
use serde::{Deserialize, Serialize};

/// Version of the format, in every `run` line.
pub const FORMAT: u32 = 1;

/// One line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "lowercase")]
pub enum Line {
    /// A run began.
    Run(Box<Run>),
    /// A question was asked.
    Answer(Box<Record>),
    /// A stretch of measuring ended.
    Window(Window),
    /// A judge scored an answer that was not scored before.
    Verdict(Verdict),
}

/// What a run is about. Model, attention and suites are the same for all runs of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// [`FORMAT`].
    pub format: u32,
    /// When it began, RFC 3339.
    pub at: String,
    /// Program version.
    pub version: String,
    /// The command that repeats it.
    pub command: String,
    /// Backend of the configuration, `local/NAME` or `cloud/NAME`.
    pub backend: String,
    /// `local` or `cloud`.
    pub place: String,
    /// Model as configured.
    pub model: String,
    /// `wattroute embedded` or `server` (an OpenAI-compatible one).
    pub runtime: String,
    /// `softmax` or the settings of local linear attention; `server` where the server decides.
    pub attention: String,
    /// The machine: processor, GPUs.
    pub device: String,
    /// Driver of the GPUs, if any.
    pub driver: Option<String>,
    /// SHA-256 of the model's file; null of a server, and in older records.
    pub digest: Option<String>,
    /// Questions asked of which suites.
    pub suites: Vec<Source>,
    /// Concurrency levels.
    pub streams: Vec<u32>,
    /// Times each question is asked at each level.
    pub repeats: u32,
    /// Where joules come from; the weakest of the rails that make up the total.
    pub basis: Option<Basis>,
    /// What the figures cover and assume, for people: `whole machine`, `this process`, a cloud model's derivation.
    pub scope: String,
    /// Rails that were read.
    pub rails: Vec<RailAbout>,
    /// Between two samples of the meters, in seconds; null where nothing was sampled.
    pub sample_s: Option<f64>,
}

/// A suite and how much of it is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Name or path.
    pub name: String,
    /// First 16 hex digits of the BLAKE3 of the file.
    pub hash: String,
    /// Questions selected.
    pub questions: u32,
}

/// A rail as it was during a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RailAbout {
    /// `meter/rail`.
    pub name: String,
    /// The device as it names itself.
    pub device: String,
    /// `gpu`, `package`, `dram`, `machine`, `wall`, `inner`.
    pub part: String,
    /// Where its joules come from.
    pub basis: Option<Basis>,
    /// Counts for the total.
    pub total: bool,
    /// Relative uncertainty if stated.
    pub uncertainty: Option<f64>,
    /// How often its figure is new, in seconds.
    pub renewed_s: f64,
    /// Power cap in W.
    pub cap_w: Option<f64>,
    /// Watts at rest, measured before the first question; null if it could not be.
    pub idle_w: Option<f64>,
    /// How steady the idle machine was: half the distance between its quietest and its loudest moment.
    pub idle_spread_w: Option<f64>,
}

/// One question asked once. Times in seconds, energy in joules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The question's id in its suite.
    pub id: String,
    /// Its domain.
    pub domain: Domain,
    /// Hash of its suite, see [`Source`].
    pub suite: String,
    /// How it is graded, the suite's word: `choice`, `number`, `short`, `literal`, `rules`, `pair`.
    pub kind: String,
    /// Which repetition, from 0.
    pub repeat: u32,
    /// Questions asked at a time at this level.
    pub streams: u32,
    /// Graded right; null where it was not scored.
    pub correct: Option<bool>,
    /// Why it was not scored: `failed` (asked again by the next run), `refused`, `no judge`, `judge disagrees`, `judge failed`.
    pub unscored: Option<String>,
    /// Share of the judge's verdicts it won where a judge scored it: 1 won, 0.5 tied, 0 lost.
    pub judged: Option<f64>,
    /// What was answered, as far as it came.
    pub answer: String,
    /// `stop`, `length`, or the server's own word.
    pub finish: Option<String>,
    /// Prompt tokens, template included.
    #[serde(alias = "input_tokens")]
    pub tokens_in: Option<u32>,
    /// Generated tokens, reasoning included.
    #[serde(alias = "output_tokens")]
    pub tokens_out: Option<u32>,
    /// Who counted them.
    pub tokens_from: Option<Counted>,
    /// What it cost.
    pub joules: Joules,
    /// From asking to the last token.
    pub seconds: f64,
    /// From asking to the first token; null if the answer came in one piece.
    pub ttft_s: Option<f64>,
    /// Median time between two tokens that followed each other.
    pub gap_p50_s: Option<f64>,
    /// 99th percentile of it.
    pub gap_p99_s: Option<f64>,
    /// Log-probabilities of the generated tokens, natural logarithm, temperature 1; null if none were offered.
    pub logprobs: Option<Logprobs>,
    /// Why there is no whole answer.
    pub error: Option<String>,
    /// When it was asked, RFC 3339.
    pub at: String,
}

/// Who counted the tokens, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counted {
    /// The embedded engine.
    Engine,
    /// The server's `usage`.
    Usage,
    /// A tokenizer here: the configured model's if it is known, else the classifier's estimate of bytes.
    Tokenizer,
    /// Content events of the stream: a lower bound.
    Deltas,
}

/// Energy of one question. All null where nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Joules {
    /// Its share of everything that was spent while it ran, over the rails that make up the total.
    pub gross: Option<f64>,
    /// The same without the idle machine; null where the idle watts are not known.
    pub net: Option<f64>,
    /// Gross before the first token; null where the first token is not known.
    pub prefill: Option<f64>,
    /// Gross after it.
    pub decode: Option<f64>,
    /// Gross of every rail that was read, also of those that are not in the total.
    pub rails: BTreeMap<String, f64>,
    /// Where the figures come from.
    pub basis: Option<Basis>,
    /// Relative uncertainty, half the range over the middle; null if not stated.
    pub uncertainty: Option<f64>,
    /// Lower end where a range is modelled.
    pub low: Option<f64>,
    /// Upper end of it.
    pub high: Option<f64>,
    /// What limits the figures, if anything does.
    pub note: Option<Note>,
}

/// What limits a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Note {
    /// Too short for the meter alone; right in the sum with its neighbours.
    Pooled,
    /// Too short for the meter, and so were all neighbours together: no figure.
    Short,
    /// The meter saw nothing for part of it: no figure.
    Gap,
}

/// Log-probabilities of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logprobs {
    /// Mean over the generated tokens.
    pub mean: f64,
    /// The lowest.
    pub min: f64,
    /// Tokens it is over.
    pub tokens: u32,
    /// Each one, where they were asked to be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<f32>>,
}

/// A whole record file.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// Runs, oldest first.
    pub runs: Vec<Run>,
    /// The answer that counts of each (id, repeat, streams), in the order of their first attempt.
    pub answers: Vec<Record>,
    /// Attempts that a later line of the same key replaced. Their joules are no answer's.
    pub replaced: Vec<Record>,
    /// Windows, oldest first.
    pub windows: Vec<Window>,
    /// Bytes up to the end of the last whole line; what follows was torn and may be cut off.
    pub whole_bytes: u64,
}

/// Suite, id, repeat, streams.
pub type Key = (String, String, u32, u32);

impl Logprobs {
    /// Of the generated tokens, each kept; none of no tokens.
    pub fn of(values: &[f32]) -> Option<Self> {
        let min = values.iter().copied().reduce(f32::min)?;
        let tokens = u32::try_from(values.len()).unwrap_or(u32::MAX);
        let sum: f64 = values.iter().map(|v| f64::from(*v)).sum();
        Some(Self { mean: sum / f64::from(tokens), min: f64::from(min), tokens, values: Some(values.to_vec()) })
    }
}

impl Record {
    /// What makes it the same question under the same conditions. Ids are unique within a suite only.
    pub fn key(&self) -> Key {
        (self.suite.clone(), self.id.clone(), self.repeat, self.streams)
    }

    /// Seconds after the first token; all of them where the first token is not known.
    pub fn decode_s(&self) -> f64 {
        (self.seconds - self.ttft_s.unwrap_or(0.0)).max(0.0)
    }

    /// Mean watts of its share while it ran.
    pub fn watts(&self) -> Option<f64> {
        Some(self.joules.gross? / self.seconds).filter(|w| w.is_finite())
    }
}

/// Reads a record file. A torn last line is dropped.
///
/// # Errors
/// The file cannot be read, or names file and line of the first that is no record.
pub fn read(path: &Path) -> Result<File, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    lines::parse(&bytes, &path.display().to_string())
}
