//! The runner in this process: a reader thread, parsing and simulation on all cores, everything that needs the log's order between
//! the two. Memory is a few rounds of batches, whatever the log's size.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::assemble::{Parts, assemble};
use super::checkpoint::Checkpoint;
use super::cost::Stated;
use super::figures::Worth;
use super::learned::{Learned, too_soon};
use super::offpolicy::{CLIP, EFFECTIVE, SUPPORT};
use super::outcome::Outcome;
use super::outcomes::Models;
use super::partial::Partial;
use super::predictions::Predictions;
use super::prepare::{Prepared, prepare};
use super::queue::Device;
use super::reader::{REMEMBERED, Reader};
use super::simulate::Setup;
use crate::policy::Policy;

/// What a file is.
pub enum Ask {
    /// An outcome table.
    Outcomes,
    /// Another log, of this format if it is stated.
    Log {
        /// A name of [`super::programs::SHAPES`], or `csv`.
        format: Option<String>,
    },
}

/// Who predicts what a policy sees of a labelled query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Predictor {
    /// Shrunk coverage of its domain.
    #[default]
    Domain,
    /// A fit on words, shape and domain.
    Query,
}

/// What is asked for.
pub struct Request {
    /// The file.
    pub file: PathBuf,
    /// What it is.
    pub ask: Ask,
    /// Name of the weak model.
    pub weak: String,
    /// Name of the strong model.
    pub strong: String,
    /// Who predicts, where the log has labels.
    pub predictor: Predictor,
    /// Policies.
    pub policies: Vec<Arc<Policy>>,
    /// Two of them to compare query by query.
    pub diff: Option<(usize, usize)>,
    /// What the command line states about costs.
    pub stated: Stated,
    /// Seed of draws, arrivals and intervals.
    pub seed: u64,
    /// A bad line is an error.
    pub strict: bool,
    /// Lines to read, at most.
    pub limit: Option<u64>,
    /// Of a log without labels, only what arrived then or later: seconds since 1970.
    pub since_s: Option<f64>,
    /// Queries per second where the log has no arrival times.
    pub rate: Option<f64>,
    /// Queries that the local device works on at a time.
    pub seats: usize,
    /// Where the state is kept while it runs.
    pub checkpoint: Option<Checkpoint>,
}

/// Seen from outside while a replay runs.
#[derive(Default)]
pub struct Watch {
    /// Set to stop: what was read so far is the result.
    pub stop: AtomicBool,
    /// Lines replayed.
    pub lines: AtomicU64,
    /// Of those, before the checkpoint that this run goes on from.
    pub before: AtomicU64,
    /// Bytes of the file read, of `size`.
    pub bytes: AtomicU64,
    /// Bytes of the file.
    pub size: AtomicU64,
}

/// What a pass over the queries gives: sums, the local device under each route, and whether the log's end was reached.
pub type Pass = (Partial, Vec<Device>, bool);

/// Runs a replay.
///
/// # Errors
/// File and line, and what is wrong there; nothing is written.
pub fn run(request: &Request, watch: &Watch) -> Result<Outcome, String> {
    let mut prepared = prepare(request, &watch.stop)?;
    let pass = prepared.reader.replay(&prepared.setup, watch)?;
    let seconds = prepared.reader.log.seconds;
    finish(prepared, &pass, seconds)
}

/// The figures of a pass, whoever made it.
///
/// # Errors
/// No query was replayed.
pub fn finish(prepared: Prepared<'_>, (partial, devices, complete): &Pass, seconds: f64) -> Result<Outcome, String> {
    let Prepared { mut reader, learned, setup, models, weak, strong } = prepared;
    let request = reader.request;
    let mut outcome = begun(&mut reader, &setup, (&learned, &models), (partial, *complete))?;
    outcome.log.seconds = seconds;
    (outcome.weak, outcome.strong) = (weak.id, strong.id.clone());
    let parts = Parts {
        setup: &setup,
        stated: &request.stated,
        strong: &strong,
        domains: &reader.names.all,
        partial,
        devices,
        seats: request.seats,
    };
    assemble(&parts, &mut outcome);
    outcome.warnings = warnings(&outcome, &request.policies, reader.forgot, partial.evidence as u64);
    Ok(outcome)
}

