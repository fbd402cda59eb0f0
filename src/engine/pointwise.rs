//! The small steps between matrix products: RMS norm and the gated activation.

use crate::lla::simd::{Level, exp};

/// `out = x / rms(x) * weight`.
pub fn norm(level: Level, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 if level.runs_here() => x86::norm(x, weight, epsilon, out),
        _ => norm_body(x, weight, epsilon, out),
    }
}

/// `out = gate * sigmoid(gate) * up`.
pub fn gated(level: Level, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 if level.runs_here() => x86::gated(gate, up, out),
        _ => gated_body(gate, up, out),
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
fn gated_body(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
        *o = g / (1.0 + exp(-g)) * u;
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "calls code compiled for instructions that were checked for")]
mod x86 {
    use super::{gated_body, norm_body};

    pub fn norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma")]
        fn wide(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
            norm_body(x, weight, epsilon, out);
        }
        // SAFETY: called only where `Level::runs_here` found AVX2 and FMA.
        unsafe { wide(x, weight, epsilon, out) }
    }

    pub fn gated(gate: &[f32], up: &[f32], out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma")]
        fn wide(gate: &[f32], up: &[f32], out: &mut [f32]) {
            gated_body(gate, up, out);
        }
        // SAFETY: called only where `Level::runs_here` found AVX2 and FMA.
        unsafe { wide(gate, up, out) }
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
            let (mut a, mut b) = (vec![0.0; 77], vec![0.0; 77]);
            norm(level, &x, &w, 1e-5, &mut a);
            gated(level, &x, &w, &mut b);
            for i in 0..77 {
                let (x, w) = (f64::from(x[i]), f64::from(w[i]));
                assert!((f64::from(a[i]) - x / (mean + 1e-5).sqrt() * w).abs() < 1e-5);
                assert!((f64::from(b[i]) - x / (1.0 + (-x).exp()) * w).abs() < 1e-4);
            }
        }
    }
}
