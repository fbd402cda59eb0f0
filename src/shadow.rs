//! Shadow answers: a share of the queries is asked again of the other place after the client has its answer, and the two
//! answers are compared. So the journal says what could have stayed local, and how far the answers would have differed.
//!
//! Invariants: nothing of it reaches the client or delays its answer; a query that named its backend is never asked again, and
//! the cloud only with the decision's permit, which no private query has; what is spent in an hour is bounded, one
//! shadow is under way at a time, and a backend whose figures are unknown has none; both texts die with the comparison, unless
//! a judge is configured: it reads both.

mod judge;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use crate::api::query::Query;
use crate::app::App;
use crate::backend::types::Answer;
use crate::backend::{self, Backend};
use crate::clock::{self, Instant};
use crate::config::shadow::Shadow as Settings;
use crate::entry::Entry;
use crate::fault::Fault;
use crate::journal::record::{Outcome, Record};
use crate::policy::types::{Decision, Pin, Place};
use crate::relay::{Completion, Timing, relay};
use crate::state::State;
use crate::verify::{Trace, agree};

/// What may still be spent, and whether a shadow is under way.
#[derive(Default)]
pub struct Shadows {
    busy: Arc<AtomicBool>,
    purse: Mutex<Option<Purse>>,
}

/// A query that will be asked again when its answer has ended.
pub struct Shadow {
    app: Arc<App>,
    state: Arc<State>,
    query: Query,
    decision: Decision,
    decision_id: String,
    tenant: Arc<str>,
    /// Who is asked.
    other: Arc<Backend>,
    index: usize,
    /// Who says which answer is better.
    judge: Option<Arc<Backend>>,
    /// What the client was told.
    said: Trace,
    _turn: Turn,
}

/// Puts an answer under watch if its query is one of the share. `answering` gave it; `record` is the entry so far.
pub fn over(
    (app, state): (&Arc<App>, &Arc<State>),
    (query, pin): (Query, &Pin),
    (decision, record): (Decision, &Record),
    (answer, answering): (Answer, usize),
) -> (Answer, Option<Shadow>) {
    let settings = &state.config.shadow;
    let wanted = settings.share > 0.0 && *pin == Pin::None && record.verdict.is_none() && answer.status.is_success();
    if !wanted || !drawn(&record.decision_id, settings.share) {
        return (answer, None);
    }
    let Some((index, other)) = other(state, &decision, answering) else { return (answer, None) };
    let judge = judge::of(state, &decision);
    let more = judge.as_ref().map_or(Some([0.0; 2]), |judge| {
        let tokens = other.outlook.output_tokens(&decision.posterior, query.input_tokens, query.sampling.max_tokens);
        judge::price(judge, &query, &decision, tokens)
    });
    let price = more.zip(price(&decision, index)).map(|(a, b)| [a[0] + b[0], a[1] + b[1]]);
    let Some(turn) = price.and_then(|price| app.shadows.take(settings, price, clock::now())) else {
        return (answer, None);
    };
    let said = Trace::default();
    let answer = backend::watched(answer, &said);
    let shadow = Shadow {
        app: Arc::clone(app),
        state: Arc::clone(state),
        query,
        decision_id: record.decision_id.clone(),
        tenant: Arc::clone(&record.tenant),
        decision,
        other,
        index,
        judge,
        said,
        _turn: turn,
    };
    (answer, Some(shadow))
}

/// Whether a decision is one of the share: by its id, which ends in random bits.
fn drawn(decision_id: &str, share: f64) -> bool {
    let hash = blake3::hash(decision_id.as_bytes());
    let bits = hash.as_bytes().first_chunk().map_or(u32::MAX, |b| u32::from_le_bytes(*b));
    f64::from(bits) < share * f64::from(u32::MAX)
}

/// The backend of the other place that is likeliest to be right, of those that could answer and may be asked.
fn other(state: &State, decision: &Decision, answering: usize) -> Option<(usize, Arc<Backend>)> {
    let place = decision.alternatives.get(answering)?.place;
    let may = |i: &&usize| {
        let there = decision.alternatives.get(**i).map(|a| a.place);
        there.is_some_and(|there| there != place && (there == Place::Local || decision.cloud.is_some()))
    };
    let chance = |i: &usize| decision.alternatives.get(*i).map_or(0.0, |a| a.p_correct);
    let best = decision.ranked.iter().filter(may).max_by(|a, b| chance(a).total_cmp(&chance(b)))?;
    Some((*best, state.backends.get(*best).cloned()?))
}

impl Shadow {
    /// The client's answer has ended: if it ended well the other backend is asked, beside the request path.
    pub fn run(self, completion: &Completion) {
        if completion.outcome == Outcome::Ok && completion.status.is_success() {
            clock::spawn(self.ask());
        }
    }

