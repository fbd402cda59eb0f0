//! From moments to outputs: the last step of softmax and of given projections.
//!
//! With a projection the output is `vbar - G rho = (1 + tbar) vbar - sum p t v`, `t = rho.k` up to a constant. A row that
//! does not come out finite is computed again in double precision, over the keys it sees and nothing else: so numbers
//! that overflow on the way do not show, and what a row must not see cannot spoil it.
#![allow(clippy::indexing_slicing, reason = "records have the length that `Record::of` gave them")]

use crate::lla::Attention;
use crate::lla::record::Record;
use crate::lla::ridge::Rho;
use crate::lla::simd::exp;

/// Writes the output of a row (query `head` of `token`) whose moments are known.
pub fn write(job: &Attention, token: usize, head: usize, record: &[f32], out: &mut [f32]) {
    let width = Record::of(job).width;
    let total = record[Record::TOTAL];
    let factor = if total == 0.0 { 0.0 } else { 1.0 / total };
    let sums = &record[Record::SUMS..];
    match job.rho {
        Rho::Projection(_) => {
            let mean = factor * (1.0 + record[Record::SLOPE] * factor);
            let both = sums.iter().zip(&sums[width..]);
            out.iter_mut().zip(both).for_each(|(o, (v, tv))| *o = v * mean - tv * factor);
        }
        Rho::Zero | Rho::Solve(_) => out.iter_mut().zip(sums).for_each(|(o, v)| *o = v * factor),
    }
    if !out.iter().all(|x| x.is_finite()) {
        again(job, token, head, out);
    }
}

/// Joins the moments of a row's parts into the first one's.
pub fn join(parts: &mut [&mut [f32]]) {
    let most = parts.iter().map(|p| p[Record::MOST]).fold(f32::NEG_INFINITY, f32::max);
    let Some((first, rest)) = parts.split_first_mut() else { return };
    let weight = |part: &[f32]| if part[Record::MOST] == most { 1.0 } else { exp(part[Record::MOST] - most) };
    let own = weight(first);
    for place in [Record::TOTAL, Record::SLOPE].into_iter().chain(Record::SUMS..first.len()) {
        first[place] *= own;
    }
    for part in rest {
        let factor = weight(part);
        for place in [Record::TOTAL, Record::SLOPE].into_iter().chain(Record::SUMS..first.len()) {
            first[place] += part[place] * factor;
        }
    }
    first[Record::MOST] = most;
}

/// Positions a token of a job sees.
pub fn sight(job: &Attention, token: usize) -> std::ops::Range<usize> {
    let end = job.first + token + 1;
    end.saturating_sub(job.window.unwrap_or(usize::MAX))..end
}

/// A row in double precision.
#[expect(clippy::cast_possible_truncation, reason = "the output is single precision")]
pub fn again(job: &Attention, token: usize, head: usize, out: &mut [f32]) {
    let (seen, kv_head) = (sight(job, token), head / job.shape.group());
    let from = (token * job.shape.heads + head) * job.shape.dim;
    let query = &job.queries[from..from + job.shape.dim];
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let scale = f64::from(job.scale);
    let keys: Vec<Vec<f32>> = seen.clone().map(|position| job.store.key(kv_head, position)).collect();
    // A score that single precision calls minus infinity weighs nothing, as in the kernels.
    let far = |score: f64| if score < f64::from(f32::MIN) { f64::NEG_INFINITY } else { score };
    let scores: Vec<f64> = keys.iter().map(|key| far(dot(key, query) * scale)).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> =
        scores.iter().map(|s| if *s == f64::NEG_INFINITY { 0.0 } else { (s - most).exp() }).collect();
    let total: f64 = weights.iter().sum();
    let lean: Vec<f64> = match job.rho {
        Rho::Projection(rho) => {
            let t: Vec<f64> = keys.iter().map(|key| dot(key, &rho[from..from + job.shape.dim])).collect();
            let mean = t.iter().zip(&weights).map(|(t, w)| t * w).sum::<f64>() / total;
            t.iter().map(|t| 1.0 - (t - mean)).collect()
        }
        Rho::Zero | Rho::Solve(_) => vec![1.0; keys.len()],
    };
    let mut sum = vec![0.0; out.len()];
    for ((weight, lean), position) in weights.iter().zip(&lean).zip(seen).filter(|((w, _), _)| **w != 0.0) {
        let value = job.store.value(kv_head, position);
        sum.iter_mut().zip(value).for_each(|(s, v)| *s += weight * lean * f64::from(v));
    }
    out.iter_mut().zip(&sum).for_each(|(o, s)| *o = if total == 0.0 { 0.0 } else { (s / total) as f32 });
}
