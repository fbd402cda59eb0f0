//! Weight matrices in the order the kernels read them.
//!
//! Sixteen rows go together. Along the columns a block is 32 (or 16) wide and holds, for its 16 rows: the codes in steps
//! of four columns (byte `row * 4 + column % 4` of a 64-byte line, which is what one integer dot-product instruction
//! eats), then 16 half-precision scales, then 16 minima where the type has them. 4-bit codes share a line: step `s` in
//! the low nibbles, step `s + half` in the high ones. Bits five and six of wider codes are bit planes, one 64-bit word
//! per step. So every type keeps the size it has in the file, and one stream is read from front to back.
//!
//! A weight is `scale * code + minimum`; types without minima have `minimum = -scale * offset`.
//!
//! Wide formats (the K types) are blocks of 256 columns: groups of 32 or 16 whose scales and minima are signed bytes under
//! one half-precision factor per row and block. A block holds the codes of its groups as above, then for every pair of
//! groups the scales of its 16 rows (two bytes per row), the same for minima, and the factors, rounded up to a cache line.

use crate::engine::block::{code, float, scales};

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
    /// Whether scales are bytes under a common factor per [`WIDE`] columns.
    pub wide: bool,
}

/// Columns of a block of a wide format.
pub const WIDE: usize = 256;

// A call that is not inlined into a kernel would save its registers around it.
impl Format {
    /// Plain single-precision weights.
    pub const F32: Self = Self { bits: 32, group: 32, minimum: false, wide: false };

    /// Plain half-precision weights.
    pub const F16: Self = Self { bits: 16, group: 32, minimum: false, wide: false };

    /// Groups of 32 columns with half-precision scales.
    #[inline(always)]
    pub const fn narrow(bits: usize, minimum: bool) -> Self {
        Self { bits, group: 32, minimum, wide: false }
    }

    /// Groups with scales of a byte.
    #[inline(always)]
    pub const fn wide(bits: usize, group: usize, minimum: bool) -> Self {
        Self { bits, group, minimum, wide: true }
    }

    /// Whether weights are stored as they are, without codes and scales.
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        self.bits >= 16
    }

    /// What is subtracted from a code where there is no minimum.
    #[inline(always)]
    pub const fn offset(self) -> u8 {
        1 << (self.bits - 1)
    }

    /// Columns of a block.
    #[inline(always)]
    pub const fn columns(self) -> usize {
        if self.wide { WIDE } else { self.group }
    }

    /// Groups in a block.
    #[inline(always)]
    pub const fn parts(self) -> usize {
        self.columns() / self.group
    }

    /// Bytes of a group's codes without bit planes.
    #[inline(always)]
    pub const fn code_bytes(self) -> usize {
        match self.bits {
            8 | 16 | 32 => ROWS * self.group * self.bits / 8,
            _ => ROWS * self.group / 2,
        }
    }

    /// Bytes of a group's codes and bit planes.
    #[inline(always)]
    pub const fn part_bytes(self) -> usize {
        let planes = match self.bits {
            5 => self.group * ROWS / 8,
            6 => self.group * ROWS / 4,
            _ => 0,
        };
        self.code_bytes() + planes
    }

    /// Where the byte scales of a wide block are, with the minima behind them.
    #[inline(always)]
    pub const fn scales_at(self) -> usize {
        self.parts() * self.part_bytes()
    }

    /// Where the half-precision scales or factors of a block are, with those of minima behind them.
    #[inline(always)]
    pub const fn factors_at(self) -> usize {
        let each = if self.wide { self.parts() * ROWS } else { 0 };
        self.scales_at() + if self.minimum { 2 * each } else { each }
    }

    /// Bytes of a block of [`ROWS`] rows.
    #[inline(always)]
    pub const fn block_bytes(self) -> usize {
        let factors = match (self.is_plain(), self.minimum) {
            (true, _) => 0,
            (false, false) => ROWS * 2,
            (false, true) => ROWS * 4,
        };
        let bytes = self.factors_at() + factors;
        if self.wide { bytes.next_multiple_of(64) } else { bytes }
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
    /// A matrix of zero codes. `None` when its size overflows, or wide blocks do not divide its columns.
    pub fn new(rows: usize, columns: usize, format: Format) -> Option<Self> {
        let columns = columns.checked_next_multiple_of(32).filter(|c| c.is_multiple_of(format.columns()))?;
        let blocks = rows.div_ceil(ROWS).checked_mul(columns / format.columns())?;
        let bytes = blocks.checked_mul(format.block_bytes())?;
        Some(Self { rows, columns, format, lines: zeros(bytes.div_ceil(64)) })
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
        let length = self.columns / self.format.columns() * self.format.block_bytes();
        self.stream().get(index * length..(index + 1) * length).unwrap_or(&[])
    }

    /// All groups, to be filled in parallel: `(bytes per group, the stream)`.
    pub fn groups_mut(&mut self) -> (usize, &mut [u8]) {
        let length = self.columns / self.format.columns() * self.format.block_bytes();
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
            for column in 0..self.format.columns() {
                let (scale, minimum) = scales(self.format, block, lane, column / self.format.group);
                out.push(scale * f32::from(code(self.format, block, lane, column)) + minimum);
            }
        }
        out.resize(self.columns, 0.0);
    }
}

/// Zeros, where the system can in large pages: a token reads all weights once, and with small ones the processor spends
/// a part of that time on finding each page (up to a fifth was measured on a virtual machine).
fn zeros(count: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::with_capacity(count);
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let start = lines.as_mut_ptr().map_addr(|a| a.next_multiple_of(PAGE));
        let length = (lines.as_ptr().addr() + count * 64).saturating_sub(start.addr()) / PAGE * PAGE;
        #[allow(unsafe_code, reason = "advice on memory of our own, which changes no contents")]
        // SAFETY: whole pages inside the allocation. Refusal is ignored: the pages then have their usual size.
        unsafe {
            libc::madvise(start.cast(), length, libc::MADV_HUGEPAGE);
        }
    }
    lines.resize(count, Line([0; 64]));
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(Packed::new(usize::MAX, 64, Format::F32).is_none());
        assert!(Packed::new(1, usize::MAX, Format::F32).is_none());
        assert!(Packed::new(1, 128, Format::wide(4, 32, true)).is_none());
        let packed = Packed::new(17, 33, Format::narrow(4, true)).unwrap();
        assert_eq!((packed.rows(), packed.columns(), packed.groups(), packed.bytes()), (17, 64, 2, 2 * 2 * 320));
        let packed = Packed::new(16, 512, Format::wide(4, 32, true)).unwrap();
        assert_eq!(packed.bytes(), 2 * (256 * 16 / 2 + 2 * 8 * 16 + 4 * 16));
    }
}
