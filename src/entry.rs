//! The journal entry of one request: filled as the request goes on, offered exactly once, on drop.
//!
//! Finish, fault, hang-up and panic all end in the same `Drop`, so that there is no path without an entry.

mod checked;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::api::query::{Endpoint, Query};
use crate::backend::Backend;
use crate::backend::types::{Answer, Body, Usage};
use crate::cache::Hit;
use crate::classify::domain::Posterior;
use crate::clock::{self, Instant};
use crate::energy::Joules;
use crate::energy::ledger::{Ledger, Running};
use crate::fault::{Fault, Kind};
use crate::journal::Journal;
use crate::journal::record::{Outcome, Record};
use crate::meter;
use crate::policy::types::{Decision, Place, Saved};
use crate::relay::Completion;
use crate::state::State;
use crate::tee::Keep;

/// Longest model name that is written down; the query's own limit is the same.
const MODEL_CHARS: usize = 128;

/// A guard around one [`Record`].
pub struct Entry {
    /// What is known so far.
    pub record: Record,
    arrived: Instant,
    journal: Journal,
    posterior: Posterior,
    /// Prompt tokens as estimated, for an answer that tells none.
    estimated_input: u32,
    answering: Option<Arc<Backend>>,
    /// Its span of time on this machine's meters, if they are read.
    running: Option<Running>,
    first_token: Option<Instant>,
    /// The cloud backend that would have answered otherwise.
    baseline: Option<Arc<Backend>>,
    /// What the answer took, thrown away attempts left out; of an answer from the cache, what it took at the time.
    own: Joules,
    /// Joules of attempts that were thrown away; none once one of them is not known.
    wasted: Option<f64>,
    /// US dollars of them, as far as they have a price.
    wasted_usd: f64,
}

impl Entry {
    /// Starts an entry at a request's arrival. Without an endpoint it is a question for a decision only.
    pub fn new(journal: Journal, endpoint: Option<Endpoint>, id: &str) -> Self {
        let endpoint = match endpoint {
            Some(Endpoint::Chat) => "chat",
            Some(Endpoint::Completions) => "completions",
            None => "route",
        };
        let record = Record { id: id.to_owned(), endpoint, arrived_ms: clock::unix_ms(), ..Record::default() };
        let (posterior, arrived) = (Posterior::none(), clock::now());
        Self {
            record,
            arrived,
            journal,
            posterior,
            estimated_input: 0,
            answering: None,
            running: None,
            first_token: None,
            baseline: None,
            own: Joules::UNKNOWN,
            wasted: Some(0.0),
            wasted_usd: 0.0,
        }
    }

