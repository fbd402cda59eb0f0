//! NEON as the kernels see it. Every aarch64 machine has it.
#![allow(unsafe_code, reason = "intrinsics of the target's baseline; memory is the caller's promise")]

use std::arch::aarch64::*;

use half::f16;

use crate::lla::gemm::{Product, multiply};
use crate::lla::lanes::{Element, Lanes};

/// Four numbers.
#[derive(Clone, Copy)]
pub struct Quad(float32x4_t);

impl Lanes for Quad {
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { vld1q_f32(from) })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        // SAFETY: the caller's promise.
        let four = unsafe { from.cast::<[f16; 4]>().read_unaligned() }.map(f16::to_f32);
        // SAFETY: an array of four numbers.
        Self(unsafe { vld1q_f32(four.as_ptr()) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_f32(to, self.0) }
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: part of the target's baseline.
        Self(unsafe { vdupq_n_f32(x) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: part of the target's baseline.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: part of the target's baseline.
        Self(unsafe { vsubq_f32(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: part of the target's baseline.
        Self(unsafe { vmulq_f32(self.0, other.0) })
    }
    #[inline(always)]
    fn fma(self, by: Self, to: Self) -> Self {
        // SAFETY: part of the target's baseline.
        Self(unsafe { vfmaq_f32(to.0, self.0, by.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: part of the target's baseline. The comparison is false where `self` is not a number.
        Self(unsafe { vbslq_f32(vcgtq_f32(self.0, other.0), self.0, other.0) })
    }
    #[inline(always)]
    fn root(self) -> Self {
        // SAFETY: part of the target's baseline.
        Self(unsafe { vsqrtq_f32(self.0) })
    }
    #[inline(always)]
    fn exp(self) -> Self {
        let mut four = [0.0_f32; 4];
        // SAFETY: an array of four numbers.
        unsafe { self.store(four.as_mut_ptr()) };
        let four = four.map(crate::lla::simd::exp);
        // SAFETY: as above.
        unsafe { Self::load(four.as_ptr()) }
    }
    unsafe fn multiply<E: Element>(product: &Product<E>) {
        // SAFETY: the caller's promise.
        unsafe { multiply::<Self, E, 4>(product) }
    }
}
