//! From the blocks of a GGUF file to the kernels' format.
//!
//! Every quantised type keeps its codes and scales as they are (codes of two and three bits take four). Plain matrices stay
//! as they are; bfloat16 becomes half precision, which holds every weight of
//! its normal range exactly.

use candle_core::Device;
use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use half::f16;

use crate::engine::block::{set_code, set_float, set_integers, set_scales};
use crate::engine::dtype::Dtype;
use crate::engine::packed::{Format, ROWS, WIDE};

/// The format a type is stored in.
pub fn format(dtype: Dtype) -> Format {
    match dtype.0 {
        GgmlDType::F32 => Format::F32,
        GgmlDType::F16 | GgmlDType::BF16 => Format::F16,
        GgmlDType::Q2K => Format::wide(4, 16, true),
        GgmlDType::Q3K => Format::wide(4, 16, false),
        GgmlDType::Q4_0 => Format::narrow(4, false),
        GgmlDType::Q4_1 => Format::narrow(4, true),
        GgmlDType::Q4K => Format::wide(4, 32, true),
        GgmlDType::Q5_0 => Format::narrow(5, false),
        GgmlDType::Q5_1 => Format::narrow(5, true),
        GgmlDType::Q5K => Format::wide(5, 32, true),
        GgmlDType::Q6K => Format::wide(6, 16, false),
        _ => Format::narrow(8, false),
    }
}

/// Fills one group of [`ROWS`] rows from the file's bytes of those rows (fewer than 16 at the end of a matrix).
/// `group` must hold zero codes; `columns` is the matrix's own number, before padding.
pub fn fill(dtype: Dtype, raw: &[u8], columns: usize, group: &mut [u8]) -> Result<(), String> {
    let format = format(dtype);
    let row_bytes = columns / dtype.block() * dtype.block_bytes();
    for (lane, row) in raw.chunks_exact(row_bytes.max(1)).take(ROWS).enumerate() {
        if format.is_plain() {
            plain(format, &floats(dtype, row)?, lane, group)?;
        } else {
            keep(dtype, format, row, lane, group);
        }
    }
    Ok(())
}

/// Values of raw blocks of any type, through candle.
pub fn floats(dtype: Dtype, raw: &[u8]) -> Result<Vec<f32>, String> {
    let count = raw.len() / dtype.block_bytes() * dtype.block();
    if dtype.0 == GgmlDType::F32 {
        return Ok(raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect());
    }
    let read = || {
        let tensor = qtensor_from_ggml(dtype.0, raw, vec![count], &Device::Cpu)?;
        tensor.dequantize(&Device::Cpu)?.to_vec1::<f32>()
    };
    read().map_err(|e: candle_core::Error| e.to_string())
}

fn plain(format: Format, values: &[f32], lane: usize, group: &mut [u8]) -> Result<(), String> {
    for (column, value) in values.iter().enumerate() {
        if format == Format::F16 && value.is_finite() && value.abs() > f16::MAX.to_f32() {
            return Err(format!("the weight {value} is beyond half precision"));
        }
        set_float(format, group, column * ROWS + lane, *value);
    }
    Ok(())
}

/// One block of a type, read: codes in column order, scale and minimum or their factors, and byte scales and minima per
/// group of columns of a K type.
struct Block {
    codes: [u8; WIDE],
    factors: (f16, f16),
    bytes: [(i8, i8); 16],
}

/// Copies the codes and scales of a quantised row.
fn keep(dtype: Dtype, format: Format, row: &[u8], lane: usize, group: &mut [u8]) {
    let mut read = Block { codes: [0; WIDE], factors: (f16::ZERO, f16::ZERO), bytes: [(0, 0); 16] };
    let places = group.chunks_exact_mut(format.block_bytes());
    for (source, place) in row.chunks_exact(dtype.block_bytes()).zip(places) {
        decode(dtype, source, &mut read);
        set_scales(format, place, lane, read.factors.0, read.factors.1);
        for (column, &code) in read.codes.iter().enumerate().take(format.columns()) {
            set_code(format, place, lane, column, code);
        }
        if format.wide {
            for (part, &(scale, minimum)) in read.bytes.iter().enumerate().take(format.parts()) {
                set_integers(format, place, lane, part, scale, minimum);
            }
        }
    }
}

