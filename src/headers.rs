//! Response headers of ours: request id and the decision, in one place.
//!
//! Joules are structured-field items (RFC 9651): the central figure, with `low`, `high` and `basis` as parameters, or
//! the token `unknown`.

use http::header::{ALLOW, HeaderName, HeaderValue};
use http::{HeaderMap, Response};

use crate::clock;
use crate::energy::Joules;
use crate::policy::decimal::Decimal;
use crate::policy::types::{Decision, Place, Saved};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const BACKEND: HeaderName = HeaderName::from_static("x-wattroute-backend");
const PLACE: HeaderName = HeaderName::from_static("x-wattroute-place");
const DOMAIN: HeaderName = HeaderName::from_static("x-wattroute-domain");
const REASON: HeaderName = HeaderName::from_static("x-wattroute-reason");
const POLICY: HeaderName = HeaderName::from_static("x-wattroute-policy");
const JOULES: HeaderName = HeaderName::from_static("x-wattroute-joules");
const SAVED: HeaderName = HeaderName::from_static("x-wattroute-saved-joules");
const DECISION: HeaderName = HeaderName::from_static("x-wattroute-decision-id");
const TIER: HeaderName = HeaderName::from_static("x-wattroute-tier");
const OVERHEAD: HeaderName = HeaderName::from_static("x-wattroute-overhead-us");
/// Longest request id that is echoed; longer ones are replaced.
const ID_BYTES: usize = 128;

/// The client's `x-request-id` if it is one and decent, else a new UUIDv7.
pub fn request_id(headers: &HeaderMap) -> String {
    let mut all = headers.get_all(REQUEST_ID).iter();
    match (all.next(), all.next()) {
        (Some(id), None) if (1..=ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic) => {
            id.to_str().map_or_else(|_| clock::id().to_string(), str::to_owned)
        }
        _ => clock::id().to_string(),
    }
}

/// Puts the request id on a response.
pub fn stamp<B>(response: &mut Response<B>, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
}

/// Says which methods a known path takes, as a 405 must.
pub fn allow<B>(response: &mut Response<B>, path: &str) {
    let posted = matches!(path, "/v1/chat/completions" | "/v1/completions" | "/v1/route" | "/v1/feedback");
    let methods = if posted { "POST" } else { "GET, HEAD" };
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
}

/// What the decision headers say.
pub struct Told<'a> {
    /// The decision.
    pub decision: &'a Decision,
    /// Its reason, and what came of it since.
    pub reason: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Index of the alternative that answers; a fall-back may differ from the choice.
    pub answering: usize,
    /// Joules: settled for a complete answer, predicted for a stream.
    pub joules: Joules,
    /// Against the baseline, on the same tokens.
    pub saved: Saved,
    /// Our own time before the backend was asked, microseconds.
    pub overhead_us: f64,
}

/// Puts the decision on a response.
pub fn tell(headers: &mut HeaderMap, told: &Told<'_>) {
    if let Some(answering) = told.decision.alternatives.get(told.answering) {
        set(headers, BACKEND, &answering.backend);
        headers.insert(PLACE, HeaderValue::from_static(answering.place.name()));
    }
    headers.insert(DOMAIN, HeaderValue::from_static(told.decision.domain.name()));
    if let Some(tier) = told.decision.tier {
        headers.insert(TIER, HeaderValue::from_static(tier));
    }
    set(headers, REASON, told.reason);
    set(headers, POLICY, &told.decision.policy);
    set(headers, JOULES, &joules(told.joules));
    set(headers, SAVED, &saved(told.saved));
    set(headers, DECISION, told.id);
    set(headers, OVERHEAD, &format!("{:.0}", Decimal(told.overhead_us)));
}

/// Says that an answer came from the cache, and who gave it at the time. Nothing was decided and nothing spent; what is
/// saved is what the answer took at the time.
pub fn tell_cached(headers: &mut HeaderMap, backend: &str, place: Place, figures: (Joules, Saved)) {
    headers.insert(HeaderName::from_static("x-wattroute-cache"), HeaderValue::from_static("hit"));
    set(headers, BACKEND, backend);
    headers.insert(PLACE, HeaderValue::from_static(place.name()));
    set(headers, REASON, "exact answer from the cache");
    set(headers, JOULES, &joules(figures.0));
    set(headers, SAVED, &saved(figures.1));
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    let printable = |c: char| (' '..='~').contains(&c);
    // The usual case, in one look at all bytes: nothing to clean.
    let plain = text.bytes().fold(true, |so_far, byte| so_far & printable(char::from(byte)));
    let value = if plain && !text.starts_with(' ') && !text.ends_with(' ') {
        HeaderValue::from_str(text)
    } else {
        let clean: String = text.chars().map(|c| if printable(c) { c } else { ' ' }).collect();
        HeaderValue::from_str(clean.trim())
    };
    if let Ok(value) = value {
        headers.insert(name, value);
    }
}

fn joules(j: Joules) -> String {
    match (j.low, j.mid, j.high) {
        (Some(l), Some(m), Some(h)) => {
            format!("{};low={};high={};basis={}", short(m), short(l), short(h), j.basis.name())
        }
        _ => "unknown".to_owned(),
    }
}

fn saved(s: Saved) -> String {
    match (s.low, s.mid, s.high) {
        (Some(l), Some(m), Some(h)) => format!("{};low={};high={}", short(m), short(l), short(h)),
        _ => "unknown".to_owned(),
    }
}

/// Three significant digits, never in exponent form.
fn short(x: f64) -> String {
    let digits = if x.abs() >= 100.0 {
        0
    } else if x.abs() >= 10.0 {
        1
    } else if x.abs() >= 1.0 {
        2
    } else {
        3
    };
    format!("{:.digits$}", Decimal(x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::Basis;

    #[test]
    fn unknown_joules_are_a_word_and_never_zero() {
        assert_eq!(joules(Joules::UNKNOWN), "unknown");
        assert_eq!(joules(Joules::range(1.0, 12.34, 190.7, Basis::Modelled)), "12.3;low=1.00;high=191;basis=modelled");
        assert_eq!(saved(Saved { low: Some(-3.0), mid: Some(0.5), high: None }), "unknown");
    }

    #[test]
    fn a_request_id_is_echoed_only_when_it_is_decent() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("abc-1"));
        assert_eq!(request_id(&headers), "abc-1");
        headers.append(REQUEST_ID, HeaderValue::from_static("abc-2"));
        assert_eq!(request_id(&headers).len(), 36);
        headers.insert(REQUEST_ID, HeaderValue::from_static("a b"));
        assert_eq!(request_id(&headers).len(), 36);
    }
}
