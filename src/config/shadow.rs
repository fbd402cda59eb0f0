//! `[shadow]`: which share of the queries is asked again of the other place, and what that may cost.

use std::sync::Arc;

use super::problem::{Problems, did_you_mean, shown};
use super::raw;

/// Joules an hour where the file does not say: some minutes of a busy graphics card.
const JOULES: f64 = 20_000.0;
/// US dollars an hour where the file does not say.
const USD: f64 = 0.10;

/// Shadow answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Shadow {
    /// Share of the queries that are asked again; 0 is none.
    pub share: f64,
    /// What they may take in an hour, J.
    pub joules_per_hour: f64,
    /// What they may cost in an hour, US dollars.
    pub usd_per_hour: f64,
    /// Backend that also says which of the two answers is better.
    pub judge: Option<Arc<str>>,
}

/// Reads the section; `names` are those of all backends.
pub fn section(raw: &raw::Shadow, names: &[String], problems: &mut Problems) -> Option<Shadow> {
    if let Some(judge) = raw.judge.as_ref().filter(|judge| !names.contains(judge)) {
        let near = did_you_mean(judge, names.iter().map(String::as_str));
        let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        problems
            .add("shadow.judge", format!("must be a backend, local/NAME or cloud/NAME (got {}){near}", shown(judge)));
    }
    let mut number = |value: Option<f64>, default: f64, most: f64, key: &str| {
        let value = value.unwrap_or(default);
        let ok = (0.0..=most).contains(&value);
        let found = if ok { Ok(value) } else { Err(format!("must be a number from 0 to {most} (got {value})")) };
        problems.keep(key, found)
    };
    let share = number(raw.share, 0.0, 1.0, "shadow.share");
    let joules = number(raw.joules_per_hour, JOULES, 1e12, "shadow.joules_per_hour");
    let usd = number(raw.usd_per_hour, USD, 1e6, "shadow.usd_per_hour");
    Some(Shadow {
        share: share?,
        joules_per_hour: joules?,
        usd_per_hour: usd?,
        judge: raw.judge.as_deref().map(Arc::from),
    })
}
