//! Four ways to write the same prediction; all return `value_dim` numbers, zeros where nothing is visible.
#![allow(clippy::indexing_slicing, reason = "every vector is sized from the problem's own dimensions")]

use crate::lla::reference::matrix::{Cholesky, axpy, dot, least_squares, ridged, times};
use crate::lla::reference::{Local, solve};

/// The root of all: `min over b, W of sum p |v - b - W (k - q)|^2 + lambda |W|^2`, answer `b`.
///
/// Solved as least squares on the stacked rows `sqrt(p) [1, k - q]` and `sqrt(lambda) [0, e_i]`; the intercept is not
/// penalised. The weighted mean of the keys and values is not used anywhere. For a finite lambda.
pub fn dense(local: &Local) -> Vec<f64> {
    let (d, dv) = (local.dim(), local.value_dim);
    let (mut design, mut target) = (Vec::new(), Vec::new());
    for (p, key, value) in local.points() {
        let root = p.sqrt();
        design.push(root);
        design.extend(key.iter().zip(local.query).map(|(k, q)| root * (k - q)));
        target.extend(value.iter().map(|v| root * v));
    }
    if design.is_empty() {
        return vec![0.0; dv];
    }
    for i in 0..d {
        let mut row = vec![0.0; d + 1];
        row[i + 1] = local.lambda.sqrt();
        design.extend(row);
        target.extend(std::iter::repeat_n(0.0, dv));
    }
    least_squares(design, d + 1, target)[..dv].to_vec()
}

/// Mean-centred: `o = sum p_j (1 - rho.u_j) v_j`, `rho = A^-1 delta`; exactly the weighted mean for infinite lambda.
pub fn centred(local: &Local) -> Vec<f64> {
    if local.lambda == f64::INFINITY {
        return local.value_mean();
    }
    let rho = solve::cholesky(local).unwrap_or_else(|| vec![0.0; local.dim()]);
    average(local, &factors(local, &rho))
}

/// Query-centred, as paper and released code write it: with `z = k - q`, `mu = sum p z`, `S = sum p z z^T + lambda I`,
/// `r = S^-1 mu`: `o = sum p (1 - z.r) v / (1 - mu.r)`. `None` where `S` cannot be factored.
pub fn query_centred(local: &Local) -> Option<Vec<f64>> {
    let d = local.dim();
    let mut mu = vec![0.0; d];
    let mut second = vec![0.0; d * d];
    for (p, key, _) in local.points() {
        let z: Vec<f64> = key.iter().zip(local.query).map(|(k, q)| k - q).collect();
        axpy(&mut mu, p, &z);
        second.chunks_exact_mut(d).zip(&z).for_each(|(row, x)| axpy(row, p * x, &z));
    }
    let r = Cholesky::new(&ridged(&second, d, local.lambda), d)?.solve(&mu);
    let below = 1.0 - dot(&mu, &r);
    let mut out = vec![0.0; local.value_dim];
    for (p, key, value) in local.points() {
        let along: f64 = key.iter().zip(local.query).zip(&r).map(|((k, q), r)| (k - q) * r).sum();
        axpy(&mut out, p * (1.0 - along) / below, value);
    }
    Some(out)
}

/// Linear predictor plus local average of its residuals: `What = G A^-1`, `o = What q + sum p (v - What k)`.
/// `None` where `A` cannot be factored.
pub fn predictor(local: &Local) -> Option<Vec<f64>> {
    let d = local.dim();
    let factor = Cholesky::new(&ridged(&local.covariance(), d, local.lambda), d)?;
    let what: Vec<f64> = local.cross_covariance().chunks_exact(d).flat_map(|row| factor.solve(row)).collect();
    Some(with_predictor(local, &what))
}

/// The same with any linear map `what` (`dv x dk`): its residuals are averaged, so the weights still sum to 1.
pub fn with_predictor(local: &Local, what: &[f64]) -> Vec<f64> {
    let mut out = times(what, local.query);
    for (p, key, value) in local.points() {
        axpy(&mut out, p, value);
        axpy(&mut out, -p, &times(what, key));
    }
    out
}

/// `a_j = 1 - rho.u_j` for every key, those without weight included (theirs is 0).
pub fn factors(local: &Local, rho: &[f64]) -> Vec<f64> {
    let offset = dot(rho, &local.key_mean());
    let keys = local.keys.chunks_exact(local.dim());
    let weighed = local.weights.iter().zip(keys);
    weighed.map(|(p, key)| if *p == 0.0 { 0.0 } else { 1.0 - (dot(rho, key) - offset) }).collect()
}

/// `sum p_j a_j v_j`.
pub fn average(local: &Local, factors: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; local.value_dim];
    let values = local.values.chunks_exact(local.value_dim.max(1));
    for ((p, a), value) in local.weights.iter().zip(factors).zip(values) {
        if *p != 0.0 {
            axpy(&mut out, p * a, value);
        }
    }
    out
}
