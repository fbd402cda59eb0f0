//! The small steps between matrix products: RMS norms and the gated activation.

use crate::engine::arch::Activation;
use crate::lla::simd::{Level, exp};

/// `out = x / rms(x) * weight`.
pub fn norm(level: Level, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 if level.runs_here() => x86::norm(x, weight, epsilon, out),
        _ => norm_body(x, weight, epsilon, out),
    }
}

/// The norm of every part of `row` as long as `weight`, in place: of each head, or of a whole row. Nothing without weights.
pub fn norm_parts(row: &mut [f32], weight: &[f32], epsilon: f32) {
    if weight.is_empty() {
        return;
    }
    for part in row.chunks_exact_mut(weight.len()) {
        let sum: f32 = part.iter().map(|v| v * v).sum();
        #[expect(clippy::cast_precision_loss, reason = "a width is far below 2^24")]
        let factor = 1.0 / (sum / part.len() as f32 + epsilon).sqrt();
        part.iter_mut().zip(weight).for_each(|(v, w)| *v *= factor * w);
    }
}

/// `out = activation(gate) * up`.
pub fn gated(level: Level, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 if level.runs_here() => x86::gated(activation, gate, up, out),
        _ => gated_body(activation, gate, up, out),
    }
}

#[inline(always)]
fn norm_body(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut lanes = [0.0_f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, v)| *lane += v * v);
    }
    let sum = lanes.iter().sum::<f32>() + rest.iter().map(|v| v * v).sum::<f32>();
    #[expect(clippy::cast_precision_loss, reason = "a width is far below 2^24")]
    let factor = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for ((o, v), w) in out.iter_mut().zip(x).zip(weight) {
        *o = v * factor * w;
    }
}

#[inline(always)]
fn gated_body(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    // Both are g * sigmoid(s): (1 + tanh x) / 2 is sigmoid(2x), and 2 sqrt(2 / pi) = 1.5957691.
    match activation {
        Activation::Silu => {
            for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                *o = g / (1.0 + exp(-g)) * u;
            }
        }
        Activation::Gelu => {
            for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                let s = 1.595_769 * (g + 0.044_715 * g * g * g);
                *o = g / (1.0 + exp(-s)) * u;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "calls code compiled for instructions that were checked for")]
mod x86 {
    use super::{Activation, gated_body, norm_body};

    pub fn norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma")]
        fn wide(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
            norm_body(x, weight, epsilon, out);
        }
        // SAFETY: called only where `Level::runs_here` found AVX2 and FMA.
        unsafe { wide(x, weight, epsilon, out) }
    }

    pub fn gated(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma")]
        fn wide(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
            gated_body(activation, gate, up, out);
        }
        // SAFETY: called only where `Level::runs_here` found AVX2 and FMA.
        unsafe { wide(activation, gate, up, out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_agrees_with_double_precision() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut draw = || (0..77).map(|_| random.f32() * 20.0 - 10.0).collect::<Vec<f32>>();
        let (x, w) = (draw(), draw());
        let mean = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 77.0;
        for level in Level::all().into_iter().filter(|l| l.runs_here()) {
            let (mut a, mut b, mut c, mut d) = (vec![0.0; 77], vec![0.0; 77], vec![0.0; 77], x.clone());
            norm(level, &x, &w, 1e-5, &mut a);
            norm_parts(&mut d, &w, 1e-5);
            gated(level, Activation::Silu, &x, &w, &mut b);
            gated(level, Activation::Gelu, &x, &w, &mut c);
            for i in 0..77 {
                let (x, w) = (f64::from(x[i]), f64::from(w[i]));
                assert!((f64::from(a[i]) - x / (mean + 1e-5).sqrt() * w).abs() < 1e-5);
                assert!((a[i] - d[i]).abs() < 1e-5);
                assert!((f64::from(b[i]) - x / (1.0 + (-x).exp()) * w).abs() < 1e-4);
                let tanh = ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh();
                assert!((f64::from(c[i]) - 0.5 * x * (1.0 + tanh) * w).abs() < 1e-4);
            }
        }
    }
}
