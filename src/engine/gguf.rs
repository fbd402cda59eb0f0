//! The header of a GGUF file, read with every length, count, product and offset checked before anything trusts it.
//!
//! Invariants: no field of the file can make this module panic, overflow, or allocate more than a small multiple of the
//! bytes the file really has; a [`Header`] that comes back describes tensors that lie wholly inside the file. Tensor
//! data is not read here. Runs once per model load, before the weights are repacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::engine::dtype::Dtype;
use crate::engine::metadata::{Metadata, Value};
use crate::engine::types::EngineError;

/// Arrays of arrays deeper than this are refused; real files use one level.
const MAX_DEPTH: u32 = 4;
/// GGML tensors have at most four dimensions.
const MAX_DIMS: u32 = 4;
/// Longest key or tensor name accepted, in bytes; the format itself allows 65,535.
const MAX_NAME_BYTES: u64 = 65_535;
/// Where the format puts tensor data when the header does not say.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A tensor's place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, fastest-varying first (GGUF order): a matrix is `[columns, rows]`.
    pub dims: Vec<usize>,
    /// First byte, from the start of the file.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A checked header.
#[derive(Clone, Debug)]
pub struct Header {
    /// Format version: 2 or 3.
    pub version: u32,
    /// Key-value pairs.
    pub metadata: Metadata,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Place>,
    /// Bytes of the whole file.
    pub file_bytes: u64,
}

/// Opens a file and checks its header; see [`read`].
pub fn precheck(path: &Path) -> Result<Header, EngineError> {
    let failed = |what: &str, e: std::io::Error| EngineError::Load(format!("{}: cannot {what}: {e}", path.display()));
    let file = File::open(path).map_err(|e| failed("open the model file", e))?;
    let bytes = file.metadata().map_err(|e| failed("read the model file's size", e))?.len();
    read(BufReader::new(file), bytes).map_err(|problem| {
        EngineError::Load(format!("{}: {problem}; fetch it again with `wattroute models pull`", path.display()))
    })
}

/// Reads and checks a header from a stream of `bytes` bytes. The error says what is wrong and where.
pub fn read(input: impl Read, bytes: u64) -> Result<Header, String> {
    let mut cursor = Cursor { input, at: 0, bytes };
    if &cursor.take::<4>("the magic number")? != b"GGUF" {
        return Err("not a GGUF file (it does not begin with the letters GGUF)".into());
    }
    let version = cursor.u32("the version")?;
    if version != 2 && version != 3 {
        return Err(format!("GGUF version {version} is not supported (2 and 3 are)"));
    }
    let tensor_count = cursor.count("the number of tensors", 8 + 4 + 8 + 4 + 8)?;
    let pair_count = cursor.count("the number of metadata pairs", 8 + 4 + 1)?;
    let mut metadata = Metadata::default();
    for _ in 0..pair_count {
        let key = cursor.name("a metadata key")?;
        let kind = cursor.u32("a metadata type")?;
        let value = cursor.value(kind, &key, 0)?;
        if !metadata.insert(key.clone(), value) {
            return Err(format!("metadata key {key} appears twice"));
        }
    }
    let mut relative = Vec::new();
    for _ in 0..tensor_count {
        relative.push(cursor.tensor()?);
    }
    let alignment = alignment(&metadata)?;
    let data = cursor.at.checked_next_multiple_of(alignment).ok_or("the data offset overflows")?;
    let tensors = place_all(relative, data, alignment, bytes)?;
    Ok(Header { version, metadata, tensors, file_bytes: bytes })
}

fn alignment(metadata: &Metadata) -> Result<u64, String> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Int(n)) => match u64::try_from(*n) {
            Ok(n) if n.is_power_of_two() && n <= 1 << 20 => Ok(n),
            _ => Err(format!("general.alignment is {n}; it must be a power of two from 1 to 1048576")),
        },
        Some(_) => Err("general.alignment is not an integer".into()),
    }
}

/// Turns offsets relative to the data section into places inside the file.
fn place_all(
    relative: Vec<(String, Place)>,
    data: u64,
    alignment: u64,
    file: u64,
) -> Result<BTreeMap<String, Place>, String> {
    let mut tensors = BTreeMap::new();
    for (name, mut place) in relative {
        if !place.start.is_multiple_of(alignment) {
            return Err(format!("tensor {name} starts at {}, not a multiple of {alignment}", place.start));
        }
        let start = data.checked_add(place.start);
        let end = start.and_then(|s| s.checked_add(place.bytes));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(format!("tensor {name} has an offset that overflows"));
        };
        if end > file {
            return Err(format!("truncated: tensor {name} ends at byte {end} but the file has {file}"));
        }
        place.start = start;
        if tensors.insert(name.clone(), place).is_some() {
            return Err(format!("tensor {name} appears twice"));
        }
    }
    Ok(tensors)
}

/// A reader that knows where it is and how much is left.
struct Cursor<R> {
    input: R,
    at: u64,
    bytes: u64,
}

impl<R: Read> Cursor<R> {
    fn left(&self) -> u64 {
        self.bytes.saturating_sub(self.at)
    }

    fn need(&self, bytes: u64, what: &str) -> Result<(), String> {
        if bytes > self.left() {
            return Err(format!(
                "truncated: {what} at byte {} needs {bytes} bytes but the file has {}",
                self.at, self.bytes
            ));
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        self.need(N as u64, what)?;
        let mut buffer = [0; N];
        self.input.read_exact(&mut buffer).map_err(|e| format!("cannot read {what} at byte {}: {e}", self.at))?;
        self.at += N as u64;
        Ok(buffer)
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.take(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.take(what)?))
    }

