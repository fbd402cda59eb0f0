//! Weight matrices in the order the kernels read them.
//!
//! Sixteen rows go together. Along the columns a block is 32 (or 16) wide and holds, for its 16 rows: the codes in steps
//! of four columns (byte `row * 4 + column % 4` of a 64-byte line, which is what one integer dot-product instruction
//! eats), then 16 half-precision scales, then 16 minima where the type has them. 4-bit codes share a line: step `s` in
//! the low nibbles, step `s + half` in the high ones. Bits five and six of wider codes are bit planes, one 64-bit word
//! per step. So every type keeps the size it has in the file, and one stream is read from front to back.
//!
//! A weight is `scale * code + minimum`; types without minima have `minimum = -scale * offset`.

use half::f16;

/// Rows that are stored, and multiplied, together.
pub const ROWS: usize = 16;

/// How codes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits per code: 4, 5, 6 or 8; 16 and 32 mean plain weights in half or single precision, without scales.
    pub bits: usize,
    /// Columns that share a scale: 16 or 32.
    pub group: usize,
    /// Whether each scale has a minimum beside it.
    pub minimum: bool,
}

impl Format {
    /// Plain single-precision weights.
    pub const F32: Self = Self { bits: 32, group: 32, minimum: false };

    /// Plain half-precision weights.
    pub const F16: Self = Self { bits: 16, group: 32, minimum: false };

    /// Whether weights are stored as they are, without codes and scales.
    pub const fn is_plain(self) -> bool {
        self.bits >= 16
    }

    /// What is subtracted from a code where there is no minimum.
    pub const fn offset(self) -> u8 {
        1 << (self.bits - 1)
    }

    /// Bytes of the codes without bit planes.
    pub const fn code_bytes(self) -> usize {
        match self.bits {
            8 | 16 | 32 => ROWS * self.group * self.bits / 8,
            _ => ROWS * self.group / 2,
        }
    }

    /// Bytes of all bit planes.
    pub const fn plane_bytes(self) -> usize {
        match self.bits {
            5 => self.group * ROWS / 8,
            6 => self.group * ROWS / 4,
            _ => 0,
        }
    }

    /// Bytes of a block of [`ROWS`] rows and `group` columns.
    pub const fn block_bytes(self) -> usize {
        let scales = if self.is_plain() { 0 } else { ROWS * 2 };
        let minima = if self.minimum { ROWS * 2 } else { 0 };
        self.code_bytes() + self.plane_bytes() + scales + minima
    }
}

/// One cache line; gives the stream its alignment.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A matrix of weights.
#[derive(Clone)]
pub struct Packed {
    /// Rows (outputs).
    rows: usize,
    /// Columns (inputs), rounded up to a multiple of 32; the added ones are zero.
    columns: usize,
    format: Format,
    lines: Vec<Line>,
}

impl Packed {
    /// A matrix of zero codes. `None` when its size overflows.
    pub fn new(rows: usize, columns: usize, format: Format) -> Option<Self> {
        let columns = columns.checked_next_multiple_of(32)?;
        let blocks = rows.div_ceil(ROWS).checked_mul(columns / format.group)?;
        let bytes = blocks.checked_mul(format.block_bytes())?;
        Some(Self { rows, columns, format, lines: vec![Line([0; 64]); bytes.div_ceil(64)] })
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs, padded to a multiple of 32.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How codes are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Groups of [`ROWS`] rows, the last one possibly padded.
    pub fn groups(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.lines.len() * 64
    }

    /// The blocks of one group of rows.
    pub fn group(&self, index: usize) -> &[u8] {
        let length = self.columns / self.format.group * self.format.block_bytes();
        self.stream().get(index * length..(index + 1) * length).unwrap_or(&[])
    }

    /// All groups, to be filled in parallel: `(bytes per group, the stream)`.
    pub fn groups_mut(&mut self) -> (usize, &mut [u8]) {
        let length = self.columns / self.format.group * self.format.block_bytes();
        (length, self.lines.as_flattened_bytes_mut())
    }

    fn stream(&self) -> &[u8] {
        self.lines.as_flattened_bytes()
    }

    /// Writes the weights of one row, `columns()` values, as the kernels see them; zeros for a row that is not there.
    pub fn row(&self, row: usize, out: &mut Vec<f32>) {
        out.clear();
        let lane = row % ROWS;
        for block in self.group(row / ROWS).chunks_exact(self.format.block_bytes()) {
            if self.format.is_plain() {
                out.extend((0..self.format.group).map(|column| float(self.format, block, column * ROWS + lane)));
                continue;
            }
            let (scale, minimum) = scales(self.format, block, lane);
            out.extend((0..self.format.group).map(|c| scale * f32::from(code(self.format, block, lane, c)) + minimum));
        }
        out.resize(self.columns, 0.0);
    }
}

/// Bytes of lines; the only view the rest of the file needs.
trait Bytes {
    fn as_flattened_bytes(&self) -> &[u8];
    fn as_flattened_bytes_mut(&mut self) -> &mut [u8];
}

#[allow(unsafe_code, reason = "a view of plain bytes with a larger alignment")]
impl Bytes for [Line] {
    fn as_flattened_bytes(&self) -> &[u8] {
        // SAFETY: `Line` is 64 initialised bytes without padding, so the slice is `64 * len` readable bytes.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len() * 64) }
    }

