//! Attention in double precision, as its definition reads: the oracle of the kernel's tests. Slow on purpose.

use crate::lla::{Attention, Rows};

/// Softmax attention of every query over the keys it sees; `NaN`-free input of a fitting shape is assumed.
pub fn softmax(job: &Attention) -> Vec<f64> {
    let (shape, width) = (job.shape, job.shape.kv_heads * job.shape.dim);
    let (keys, values) = (wide(job.keys), wide(job.values));
    let mut out = Vec::with_capacity(job.queries.len());
    for (row, query) in job.queries.chunks_exact(shape.dim).enumerate() {
        let (token, head) = (row / shape.heads, row % shape.heads);
        let from = head / (shape.heads / shape.kv_heads) * shape.dim;
        let visible = job.first + token + 1;
        let part = |rows: &[f64]| rows.get(from..from + shape.dim).unwrap_or(&[]).to_vec();
        let scores: Vec<f64> = keys
            .chunks_exact(width)
            .take(visible)
            .map(|key| part(key).iter().zip(query).map(|(k, q)| k * f64::from(*q)).sum::<f64>() * f64::from(job.scale))
            .collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = vec![0.0; shape.dim];
        for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
            sum.iter_mut().zip(part(value)).for_each(|(s, v)| *s += weight * v);
        }
        out.extend(sum.iter().map(|s| if total > 0.0 { s / total } else { 0.0 }));
    }
    out
}

fn wide(rows: Rows) -> Vec<f64> {
    match rows {
        Rows::Half(rows) => rows.iter().map(|x| x.to_f64()).collect(),
        Rows::Full(rows) => rows.iter().map(|x| f64::from(*x)).collect(),
    }
}