    /// A count of items of at least `least` bytes each, refused where the rest of the file could not hold them.
    fn count(&mut self, what: &str, least: u64) -> Result<u64, String> {
        let at = self.at;
        let count = self.u64(what)?;
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.left() => Ok(count),
            _ => Err(format!("{what} at byte {at} is {count}, more than the file of {} bytes can hold", self.bytes)),
        }
    }

    fn text(&mut self, what: &str) -> Result<String, String> {
        let at = self.at;
        let length = self.count(what, 1)?;
        let mut buffer = vec![0; usize::try_from(length).map_err(|_| format!("{what} is too long"))?];
        self.input.read_exact(&mut buffer).map_err(|e| format!("cannot read {what} at byte {at}: {e}"))?;
        self.at += length;
        String::from_utf8(buffer).map_err(|_| format!("{what} at byte {at} is not UTF-8"))
    }

    fn name(&mut self, what: &str) -> Result<String, String> {
        let at = self.at;
        let name = self.text(what)?;
        if name.is_empty() || name.len() as u64 > MAX_NAME_BYTES {
            return Err(format!("{what} at byte {at} has {} bytes; 1 to {MAX_NAME_BYTES} are allowed", name.len()));
        }
        Ok(name)
    }

    fn scalar(&mut self, kind: u32, key: &str) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Int(i64::from(u8::from_le_bytes(self.take(key)?))),
            1 => Value::Int(i64::from(i8::from_le_bytes(self.take(key)?))),
            2 => Value::Int(i64::from(u16::from_le_bytes(self.take(key)?))),
            3 => Value::Int(i64::from(i16::from_le_bytes(self.take(key)?))),
            4 => Value::Int(i64::from(u32::from_le_bytes(self.take(key)?))),
            5 => Value::Int(i64::from(i32::from_le_bytes(self.take(key)?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.take(key)?))),
            7 => match self.take::<1>(key)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(format!("metadata key {key}: {other} is not a boolean")),
            },
            8 => Value::Text(self.text(key)?),
            10 => Value::Int(
                i64::try_from(self.u64(key)?)
                    .map_err(|_| format!("metadata key {key}: the integer does not fit 63 bits"))?,
            ),
            11 => Value::Int(i64::from_le_bytes(self.take(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.take(key)?)),
            other => return Err(format!("metadata key {key} has the unknown type {other}")),
        })
    }

    fn value(&mut self, kind: u32, key: &str, depth: u32) -> Result<Value, String> {
        if kind != 9 {
            return self.scalar(kind, key);
        }
        if depth == MAX_DEPTH {
            return Err(format!("metadata key {key} nests arrays deeper than {MAX_DEPTH}"));
        }
        let inner = self.u32(key)?;
        let least = match inner {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            other => return Err(format!("metadata key {key} has the unknown array type {other}")),
        };
        let count = self.count(key, least)?;
        let mut array = match inner {
            6 | 12 => Value::Floats(Vec::new()),
            7 => Value::Bools(Vec::new()),
            8 => Value::Texts(Vec::new()),
            9 => Value::Nested,
            _ => Value::Ints(Vec::new()),
        };
        for _ in 0..count {
            let item = self.value(inner, key, depth + 1)?;
            match (&mut array, item) {
                (Value::Ints(all), Value::Int(n)) => all.push(n),
                #[expect(clippy::cast_possible_truncation, reason = "scores are 32-bit floats in every known file")]
                (Value::Floats(all), Value::Float(x)) => all.push(x as f32),
                (Value::Bools(all), Value::Bool(b)) => all.push(b),
                (Value::Texts(all), Value::Text(text)) => all.push(text),
                _ => {}
            }
        }
        Ok(array)
    }

    /// A tensor's entry; its start is still relative to the data section.
    fn tensor(&mut self) -> Result<(String, Place), String> {
        let name = self.name("a tensor name")?;
        let rank = self.u32(&name)?;
        if rank == 0 || rank > MAX_DIMS {
            return Err(format!("tensor {name} has {rank} dimensions; 1 to {MAX_DIMS} are allowed"));
        }
        let mut dims = Vec::new();
        let mut elements: u64 = 1;
        for _ in 0..rank {
            let size = self.u64(&name)?;
            elements = elements.checked_mul(size).ok_or_else(|| format!("tensor {name}: its size overflows"))?;
            dims.push(usize::try_from(size).map_err(|_| format!("tensor {name}: a dimension is too large"))?);
        }
        let code = self.u32(&name)?;
        let dtype =
            Dtype::from_code(code).ok_or_else(|| format!("tensor {name} has the unsupported element type {code}"))?;
        let start = self.u64(&name)?;
        let bytes = tensor_bytes(&name, dtype, &dims, elements)?;
        Ok((name, Place { dtype, dims, start, bytes }))
    }
}

fn tensor_bytes(name: &str, dtype: Dtype, dims: &[usize], elements: u64) -> Result<u64, String> {
    let block = dtype.block() as u64;
    let row = dims.first().copied().unwrap_or(0) as u64;
    if elements == 0 || !row.is_multiple_of(block) {
        return Err(format!("tensor {name}: rows of {row} elements do not divide into blocks of {block}"));
    }
    let bytes = (elements / block).checked_mul(dtype.block_bytes() as u64);
    bytes.ok_or_else(|| format!("tensor {name}: its size in bytes overflows"))
}
