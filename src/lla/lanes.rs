//! What the kernels ask of a vector unit, and the one place where a [`Level`] becomes code.
//!
//! Kernels are written once, generic over [`Lanes`]; [`run`] compiles them for each level inside a function that has the
//! level's instructions enabled. Everything between there and the intrinsics is `inline(always)`, or it would be compiled
//! for the baseline.
#![allow(unsafe_code, reason = "vector loads and stores; each block says why it is sound")]

use half::f16;

use crate::lla::gemm::Product;
use crate::lla::simd::Level;
use crate::lla::store::LANES;

/// A vector of single-precision numbers. Sixteen is a multiple of its width.
///
/// Values exist only inside [`run`], which has checked that the machine has the type's instructions; that is why the
/// arithmetic methods are safe.
pub trait Lanes: Copy {
    /// Numbers per vector.
    const WIDTH: usize;

    /// # Safety
    /// `WIDTH` numbers must be readable at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// `WIDTH` numbers must be readable at `from`.
    unsafe fn load_half(from: *const f16) -> Self;
    /// # Safety
    /// `WIDTH` numbers must be writable at `to`.
    unsafe fn store(self, to: *mut f32);
    /// The same number in every lane.
    fn splat(x: f32) -> Self;
    /// Lane by lane.
    fn add(self, other: Self) -> Self;
    /// Lane by lane.
    fn sub(self, other: Self) -> Self;
    /// Lane by lane.
    fn mul(self, other: Self) -> Self;
    /// `self * by + to`, fused where the machine can.
    fn fma(self, by: Self, to: Self) -> Self;
    /// The greater of both; `other` where `self` is not a number.
    fn max(self, other: Self) -> Self;
    /// The square root, lane by lane.
    fn root(self) -> Self;
    /// The exponential, to 2 units in the last place: 0 for minus infinity, `NaN` for `NaN`.
    fn exp(self) -> Self;

    /// `c = a b`, see [`Product`]. A function of its own per level, not inlined.
    ///
    /// # Safety
    /// As [`crate::lla::gemm::multiply`].
    unsafe fn multiply<E: Element>(product: &Product<E>);

    /// Sum of all lanes.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = [0.0_f32; LANES];
        // SAFETY: a vector has at most sixteen numbers.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes.iter().sum()
    }

    /// The greatest of all lanes, none of which may be `NaN`.
    #[inline(always)]
    fn top(self) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        // SAFETY: a vector has at most sixteen numbers.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes.iter().fold(f32::NEG_INFINITY, |most, x| if *x > most { *x } else { most })
    }

    /// The sums of sixteen lines of sixteen numbers each.
    ///
    /// # Safety
    /// 256 numbers must be readable at `from`.
    #[inline(always)]
    unsafe fn sum_lines(from: *const f32) -> [f32; LANES] {
        std::array::from_fn(|line| {
            // SAFETY: the caller's promise; `line` is below sixteen.
            (0..LANES).map(|lane| unsafe { *from.add(line * LANES + lane) }).sum()
        })
    }

    /// Turns sixteen lines of sixteen numbers into their columns: `to[i * to_row + j] = from[j * from_row + i]`.
    ///
    /// # Safety
    /// Sixteen numbers must be readable at each of sixteen rows of `from`, and writable at each of `to`.
    #[inline(always)]
    unsafe fn turn(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        for line in 0..LANES {
            for lane in 0..LANES {
                // SAFETY: the caller's promise; both counts are below sixteen.
                unsafe { *to.add(lane * to_row + line) = *from.add(line * from_row + lane) };
            }
        }
    }
}

/// A number as a store keeps it.
pub trait Element: Copy {
    /// # Safety
    /// `L::WIDTH` numbers must be readable at `from`.
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_half(from) }
    }
}

/// A kernel: its arguments, and the code over any vector type. `run` must be `inline(always)`.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// Runs it.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Runs a kernel with the instructions of a level; with the baseline's where the machine lacks them.
pub fn run<K: Kernel>(level: Level, kernel: K) -> K::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if level.runs_here() => {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
            fn wide<K: Kernel>(kernel: K) -> K::Output {
                kernel.run::<crate::lla::x86::Zmm>()
            }
            // SAFETY: `runs_here` found the instructions.
            unsafe { wide(kernel) }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.runs_here() => {
            #[target_feature(enable = "avx2,fma,f16c")]
            fn wide<K: Kernel>(kernel: K) -> K::Output {
                kernel.run::<crate::lla::x86::Ymm>()
            }
            // SAFETY: `runs_here` found the instructions.
            unsafe { wide(kernel) }
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => kernel.run::<crate::lla::neon::Quad>(),
        _ => kernel.run::<Plain>(),
    }
}

/// Four numbers and ordinary arithmetic: what every target can do.
#[derive(Clone, Copy)]
pub struct Plain([f32; 4]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let ([a, b, c, d], [w, x, y, z]) = (self.0, other.0);
        Self([f(a, w), f(b, x), f(c, y), f(d, z)])
    }
}

impl Lanes for Plain {
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f16; 4]>().read_unaligned() }.map(f16::to_f32))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn fma(self, by: Self, to: Self) -> Self {
        // Without the instruction `mul_add` is a slow library call.
        self.mul(by).add(to)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn root(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }
    #[inline(always)]
    fn exp(self) -> Self {
        Self(self.0.map(crate::lla::simd::exp))
    }
    unsafe fn multiply<E: Element>(product: &Product<E>) {
        // SAFETY: the caller's promise.
        unsafe { crate::lla::gemm::multiply::<Self, E, 4>(product) }
    }
}
