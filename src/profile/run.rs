//! Asks every question at every level of concurrency, and puts each answer with its joules into the record file.
//!
//! At a level of n streams, n questions are under way at any time until none is left. Invariants: a question is asked again
//! only if its last attempt failed in a way that may pass, and each attempt is a record; warm-up questions are in no record;
//! whatever ends a run (a budget, Ctrl-C, a dead backend, a full disk), all answers that were settled are in the file.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;

use super::asker::{Asked, Asker, Trouble};
use super::counting::Counter;
use super::level::{Level, Place};
use super::log::Log;
use super::metered::Metered;
use super::pick::Item;
use super::record::{Key, Line, Note, Record};
use super::{queue, warm};
use crate::clock::{self, Instant};
use crate::energy::cloud;

/// Attempts of one question before it is left as failed.
pub const ATTEMPTS: u32 = 4;
/// Wait after the first failure; doubled with each further one in a row.
const BACKOFF: Duration = Duration::from_millis(250);
/// The longest wait between two attempts, whatever the backend says.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// What is asked and when to stop.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Questions, in their order.
    pub items: Vec<Item>,
    /// Levels of concurrency, in their order.
    pub streams: Vec<u32>,
    /// Times each question is asked at each level.
    pub repeats: u32,
    /// Questions asked before a level that are not counted.
    pub warm_up: usize,
    /// Wait between two levels at most so long for the machine to come to rest.
    pub settle: Duration,
    /// Stop after so many joules.
    pub joules: Option<f64>,
    /// Stop after so long.
    pub time: Option<Duration>,
    /// Keep the log-probability of every token, not only their mean and the lowest.
    pub keep_logprobs: bool,
}

/// Where joules come from.
pub enum Energy {
    /// The meters of this machine.
    Metered(Box<Metered>),
    /// A model of the cloud; none if the configuration states none, and then joules are not known.
    Modelled(Option<cloud::Model>),
}

/// Everything a run needs.
pub struct Run<'a> {
    /// Who is asked.
    pub asker: &'a Asker,
    /// Who counts tokens.
    pub counter: &'a Counter,
    /// Where joules come from.
    pub energy: &'a Energy,
    /// The record file.
    pub log: &'a mut Log,
    /// Becomes true when the run is to stop.
    pub stop: watch::Receiver<bool>,
    /// Called with the state of things, after each record and now and then.
    pub tell: &'a mut dyn FnMut(&Seen),
}

/// The state of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Questions asked and not failed, earlier runs included.
    pub asked: u64,
    /// Questions to ask in all.
    pub all: u64,
    /// Graded right.
    pub right: u64,
    /// Graded.
    pub scored: u64,
    /// Not scored.
    pub unscored: u64,
    /// Joules of this run's answers.
    pub joules: f64,
    /// Answers in a row whose joules are not known.
    pub blind: u32,
    /// Watts now.
    pub watts: Option<f64>,
    /// Meters of the total that cannot be read now.
    pub away: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything was asked.
    Done,
    /// A budget ends it, with why.
    Budget(&'static str),
    /// Asked to stop.
    Stopped,
    /// The backend does not answer any more, with why.
    Died(String),
}

/// Runs a plan; `earlier` are the records that there are.
///
/// # Errors
/// The record file cannot be written. What was written before is whole.
pub async fn run<'p>(run: &mut Run<'p>, plan: &'p Plan, earlier: &[Record]) -> Result<End, String> {
    let wanted = queue::wanted(plan);
    let failed: BTreeSet<Key> = earlier.iter().filter(|r| again(r)).map(Record::key).collect();
    // Answers of another choice of questions stay in the file and are not counted here.
    let earlier: Vec<&Record> =
        earlier.iter().filter(|r| !again(r) && !unmetered(r) && wanted.contains(&r.key())).collect();
    let settled: BTreeSet<Key> = earlier.iter().map(|r| r.key()).collect();
    let began = clock::now();
    let mut seen = Seen { all: queue::total(plan), ..Seen::default() };
    earlier.iter().for_each(|r| seen.count(r));
    (run.tell)(&seen);
    let mut warm = false;
    for streams in &plan.streams {
        let queue = queue::left(plan, *streams, &settled, &failed);
        if queue.is_empty() {
            continue;
        }
        if let (true, Energy::Metered(metered)) = (warm, run.energy) {
            let mut stop = run.stop.clone();
            tokio::select! {
                _ = metered.rest(plan.settle) => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(End::Stopped),
            }
        }
        warm = true;
        if let Some(end) = warm::up(run, plan).await {
            return Ok(end);
        }
        let mut level = Level::open(run, plan, *streams, queue);
        let ended = level.ask_all(run, &mut seen, began).await;
        // The window is closed whatever happened, so that what was spent is on the file.
        let closed = level.close(run, &mut seen).await;
        run.log.sync(true)?;
        match ended? {
            End::Done => closed?,
            other => {
                closed?;
                return Ok(other);
            }
        }
    }
    Ok(End::Done)
}

