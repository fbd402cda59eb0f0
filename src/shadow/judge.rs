//! A judge of shadows: a backend that reads the answer that was given and the shadow's, in both orders.
//!
//! Invariants: a judge in the cloud is asked with the decision's permit, which no private query has; both readings are paid
//! from the shadows' purse before the shadow begins; what it says is a number in the journal, and its words die here.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;

use crate::api::query::{Endpoint, Query};
use crate::api::read_query;
use crate::backend::{self, Backend};
use crate::entry::Entry;
use crate::policy::types::{Decision, Place};
use crate::state::State;
use crate::verify::pair::{agreed, prompt, verdict};
use crate::verify::{Trace, pair};

/// Tokens of a verdict with its sentence of reason.
const VERDICT_TOKENS: u32 = 256;
/// Readings of a pair.
const READINGS: f64 = 2.0;

/// The configured judge of a decision's shadow; none where none is configured, it is off, or it may not see the query.
pub fn of(state: &State, decision: &Decision) -> Option<Arc<Backend>> {
    let name = state.config.shadow.judge.as_deref()?;
    let judge = state.backends.iter().find(|b| &*b.config.name == name && b.off().is_none())?;
    (judge.config.place == Place::Local || decision.cloud.is_some()).then(|| Arc::clone(judge))
}

/// What its readings are expected to cost, J and US dollars; none where a figure is not known.
pub fn price(judge: &Backend, query: &Query, decision: &Decision, answer_tokens: f64) -> Option<[f64; 2]> {
    let input = READINGS * (f64::from(query.input_tokens) + 2.0 * answer_tokens);
    let output = READINGS * f64::from(VERDICT_TOKENS);
    let usd = judge.outlook.usd(input, output).or((judge.config.place == Place::Local).then_some(0.0))?;
    Some([judge.outlook.joules(&decision.posterior, input, output).mid?, usd])
}

/// How the shadow's answer compares with the one that was given: 1 better, 0.5 as good, 0 worse; none where the readings
/// disagree or there is none. What they took is charged to the shadow's entry.
pub async fn compare(
    judge: &Backend,
    (query, decision): (&Query, &Decision),
    (given, shadow): (&str, &str),
    entry: &mut Entry,
) -> Option<f64> {
    let forth = reading(judge, (query, decision), (shadow, given), entry).await?;
    let back = reading(judge, (query, decision), (given, shadow), entry).await?;
    agreed(forth, back)
}

async fn reading(
    judge: &Backend,
    (query, decision): (&Query, &Decision),
    (first, second): (&str, &str),
    entry: &mut Entry,
) -> Option<pair::Better> {
    let body = json!({
        "model": &*judge.config.name,
        "messages": [{ "role": "user", "content": prompt(&query.text, first, second) }],
        "max_tokens": VERDICT_TOKENS,
        "temperature": 0,
    });
    let asked = read_query(Endpoint::Chat, Bytes::from(body.to_string()), &HeaderMap::new()).ok()?;
    let trace = Trace::default();
    let limit = judge.config.waits.total;
    let answer = tokio::time::timeout(limit, judge.ask(&asked, decision.cloud.as_ref())).await.ok()?.ok()?;
    let answer = backend::watched(answer, &trace);
    let tokens = answer.usage.output.unwrap_or_else(|| trace.tokens());
    entry.judging(judge, [answer.usage.input.unwrap_or(asked.input_tokens), tokens]);
    verdict(&trace.said()?)
}
