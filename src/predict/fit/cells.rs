//! Means per domain and per subject, thin cells pulled to their parent: overall, then domain, then subject.
//!
//! Empirical Bayes, the normal model: a cell of n rows counts n / (n + k) for itself, where k is the spread inside cells over
//! the spread between them (method of moments, bounded). Rows may belong to several domains by shares. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Strength of the parent, in rows, where too few cells tell.
const DEFAULT_STRENGTH: f64 = 20.0;
/// Bounds of the estimated strength.
const STRENGTH: (f64, f64) = (4.0, 400.0);

/// Where a row belongs: domains with shares that sum to 1, and a subject under the first of them if one is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// Domain and share.
    pub domains: Vec<(Arc<str>, f64)>,
    /// Fine topic.
    pub subject: Option<Arc<str>>,
}

impl Place {
    /// A labelled place.
    pub fn labelled(domain: &str, subject: Option<&str>) -> Self {
        Self { domains: vec![(Arc::from(domain), 1.0)], subject: subject.map(Arc::from) }
    }
}

/// Shrunk means of one value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cells {
    /// Mean of all rows.
    pub overall: f64,
    /// By domain.
    pub domains: BTreeMap<Arc<str>, f64>,
    /// By subject, under the domain of its rows.
    pub subjects: BTreeMap<Arc<str>, f64>,
}

/// Sums of a cell, by share.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    n: f64,
    sum: f64,
    parent: f64,
}

impl Cells {
    /// Fits the means of the rows that have a value.
    pub fn fit<'a>(rows: impl Iterator<Item = (&'a Place, f64)> + Clone) -> Self {
        let (n, sum, square) = rows.clone().fold((0.0, 0.0, 0.0), |(n, s, q), (_, v)| (n + 1.0, s + v, q + v * v));
        if n == 0.0 {
            return Self::default();
        }
        let overall = sum / n;
        let spread = (square / n - overall * overall).max(1e-6);
        let mut of_domain: BTreeMap<Arc<str>, Sums> = BTreeMap::new();
        for (place, value) in rows.clone() {
            for (domain, share) in &place.domains {
                let cell = of_domain.entry(Arc::clone(domain)).or_default();
                cell.n += share;
                cell.sum += share * value;
                cell.parent += share * overall;
            }
        }
        let domains = shrunk(&of_domain, spread);
        let mut of_subject: BTreeMap<Arc<str>, Sums> = BTreeMap::new();
        for (place, value) in rows {
            let Some(subject) = &place.subject else { continue };
            let cell = of_subject.entry(Arc::clone(subject)).or_default();
            cell.n += 1.0;
            cell.sum += value;
            cell.parent += mixed(place, &domains, overall);
        }
        Self { overall, subjects: shrunk(&of_subject, spread), domains }
    }

    /// The value expected at a place: of its subject, else of its domains by their shares.
    pub fn at(&self, place: &Place) -> f64 {
        let subject = place.subject.as_ref().and_then(|s| self.subjects.get(s)).copied();
        subject.unwrap_or_else(|| mixed(place, &self.domains, self.overall))
    }

    /// The value expected by domain alone.
    pub fn of_domain(&self, place: &Place) -> f64 {
        mixed(place, &self.domains, self.overall)
    }
}

fn mixed(place: &Place, domains: &BTreeMap<Arc<str>, f64>, overall: f64) -> f64 {
    let known: f64 = place.domains.iter().map(|d| d.1).sum();
    let sum: f64 = place.domains.iter().map(|(d, share)| share * domains.get(d).copied().unwrap_or(overall)).sum();
    sum + (1.0 - known) * overall
}

fn shrunk(cells: &BTreeMap<Arc<str>, Sums>, spread: f64) -> BTreeMap<Arc<str>, f64> {
    let strength = strength(cells, spread);
    let one = |s: &Sums| {
        let parent = s.parent / s.n.max(1e-9);
        (s.sum + strength * parent) / (s.n + strength)
    };
    cells.iter().map(|(name, s)| (Arc::clone(name), one(s))).collect()
}

/// Variance inside over variance between, weighted by rows: what sampling does not explain is between.
fn strength(cells: &BTreeMap<Arc<str>, Sums>, spread: f64) -> f64 {
    let kept: Vec<&Sums> = cells.values().filter(|s| s.n >= 1.0).collect();
    if kept.len() < 3 {
        return DEFAULT_STRENGTH;
    }
    let rows: f64 = kept.iter().map(|s| s.n).sum();
    let apart: f64 = kept.iter().map(|s| (s.sum - s.parent).powi(2) / s.n).sum();
    let between = (apart - spread * kept.iter().map(|_| 1.0).sum::<f64>()) / rows;
    if between <= 0.0 { STRENGTH.1 } else { (spread / between).clamp(STRENGTH.0, STRENGTH.1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(parts: &[(&str, &str, usize, usize)]) -> Vec<(Place, f64)> {
        let one = |(d, s, ones, n): &(&str, &str, usize, usize)| {
            let place = Place::labelled(d, Some(s));
            (0..*n).map(|i| (place.clone(), f64::from(u8::from(i < *ones)))).collect::<Vec<_>>()
        };
        parts.iter().flat_map(one).collect()
    }

    #[test]
    fn thick_cells_keep_their_mean_and_thin_ones_move_to_their_domain() {
        let rows = rows(&[("a", "a1", 180, 200), ("a", "a2", 0, 2), ("b", "b1", 40, 200), ("c", "c1", 100, 200)]);
        let cells = Cells::fit(rows.iter().map(|(p, v)| (p, *v)));
        assert!((cells.subjects["a1"] - 0.9).abs() < 0.03);
        assert!((cells.domains["b"] - 0.2).abs() < 0.03);
        assert!(cells.subjects["a2"] > 0.5, "{cells:?}");
        assert!((cells.at(&Place::labelled("zzz", None)) - cells.overall).abs() < 1e-12);
    }

    #[test]
    fn shares_of_domains_mix_their_means() {
        let rows = rows(&[("a", "a1", 200, 200), ("b", "b1", 0, 200), ("c", "c1", 100, 200)]);
        let cells = Cells::fit(rows.iter().map(|(p, v)| (p, *v)));
        let half = Place { domains: vec![("a".into(), 0.5), ("b".into(), 0.5)], subject: None };
        let wanted = f64::midpoint(cells.domains["a"], cells.domains["b"]);
        assert!((cells.at(&half) - wanted).abs() < 1e-12);
        let partly = Place { domains: vec![("a".into(), 0.25)], subject: None };
        assert!((cells.at(&partly) - (0.25 * cells.domains["a"] + 0.75 * cells.overall)).abs() < 1e-12);
    }

    #[test]
    fn no_rows_and_equal_rows_are_defined() {
        assert_eq!(Cells::fit(std::iter::empty()), Cells::default());
        let rows = rows(&[("a", "a1", 5, 5), ("b", "b1", 5, 5)]);
        assert!((Cells::fit(rows.iter().map(|(p, v)| (p, *v))).at(&rows[0].0) - 1.0).abs() < 1e-9);
    }
}
