//! Gradients of one query's output, as the chain rule through the mean-centred form gives them.
//!
//! With `g = dL/do`, `gam_j = g.v_j`, `gbar = sum p gam`, `Gam = sum p gam u`, and a second solve with the same matrix,
//! `y = A^-1 Gam`:
//!
//! ```text
//! dv_j = p_j a_j g            dq = y + scale sum ds_j k_j            dlambda = rho.y
//! dk_j = p_j [(rho.u_j - 1) y + (y.u_j - gam_j + gbar) rho] + scale ds_j q
//! pi_j = gam_j - y.u_j - (gam_j - gbar) rho.u_j + (rho.u_j) (y.u_j)      ds_j = p_j (pi_j - sum p pi)
//! ```
//!
//! A given rho (learned probe) is the same with `y = 0`, and `drho = -Gam`.

use crate::lla::reference::matrix::{axpy, dot};
use crate::lla::reference::{Local, solve};

/// Gradients of `L` for one query with softmax weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// dk numbers.
    pub query: Vec<f64>,
    /// `n x dk`.
    pub keys: Vec<f64>,
    /// `n x dv`.
    pub values: Vec<f64>,
    /// Of the ridge; 0 for infinite lambda.
    pub lambda: f64,
    /// Of the probe, where it was given; else zeros.
    pub rho: Vec<f64>,
}

/// For the solved rho; infinite lambda is softmax attention. `upstream` is `dL/do`, dv numbers. A matrix that cannot be
/// factored counts as rho = 0, as in the forward forms.
pub fn solved(local: &Local, upstream: &[f64]) -> Gradients {
    let zero = vec![0.0; local.dim()];
    if local.lambda == f64::INFINITY {
        return Gradients { rho: zero.clone(), ..gradients(local, upstream, &zero, &zero) };
    }
    let rho = solve::cholesky(local).unwrap_or_else(|| zero.clone());
    let y = solve::against(local, &pull(local, upstream)).unwrap_or_else(|| zero.clone());
    Gradients { lambda: dot(&rho, &y), rho: zero, ..gradients(local, upstream, &rho, &y) }
}

/// For a rho that was given.
pub fn projected(local: &Local, upstream: &[f64], rho: &[f64]) -> Gradients {
    gradients(local, upstream, rho, &vec![0.0; local.dim()])
}

/// `Gam = G^T g`.
fn pull(local: &Local, upstream: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; local.dim()];
    let cross = local.cross_covariance();
    upstream.iter().zip(cross.chunks_exact(local.dim())).for_each(|(g, row)| axpy(&mut sum, *g, row));
    sum
}

fn gradients(local: &Local, upstream: &[f64], rho: &[f64], y: &[f64]) -> Gradients {
    let (d, dv, mean) = (local.dim(), local.value_dim, local.key_mean());
    let average = dot(upstream, &local.value_mean());
    let (rho_mean, y_mean) = (dot(rho, &mean), dot(y, &mean));
    let mut query = y.to_vec();
    let (mut keys, mut values) = (vec![0.0; local.keys.len()], vec![0.0; local.values.len()]);
    let mut pis = vec![0.0; local.weights.len()];
    let rows = keys.chunks_exact_mut(d).zip(values.chunks_exact_mut(dv)).zip(&mut pis);
    let points = local.keys.chunks_exact(d).zip(local.values.chunks_exact(dv));
    for (((dkey, dvalue), pi), (p, (key, value))) in rows.zip(local.weights.iter().zip(points)) {
        if *p == 0.0 {
            continue;
        }
        let (gamma, along_rho, along_y) = (dot(upstream, value), dot(rho, key) - rho_mean, dot(y, key) - y_mean);
        axpy(dvalue, p * (1.0 - along_rho), upstream);
        axpy(dkey, p * (along_rho - 1.0), y);
        axpy(dkey, p * (along_y - gamma + average), rho);
        *pi = gamma - along_y - (gamma - average) * along_rho + along_rho * along_y;
    }
    let mean_pi = dot(&local.weights, &pis);
    let keys_in = local.keys.chunks_exact(d);
    for ((dkey, key), (p, pi)) in keys.chunks_exact_mut(d).zip(keys_in).zip(local.weights.iter().zip(&pis)) {
        if *p != 0.0 {
            let score = local.scale * p * (pi - mean_pi);
            axpy(&mut query, score, key);
            axpy(dkey, score, local.query);
        }
    }
    let rho = pull(local, upstream).iter().map(|x| -x).collect();
    Gradients { query, keys, values, lambda: 0.0, rho }
}
