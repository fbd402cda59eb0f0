//! Energy: what a joule figure is, where it comes from, and how the cloud's is modelled.
//!
//! Invariant: unknown is unknown. No figure here defaults to 0, and every figure carries its [`Basis`].

pub mod attribution;
pub mod books;
pub mod carbon;
pub mod cloud;
pub mod cost;
pub mod estimate;
pub mod idle;
pub mod ledger;
pub mod meters;
pub mod recorded;
pub mod sampler;
pub mod series;
pub mod trace;

use serde::{Deserialize, Serialize};

/// Where a joule figure comes from, most trustworthy first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// A hardware energy counter.
    Counter,
    /// Sampled power, integrated.
    Power,
    /// TDP times utilisation.
    Utilisation,
    /// Printed by somebody else's study.
    Published,
    /// A stated model with assumptions.
    Modelled,
    /// Not known; the figure is null.
    Unknown,
}

impl Basis {
    /// The word used in headers, tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Power => "power",
            Self::Utilisation => "utilisation",
            Self::Published => "published",
            Self::Modelled => "modelled",
            Self::Unknown => "unknown",
        }
    }
}

/// Joules with a range. All three are null when the basis is [`Basis::Unknown`]; an end alone may be null where only it is not
/// known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Joules {
    /// Lower end of the stated assumptions.
    pub low: Option<f64>,
    /// Central figure.
    pub mid: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Where the figure comes from.
    pub basis: Basis,
}

impl Joules {
    /// Not known.
    pub const UNKNOWN: Self = Self { low: None, mid: None, high: None, basis: Basis::Unknown };

    /// A known range; non-finite or negative input gives [`Joules::UNKNOWN`].
    pub fn range(low: f64, mid: f64, high: f64, basis: Basis) -> Self {
        let fine = [low, mid, high].iter().all(|x| x.is_finite() && *x >= 0.0);
        if !fine || basis == Basis::Unknown {
            return Self::UNKNOWN;
        }
        Self { low: Some(low), mid: Some(mid), high: Some(high), basis }
    }

    /// Of a meter whose share of the machine at rest is not known: there is no lower end.
    pub fn without_low(mid: f64, high: f64, basis: Basis) -> Self {
        Self { low: None, ..Self::range(0.0, mid, high, basis) }
    }

    /// Scales a per-token figure to a count of tokens.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        self.with(|x| x.map(|x| x * factor), self.basis)
    }

    /// Sum; the weaker basis wins, and unknown plus anything is unknown, end by end.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let ends = [(self.low, other.low), (self.mid, other.mid), (self.high, other.high)];
        let [low, mid, high] = ends.map(|(a, b)| Some(a? + b?));
        Self { low, mid, high, basis: self.basis }.with(|x| x, self.basis.max(other.basis))
    }

    /// Every end changed; unknown if the middle is, or if anything is no figure.
    fn with(self, change: impl Fn(Option<f64>) -> Option<f64>, basis: Basis) -> Self {
        let ends = [self.low, self.mid, self.high].map(change);
        let [low, mid, high] = ends;
        let fine = ends.iter().flatten().all(|x| x.is_finite() && *x >= 0.0);
        if !fine || mid.is_none() || basis == Basis::Unknown {
            return Self::UNKNOWN;
        }
        Self { low, mid, high, basis }
    }
}