    async fn ask(self) {
        let id = clock::id().to_string();
        let mut entry = Entry::new(self.app.journal.clone(), Some(self.query.endpoint), &id);
        entry.shadow(&self.decision, self.decision_id.clone(), (&self.state, self.index), &self.tenant);
        entry.read(&self.query);
        entry.asking(&self.other, self.app.ledger.as_ref());
        let theirs = Trace::default();
        let asked = self.answer(&theirs).await;
        let Ok((answer, timing)) = entry.noting(asked) else { return };
        let (tell, ended) = oneshot::channel();
        let done = move |completion: Completion| drop(tell.send((entry, completion)));
        let mut body = relay(answer, (), timing, done).into_body();
        // A break is in the completion; what comes is read and forgotten.
        while let Some(Ok(_)) = body.frame().await {}
        drop(body);
        let Ok((mut entry, completion)) = ended.await else { return };
        if completion.outcome == Outcome::Ok
            && let (Some(given), Some(shadow)) = (self.said.said(), theirs.said())
        {
            entry.compared(Some(agree::agreement(&given, &shadow)));
            if let Some(judge) = &self.judge {
                let asked = (&self.query, &self.decision);
                let verdict = judge::compare(judge, asked, (&given, &shadow), &mut entry).await;
                entry.judged(verdict);
            }
        }
        entry.finish(&completion, None);
    }

    async fn answer(&self, trace: &Trace) -> Result<(Answer, Timing), Fault> {
        let timing = Timing { asked: clock::now(), waits: self.other.config.waits };
        let answer = match self.other.config.place {
            Place::Local => self.other.ask_watched(&self.query, trace).await?,
            Place::Cloud => backend::watched(self.other.ask(&self.query, self.decision.cloud.as_ref()).await?, trace),
        };
        Ok((answer, timing))
    }
}

/// What a decision expected a backend to cost, J and US dollars; none where a figure is not known.
fn price(decision: &Decision, index: usize) -> Option<[f64; 2]> {
    let expected = decision.alternatives.get(index)?;
    let usd = expected.usd.or((expected.place == Place::Local).then_some(0.0))?;
    Some([expected.joules.mid?, usd])
}

impl Shadows {
    /// Leave for one shadow at this price, J and US dollars.
    fn take(&self, settings: &Settings, price: [f64; 2], now: Instant) -> Option<Turn> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let turn = Turn(Arc::clone(&self.busy));
        let mut purse = self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        let purse = purse.get_or_insert_with(|| Purse::full(settings, now));
        purse.pay(settings, price, now).then_some(turn)
    }
}

/// One shadow under way.
struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What may still be spent: an hour's worth at most, filled evenly. Joules and US dollars.
struct Purse {
    left: [f64; 2],
    filled: Instant,
}

impl Purse {
    fn full(settings: &Settings, now: Instant) -> Self {
        Self { left: [settings.joules_per_hour, settings.usd_per_hour], filled: now }
    }

    /// Takes a price, if both parts of it are there.
    fn pay(&mut self, settings: &Settings, price: [f64; 2], now: Instant) -> bool {
        let hours = now.saturating_duration_since(self.filled).as_secs_f64() / 3600.0;
        self.filled = self.filled.max(now);
        let most = [settings.joules_per_hour, settings.usd_per_hour];
        for (left, most) in self.left.iter_mut().zip(most) {
            *left = (*left + hours * most).min(most);
        }
        let enough = self.left.iter().zip(price).all(|(left, price)| price >= 0.0 && price <= *left);
        if enough {
            self.left.iter_mut().zip(price).for_each(|(left, price)| *left -= price);
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_share_of_the_ids_is_drawn_and_always_the_same() {
        let ids: Vec<String> = (0..4000).map(|i| format!("id-{i}")).collect();
        let drawn_at = |share| ids.iter().filter(|id| drawn(id, share)).count();
        assert_eq!((drawn_at(0.0), drawn_at(1.0)), (0, 4000));
        assert!((300..500).contains(&drawn_at(0.1)), "{}", drawn_at(0.1));
    }

    #[test]
    fn an_hour_costs_at_most_what_it_may() {
        let settings = Settings { share: 1.0, joules_per_hour: 100.0, usd_per_hour: 1.0, judge: None };
        let start = clock::now();
        let mut purse = Purse::full(&settings, start);
        let paid = (0..100).filter(|_| purse.pay(&settings, [30.0, 0.0], start)).count();
        assert_eq!(paid, 3);
        assert!(!purse.pay(&settings, [1.0, 1.5], start), "dollars bound it too");
        assert!(!purse.pay(&settings, [f64::NAN, 0.0], start));
        let later = start + Duration::from_secs(1800);
        assert!(purse.pay(&settings, [55.0, 0.0], later) && !purse.pay(&settings, [10.0, 0.0], later));
        let days = start + Duration::from_secs(400_000);
        assert!(purse.pay(&settings, [100.0, 1.0], days) && !purse.pay(&settings, [1.0, 0.0], days));
    }
}
