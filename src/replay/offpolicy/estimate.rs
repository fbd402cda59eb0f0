//! A figure with its interval, and what a policy would have earned. Pure.

use serde::Serialize;

/// Ends of a normal interval at 95 %.
const Z: f64 = 1.959_964;

/// A figure with its interval at 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Its standard error.
    pub standard_error: f64,
}

impl Estimate {
    pub(super) fn around(value: f64, standard_error: f64) -> Self {
        Self { value, low: value - Z * standard_error, high: value + Z * standard_error, standard_error }
    }

    /// A mean of n terms, from their mean and the mean of their squares.
    pub(super) fn of(mean: f64, squares: f64, n: f64) -> Option<Self> {
        let error = ((squares - mean * mean).max(0.0) / (n - 1.0).max(1.0)).sqrt();
        (n >= 1.0 && mean.is_finite() && error.is_finite()).then(|| Self::around(mean, error))
    }
}

/// What a policy would have earned a query. Estimates are null where there is no support; `why_not` says so.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OffPolicy {
    /// Logged choices with a reward.
    pub n: u64,
    /// Share of them where the log could have done what the policy does.
    pub support: f64,
    /// Share where it did.
    pub agreed: f64,
    /// Even queries that the weighted ones are worth.
    pub effective_n: f64,
    /// Weights that were cut.
    pub clipped: u64,
    /// Inverse propensity score.
    pub ips: Option<Estimate>,
    /// The same, self-normalised.
    pub snips: Option<Estimate>,
    /// Doubly robust.
    pub dr: Option<Estimate>,
    /// Why there are no estimates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}
