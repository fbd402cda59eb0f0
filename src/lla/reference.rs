//! Attention in double precision, as its definition reads: the oracle of the kernel's tests. Slow on purpose.

use crate::lla::Attention;

/// Softmax attention of every query over the keys it sees; `NaN`-free input of a fitting shape is assumed.
pub fn softmax(job: &Attention) -> Vec<f64> {
    let shape = job.shape;
    let mut out = Vec::new();
    for (row, query) in job.queries.chunks_exact(shape.dim).enumerate() {
        let (token, head) = (row / shape.heads, row % shape.heads);
        let kv_head = head / shape.group();
        let end = job.first + token + 1;
        let seen = end.saturating_sub(job.window.unwrap_or(usize::MAX))..end;
        let dot = |key: &[f32]| key.iter().zip(query).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
        let scores: Vec<f64> =
            seen.clone().map(|position| dot(&job.store.key(kv_head, position)) * f64::from(job.scale)).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = vec![0.0; shape.value_dim];
        for (weight, position) in weights.iter().zip(seen) {
            sum.iter_mut().zip(job.store.value(kv_head, position)).for_each(|(s, v)| *s += weight * f64::from(v));
        }
        out.extend(sum.iter().map(|s| if total > 0.0 { s / total } else { 0.0 }));
    }
    out
}
