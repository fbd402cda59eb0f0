//! The kernels' source, and which constants it is compiled with.

use std::fmt::Write;

const DEVICE: &str = include_str!("kernels/device.cuh");
const BASE: &str = include_str!("kernels/base.cuh");
const TENSOR: &str = include_str!("kernels/tensor.cuh");

/// How products of tiles are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Math {
    /// Plain single precision: any device, the yardstick of the others.
    F32,
    /// Tensor cores with operands of 11 bits.
    Tf32,
    /// Tensor cores, operands as sums of two tf32 numbers: nearly single precision at a third of the rate.
    Tf32x3,
    /// Tensor cores with operands of 8 bits: enough for second moments of centred keys where lambda is at least 1.
    Bf16,
}

/// Kernels that are compiled together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Decode with softmax weights: `decode_softmax`, `merge_softmax`.
    Softmax,
    /// The same with a given correction.
    Projected,
    /// Second moments of decode: `decode_moments`.
    Moments,
    /// From moments to output: `merge_moments`, `solve`.
    Solve,
    /// Many queries per sequence, softmax: `prefill_softmax`.
    PrefillSoftmax,
    /// Many queries, given corrections: `prefill_projected`.
    PrefillProjected,
    /// Many queries, corrections solved: `prefill_lla`.
    PrefillLla,
    /// Writing keys and values: `append`.
    Append,
}

/// One compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Which kernels.
    pub family: Family,
    /// Numbers per key.
    pub dim: u32,
    /// Numbers per value.
    pub value_dim: u32,
    /// Whether keys and values are half precision.
    pub half: bool,
    /// Query heads per key-value head.
    pub group: u32,
    /// Arithmetic of tiles.
    pub math: Math,
}

impl Variant {
    /// The variant that stands for all those whose kernels would be the same.
    pub fn canonical(self) -> Self {
        match self.family {
            Family::Softmax | Family::Projected => Self { math: Math::F32, ..self },
            Family::Moments | Family::PrefillSoftmax | Family::PrefillProjected | Family::PrefillLla => self,
            Family::Solve => Self { math: Math::F32, half: false, group: 1, ..self },
            Family::Append => Self { math: Math::F32, group: 1, ..self },
        }
    }

    /// Constants, by name.
    pub fn defines(self) -> Vec<(&'static str, u32)> {
        let math = match self.math {
            Math::F32 => 0,
            Math::Tf32 => 1,
            Math::Tf32x3 => 2,
            Math::Bf16 => 3,
        };
        let kind = match self.family {
            Family::PrefillProjected => 1,
            Family::PrefillLla => 2,
            _ => 0,
        };
        vec![
            ("DK", self.dim),
            ("DV", self.value_dim),
            ("HALF_KV", u32::from(self.half)),
            ("GROUP", self.group),
            ("MATH", math),
            ("PROJECTED", u32::from(self.family == Family::Projected)),
            ("KIND", kind),
        ]
    }

    /// The parts of the source after what stands for the hardware, with their names.
    pub fn parts(self) -> Vec<(&'static str, &'static str)> {
        let own = match self.family {
            Family::Softmax | Family::Projected => ("decode_softmax.cu", include_str!("kernels/decode_softmax.cu")),
            Family::Moments => ("decode_moments.cu", include_str!("kernels/decode_moments.cu")),
            Family::Solve => ("solve.cu", include_str!("kernels/solve.cu")),
            Family::PrefillSoftmax | Family::PrefillProjected | Family::PrefillLla => {
                ("prefill.cu", include_str!("kernels/prefill.cu"))
            }
            Family::Append => ("append.cu", include_str!("kernels/append.cu")),
        };
        vec![("base.cuh", BASE), ("tensor.cuh", TENSOR), own]
    }

    /// The whole source for a device.
    pub fn source(self) -> String {
        let mut text = String::new();
        for (name, part) in [("device.cuh", DEVICE)].into_iter().chain(self.parts()) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "#line 1 \"{name}\"\n{part}");
        }
        text
    }
}