/// Whether these records answer everything that the plan asks.
pub fn nothing_left(plan: &Plan, earlier: &[Record]) -> bool {
    let settled: BTreeSet<Key> = earlier.iter().filter(|r| !again(r) && !unmetered(r)).map(Record::key).collect();
    queue::wanted(plan).is_subset(&settled)
}

/// Whether a record's question is to be asked again: what failed may pass.
pub fn again(record: &Record) -> bool {
    record.unscored.as_deref() == Some("failed")
}

/// Whether a meter that was away took an answer its joules: the next run asks for it again.
pub fn unmetered(record: &Record) -> bool {
    record.joules.note == Some(Note::Gap)
}

/// How long to wait after so many failures in a row.
pub fn backoff(failures: u32, told: Option<Duration>) -> Duration {
    let own = BACKOFF * 2_u32.saturating_pow(failures.saturating_sub(1).min(8));
    told.unwrap_or(own).clamp(BACKOFF, LONGEST_BACKOFF)
}

impl Seen {
    /// Counts a record.
    pub fn count(&mut self, record: &Record) {
        self.asked += u64::from(!again(record));
        self.right += u64::from(record.correct == Some(true));
        self.scored += u64::from(record.correct.is_some());
        self.unscored += u64::from(record.correct.is_none());
    }
}

/// An attempt as a record, without joules.
pub fn record(item: &Item, place: &Place, streams: u32, asked: &Asked, counter: &Counter) -> Record {
    let question = &item.question;
    let heard = &asked.heard;
    let text = question.text();
    let tokens = counter.count(&text, heard);
    let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
    let (correct, unscored) = match &asked.trouble {
        Some(Trouble::Refused(_)) => (None, Some("refused")),
        Some(_) => (None, Some("failed")),
        None => match question.grade(&heard.text) {
            None => (None, Some("no judge")),
            graded => (graded, None),
        },
    };
    let mut gaps = heard.gaps.clone();
    gaps.sort_unstable_by(f64::total_cmp);
    Record {
        id: question.id.clone(),
        domain: question.domain,
        suite: item.suite.to_string(),
        kind: question.kind.name().to_owned(),
        repeat: place.repeat,
        streams,
        correct,
        unscored: unscored.map(str::to_owned),
        answer: heard.text.clone(),
        finish: heard.finish.clone(),
        tokens_in: tokens.input,
        tokens_out: tokens.output,
        tokens_from: tokens.from,
        seconds: seconds(asked.began, asked.ended),
        ttft_s: heard.first.map(|first| seconds(asked.began, first)),
        gap_p50_s: percentile(&gaps, 0.5),
        gap_p99_s: percentile(&gaps, 0.99),
        logprobs: super::record::Logprobs::of(&heard.logprobs),
        error: asked.trouble.as_ref().map(|t| t.why().to_owned()),
        at: clock::rfc3339(),
        ..Record::default()
    }
}

/// Nearest rank in a sorted list.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank within the list's length"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Joules of a cloud answer, from its tokens.
pub fn modelled(record: Record, model: Option<&cloud::Model>) -> Record {
    let (Some(model), Some(input), Some(output)) = (model, record.tokens_in, record.tokens_out) else { return record };
    let (input, output) = (f64::from(input), f64::from(output));
    let all = model.joules(input, output);
    let joules = super::record::Joules {
        gross: all.mid,
        prefill: model.input.times(input).mid,
        decode: model.output.times(output).mid,
        basis: Some(all.basis),
        low: all.low,
        high: all.high,
        ..super::record::Joules::default()
    };
    Record { joules, ..record }
}

/// Appends a record and counts it.
pub fn put(run: &mut Run<'_>, seen: &mut Seen, record: Record) -> Result<(), String> {
    seen.count(&record);
    seen.joules += record.joules.gross.unwrap_or(0.0);
    seen.blind = if record.joules.gross.is_some() { 0 } else { seen.blind.saturating_add(1) };
    run.log.put(&Line::Answer(Box::new(record)))?;
    (run.tell)(seen);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let gaps: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&gaps, 0.5), percentile(&gaps, 0.99)), (Some(50.0), Some(99.0)));
        assert_eq!(
            (percentile(&[3.0], 0.5), percentile(&[3.0], 0.99), percentile(&[], 0.5)),
            (Some(3.0), Some(3.0), None)
        );
    }

    #[test]
    fn waits_double_and_a_backends_word_is_bounded() {
        assert_eq!(backoff(1, None), BACKOFF);
        assert_eq!(backoff(3, None), BACKOFF * 4);
        assert_eq!(backoff(60, None), LONGEST_BACKOFF);
        assert_eq!(backoff(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff(1, Some(Duration::from_secs(7000))), LONGEST_BACKOFF);
    }
}
