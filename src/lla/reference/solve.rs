//! `rho = (C + lambda I)^-1 b` on three roads: Cholesky, conjugate gradients, and the dual system of the keys.

use crate::lla::reference::Local;
use crate::lla::reference::matrix::{Cholesky, axpy, dot, ridged};

/// `A^-1 (kbar - q)` by Cholesky; `None` where a pivot is not positive.
pub fn cholesky(local: &Local) -> Option<Vec<f64>> {
    against(local, &local.delta())
}

/// `A^-1 b` by Cholesky.
pub fn against(local: &Local, b: &[f64]) -> Option<Vec<f64>> {
    let d = local.dim();
    Some(Cholesky::new(&ridged(&local.covariance(), d, local.lambda), d)?.solve(b))
}

/// Where conjugate gradients stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Iterated {
    /// The solution so far.
    pub x: Vec<f64>,
    /// Matrix products spent.
    pub iterations: usize,
    /// `|b - A x|^2`, as the recurrence carries it.
    pub residual_square: f64,
}

/// Conjugate gradients from zero until `|r| <= tolerance |b|` or `most` products; a zero `b` needs none.
pub fn conjugate_gradients(product: impl Fn(&[f64]) -> Vec<f64>, b: &[f64], tolerance: f64, most: usize) -> Iterated {
    let (mut x, mut r, mut direction) = (vec![0.0; b.len()], b.to_vec(), b.to_vec());
    let mut rr = dot(&r, &r);
    let enough = tolerance * tolerance * rr;
    let mut iterations = 0;
    while rr > enough && iterations < most {
        let y = product(&direction);
        let step = rr / dot(&direction, &y);
        if !step.is_finite() {
            break;
        }
        axpy(&mut x, step, &direction);
        axpy(&mut r, -step, &y);
        let next = dot(&r, &r);
        direction.iter_mut().zip(&r).for_each(|(d, r)| *d = r + next / rr * *d);
        rr = next;
        iterations += 1;
    }
    Iterated { x, iterations, residual_square: rr }
}

/// `A x = sum p (u.x) u + lambda x` without forming `A`, as the kernel's matrix-free product does.
pub fn product(local: &Local, x: &[f64]) -> Vec<f64> {
    let mean = local.key_mean();
    let offset = dot(&mean, x);
    let mut out: Vec<f64> = x.iter().map(|x| local.lambda * x).collect();
    for (p, key, _) in local.points() {
        // The mean's own share of the sum is zero, since sum p (u.x) = 0.
        axpy(&mut out, p * (dot(key, x) - offset), key);
    }
    out
}

/// `A^-1 (kbar - q)` by matrix-free conjugate gradients.
pub fn iterated(local: &Local, tolerance: f64, most: usize) -> Iterated {
    let mean = local.key_mean();
    let spread: Vec<(f64, Vec<f64>)> =
        local.points().map(|(p, key, _)| (p, key.iter().zip(&mean).map(|(k, m)| k - m).collect())).collect();
    let product = |x: &[f64]| {
        let mut out: Vec<f64> = x.iter().map(|x| local.lambda * x).collect();
        spread.iter().for_each(|(p, u)| axpy(&mut out, p * dot(u, x), u));
        out
    };
    conjugate_gradients(product, &local.delta(), tolerance, most)
}

/// Through the `n x n` system of the keys (Woodbury): with the rows `sqrt(p_j) u_j` as `X`,
/// `t = (X X^T + lambda I)^-1 X delta` and `rho = (delta - X^T t) / lambda`. `None` where it cannot be factored.
pub fn dual(local: &Local) -> Option<Vec<f64>> {
    let (mean, delta) = (local.key_mean(), local.delta());
    let rows: Vec<Vec<f64>> =
        local.points().map(|(p, key, _)| key.iter().zip(&mean).map(|(k, m)| p.sqrt() * (k - m)).collect()).collect();
    let gram: Vec<f64> = rows.iter().flat_map(|a| rows.iter().map(|b| dot(a, b))).collect();
    let right: Vec<f64> = rows.iter().map(|x| dot(x, &delta)).collect();
    let t = Cholesky::new(&ridged(&gram, rows.len(), local.lambda), rows.len())?.solve(&right);
    let mut rho = delta;
    rows.iter().zip(&t).for_each(|(x, t)| axpy(&mut rho, -t, x));
    rho.iter_mut().for_each(|r| *r /= local.lambda);
    Some(rho)
}
