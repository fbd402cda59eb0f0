//! A safetensors file of single-precision numbers: eight bytes of length, a JSON header, then the numbers.
//!
//! Invariant: what a header says is checked against the bytes before anything is read by it.

use std::collections::HashMap;

use half::f16;
use serde::Deserialize;

use super::{Linear, Norm, WIDTH};
use crate::engine::block::{set_code, set_scales};
use crate::engine::packed::{Format, Packed, ROWS};

/// 8-bit weights with a scale per 32.
const FORMAT: Format = Format::narrow(8, false);
/// A header longer than this is none of this model's.
const HEADER_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// Named tensors.
pub struct Tensors<'a> {
    entries: HashMap<String, Entry>,
    data: &'a [u8],
}

impl<'a> Tensors<'a> {
    /// Reads the header.
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or("no safetensors file: too short")?;
        let length = u64::from_le_bytes(*length);
        if length > HEADER_BYTES {
            return Err("no safetensors file of this model: its header is too long".into());
        }
        let (header, data) = rest.split_at_checked(length as usize).ok_or("the file is cut short in its header")?;
        let mut all: HashMap<String, serde_json::Value> =
            serde_json::from_slice(header).map_err(|e| format!("no safetensors file: {e}"))?;
        all.remove("__metadata__");
        let entry = |(name, value)| Ok((name, serde_json::from_value(value)?));
        let entries =
            all.into_iter().map(entry).collect::<Result<_, serde_json::Error>>().map_err(|e| e.to_string())?;
        Ok(Self { entries, data })
    }

    /// The numbers of a tensor of this shape.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let entry = self.entries.get(name).ok_or_else(|| format!("no tensor {name}: this is another model"))?;
        if entry.dtype != "F32" || entry.shape != shape {
            return Err(format!("{name} is {} {:?}, not F32 {shape:?}", entry.dtype, entry.shape));
        }
        let [from, to] = entry.data_offsets;
        let bytes = self.data.get(from..to).ok_or_else(|| format!("{name} lies beyond the file's end"))?;
        let (chunks, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || chunks.len() != shape.iter().product::<usize>() {
            return Err(format!("{name} has {} bytes for {shape:?}", bytes.len()));
        }
        let numbers: Vec<f32> = chunks.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if numbers.iter().all(|x| x.is_finite()) {
            Ok(numbers)
        } else {
            Err(format!("{name} holds a number that is not finite"))
        }
    }

    /// A layer norm.
    pub fn norm(&self, name: &str) -> Result<Norm, String> {
        let part = |what: &str| self.floats(&format!("{name}.{what}"), &[WIDTH]);
        Ok(Norm { weight: part("weight")?, bias: part("bias")? })
    }

    /// A linear step, its weights rounded to 8 bits.
    pub fn linear(&self, name: &str, rows: usize, columns: usize) -> Result<Linear, String> {
        let weights = self.floats(&format!("{name}.weight"), &[rows, columns])?;
        let mut packed = Packed::new(rows, columns, FORMAT).ok_or("a size overflows")?;
        let (length, stream) = packed.groups_mut();
        for (group, rows) in stream.chunks_exact_mut(length).zip(weights.chunks(columns * ROWS)) {
            for (lane, row) in rows.chunks_exact(columns).enumerate() {
                for (block, values) in group.chunks_exact_mut(FORMAT.block_bytes()).zip(row.chunks(FORMAT.columns())) {
                    let scale = f16::from_f32(values.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0);
                    set_scales(FORMAT, block, lane, scale, f16::ZERO);
                    let inverse = if scale > f16::ZERO { 1.0 / f32::from(scale) } else { 0.0 };
                    for (column, x) in values.iter().enumerate() {
                        let code = (x * inverse).round().clamp(-127.0, 127.0) + f32::from(FORMAT.offset());
                        set_code(FORMAT, block, lane, column, code as u8);
                    }
                }
            }
        }
        Ok(Linear { weights: packed, bias: self.floats(&format!("{name}.bias"), &[rows])? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn what_the_header_says_is_checked_against_the_bytes() {
        let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
        let data: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let good = file(header, &data);
        assert_eq!(Tensors::read(&good).unwrap().floats("a", &[2, 2]).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        let why = |bytes: &[u8], name: &str, shape: &[usize]| {
            Tensors::read(bytes).and_then(|t| t.floats(name, shape)).unwrap_err()
        };
        assert!(why(&good, "b", &[2, 2]).contains("another model"));
        assert!(why(&good, "a", &[4]).contains("not F32"));
        assert!(why(&good[..good.len() - 1], "a", &[2, 2]).contains("beyond"));
        let long = header.replace("[0,16]", "[0,12]");
        assert!(why(&file(&long, &data), "a", &[2, 2]).contains("12 bytes"));
        let back = header.replace("[0,16]", "[16,0]");
        assert!(why(&file(&back, &data), "a", &[2, 2]).contains("beyond"));
        let nan = file(header, &[f32::NAN.to_le_bytes(); 4].concat());
        assert!(why(&nan, "a", &[2, 2]).contains("not finite"));
        for bad in [&b"GGUF"[..], &u64::MAX.to_le_bytes(), &file("{", &[]), &file(r#"{"a":1}"#, &[])] {
            assert!(Tensors::read(bad).is_err());
        }
    }
}
