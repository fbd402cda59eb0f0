//! Element types of GGUF tensors: codes, block sizes, bytes.

use candle_core::quantized::GgmlDType;

/// GGML element types by the name ggml gives them, with code, elements per block and bytes per block.
const TABLE: [(Dtype, u32, usize, usize); 13] = [
    (Dtype(GgmlDType::F32), 0, 1, 4),
    (Dtype(GgmlDType::F16), 1, 1, 2),
    (Dtype(GgmlDType::Q4_0), 2, 32, 18),
    (Dtype(GgmlDType::Q4_1), 3, 32, 20),
    (Dtype(GgmlDType::Q5_0), 6, 32, 22),
    (Dtype(GgmlDType::Q5_1), 7, 32, 24),
    (Dtype(GgmlDType::Q8_0), 8, 32, 34),
    (Dtype(GgmlDType::Q2K), 10, 256, 84),
    (Dtype(GgmlDType::Q3K), 11, 256, 110),
    (Dtype(GgmlDType::Q4K), 12, 256, 144),
    (Dtype(GgmlDType::Q5K), 13, 256, 176),
    (Dtype(GgmlDType::Q6K), 14, 256, 210),
    (Dtype(GgmlDType::BF16), 30, 1, 2),
];

/// An element type the engine can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dtype(pub GgmlDType);

impl Dtype {
    /// The type with this code in a GGUF header; `None` for types the engine cannot read (such as the `IQ` family).
    pub fn from_code(code: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    /// The code in a GGUF header.
    pub fn code(self) -> u32 {
        TABLE.iter().find(|row| row.0 == self).map_or(u32::MAX, |row| row.1)
    }

    /// Elements per block.
    pub fn block(self) -> usize {
        self.0.block_size()
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.0.type_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_are_those_of_the_format() {
        for (dtype, code, block, bytes) in TABLE {
            assert_eq!((dtype.block(), dtype.block_bytes(), dtype.code()), (block, bytes, code));
            assert_eq!(Dtype::from_code(code), Some(dtype));
        }
        assert_eq!(Dtype::from_code(16), None);
    }
}