/// Reads one block of a type.
fn decode(dtype: Dtype, block: &[u8], out: &mut Block) {
    let byte = |i: usize| block.get(i).copied().unwrap_or(0);
    let half = |i: usize| f16::from_le_bytes([byte(i), byte(i + 1)]);
    let nibble = |at: usize, i: usize| if i < 16 { byte(at + i) & 15 } else { byte(at + i - 16) >> 4 };
    let fifth = |at: usize, i: usize| (byte(at + i / 8) >> (i % 8) & 1) << 4;
    let small = out.codes.iter_mut().take(32).enumerate();
    match dtype.0 {
        GgmlDType::Q4_0 => {
            small.for_each(|(i, c)| *c = nibble(2, i));
            out.factors = (half(0), f16::ZERO);
        }
        GgmlDType::Q4_1 => {
            small.for_each(|(i, c)| *c = nibble(4, i));
            out.factors = (half(0), half(2));
        }
        GgmlDType::Q5_0 => {
            small.for_each(|(i, c)| *c = nibble(6, i) | fifth(2, i));
            out.factors = (half(0), f16::ZERO);
        }
        GgmlDType::Q5_1 => {
            small.for_each(|(i, c)| *c = nibble(8, i) | fifth(4, i));
            out.factors = (half(0), half(2));
        }
        GgmlDType::Q8_0 => {
            small.for_each(|(i, c)| *c = byte(2 + i) ^ 0x80);
            out.factors = (half(0), f16::ZERO);
        }
        GgmlDType::Q2K => two(block, out),
        GgmlDType::Q3K => three(block, out),
        GgmlDType::Q6K => six(block, out),
        _ => k_type(dtype.0 == GgmlDType::Q5K, block, out),
    }
}

/// Q4_K and Q5_K: 8 groups of 32 with 6-bit scales and minima, which are taken away.
fn k_type(five: bool, block: &[u8], out: &mut Block) {
    let byte = |i: usize| block.get(i).copied().unwrap_or(0);
    let half = |i: usize| f16::from_le_bytes([byte(i), byte(i + 1)]);
    let packed = |i: usize| byte(4 + i);
    out.factors = (half(0), -half(2));
    for (group, place) in out.bytes.iter_mut().take(8).enumerate() {
        let (scale, minimum) = if group < 4 {
            (packed(group) & 63, packed(group + 4) & 63)
        } else {
            let low = packed(group + 4);
            (low & 15 | packed(group - 4) >> 6 << 4, low >> 4 | packed(group) >> 6 << 4)
        };
        *place = (scale.cast_signed(), minimum.cast_signed());
    }
    let nibbles = if five { 16 + 32 } else { 16 };
    for (i, code) in out.codes.iter_mut().enumerate() {
        let (group, column) = (i / 32, i % 32);
        let pair = byte(nibbles + group / 2 * 32 + column);
        *code = if group % 2 == 0 { pair & 15 } else { pair >> 4 };
        if five {
            *code |= (byte(16 + column) >> group & 1) << 4;
        }
    }
}

/// Q2_K: 16 groups of 16 with 4-bit scales and minima, which are taken away.
fn two(block: &[u8], out: &mut Block) {
    let byte = |i: usize| block.get(i).copied().unwrap_or(0);
    let half = |i: usize| f16::from_le_bytes([byte(i), byte(i + 1)]);
    out.factors = (half(80), -half(82));
    for (group, place) in out.bytes.iter_mut().enumerate() {
        *place = ((byte(group) & 15).cast_signed(), (byte(group) >> 4).cast_signed());
    }
    for (i, code) in out.codes.iter_mut().enumerate() {
        *code = byte(16 + i / 128 * 32 + i % 32) >> (2 * (i % 128 / 32)) & 3;
    }
}

/// Q3_K: 16 groups of 16 with signed 6-bit scales; the third bits of all codes come first. Codes -4 to 3 become 4 to 11,
/// since four bits are centred at 8.
fn three(block: &[u8], out: &mut Block) {
    let byte = |i: usize| block.get(i).copied().unwrap_or(0);
    out.factors = (f16::from_le_bytes([byte(108), byte(109)]), f16::ZERO);
    for (group, place) in out.bytes.iter_mut().enumerate() {
        let low = byte(96 + group % 8) >> (4 * (group / 8)) & 15;
        let high = byte(104 + group % 4) >> (2 * (group / 4)) & 3;
        *place = ((low | high << 4).cast_signed() - 32, 0);
    }
    for (i, code) in out.codes.iter_mut().enumerate() {
        let low = byte(32 + i / 128 * 32 + i % 32) >> (2 * (i % 128 / 32)) & 3;
        let high = byte(i % 32) >> (i / 32) & 1;
        *code = 4 + (low | high << 2);
    }
}

