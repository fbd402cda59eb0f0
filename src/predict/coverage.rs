//! P(correct) without a predictor: the shrunk coverage of a table under the posterior, else a prior.

use crate::classify::domain::{Domain, Posterior};
use crate::policy::types::{Chance, Place};
use crate::tables::Table;
use crate::tables::stats::Shrunk;

/// P(correct) of a local model that nobody measured: between the shipped tables of small models; mean, low, high.
const LOCAL_PRIOR: [f64; 3] = [0.5, 0.15, 0.85];
/// The same of a provider's model.
const CLOUD_PRIOR: [f64; 3] = [0.75, 0.4, 0.95];

/// P(correct) of a model by its table, else the prior of its place.
pub fn chance(table: Option<&Table>, posterior: &Posterior, place: Place) -> Chance {
    table.map_or_else(|| prior(place), |t| weighted(&t.shrunk(), posterior))
}

/// What is assumed of a model that nobody measured.
pub fn prior(place: Place) -> Chance {
    let [mean, low, high] = match place {
        Place::Local => LOCAL_PRIOR,
        Place::Cloud => CLOUD_PRIOR,
    };
    Chance { mean, low, high, n: 0, source: "prior" }
}

/// Shrunk coverage under the posterior. The ends add up as if all domains erred the same way: wide rather than narrow.
pub fn weighted(shrunk: &Shrunk, posterior: &Posterior) -> Chance {
    let (mut mean, mut low, mut high, mut n, mut mass) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (p, cell) in posterior.0.iter().zip(shrunk.cells()) {
        let p = f64::from(*p).max(0.0);
        mass += p;
        mean += p * cell.mean;
        low += p * cell.low;
        high += p * cell.high;
        n += p * f64::from(cell.n);
    }
    if mass <= 0.0 || !mass.is_finite() {
        let cell = shrunk.of_domain(Domain::NONE);
        return Chance { mean: cell.mean, low: cell.low, high: cell.high, n: cell.n, source: "table" };
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a mean of u32 is a u32; `as` saturates"
    )]
    let n = (n / mass).round() as u32;
    Chance { mean: mean / mass, low: low / mass, high: high / mass, n, source: "table" }
}