/// A result without its policies' figures.
fn begun(
    reader: &mut Reader<'_>,
    setup: &Setup,
    (learned, models): (&Learned, &Models),
    (partial, complete): (&Partial, bool),
) -> Result<Outcome, String> {
    let mut log = std::mem::take(&mut reader.log);
    log.dataset.clone_from(&models.dataset);
    log.licence.clone_from(&models.licence);
    log.replayed = partial.n as u64;
    log.unlabelled = partial.unlabelled as u64;
    log.domains = reader.names.all.len();
    if partial.n < 1.0 && !complete {
        return Err(too_soon(reader.request));
    }
    if partial.n < 1.0 {
        return Err(format!(
            "{}: no query has labels of both sides ({} lines, {} without, {} bad)",
            reader.request.file.display(),
            log.lines,
            log.unlabelled,
            log.bad
        ));
    }
    Ok(Outcome {
        schema: 1,
        complete,
        log,
        weak: String::new(),
        strong: String::new(),
        predictor: setup.predictions.name(),
        seed: reader.request.seed,
        policies: Vec::new(),
        pareto: Vec::new(),
        curve: Vec::new(),
        worth: Worth::default(),
        live: partial.rewards.live(),
        diff: None,
        assumptions: told(reader, setup, learned, partial),
        warnings: Vec::new(),
    })
}

fn warnings(outcome: &Outcome, policies: &[Arc<Policy>], forgot: bool, evidence: u64) -> Vec<String> {
    let mut out = Vec::new();
    for p in policies.iter().filter(|p| p.verify.is_some() && evidence < outcome.log.replayed) {
        let had =
            if evidence == 0 { "this log has not".to_owned() } else { format!("{evidence} queries of this log have") };
        out.push(format!("{}: its check of local answers needs their log-probabilities (mean_logprob, min_logprob) and lengths, which {had}; replayed as if every other local answer passed", p.name));
    }
    let log = &outcome.log;
    if !outcome.complete {
        out.push(format!("PARTIAL: stopped after {} lines; every figure is of that part of the log", log.lines));
    }
    if log.unlabelled > 0 {
        out.push(format!("{} queries lack a label of one side and are left out", log.unlabelled));
    }
    if log.bad > 0 {
        out.push(format!("{} lines could not be used and are left out", log.bad));
    }
    if log.clock_backwards > 0 {
        out.push(format!(
            "{} queries arrived before an earlier line; they are taken to arrive with it",
            log.clock_backwards
        ));
    }
    if forgot {
        out.push(format!("keys beyond the first {REMEMBERED} were not checked for duplicates"));
    }
    for p in outcome.policies.iter().filter(|p| p.load.as_ref().is_some_and(|l| l.overloaded)) {
        out.push(format!("{}: the local device is overloaded, waits grow as long as the log does", p.name));
    }
    if outcome.policies.iter().all(|p| p.energy_n == 0) {
        out.push("joules are null: the log tells no lengths of the answers, or a side's energy is unknown".to_owned());
    } else if outcome.policies.iter().any(|p| p.energy_n < p.n) {
        out.push("joules are of the queries whose joules are known on both sides (`energy_n`)".to_owned());
    }
    out
}

fn told(reader: &Reader<'_>, setup: &Setup, learned: &Learned, partial: &Partial) -> Vec<String> {
    let mut out = vec![match setup.predictions {
        Predictions::Tables(_) => "PREDICTED: the log has no labels; what is right, and at which odds, is what the tables of both models expect of each query's domain: quality figures are expectations, and their intervals hold the spread of the queries alone".to_owned(),
        Predictions::Query(_) => learned.foreseen.clone().unwrap_or_default(),
        Predictions::Domain(_) => format!(
        "predictions: coverage of the log's domains, both sides, shrunk, {} labelled queries, five folds by the prompt's stem: no query sees its own label",
        learned.counts.n()
    )}];
    if learned.graded {
        let how = if learned.stated_scale { "stated in the models file" } else { "the largest that any model got" };
        out.push(format!("grades are divided by {} ({how}); accuracy is the mean grade", learned.scale));
    }
    if learned.by_chars {
        out.push("tokens: characters of the answer over 4; hidden reasoning is not in them".to_owned());
    }
    if partial.rewards.scored > 0.0 {
        out.push(format!(
            "off-policy: IPS (Horvitz-Thompson), SNIPS (self-normalised) and doubly robust (Dudik, Langford, Li 2011) over scored choices; weights \
             above {CLIP} cut; no estimate below {:.0} % support or an effective {EFFECTIVE} queries; queries without a score are not in them",
            100.0 * SUPPORT
        ));
    }
    out.extend(setup.local.notes.iter().chain(&setup.cloud.notes).cloned());
    match reader.request.rate {
        Some(rate) => {
            out.push(format!("arrivals: made up, Poisson at {rate} per second, seed {}", reader.request.seed))
        }
        None if reader.timed => out.push("arrivals: as logged".to_owned()),
        None => out.push("arrivals: the log has none, so no waiting is computed; --rate makes some up".to_owned()),
    }
    out
}