/// Q6_K: 16 groups of 16 with 8-bit scales.
fn six(block: &[u8], out: &mut Block) {
    let byte = |i: usize| block.get(i).copied().unwrap_or(0);
    out.factors = (f16::from_le_bytes([byte(208), byte(209)]), f16::ZERO);
    for (group, place) in out.bytes.iter_mut().enumerate() {
        *place = (byte(192 + group).cast_signed(), 0);
    }
    for (i, code) in out.codes.iter_mut().enumerate() {
        let (part, quarter, column) = (i / 128, i % 128 / 32, i % 32);
        let low = byte(part * 64 + quarter % 2 * 32 + column);
        let high = byte(128 + part * 32 + column) >> (2 * quarter) & 3;
        *code = (if quarter < 2 { low & 15 } else { low >> 4 }) | high << 4;
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;
    use candle_core::quantized::QTensor;

    use super::*;
    use crate::engine::packed::Packed;

    const CODED: [GgmlDType; 10] = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];

    /// Rows as the kernels see them after packing the file's bytes.
    fn rows(dtype: Dtype, raw: &[u8], rows: usize, columns: usize) -> Vec<Vec<f32>> {
        let mut packed = Packed::new(rows, columns, format(dtype)).unwrap();
        let row_bytes = columns / dtype.block() * dtype.block_bytes();
        let (length, stream) = packed.groups_mut();
        for (group, part) in stream.chunks_mut(length).zip(raw.chunks(ROWS * row_bytes)) {
            fill(dtype, part, columns, group).unwrap();
        }
        let mut row = Vec::new();
        (0..rows).map(|r| (packed.row(r, &mut row), row.clone()).1).collect()
    }

    /// Packs bytes and compares every row with candle's reading of the same bytes; errors are relative to the largest
    /// weight of their group of columns.
    fn check(dtype: GgmlDType, raw: &[u8], (count, columns): (usize, usize), tolerance: f32) {
        let dtype = Dtype(dtype);
        let expected = qtensor_from_ggml(dtype.0, raw, vec![count, columns], &Device::Cpu).unwrap();
        let expected: Vec<Vec<f32>> = expected.dequantize(&Device::Cpu).unwrap().to_vec2().unwrap();
        for (r, (row, expected)) in rows(dtype, raw, count, columns).iter().zip(&expected).enumerate() {
            for (part, (got, want)) in row.chunks(16).zip(expected.chunks(16)).map(|(g, w)| (w, (g, w))) {
                let largest = part.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                for (g, w) in got.iter().zip(want) {
                    assert!((g - w).abs() <= tolerance * largest, "{dtype:?} row {r}: {g} for {w}");
                }
            }
            assert!(row[columns..].iter().all(|x| *x == 0.0));
        }
    }

    fn quantised(dtype: GgmlDType, rows: usize, columns: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        let values: Vec<f32> = (0..rows * columns).map(|_| random.f32() * 2.0 - 1.0).collect();
        let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap();
        QTensor::quantize(&tensor, dtype).unwrap().data().unwrap().into_owned()
    }

    /// Half-precision numbers in a block: scales, which must be numbers of a usual size.
    fn halves(dtype: GgmlDType) -> &'static [usize] {
        match dtype {
            GgmlDType::Q4_1 | GgmlDType::Q5_1 | GgmlDType::Q4K | GgmlDType::Q5K => &[0, 2],
            GgmlDType::Q2K => &[80, 82],
            GgmlDType::Q3K => &[108],
            GgmlDType::Q6K => &[208],
            _ => &[0],
        }
    }

    #[test]
    fn every_code_and_scale_of_random_blocks_is_read_as_candle_reads_it() {
        let mut random = fastrand::Rng::with_seed(21);
        for dtype in CODED {
            let size = dtype.type_size();
            let mut raw: Vec<u8> = (0..19 * 2 * size).map(|_| random.u8(..)).collect();
            for block in raw.chunks_exact_mut(size) {
                for at in halves(dtype) {
                    let scale = f16::from_f32(random.f32() * 0.2 - 0.1).to_le_bytes();
                    block[*at..*at + 2].copy_from_slice(&scale);
                }
            }
            check(dtype, &raw, (19, 2 * dtype.block_size()), 1e-6);
        }
    }

    #[test]
    fn types_with_one_scale_are_exact() {
        for dtype in [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q5_0, GgmlDType::Q5_1, GgmlDType::Q8_0] {
            check(dtype, &quantised(dtype, 19, 96), (19, 96), 1e-6);
        }
        for dtype in [GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16] {
            check(dtype, &quantised(dtype, 19, 40), (19, 40), 1e-6);
        }
    }

    #[test]
    fn k_types_are_exact() {
        for dtype in [GgmlDType::Q2K, GgmlDType::Q3K, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K] {
            check(dtype, &quantised(dtype, 17, 512), (17, 512), 1e-6);
        }
    }

    #[test]
    fn a_weight_beyond_half_precision_is_refused() {
        let raw: Vec<u8> = (0..32).flat_map(|_| half::bf16::from_f32(1e6).to_le_bytes()).collect();
        let mut group = vec![0; Format::F16.block_bytes()];
        let error = fill(Dtype(GgmlDType::BF16), &raw, 32, &mut group).unwrap_err();
        assert!(error.contains("beyond half precision"), "{error}");
    }
}
