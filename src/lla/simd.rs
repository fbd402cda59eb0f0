//! Which instructions this machine has, and the few elementwise functions that all kernels share.

/// Instruction set of a kernel, chosen once at load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Whatever the target's baseline gives; runs everywhere.
    Portable,
    /// aarch64, all of which has NEON.
    Neon,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW and VNNI.
    Avx512,
}

impl Level {
    /// The best this machine can run.
    pub fn detect() -> Self {
        Self::all().into_iter().rev().find(|level| level.runs_here()).unwrap_or(Self::Portable)
    }

    /// All levels, slowest first.
    pub fn all() -> [Self; 4] {
        [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512]
    }

    /// Whether this machine has the instructions. A kernel of a level must only be called where this is true.
    pub fn runs_here(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.runs_here()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }
}

/// e^x in single precision to 2 units in the last place between -87 and 88; 0 below, and `NaN` for `NaN`.
///
/// Free of branches and calls, so that loops over it become vector code in kernels of every level.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer without an instruction of its own.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > 88.0 { 88.0 } else { x };
    let scaled = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = scaled - ROUND;
    // ln 2 in two parts, the first exact in few bits (Cody and Waite).
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    // Cephes' minimax polynomial on [-ln2/2, ln2/2].
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    // The integer sits in the low bits of `scaled`; moved to the exponent it is 2^n.
    let two_to_n = f32::from_bits((scaled.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { e * two_to_n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        let mut worst = 0.0_f64;
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - exact) / exact).abs());
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn the_detected_level_runs_here() {
        assert!(Level::detect().runs_here());
    }
}
