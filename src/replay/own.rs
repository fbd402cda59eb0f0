//! An entry of wattroute's own journal as a logged query: what was known of it, and what was decided at which odds. Pure.
//!
//! The same names in every container: the journal's file, lines of an export, Parquet.

use serde_json::Value;

use super::case::Logged;
use super::shapes::Row;
use crate::classify::domain::{DOMAINS, Posterior};
use crate::policy::types::Place;

/// Outcomes of entries for which no backend was asked.
const UNASKED: [&str; 2] = ["refused", "cached"];
/// Endpoints of entries that answered no client: a question for a decision only, a query asked again for a comparison.
const NOBODYS: [&str; 2] = ["route", "shadow"];

/// Reads one; none where it holds no query that a backend was asked: a question for a decision only, a shadow, a refusal, an answer
/// from the cache, an answer that never came.
///
/// # Errors
/// Its packed part could not be read when it was exported.
pub fn entry(value: &Value) -> Result<Option<Row>, String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| value.get(key).and_then(Value::as_f64).filter(|x| *x >= 0.0);
    let Some(input) = number("input_tokens") else { return Ok(None) };
    if NOBODYS.contains(&text("endpoint")) || UNASKED.contains(&text("outcome")) {
        return Ok(None);
    }
    if text("decision_id").is_empty() {
        return Err("has no decision: its packed part cannot be read".to_owned());
    }
    Ok(Some(Row {
        id: Some(text("decision_id").to_owned()),
        at: number("arrived_ms").map(|ms| ms / 1e3),
        input: Some(input),
        output: number("output_tokens"),
        text: String::new(),
        posterior: posterior(value),
        logged: logged(value),
    }))
}

/// The classifier's distribution of the time.
fn posterior(value: &Value) -> Option<Posterior> {
    let masses = value.get("posterior")?.as_array().filter(|masses| masses.len() == DOMAINS)?;
    let mut out = [0.0; DOMAINS];
    for (cell, mass) in out.iter_mut().zip(masses) {
        *cell = mass.as_f64().filter(|x| (0.0..=1.0).contains(x))? as f32;
    }
    Some(Posterior(out))
}

/// The side that was chosen and its odds, where the entry tells both: not where another backend took over from the one chosen, nor
/// where one of several backends of a side was drawn, whose odds are not those of its side.
fn logged(value: &Value) -> Option<Logged> {
    let checked = value.get("verdict").and_then(Value::as_str).is_some();
    let attempts = value.get("attempts").and_then(Value::as_u64).unwrap_or(1);
    if attempts > 1 && !checked {
        return None;
    }
    // Only local answers are checked: an escalated one was a local decision.
    let local = checked || value.get("place")?.as_str()? == Place::Local.name();
    let propensity = value.get("propensity")?.as_f64().filter(|p| *p > 0.0 && *p <= 1.0)?;
    let [locals, clouds] = eligible(value)?;
    if propensity < 1.0 && (if local { locals } else { clouds }) > 1 {
        return None;
    }
    let reward = value.get("feedback").and_then(Value::as_f64).filter(|x| (0.0..=1.0).contains(x));
    Some(Logged { local, propensity, reward })
}

/// Backends of each side that could be chosen: counted, or an export's alternatives, as a list or as its text.
fn eligible(value: &Value) -> Option<[u64; 2]> {
    if let Some([locals, clouds]) = value.get("eligible").and_then(Value::as_array).map(Vec::as_slice) {
        return Some([locals.as_u64()?, clouds.as_u64()?]);
    }
    let parsed: Vec<Value>;
    let all = match value.get("alternatives")? {
        Value::Array(all) => all,
        Value::String(text) => {
            parsed = serde_json::from_str(text).ok()?;
            &parsed
        }
        _ => return None,
    };
    let can = |place: Place| {
        let fits = |a: &&Value| {
            a.get("eligible").and_then(Value::as_bool) == Some(true)
                && a.get("place").and_then(Value::as_str) == Some(place.name())
        };
        all.iter().filter(fits).count() as u64
    };
    Some([can(Place::Local), can(Place::Cloud)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry_with(more: &Value) -> Value {
        let mut value = json!({ "decision_id": "d", "arrived_ms": 5000, "endpoint": "chat", "outcome": "ok", "place": "local",
            "propensity": 0.9, "eligible": [1, 1], "attempts": 1, "input_tokens": 10, "output_tokens": 20 });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        value
    }

    #[test]
    fn a_decision_is_told_with_the_odds_of_its_side_or_not_at_all() {
        let told = |more: Value| entry(&entry_with(&more)).unwrap().unwrap().logged;
        let plain = Logged { local: true, propensity: 0.9, reward: None };
        assert_eq!(told(json!({})), Some(plain));
        assert_eq!(
            told(json!({ "place": "cloud", "feedback": 0.5 })),
            Some(Logged { local: false, reward: Some(0.5), ..plain })
        );
        let check = json!({ "place": "cloud", "verdict": "escalated", "attempts": 2, "propensity": 1.0 });
        assert_eq!(told(check), Some(Logged { propensity: 1.0, ..plain }));
        for more in [
            json!({ "attempts": 2 }),
            json!({ "propensity": 0.0 }),
            json!({ "propensity": null }),
            json!({ "place": null }),
            json!({ "eligible": [2, 1] }),
            json!({ "eligible": null }),
        ] {
            assert_eq!(told(more.clone()), None, "{more}");
        }
        assert!(told(json!({ "eligible": [2, 1], "propensity": 1.0 })).is_some(), "certain, whoever else could");
        let two = json!([{ "place": "local", "eligible": true }, { "place": "local", "eligible": false }]);
        assert!(told(json!({ "eligible": null, "alternatives": two })).is_some());
        assert!(told(json!({ "eligible": null, "alternatives": two.to_string() })).is_some());
    }

    #[test]
    fn entries_that_no_backend_was_asked_are_passed_over_and_damaged_ones_are_not() {
        for more in [
            json!({ "endpoint": "route" }),
            json!({ "endpoint": "shadow", "verdict": "shadow" }),
            json!({ "outcome": "refused" }),
            json!({ "outcome": "cached" }),
            json!({ "input_tokens": null }),
        ] {
            assert_eq!(entry(&entry_with(&more)), Ok(None), "{more}");
        }
        assert!(entry(&entry_with(&json!({ "decision_id": null }))).unwrap_err().contains("packed part"));
        let mut masses = vec![0.0; DOMAINS];
        masses[8] = 1.0;
        let row = entry(&entry_with(&json!({ "posterior": masses }))).unwrap().unwrap();
        assert_eq!(row.posterior.unwrap().top().0.name(), "Legal services");
        assert_eq!((row.at, row.input, row.output), (Some(5.0), Some(10.0), Some(20.0)));
        assert_eq!(entry(&entry_with(&json!({ "posterior": [0.5, 0.5] }))).unwrap().unwrap().posterior, None);
    }
}
