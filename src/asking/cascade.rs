//! A cascade: the chosen local backend answers first, its answer is checked, and the best cloud backend is asked when it is not
//! trusted.
//!
//! Invariant: nothing has gone to the client while this decides, and what it decides is kept: an answer that was sent on is
//! never taken back. A stream is held for at most its policy's tokens or time. The cloud is asked with the decision's permit
//! and in no other way; if it cannot answer, the local answer is given after all. A hang-up drops both.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::{Answered, samples, spent};
use crate::api::query::Query;
use crate::app::App;
use crate::backend::Backend;
use crate::backend::types::Body;
use crate::clock::{self, Instant};
use crate::entry::Entry;
use crate::fault::{Fault, Kind};
use crate::meter;
use crate::policy::cascade::Verify;
use crate::policy::types::{Cascade, Decision};
use crate::relay::Timing;
use crate::state::State;
use crate::verify::{Evidence, Expected, Trace};

/// A held stream may have so many bytes, whatever it calls a token.
const HOLD_BYTES: usize = 1024 * 1024;

/// What a cascade needs.
pub struct Stage<'a> {
    /// What requests share.
    pub app: &'a App,
    /// Backends.
    pub state: &'a State,
    /// Decision with its permit.
    pub decision: &'a Decision,
    /// Its cascade.
    pub cascade: &'a Cascade,
    /// The query.
    pub query: &'a Query,
}

/// Asks the local backend, checks what it says, and gives its answer or the cloud's.
pub async fn ask(stage: &Stage<'_>, index: usize, local: &Arc<Backend>, entry: &mut Entry) -> Result<Answered, Fault> {
    let timing = Timing { asked: clock::now(), waits: local.config.waits };
    let trace = Trace::default();
    let answer = local.ask_watched(stage.query, &trace).await?;
    let mut held = Answered { answer, index, timing };
    if !held.answer.status.is_success() {
        return Ok(held);
    }
    let verify = &stage.cascade.verify;
    hold(&mut held, &trace, verify).await?;
    let expected = Expected {
        prior: stage.cascade.prior,
        tokens: stage.cascade.expected_tokens,
        prompt: f64::from(stage.query.input_tokens),
    };
    let evidence = trace.evidence(expected);
    let mut confidence = verify.model.p(&evidence);
    let mut beside = String::new();
    if let Some(samples) = &verify.samples
        && let Some(agreement) = samples::agreement(stage, (local, &trace), samples, entry).await
    {
        confidence = samples.joined(confidence, agreement);
        beside = format!(", second answers agree by {agreement:.2}");
    }
    if confidence >= verify.escalate_below {
        entry.checked("kept", confidence, &format!("checked: confidence {confidence:.2}{beside}"));
        meter::checked("kept");
        return Ok(held);
    }
    escalate(stage, held, (confidence, &evidence, &beside), entry).await
}

/// Takes a stream until there is enough of it to judge. An answer in one piece is there already.
async fn hold(held: &mut Answered, trace: &Trace, verify: &Verify) -> Result<(), Fault> {
    let body = std::mem::replace(&mut held.answer.body, Body::Full(Bytes::new()));
    let Body::Stream(mut events) = body else {
        held.answer.body = body;
        return Ok(());
    };
    let first = held.timing.asked + held.timing.waits.first_token.min(held.timing.waits.total);
    let (mut chunks, mut bytes, mut until): (Vec<Bytes>, usize, Option<Instant>) = (Vec::new(), 0, None);
    loop {
        let next = tokio::time::timeout_at(until.unwrap_or(first), events.next()).await;
        let fault = match next {
            Err(_) if until.is_some() => break,
            Err(_) => Fault::new(Kind::FirstTokenTimeout, "the backend did not begin to answer in time"),
            Ok(Some(Ok(chunk))) => {
                bytes += chunk.len();
                chunks.push(chunk);
                let now = clock::now();
                if trace.tokens() > 0 {
                    until.get_or_insert(now + verify.hold);
                }
                let enough = trace.tokens() >= verify.hold_tokens || trace.ended() || bytes >= HOLD_BYTES;
                if enough || until.is_some_and(|end| now >= end) {
                    break;
                }
                continue;
            }
            Ok(None) if trace.ended() => break,
            Ok(None) => Fault::new(Kind::UpstreamCut, "the answer ended before it was complete"),
            Ok(Some(Err(fault))) => fault,
        };
        if let Some(lease) = &mut held.answer.lease {
            lease.fault(&fault);
        }
        return Err(fault);
    }
    held.answer.body = Body::Stream(Box::pin(stream::iter(chunks.into_iter().map(Ok)).chain(events)));
    Ok(())
}

/// Asks the cloud. What was held is kept until its answer has begun, because it is all there is if none does.
async fn escalate(
    stage: &Stage<'_>,
    held: Answered,
    (confidence, evidence, beside): (f64, &Evidence, &str),
    entry: &mut Entry,
) -> Result<Answered, Fault> {
    let Some(strong) = stage.state.backends.get(stage.cascade.strong) else { return Ok(held) };
    let why = format!(
        "checked: confidence {confidence:.2} is below {:.2} ({}{beside})",
        stage.cascade.verify.escalate_below,
        evidence.against()
    );
    let aside = entry.set_aside();
    entry.asking(strong, stage.app.ledger.as_ref());
    let timing = Timing { asked: clock::now(), waits: strong.config.waits };
    let failed = match strong.ask(stage.query, stage.decision.cloud.as_ref()).await {
        Ok(answer) if answer.status.is_success() => {
            let usage = &held.answer.usage;
            let tokens = (usage.input, usage.output.unwrap_or(evidence.tokens));
            entry.thrown_away(aside, tokens, held.timing.asked);
            entry.instead(stage.decision, stage.cascade.strong);
            entry.checked("escalated", confidence, &format!("{why}: {} answers instead", strong.config.name));
            meter::checked("escalated");
            return Ok(Answered { answer, index: stage.cascade.strong, timing });
        }
        Ok(refused) => (format!("status {}", refused.status.as_u16()), Some(0.0)),
        Err(fault) => (fault.code().to_owned(), spent(&fault)),
    };
    let (how, joules) = failed;
    tracing::warn!(backend = %strong.config.name, how, "escalation failed: the local answer is given");
    entry.wasted(joules);
    entry.taken_back(aside);
    entry.checked(
        "given",
        confidence,
        &format!("{why}, but {} could not answer ({how}): the local answer is given", strong.config.name),
    );
    meter::checked("given");
    Ok(held)
}
