//! `[shadow]`: which share of the queries is asked again of the other place, and what that may cost.

use super::problem::Problems;
use super::raw;

/// Joules an hour where the file does not say: some minutes of a busy graphics card.
const JOULES: f64 = 20_000.0;
/// US dollars an hour where the file does not say.
const USD: f64 = 0.10;

/// Shadow answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shadow {
    /// Share of the queries that are asked again; 0 is none.
    pub share: f64,
    /// What they may take in an hour, J.
    pub joules_per_hour: f64,
    /// What they may cost in an hour, US dollars.
    pub usd_per_hour: f64,
}

/// Reads the section.
pub fn section(raw: &raw::Shadow, problems: &mut Problems) -> Option<Shadow> {
    let mut number = |value: Option<f64>, default: f64, most: f64, key: &str| {
        let value = value.unwrap_or(default);
        let ok = (0.0..=most).contains(&value);
        let found = if ok { Ok(value) } else { Err(format!("must be a number from 0 to {most} (got {value})")) };
        problems.keep(key, found)
    };
    let share = number(raw.share, 0.0, 1.0, "shadow.share");
    let joules = number(raw.joules_per_hour, JOULES, 1e12, "shadow.joules_per_hour");
    let usd = number(raw.usd_per_hour, USD, 1e6, "shadow.usd_per_hour");
    Some(Shadow { share: share?, joules_per_hour: joules?, usd_per_hour: usd? })
}