    fn as_flattened_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed exclusively; any byte value is a valid `Line`.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len() * 64) }
    }
}

fn half_at(block: &[u8], byte: usize) -> f32 {
    match block.get(byte..byte + 2) {
        Some(&[low, high]) => f16::from_le_bytes([low, high]).to_f32(),
        _ => 0.0,
    }
}

/// The weight at an index of a plain block.
pub fn float(format: Format, block: &[u8], index: usize) -> f32 {
    if format == Format::F16 {
        return half_at(block, index * 2);
    }
    match block.get(index * 4..index * 4 + 4) {
        Some(&[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        _ => 0.0,
    }
}

/// Puts a weight into a plain block.
pub fn set_float(format: Format, block: &mut [u8], index: usize, value: f32) {
    let half = f16::from_f32(value).to_le_bytes();
    let full = value.to_le_bytes();
    let bytes: &[u8] = if format == Format::F16 { &half } else { &full };
    if let Some(place) = block.get_mut(index * bytes.len()..(index + 1) * bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Scale and minimum of one row in a block.
pub fn scales(format: Format, block: &[u8], lane: usize) -> (f32, f32) {
    let at = format.code_bytes() + format.plane_bytes();
    let scale = half_at(block, at + lane * 2);
    let minimum =
        if format.minimum { half_at(block, at + (ROWS + lane) * 2) } else { -scale * f32::from(format.offset()) };
    (scale, minimum)
}

/// Where a code lives in a block: line-relative byte, step of four columns.
fn position(lane: usize, column: usize) -> (usize, usize) {
    (lane * 4 + column % 4, column / 4)
}

/// The code of one row and column in a block.
pub fn code(format: Format, block: &[u8], lane: usize, column: usize) -> u8 {
    let (byte, step) = position(lane, column);
    let at = |index: usize| block.get(index).copied().unwrap_or(0);
    if format.bits == 8 {
        return at(step * 64 + byte);
    }
    let half = format.group / 8;
    let low = if step < half { at(step * 64 + byte) & 15 } else { at((step - half) * 64 + byte) >> 4 };
    (4..format.bits).fold(low, |sum, bit| {
        let plane = format.code_bytes() + (bit - 4) * format.group * 2;
        let set = at(plane + step * 8 + byte / 8) >> (byte % 8) & 1;
        sum | set << bit
    })
}

/// Puts a code into a block whose codes are still zero there.
pub fn set_code(format: Format, block: &mut [u8], lane: usize, column: usize, code: u8) {
    let (byte, step) = position(lane, column);
    let mut or = |index: usize, bits: u8| {
        if let Some(place) = block.get_mut(index) {
            *place |= bits;
        }
    };
    if format.bits == 8 {
        return or(step * 64 + byte, code);
    }
    let half = format.group / 8;
    if step < half {
        or(step * 64 + byte, code & 15)
    } else {
        or((step - half) * 64 + byte, (code & 15) << 4)
    }
    for bit in 4..format.bits {
        let plane = format.code_bytes() + (bit - 4) * format.group * 2;
        or(plane + step * 8 + byte / 8, (code >> bit & 1) << (byte % 8));
    }
}

/// Puts scale and minimum of one row into a block.
pub fn set_scales(format: Format, block: &mut [u8], lane: usize, scale: f32, minimum: f32) {
    let at = format.code_bytes() + format.plane_bytes();
    let mut put = |byte: usize, value: f32| {
        if let Some(place) = block.get_mut(byte..byte + 2) {
            place.copy_from_slice(&f16::from_f32(value).to_le_bytes());
        }
    };
    put(at + lane * 2, scale);
    if format.minimum {
        put(at + (ROWS + lane) * 2, minimum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_from_every_format() {
        for (bits, group) in [(4, 16), (4, 32), (5, 32), (6, 16), (8, 32)] {
            for minimum in [false, true] {
                let format = Format { bits, group, minimum };
                let mut block = vec![0; format.block_bytes()];
                let value = |lane: usize, column: usize| ((lane * 37 + column * 11) % (1 << bits)) as u8;
                for lane in 0..ROWS {
                    set_scales(format, &mut block, lane, lane as f32 * 0.5, -(lane as f32));
                    (0..group).for_each(|c| set_code(format, &mut block, lane, c, value(lane, c)));
                }
                for lane in 0..ROWS {
                    (0..group).for_each(|c| assert_eq!(code(format, &block, lane, c), value(lane, c)));
                    let expected =
                        if minimum { -(lane as f32) } else { -(lane as f32 * 0.5) * (1 << (bits - 1)) as f32 };
                    assert_eq!(scales(format, &block, lane), (lane as f32 * 0.5, expected));
                }
            }
        }
    }

    #[test]
    fn sizes_are_checked() {
        assert!(Packed::new(usize::MAX, 64, Format::F32).is_none());
        assert!(Packed::new(1, usize::MAX, Format::F32).is_none());
        let packed = Packed::new(17, 33, Format { bits: 4, group: 32, minimum: true }).unwrap();
        assert_eq!((packed.rows(), packed.columns(), packed.groups(), packed.bytes()), (17, 64, 2, 2 * 2 * 320));
    }
}
