//! What one core can do: multiply-adds from registers, and reading memory.
#![allow(unsafe_code, reason = "instructions that the level was checked for")]

use std::hint::black_box;

use wattroute::lla::simd::Level;

/// Chains of multiply-adds side by side: more than latency times units on any machine of today.
const CHAINS: usize = 16;
/// Steps of every chain per call.
const STEPS: usize = 20_000;

/// Floating-point operations per second, a multiply-add being two.
pub fn multiply_adds(level: Level) -> f64 {
    let (mut width, mut seconds) = (1, f64::INFINITY);
    let mut time = |numbers: usize, call: &mut dyn FnMut()| {
        let one = crate::best(call) / numbers as f64;
        if one < seconds / width as f64 {
            (width, seconds) = (numbers, one * numbers as f64);
        }
    };
    #[cfg(target_arch = "x86_64")]
    {
        if level >= Level::Avx512 && level.runs_here() {
            // SAFETY: the level was checked.
            time(16, &mut || unsafe { x86::chains_512() });
        }
        if level >= Level::Avx2 && level.runs_here() {
            // SAFETY: the level was checked.
            time(8, &mut || unsafe { x86::chains_2() });
        }
    }
    let _ = level;
    time(4, &mut plain);
    (2 * width * CHAINS * STEPS) as f64 / seconds
}

/// Four numbers per chain in the target's baseline.
fn plain() {
    let mut sums = black_box([[0.5_f32; 4]; CHAINS]);
    let (a, b) = (black_box([0.999_f32; 4]), black_box([0.001_f32; 4]));
    for _ in 0..STEPS {
        for sum in &mut sums {
            for ((s, x), y) in sum.iter_mut().zip(&a).zip(&b) {
                *s = if cfg!(target_arch = "aarch64") { s.mul_add(*x, *y) } else { *s * x + y };
            }
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
    use std::hint::black_box;

    use super::{CHAINS, STEPS};

    #[target_feature(enable = "avx512f")]
    pub fn chains_512() {
        let (mut sums, a, b) = ([_mm512_set1_ps(0.5); CHAINS], _mm512_set1_ps(0.999), _mm512_set1_ps(0.001));
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn chains_2() {
        let (mut sums, a, b) = ([_mm256_set1_ps(0.5); CHAINS - 4], _mm256_set1_ps(0.999), _mm256_set1_ps(0.001));
        // Fewer chains, as many operations: sixteen registers must hold them and the factors.
        for _ in 0..STEPS * CHAINS / (CHAINS - 4) {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }
}

/// Bytes per second when a buffer of this size is read again and again.
pub fn read(bytes: usize) -> f64 {
    let buffer = vec![1_u64; bytes / 8];
    let rounds = (4 * 1024 * 1024 / bytes).max(1);
    let seconds = crate::best(&mut || {
        for _ in 0..rounds {
            black_box(sum(black_box(&buffer)));
        }
    });
    (bytes * rounds) as f64 / seconds
}

fn sum(buffer: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide(buffer: &[u64]) -> u64 {
            lanes(buffer)
        }
        if Level::Avx2.runs_here() {
            // SAFETY: the level was checked.
            return unsafe { wide(buffer) };
        }
    }
    lanes(buffer)
}

#[inline(always)]
fn lanes(buffer: &[u64]) -> u64 {
    let mut sums = [0_u64; 32];
    for chunk in buffer.as_chunks::<32>().0 {
        sums.iter_mut().zip(chunk).for_each(|(s, x)| *s = s.wrapping_add(*x));
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}
