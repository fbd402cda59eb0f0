//! Policies side by side: the front that none of them beats, and where two of them part. Pure.

use serde::Serialize;

use super::assemble::Parts;
use super::boot::Draws;
use super::outcome::PolicyFigures;
use super::partial::{Parting, Route, Tally};
use super::rows::{joules_mid, whole};
use super::simulate::REFERENCES;

/// A policy that none of the others beats in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ParetoPoint {
    /// Its name.
    pub name: String,
    /// Share right.
    pub accuracy: f64,
    /// Joules, mid; null where unknown: then the front is over the share of cloud answers.
    pub joules: Option<f64>,
    /// Share answered in the cloud.
    pub cloud_share: f64,
}

/// Where two policies part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// The first policy.
    pub a: String,
    /// The second.
    pub b: String,
    /// Queries that both keep local.
    pub both_local: u64,
    /// That both send to the cloud.
    pub both_cloud: u64,
    /// The first keeps them, the second sends them.
    pub a_local: Side,
    /// The other way round.
    pub b_local: Side,
    /// Accuracy of `a` minus that of `b`, with its paired interval.
    pub accuracy: f64,
    /// Its interval.
    pub accuracy_ci: Option<[f64; 2]>,
    /// Joules (mid) of `a` minus those of `b`.
    pub joules: Option<f64>,
    /// Its interval.
    pub joules_ci: Option<[f64; 2]>,
    /// First few on which they part.
    pub examples: Vec<DiffExample>,
}

/// Queries on which two policies part one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Side {
    /// Queries.
    pub n: u64,
    /// Right by the first policy.
    pub right_a: f64,
    /// Right by the second.
    pub right_b: f64,
}

/// A query on which two policies part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffExample {
    /// Its key.
    pub id: String,
    /// Its line.
    pub line: u64,
    /// The policy that keeps it local.
    pub kept_by: String,
}

/// The front, cheapest first. The oracle is no policy that anybody can have.
pub fn pareto(policies: &[PolicyFigures]) -> Vec<ParetoPoint> {
    let mut all: Vec<ParetoPoint> = policies
        .iter()
        .filter(|p| p.name != "oracle")
        .map(|p| ParetoPoint {
            name: p.name.clone(),
            accuracy: p.accuracy,
            joules: p.joules.mid,
            cloud_share: 1.0 - p.local_share,
        })
        .collect();
    let cost = |p: &ParetoPoint| p.joules.unwrap_or(p.cloud_share);
    all.sort_by(|a, b| cost(a).total_cmp(&cost(b)).then(b.accuracy.total_cmp(&a.accuracy)));
    let mut best = f64::NEG_INFINITY;
    all.retain(|p| {
        let better = p.accuracy > best + 1e-12;
        best = best.max(p.accuracy);
        better
    });
    all
}

/// Where two policies part.
pub fn diff(parts: &Parts<'_>, (a, b): (usize, usize), p: &Parting, draws: &Draws) -> Option<Diff> {
    let name = |i: usize| parts.setup.policies.get(i).map(|p| p.name.to_string()).unwrap_or_default();
    let total = |i: usize| parts.partial.routes.get(REFERENCES + i).map(Route::total).unwrap_or_default();
    let (ra, rb) = (total(a), total(b));
    let side = |[x, y]: &[Tally; 2]| Side { n: whole(x.n), right_a: x.right, right_b: y.right };
    let (i, j) = (REFERENCES + a, REFERENCES + b);
    let n = ra.n.max(1.0);
    Some(Diff {
        a: name(a),
        b: name(b),
        both_local: whole(p.both_local),
        both_cloud: whole(p.both_cloud),
        a_local: side(&p.first_local),
        b_local: side(&p.second_local),
        accuracy: (ra.right - rb.right) / n,
        accuracy_ci: draws.between(i, j, |x, y| (x.right - y.right) / x.n),
        joules: Some(joules_mid(&ra)? - joules_mid(&rb)?).or(None),
        joules_ci: (ra.energy_n > 0.0).then(|| draws.between(i, j, |x, y| (x.joules - y.joules) / x.n * n)).flatten(),
        examples: p
            .examples
            .iter()
            .map(|(id, line, first)| DiffExample {
                id: id.to_string(),
                line: *line,
                kept_by: name(if *first { a } else { b }),
            })
            .collect(),
    })
}