    /// Passes a result on; a fault is written down first.
    pub fn noting<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.inspect_err(|fault| {
            self.record.outcome = if self.record.attempts == 0 { Outcome::Refused } else { Outcome::Fault };
            self.record.fault = Some(fault.code());
            self.record.status = Some(fault.status().as_u16());
            self.record.wasted_joules = self.wasted.filter(|_| self.record.attempts > 0);
        })
    }

    /// The query was read.
    pub fn read(&mut self, query: &Query) {
        self.record.model_asked = query.model.chars().take(MODEL_CHARS).collect();
        self.record.stream = query.stream;
        self.record.session = query.session;
        self.estimated_input = query.input_tokens;
    }

    /// A policy has decided.
    pub fn decided(&mut self, decision: &Decision, id: String, state: &State) {
        let r = &mut self.record;
        r.decision_id = id;
        r.domain = decision.domain.name();
        r.domain_p = decision.domain_p;
        r.posterior = Some(decision.posterior);
        r.policy = Arc::clone(&decision.policy);
        r.policy_hash = Arc::clone(&decision.policy_hash);
        r.propensity = decision.propensity;
        r.reason = Arc::clone(&decision.reason);
        r.alternatives = Arc::clone(&decision.alternatives);
        r.quality_change = decision.chosen.and_then(|index| quality_change(decision, index));
        r.tier = decision.tier;
        r.router_joules = Some(decision.router_joules).filter(|joules| *joules > 0.0);
        r.overhead_us = clock::now().duration_since(self.arrived).as_secs_f64() * 1e6;
        self.posterior = decision.posterior;
        self.baseline = decision.baseline.and_then(|index| state.backends.get(index)).cloned();
    }

    /// A backend is being asked; one on this machine under the eyes of its meters.
    pub fn asking(&mut self, backend: &Arc<Backend>, ledger: Option<&Ledger>) {
        self.running = ledger.filter(|_| backend.runs_here()).and_then(Ledger::open);
        if let Some(running) = self.running.as_ref().filter(|_| self.record.stream) {
            running.reads(self.estimated_input);
        }
        self.record.attempts += 1;
        self.answered_by(&backend.config.name, backend.config.place);
        self.answering = Some(Arc::clone(backend));
    }

    /// What this machine writes is counted as it passes: others may be charged before it has ended.
    pub fn paced(&mut self, answer: &mut Answer) -> &mut Self {
        let (Some(running), Body::Stream(events)) = (&self.running, &mut answer.body) else { return self };
        let (pace, inner) = (running.pace(), std::mem::replace(events, Box::pin(stream::empty())));
        *events = Box::pin(inner.inspect(move |chunk| {
            let events = |chunk: &Bytes| chunk.split(|b| *b == b'\n').filter(|line| line.starts_with(b"data:")).count();
            pace.wrote(chunk.as_ref().map_or(0, events));
        }));
        self
    }

    fn answered_by(&mut self, backend: &Arc<str>, place: Place) {
        self.record.backend = Some(Arc::clone(backend));
        self.record.place = Some(place);
    }

    /// The answer comes from the cache: nothing is used, and what it took at the time is saved. Returns both.
    pub fn repeating(&mut self, hit: &Hit) -> (Joules, Saved) {
        self.answered_by(&hit.backend, hit.place);
        self.record.outcome = Outcome::Cached;
        self.record.domain = hit.domain;
        self.own = hit.joules;
        let Joules { low, mid, high, basis } = hit.joules;
        // Where nobody knows what the answer took, nobody knows what the repeat saves.
        (Joules::range(0.0, 0.0, 0.0, basis), Saved { low, mid, high })
    }

    /// The attempt under way is thrown away. `spent` is what it cost in joules, if that is known.
    pub fn wasted(&mut self, spent: Option<f64>) {
        self.wasted = self.wasted.zip(spent).map(|(sum, one)| sum + one);
    }

    /// Joules and saving for the headers: settled when the answer is complete, else as predicted.
    pub fn figures(&mut self, answer: &Answer, decision: &Decision, index: usize) -> (Joules, Saved) {
        if matches!(answer.body, Body::Full(_)) && answer.status.is_success() {
            self.settle(&answer.usage);
            return (self.record.joules.unwrap_or(Joules::UNKNOWN), self.record.saved);
        }
        let joules = |i: usize| decision.alternatives.get(i).map_or(Joules::UNKNOWN, |a| a.joules);
        let total = self.with_rest(joules(index));
        if self.record.verdict != Some("escalated") {
            return (total, decision.saved);
        }
        let own = if decision.baseline == Some(index) { self.lost() } else { Saved::default() };
        (total, decision.baseline.filter(|b| *b != index).map_or(own, |b| saved(joules(b), total)))
    }

    /// An answer's joules with those of what was thrown away for it and of classifying its query.
    fn with_rest(&self, own: Joules) -> Joules {
        self.rest().map_or(Joules::UNKNOWN, |rest| with(own, rest))
    }

    /// What was spent beside the answer itself; none where that is not known.
    fn rest(&self) -> Option<f64> {
        self.wasted.map(|wasted| wasted + self.record.router_joules.unwrap_or(0.0))
    }

    /// What is saved where the baseline itself answers: nothing, and what was spent beside its answer is lost.
    fn lost(&self) -> Saved {
        let lost = self.rest().filter(|rest| *rest > 0.0).map(|rest| -rest);
        Saved { low: lost, mid: lost, high: lost }
    }

    /// The answer has ended, in whatever way.
    pub fn finish(mut self, completion: &Completion, kept: Option<Keep>) {
        let cached = self.record.outcome == Outcome::Cached;
        self.record.status = Some(completion.status.as_u16());
        self.record.fault = completion.fault;
        self.first_token = completion.first_token;
        let first = completion.first_token.or(completion.first_byte);
        self.record.ttft_ms = first.map(|at| at.duration_since(self.arrived).as_secs_f64() * 1e3);
        if completion.outcome != Outcome::Ok || !cached {
            self.record.outcome = completion.outcome;
        }
        if cached {
            self.record.input_tokens = completion.usage.input;
            self.record.output_tokens = completion.usage.output;
            self.repeated(completion.outcome);
        } else if completion.status.is_success() {
            self.settle(&completion.usage);
        }
        if let Some(kept) = kept.filter(|_| completion.outcome == Outcome::Ok) {
            kept.done(&completion.usage, self.record.domain, self.own);
        }
    }

    /// An answer from the cache has ended: only one that was delivered saved anything.
    fn repeated(&mut self, outcome: Outcome) {
        let Joules { low, mid, high, basis } = self.own;
        self.record.joules = Some(Joules::range(0.0, 0.0, 0.0, basis));
        if outcome == Outcome::Ok {
            self.record.saved = Saved { low, mid, high };
        }
    }

    /// Tokens, joules, price and saving from what was actually produced.
    fn settle(&mut self, usage: &Usage) {
        let input = usage.input.unwrap_or(self.estimated_input);
        let r = &mut self.record;
        r.input_tokens = Some(input);
        r.output_tokens = usage.output;
        r.token_source = Some(usage.source.name());
        let (Some(backend), Some(output)) = (&self.answering, usage.output) else { return };
        let (input, output) = (f64::from(input), f64::from(output));
        let own = backend.outlook.joules(&self.posterior, input, output);
        // A repeat saves the classifying too.
        self.own = with(own, self.record.router_joules.unwrap_or(0.0));
        let total = self.with_rest(own);
        let saved = match &self.baseline {
            Some(baseline) if baseline.config.name == backend.config.name => self.lost(),
            Some(baseline) => saved(baseline.outlook.joules(&self.posterior, input, output), total),
            None => Saved::default(),
        };
        let usd = backend.outlook.usd(input, output).map(|usd| usd + self.wasted_usd);
        let r = &mut self.record;
        r.wasted_joules = self.wasted;
        r.joules = Some(total);
        (r.usd, r.saved) = (usd, saved);
    }
}

