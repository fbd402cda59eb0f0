//! The life of a request: [`handle`], then `answer`. Every stage may end it early; nothing else decides the order.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::Value;

use crate::api::query::{Endpoint, Query};
use crate::api::{self, models};
use crate::app::App;
use crate::asking::{self, Answered};
use crate::cache;
use crate::clock;
use crate::edge::{admin, body};
use crate::entry::Entry;
use crate::fault::{Fault, Kind};
use crate::feedback;
use crate::gate::{Conn, Seat};
use crate::headers::{self, Told};
use crate::journal::record::Outcome;
use crate::meter;
use crate::policy::types::Signals;
use crate::policy::{Policy, explain};
use crate::predict;
use crate::relay::{RelayBody, Timing, relay};
use crate::shadow;
use crate::signals;
use crate::state::State;
use crate::tee;

/// Answers one request. A fault becomes OpenAI's error shape here and nowhere else.
pub async fn handle(app: Arc<App>, request: Request<Incoming>, conn: Conn) -> Response<RelayBody> {
    let (parts, body) = request.into_parts();
    let id = headers::request_id(&parts.headers);
    let result = match (&parts.method, parts.uri.path()) {
        (&Method::POST, "/v1/chat/completions") => answer(&app, &parts, body, conn, Some(Endpoint::Chat), &id).await,
        (&Method::POST, "/v1/completions") => answer(&app, &parts, body, conn, Some(Endpoint::Completions), &id).await,
        (&Method::POST, "/v1/route") => answer(&app, &parts, body, conn, None, &id).await,
        (&Method::POST, "/v1/feedback") => {
            let taken = feedback::take(&app, &parts, body, conn).await;
            taken.inspect_err(|fault| app.journal.refused(fault.code()))
        }
        _ => aside(&app, &parts, conn).inspect_err(|fault| app.journal.refused(fault.code())),
    };
    let mut response = result.unwrap_or_else(|fault| api::error::response(&fault).map(RelayBody::full));
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        headers::allow(&mut response, parts.uri.path());
    }
    headers::stamp(&mut response, &id);
    response
}

/// The straight line. Without an endpoint it ends after the decision, which is then the answer (`/v1/route`).
async fn answer(
    app: &Arc<App>,
    parts: &Parts,
    incoming: Incoming,
    conn: Conn,
    endpoint: Option<Endpoint>,
    id: &str,
) -> Result<Response<RelayBody>, Fault> {
    let mut entry = Entry::new(app.journal.clone(), endpoint, id); // offered on drop, whatever happens next
    let seat = entry.noting(app.gate.admit(parts, &conn))?; // who are you, is there room; held to the last byte
    entry.record.tenant = Arc::clone(&seat.tenant);
    let bytes = entry.noting(body::read(incoming, &parts.headers, &app.limits).await)?;
    let read = read(endpoint, bytes, parts, app.limits.json_depth);
    let mut query = entry.noting(read)?; // bounded body to checked query
    query.belongs_to(&seat.tenant);
    entry.read(&query);

    let state = app.state.load_full();
    let choice = entry.noting(state.choose(&query.model, query.asked.policy.as_deref()))?;
    let private = seat.private || query.asked.private || choice.private;
    let asked =
        cache::Asked { tenant: &seat.tenant, policy_hash: &choice.policy.hash, private, generation: state.generation };
    let key = app.cache.key(asked, &query).filter(|_| endpoint.is_some());
    if let Some(hit) = key.and_then(|key| found(app, &key)) {
        return Ok(cached(&hit, &query, entry, seat));
    }
    let (mut signals, sorted) = signals::of(&state, (&query, &seat.tenant), &choice.pin, private).await; // classify, predict
    let conversation = remembered(app, &choice.policy, (&query, &seat.tenant), &mut signals);
    let decision = choice.policy.decide(&signals).charged(sorted.joules, sorted.tier); // pure: no await, no IO, no clock
    let decision_id = clock::id().to_string();
    entry.decided(&decision, decision_id.clone(), &state);
    let overhead_us = entry.record.overhead_us;
    if endpoint.is_none() {
        entry.record.outcome = Outcome::Ok;
        entry.record.status = Some(200);
        let caution = predict::question_sets(state.backends.iter().map(|backend| &backend.outlook));
        return Ok(json(&explain::to_json(&decision, caution.as_deref())));
    }
    if decision.chosen.is_none() {
        return entry.noting(Err(asking::nothing(&state, &decision, &query, &choice.pin)));
    }
    let asked = asking::ask(app, &state, &decision, &query, &mut entry).await; // falls back before the first byte
    let Answered { mut answer, index, timing } = entry.noting(asked)?;
    if let (Some(key), Some(backend)) = (conversation, state.backends.get(index)) {
        app.sticky.note(key, &backend.config.name, clock::now());
    }
    let (joules, saved) = entry.paced(&mut answer).figures(&answer, &decision, index);
    let reason = &entry.record.reason;
    let told = Told { decision: &decision, reason, id: &decision_id, answering: index, joules, saved, overhead_us };
    headers::tell(&mut answer.headers, &told);
    let backend = state.backends.get(index).map(|b| &b.config);
    let key = key.filter(|_| entry.record.verdict != Some("given")); // the cloud may answer better next time
    let kept = key.zip(backend).and_then(|(key, b)| tee::keep(&app.cache, key, &mut answer, &b.name, b.place));
    let (answer, shadow) =
        shadow::over((app, &state), (query, &choice.pin), (decision, &entry.record), (answer, index)); // a few, asked again after
    Ok(relay(answer, seat, timing, move |completion| {
        shadow.into_iter().for_each(|shadow| shadow.run(&completion));
        entry.finish(&completion, kept); // dropping the response cancels upstream
    }))
}

