//! From a decision to an answer: the chosen backend, then its fall-backs, only while nothing was sent to the client.
//!
//! Invariant: extra attempts are paid from the retry budget, and a private decision has neither a cloud fall-back nor the
//! permit that a cloud backend asks for.

mod cascade;
mod samples;

use std::sync::PoisonError;
use std::time::Duration;

use crate::api::query::Query;
use crate::app::App;
use crate::backend::Backend;
use crate::backend::types::Answer;
use crate::clock;
use crate::entry::Entry;
use crate::fault::{Fault, Kind, Retry};
use crate::policy::types::{Decision, Pin, Place, State as Ready};
use crate::relay::Timing;
use crate::state::State;
use cascade::Stage;

/// When to come back if nothing can answer now: the longest first penalty of a breaker is half of it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An answer that has begun.
pub struct Answered {
    /// Its head, and its body so far.
    pub answer: Answer,
    /// Which alternative answers.
    pub index: usize,
    /// When it was asked, and what it may take.
    pub timing: Timing,
}

/// Asks the chosen backend and, if it fails before its first byte, the next ones.
pub async fn ask(
    app: &App,
    state: &State,
    decision: &Decision,
    query: &Query,
    entry: &mut Entry,
) -> Result<Answered, Fault> {
    let budget = || app.budget.lock().unwrap_or_else(PoisonError::into_inner);
    budget().request();
    let order: Vec<usize> = decision.chosen.into_iter().chain(decision.fallbacks.iter().copied()).collect();
    let mut failed: Option<Result<Answered, Fault>> = None;
    // Context windows up to this one have proved too small: routing knew an estimate of the prompt only.
    let mut too_small = 0;
    for (attempt, index) in order.iter().copied().enumerate() {
        let Some(backend) = state.backends.get(index) else { break };
        let window = backend.config.caps.context;
        if window <= too_small {
            continue;
        }
        if attempt > 0 && !budget().take(clock::now()) {
            break;
        }
        entry.asking(backend, app.ledger.as_ref());
        let timing = Timing { asked: clock::now(), waits: backend.config.waits };
        let more = attempt + 1 < order.len();
        let cascade = decision.cascade.as_ref().filter(|_| attempt == 0);
        let asked = match cascade.map(|cascade| Stage { app, state, decision, cascade, query }) {
            Some(stage) => cascade::ask(&stage, index, backend, entry).await,
            None => {
                let answer = backend.ask(query, decision.cloud.as_ref()).await;
                answer.map(|answer| Answered { answer, index, timing })
            }
        };
        match asked {
            Ok(answered) if more && (answered.answer.worth_another_backend() || answered.answer.too_long()) => {
                too_small = if answered.answer.too_long() { window } else { too_small };
                entry.wasted(Some(0.0));
                failed = Some(Ok(answered));
            }
            Ok(answered) => return Ok(answered),
            Err(fault) if more && worth_another(&fault) => {
                tracing::warn!(backend = %backend.config.name, kind = fault.code(), "attempt failed");
                too_small = if fault.kind == Kind::ContextLength { window } else { too_small };
                entry.wasted(spent(&fault));
                failed = Some(Err(fault));
            }
            Err(fault) => {
                entry.wasted(spent(&fault));
                return Err(fault);
            }
        }
    }
    failed
        .unwrap_or_else(|| Err(Fault::new(Kind::NoBackend, "no backend can take this query").retry_after(RETRY_AFTER)))
}

/// Also where the backend's own count of the prompt found it too long: routing knew an estimate only.
fn worth_another(fault: &Fault) -> bool {
    fault.retry() == Retry::BeforeFirstByte
        || matches!(fault.kind, Kind::Overloaded | Kind::NoBackend | Kind::ContextLength | Kind::Unsupported)
}

/// What a failed attempt cost in joules: nothing where nothing can have been generated, else not known.
fn spent(fault: &Fault) -> Option<f64> {
    matches!(fault.kind, Kind::Connect | Kind::Overloaded | Kind::NoBackend | Kind::Unsupported | Kind::ContextLength)
        .then_some(0.0)
}

/// Why no backend was chosen: the request's fault if it is one, else a 503 that lists every backend's reason.
pub fn nothing(state: &State, decision: &Decision, query: &Query, pin: &Pin) -> Fault {
    let in_reach: Vec<&Backend> = state
        .backends
        .iter()
        .map(AsRef::as_ref)
        .filter(|backend| backend.off().is_none() && in_reach_of(pin, backend))
        .collect();
    // One that takes such queries and only rests, loads or is full makes this a matter of time, not of the request.
    let later = |backend: &&Backend| {
        let allowed = backend.config.place == Place::Local || decision.cloud.is_some();
        let passing = matches!(backend.state(), Ready::Full | Ready::Unhealthy | Ready::Loading);
        allowed && passing && backend.refuses(query).is_none()
    };
    if in_reach.iter().any(later) {
        return no_backend(decision);
    }
    if let Some(refusal) = in_reach.iter().find_map(|backend| backend.refuses(query)) {
        return refusal;
    }
    let longest = in_reach.iter().map(|backend| backend.config.caps.context).max();
    if longest.is_some_and(|context| query.input_tokens >= context) {
        let message =
            format!("the prompt has about {} tokens, more than any backend in reach takes", query.input_tokens);
        return Fault::new(Kind::ContextLength, message).param("messages");
    }
    no_backend(decision)
}

/// A 503 with every backend's reason.
fn no_backend(decision: &Decision) -> Fault {
    let why: Vec<String> = decision
        .alternatives
        .iter()
        .filter_map(|a| Some(format!("{}: {}", a.backend, a.why_not.as_deref()?)))
        .collect();
    Fault::new(Kind::NoBackend, format!("no backend can take this query ({})", why.join("; "))).retry_after(RETRY_AFTER)
}

/// Whether a query with this pin may go to a backend at all.
fn in_reach_of(pin: &Pin, backend: &Backend) -> bool {
    match pin {
        Pin::None => true,
        Pin::Backend(name) => *name == backend.config.name,
    }
}
