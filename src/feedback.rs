//! `POST /v1/feedback`: what the client thought of an answer, for the journal.
//!
//! Invariant: a score is kept for decisions of the same tenant only, and whoever asks for another's learns no more than of
//! one that never was. Repeating a score changes nothing; another one replaces it.

use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::clock;
use crate::edge::body;
use crate::fault::{Fault, Kind};
use crate::gate::Conn;
use crate::journal::feedback::{self, Fate};
use crate::relay::RelayBody;

/// The answer's entry may still be on its way to the disk: meters take two seconds at most.
const YOUNG: Duration = Duration::from_secs(4);
/// Between two looks for it.
const AGAIN: Duration = Duration::from_millis(200);
/// Longer bodies are none of ours.
const MAX_BYTES: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    decision_id: String,
    rating: Option<Rating>,
    score: Option<f64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rating {
    Good,
    Bad,
}

/// Takes one score.
pub async fn take(app: &App, parts: &Parts, incoming: Incoming, conn: Conn) -> Result<Response<RelayBody>, Fault> {
    let seat = app.gate.admit(parts, &conn)?;
    let bytes = body::read(incoming, &parts.headers, &app.limits).await?;
    let (decision, score) = read(&bytes)?;
    let unknown = || Fault::new(Kind::NotFound, "no answer of yours has this decision id").param("decision_id");
    let decided_ms = feedback::unix_ms(decision).ok_or_else(unknown)?;
    loop {
        match app.journal.feedback(decision, &seat.tenant, score).await {
            Fate::Kept => {
                app.bandit.scored(&decision.to_string(), score);
                return Ok(told(decision, score));
            }
            Fate::Refused => {
                let message = "feedback cannot be kept now: the journal is off, or does not keep up";
                return Err(Fault::new(Kind::Overloaded, message).retry_after(YOUNG));
            }
            Fate::Unknown => {}
        }
        let age_ms = u128::from(clock::unix_ms().saturating_sub(decided_ms));
        if age_ms > YOUNG.as_millis() || decided_ms > clock::unix_ms() {
            return Err(unknown());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn read(bytes: &Bytes) -> Result<(Uuid, f64), Fault> {
    let bad = |param: &str, what: &str| Fault::new(Kind::BadRequest, format!("`{param}` {what}")).param(param);
    let shape =
        "must be an object with `decision_id` and either `rating` (\"good\" or \"bad\") or `score` (from 0 to 1)";
    if bytes.len() > MAX_BYTES {
        return Err(Fault::new(Kind::BadRequest, format!("the body {shape}")));
    }
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|_| Fault::new(Kind::BadRequest, format!("the body {shape}")))?;
    let decision = Uuid::try_parse(&raw.decision_id)
        .map_err(|_| bad("decision_id", "must be the `x-wattroute-decision-id` of an answer"))?;
    let score = match (raw.rating, raw.score) {
        (Some(Rating::Good), None) => 1.0,
        (Some(Rating::Bad), None) => 0.0,
        (None, Some(score)) if (0.0..=1.0).contains(&score) => score,
        (None, Some(_)) => return Err(bad("score", "must be a number from 0, bad, to 1, good")),
        _ => return Err(Fault::new(Kind::BadRequest, format!("the body {shape}"))),
    };
    Ok((decision, score))
}

fn told(decision: Uuid, score: f64) -> Response<RelayBody> {
    let body = json!({ "object": "feedback", "decision_id": decision.to_string(), "score": score });
    let mut response = Response::new(RelayBody::full(body.to_string()));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Result<f64, Option<String>> {
        read(&Bytes::copy_from_slice(body.as_bytes())).map(|(_, score)| score).map_err(|fault| {
            assert_eq!(fault.status(), 400);
            fault.param
        })
    }

    #[test]
    fn a_score_is_good_bad_or_a_number() {
        let id = clock::id();
        let with = |fields: &str| asked(&format!("{{\"decision_id\":\"{id}\",{fields}}}"));
        assert_eq!(with("\"rating\":\"good\""), Ok(1.0));
        assert_eq!(with("\"rating\":\"bad\""), Ok(0.0));
        assert_eq!(with("\"score\":0.25"), Ok(0.25));
        for wrong in ["\"score\":1.5", "\"score\":-0.1"] {
            assert_eq!(with(wrong), Err(Some("score".into())), "{wrong}");
        }
        for wrong in [
            "\"rating\":\"fine\"",
            "\"score\":null",
            "\"score\":1,\"rating\":\"bad\"",
            "\"text\":\"x\"",
            "\"score\":1,\"x\":1",
        ] {
            assert_eq!(with(wrong), Err(None), "{wrong}");
        }
        assert_eq!(asked("{\"decision_id\":\"7\",\"score\":1}"), Err(Some("decision_id".into())));
        assert_eq!(asked(&format!("{{\"decision_id\":\"{id}\",\"score\":1{}}}", " ".repeat(5000))), Err(None));
        assert_eq!(asked("[]"), Err(None));
    }

    #[test]
    fn the_time_of_a_decision_is_read_from_its_id() {
        let now = clock::unix_ms();
        assert!(feedback::unix_ms(clock::id()).unwrap().abs_diff(now) < 1000);
        assert_eq!(feedback::unix_ms(Uuid::nil()), None);
    }
}