/// What was learned from judged answers, and who answered this conversation last, if the policy wants to know; and the
/// conversation's key, to remember who answers now.
fn remembered(app: &App, policy: &Policy, (query, tenant): (&Query, &str), signals: &mut Signals) -> Option<u64> {
    app.bandit.inform(policy, signals);
    let sticky = policy.sticky?;
    let key = query.conversation(sticky.user, sticky.prefix, tenant)?;
    signals.last = app.sticky.last(key, clock::now(), sticky.keep);
    Some(key)
}

/// A look into the cache, counted.
fn found(app: &App, key: &cache::Key) -> Option<Arc<cache::Hit>> {
    let hit = app.cache.get(key);
    meter::cache(hit.is_some());
    hit
}

/// Body to query. A question for a decision only may have either endpoint's shape.
fn read(endpoint: Option<Endpoint>, bytes: Bytes, parts: &Parts, depth: usize) -> Result<Query, Fault> {
    let Some(endpoint) = endpoint else {
        let chat = api::read_within(Endpoint::Chat, bytes.clone(), &parts.headers, depth);
        return chat.or_else(|fault| match fault.param.as_deref() {
            Some("messages") => {
                api::read_within(Endpoint::Completions, bytes, &parts.headers, depth).map_err(|_| fault)
            }
            _ => Err(fault),
        });
    };
    api::read_within(endpoint, bytes, &parts.headers, depth)
}

/// An exact answer from the cache, through the same relay.
fn cached(hit: &cache::Hit, query: &Query, mut entry: Entry, seat: Seat) -> Response<RelayBody> {
    entry.record.decision_id = clock::id().to_string();
    let (joules, saved) = entry.repeating(hit);
    let mut answer = tee::replay(hit, !query.include_usage);
    headers::tell_cached(&mut answer.headers, &hit.backend, hit.place, (joules, saved));
    let timing = Timing { asked: clock::now(), waits: tee::REPLAY_WAITS };
    relay(answer, seat, timing, move |completion| entry.finish(&completion, None))
}

/// What is not inference: model list and health.
fn aside(app: &App, parts: &Parts, conn: Conn) -> Result<Response<RelayBody>, Fault> {
    let path = parts.uri.path();
    let get = parts.method == Method::GET || parts.method == Method::HEAD;
    app.gate.check(parts)?;
    match path {
        "/healthz" if get => return Ok(admin::health().map(whole)),
        "/readyz" if get => return Ok(app.readiness().response().map(whole)),
        _ => {}
    }
    let _seat = app.gate.admit(parts, &conn)?;
    let state: Arc<State> = app.state.load_full();
    let model = path.strip_prefix("/v1/models/");
    match (path, model) {
        ("/v1/models", _) if get => Ok(json_bytes(models::list(&state.config, app.created))),
        (_, Some(model)) if get => Ok(json_bytes(models::one(&state.config, model, app.created)?)),
        ("/v1/models" | "/healthz" | "/readyz", _) => Err(Fault::new(Kind::Method, "GET only")),
        ("/v1/chat/completions" | "/v1/completions" | "/v1/route" | "/v1/feedback", _) => {
            Err(Fault::new(Kind::Method, "POST only"))
        }
        _ => Err(Fault::new(
            Kind::NotFound,
            "no such path: POST /v1/chat/completions, /v1/completions, /v1/route or /v1/feedback, or GET /v1/models",
        )),
    }
}

fn whole(body: Full<Bytes>) -> RelayBody {
    RelayBody::full(body.into_inner().unwrap_or_default())
}

fn json(value: &Value) -> Response<RelayBody> {
    json_bytes(value.to_string().into())
}

fn json_bytes(bytes: Bytes) -> Response<RelayBody> {
    let mut response = Response::new(RelayBody::full(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
