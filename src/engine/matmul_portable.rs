//! The product in plain code: what runs where no other kernel does, and what all others are tested against.

use crate::engine::acts::Acts;
use crate::engine::block::{code, factors, float, integers, scales};
use crate::engine::matmul::Sums;
use crate::engine::packed::{Format, Packed, ROWS, WIDE};

/// The definition of the result, in plain code; every other kernel is tested against it.
pub fn portable(weights: &Packed, group: usize, acts: &Acts, token: usize, tokens: usize, sums: &mut Sums) {
    let format = weights.format();
    let rows = weights.group(group);
    for sum in sums.iter_mut().take(tokens) {
        *sum = [0.0; ROWS];
    }
    for (b, block) in rows.chunks_exact(format.block_bytes()).enumerate() {
        for (t, sum) in sums.iter_mut().enumerate().take(tokens) {
            let first = (token + t) * acts.columns + b * format.columns();
            if format.is_plain() {
                plain(format, block, acts.floats.get(first..first + format.columns()).unwrap_or(&[]), sum);
            } else if format.wide {
                wide(format, block, acts, first, sum);
            } else {
                narrow(format, block, acts, first, sum);
            }
        }
    }
}

/// A block with half-precision scales; `first` is where its activations begin.
#[expect(clippy::cast_precision_loss, reason = "a sum of 32 products is below 2^24")]
fn narrow(format: Format, block: &[u8], acts: &Acts, first: usize, sum: &mut [f32; ROWS]) {
    let codes = acts.narrow.codes.get(first..first + format.group).unwrap_or(&[]);
    let scale = acts.narrow.scales.get(first / 32).copied().unwrap_or(0.0);
    let total = acts.narrow.sums.get(first / 32).copied().unwrap_or(0.0);
    for (lane, s) in sum.iter_mut().enumerate() {
        let products = codes.iter().enumerate().map(|(c, a)| i32::from(code(format, block, lane, c)) * i32::from(*a));
        let (d, m) = scales(format, block, lane, 0);
        *s += products.sum::<i32>() as f32 * (d * scale) + m * total;
    }
}

/// A block with integer scales. All sums fit: 256 products of a code, an activation and a scale are at most
/// 256 * 63 * 127 * 128 < 2^28.
#[expect(clippy::cast_precision_loss, reason = "rounded once, relative to the block's own sum")]
fn wide(format: Format, block: &[u8], acts: &Acts, first: usize, sum: &mut [f32; ROWS]) {
    let codes = acts.wide.codes.get(first..first + WIDE).unwrap_or(&[]);
    let scale = acts.wide.scales.get(first / WIDE).copied().unwrap_or(0.0);
    for (lane, s) in sum.iter_mut().enumerate() {
        let (mut dots, mut offsets) = (0, 0);
        for (part, codes) in codes.chunks_exact(format.group).enumerate() {
            let column = part * format.group;
            let products = codes.iter().enumerate();
            let dot: i32 =
                products.map(|(c, a)| i32::from(code(format, block, lane, column + c)) * i32::from(*a)).sum();
            let total: i32 = codes.iter().map(|c| i32::from(*c)).sum();
            let (d, m) = integers(format, block, lane, part);
            dots += dot * i32::from(d);
            offsets += total * i32::from(if format.minimum { m } else { d });
        }
        let (d, m) = factors(format, block, lane);
        *s += dots as f32 * (d * scale) + offsets as f32 * (m * scale);
    }
}

/// A block of plain weights.
fn plain(format: Format, block: &[u8], values: &[f32], sum: &mut [f32; ROWS]) {
    for (column, value) in values.iter().enumerate() {
        for (lane, s) in sum.iter_mut().enumerate() {
            *s += float(format, block, column * ROWS + lane) * value;
        }
    }
}