/// Joules with so many more, which do not change where the figure comes from.
fn with(own: Joules, more: f64) -> Joules {
    if more > 0.0 { own.plus(Joules::range(more, more, more, own.basis)) } else { own }
}

/// Baseline minus spent. Low is the least that was saved: the cheapest baseline against the dearest answer.
fn saved(baseline: Joules, spent: Joules) -> Saved {
    let minus = |a: Option<f64>, b: Option<f64>| Some(a? - b?);
    Saved {
        low: minus(baseline.low, spent.high),
        mid: minus(baseline.mid, spent.mid),
        high: minus(baseline.high, spent.low),
    }
}

/// P(correct) of the chosen backend minus the baseline's.
fn quality_change(decision: &Decision, index: usize) -> Option<f64> {
    let chosen = decision.alternatives.get(index)?;
    let baseline = decision.alternatives.get(decision.baseline?)?;
    Some(chosen.p_correct - baseline.p_correct)
}

impl Drop for Entry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let bug = Fault::new(Kind::Internal, "");
            self.record.outcome = Outcome::Fault;
            (self.record.fault, self.record.status) = (Some(bug.code()), Some(bug.status().as_u16()));
        }
        self.record.total_ms = clock::now().duration_since(self.arrived).as_secs_f64() * 1e3;
        let mut record = std::mem::take(&mut self.record);
        let Some(running) = self.running.take() else {
            meter::count(&record);
            return self.journal.offer(record);
        };
        // The meters have not seen the end yet: the entry waits for them beside the request path.
        let (journal, tokens) = (self.journal.clone(), [record.input_tokens, record.output_tokens]);
        running.close(self.first_token, tokens, move |measured| {
            if let Some(measured) = measured {
                record.measured(measured.joules);
            }
            meter::count(&record);
            journal.offer(record);
        });
    }
}
