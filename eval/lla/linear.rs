//! Attention without softmax, forward and backward: linear attention (feature map `elu + 1`, normalised), and the delta
//! rule (keys of unit length, a learned step per token). One head of one sequence per call.

use crate::mat::{dot, mat, product, times};

/// Rows and width of one head's slices.
#[derive(Clone, Copy)]
pub struct Head {
    pub length: usize,
    pub dk: usize,
    pub dv: usize,
}

/// What linear attention keeps for its backward.
pub struct LinearTape {
    fq: Vec<f32>,
    fk: Vec<f32>,
    /// `phi(q) phi(k)` divided by the row's sum; lower triangle.
    weights: Vec<f32>,
    sums: Vec<f32>,
    out: Vec<f32>,
}

fn feature(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| if *x > 0.0 { x + 1.0 } else { x.exp() }).collect()
}

/// `sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j)` over `j <= i`.
pub fn linear(head: Head, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f32>, LinearTape) {
    let Head { length, dk, dv } = head;
    let (fq, fk) = (feature(q), feature(k));
    let mut weights = times(mat(&fq, length, dk), mat(&fk, length, dk).t());
    let mut sums = Vec::with_capacity(length);
    for (i, row) in weights.chunks_exact_mut(length).enumerate() {
        row[i + 1..].fill(0.0);
        let sum: f32 = row[..=i].iter().sum();
        row[..=i].iter_mut().for_each(|w| *w /= sum);
        sums.push(sum);
    }
    let out = times(mat(&weights, length, length), mat(v, length, dv));
    (out.clone(), LinearTape { fq, fk, weights, sums, out })
}

/// Gradients of q, k, v.
pub fn linear_back(head: Head, tape: &LinearTape, v: &[f32], grad: &[f32]) -> [Vec<f32>; 3] {
    let Head { length, dk, dv } = head;
    let dv_grad = times(mat(&tape.weights, length, length).t(), mat(grad, length, dv));
    let mut scores = times(mat(grad, length, dv), mat(v, length, dv).t());
    for (i, row) in scores.chunks_exact_mut(length).enumerate() {
        let own = dot(&grad[i * dv..(i + 1) * dv], &tape.out[i * dv..(i + 1) * dv]);
        row[..=i].iter_mut().for_each(|s| *s = (*s - own) / tape.sums[i]);
        row[i + 1..].fill(0.0);
    }
    let mut dq = times(mat(&scores, length, length), mat(&tape.fk, length, dk));
    let mut dk_grad = times(mat(&scores, length, length).t(), mat(&tape.fq, length, dk));
    // phi' is 1 where phi > 1 and phi elsewhere.
    dq.iter_mut().zip(&tape.fq).for_each(|(g, f)| *g *= f.min(1.0));
    dk_grad.iter_mut().zip(&tape.fk).for_each(|(g, f)| *g *= f.min(1.0));
    [dq, dk_grad, dv_grad]
}

/// What the delta rule keeps: the state before every step (`dv x dk`), the misses, and the unit keys.
pub struct DeltaTape {
    states: Vec<f32>,
    misses: Vec<f32>,
    unit: Vec<f32>,
    lengths: Vec<f32>,
}

/// `S_t = S_(t-1) + b_t (v_t - S_(t-1) k_t) k_t^T` with `|k_t| = 1`, output `S_t q_t`.
pub fn delta(head: Head, q: &[f32], k: &[f32], v: &[f32], steps: &[f32]) -> (Vec<f32>, DeltaTape) {
    let Head { length, dk, dv } = head;
    let size = dk * dv;
    let mut tape = DeltaTape {
        states: vec![0.0; (length + 1) * size],
        misses: Vec::with_capacity(length * dv),
        unit: Vec::with_capacity(length * dk),
        lengths: Vec::with_capacity(length),
    };
    let mut out = Vec::with_capacity(length * dv);
    for t in 0..length {
        let key = &k[t * dk..(t + 1) * dk];
        let norm = (dot(key, key) + 1e-6).sqrt();
        let key: Vec<f32> = key.iter().map(|x| x / norm).collect();
        let (before, after) = tape.states[t * size..].split_at_mut(size);
        for ((old, new), value) in before.chunks_exact(dk).zip(after.chunks_exact_mut(dk)).zip(&v[t * dv..]) {
            let miss = value - dot(old, &key);
            new.iter_mut().zip(old).zip(&key).for_each(|((n, o), k)| *n = o + steps[t] * miss * k);
            tape.misses.push(miss);
            out.push(dot(new, &q[t * dk..(t + 1) * dk]));
        }
        tape.unit.extend(key);
        tape.lengths.push(norm);
    }
    (out, tape)
}

/// Gradients of q, k, v, and of the steps.
pub fn delta_back(head: Head, tape: &DeltaTape, q: &[f32], steps: &[f32], grad: &[f32]) -> ([Vec<f32>; 3], Vec<f32>) {
    let Head { length, dk, dv } = head;
    let size = dk * dv;
    let (mut dq, mut dkey, mut dvalue) = (vec![0.0; length * dk], vec![0.0; length * dk], vec![0.0; length * dv]);
    let mut dsteps = vec![0.0; length];
    let mut dstate = vec![0.0; size];
    for t in (0..length).rev() {
        let (key, query) = (&tape.unit[t * dk..(t + 1) * dk], &q[t * dk..(t + 1) * dk]);
        let grad = &grad[t * dv..(t + 1) * dv];
        let (before, after) = (&tape.states[t * size..(t + 1) * size], &tape.states[(t + 1) * size..(t + 2) * size]);
        product(1.0, mat(after, dv, dk).t(), mat(grad, dv, 1), 0.0, &mut dq[t * dk..(t + 1) * dk]);
        let mut dunit = vec![0.0; dk];
        for (row, g) in grad.iter().enumerate() {
            let slope = &mut dstate[row * dk..(row + 1) * dk];
            slope.iter_mut().zip(query).for_each(|(s, q)| *s += g * q);
            let (miss, along) = (tape.misses[t * dv + row], dot(slope, key));
            dsteps[t] += miss * along;
            let dmiss = steps[t] * along;
            dvalue[t * dv + row] = dmiss;
            let old = &before[row * dk..(row + 1) * dk];
            for ((u, s), (o, k)) in dunit.iter_mut().zip(slope).zip(old.iter().zip(key)) {
                *u += steps[t] * miss * *s - dmiss * o;
                *s -= dmiss * k;
            }
        }
        let along = dot(&dunit, key);
        let place = &mut dkey[t * dk..(t + 1) * dk];
        for ((place, u), k) in place.iter_mut().zip(&dunit).zip(key) {
            *place = (u - along * k) / tape.lengths[t];
        }
    }
    ([dq, dkey, dvalue], dsteps)
}
