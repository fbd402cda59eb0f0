//! A rho that comes from elsewhere, and what is known about the one the ridge gives: bounds, guard, Newton point.

use crate::lla::reference::matrix::{axpy, dot, norm};
use crate::lla::reference::{Local, forms, solve};

/// Learned probe in covariance form: `o = vbar - G rho` (Parallax, arXiv 2605.29157).
pub fn covariance_form(local: &Local, rho: &[f64]) -> Vec<f64> {
    let rows = local.cross_covariance();
    local.value_mean().iter().zip(rows.chunks_exact(rho.len())).map(|(mean, row)| mean - dot(row, rho)).collect()
}

/// The same as two attention averages: `o = vbar (1 + sum p k.rho) - sum p (k.rho) v`.
pub fn two_branch(local: &Local, rho: &[f64]) -> Vec<f64> {
    let mut along = 0.0;
    let mut second = vec![0.0; local.value_dim];
    for (p, key, value) in local.points() {
        let score = dot(key, rho);
        along += p * score;
        axpy(&mut second, p * score, value);
    }
    local.value_mean().iter().zip(&second).map(|(mean, s)| mean * (1.0 + along) - s).collect()
}

/// `q* = q + A^-1 (q - kbar) / scale`: softmax attention there agrees with the local linear one to second order in
/// `1 / lambda`, because `d kbar / d q = scale C` and `d vbar / d q = scale G`. `None` where `A` cannot be factored.
pub fn newton_point(local: &Local) -> Option<Vec<f64>> {
    let rho = solve::cholesky(local)?;
    Some(local.query.iter().zip(&rho).map(|(q, r)| q - r / local.scale).collect())
}

/// What one query's correction may be at most, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    /// `|o - vbar|`.
    pub moved: f64,
    /// `|delta| sigma_v / (2 sqrt lambda)`, with `sigma_v^2 = sum p |v - vbar|^2`.
    pub moved_at_most: f64,
    /// `sum p |a|`, the mass of the signed weights.
    pub mass: f64,
    /// `1 + |delta| / (2 sqrt lambda)`.
    pub mass_at_most: f64,
}

/// Both sides of the trust bounds (`c / (c + lambda)^2 <= 1 / (4 lambda)`, then Cauchy-Schwarz); `None` as above.
pub fn trust(local: &Local) -> Option<Trust> {
    let rho = solve::cholesky(local)?;
    let (factors, mean) = (forms::factors(local, &rho), local.value_mean());
    let far = |value: &[f64]| value.iter().zip(&mean).map(|(v, m)| (v - m) * (v - m)).sum::<f64>();
    let spread = local.points().map(|(p, _, value)| p * far(value)).sum::<f64>().sqrt();
    let moved: Vec<f64> = forms::average(local, &factors).iter().zip(&mean).map(|(o, m)| o - m).collect();
    let reach = norm(&local.delta()) / (2.0 * local.lambda.sqrt());
    Some(Trust {
        moved: norm(&moved),
        moved_at_most: reach * spread,
        mass: local.weights.iter().zip(&factors).map(|(p, a)| p * a.abs()).sum(),
        mass_at_most: 1.0 + reach,
    })
}

/// The adaptive ridge `max(lambda, (|delta| / (2 R))^2)`, which caps the correction at `R sigma_v`.
pub fn guarded(lambda: f64, delta: &[f64], radius: f64) -> f64 {
    lambda.max((norm(delta) / (2.0 * radius)).powi(2))
}
