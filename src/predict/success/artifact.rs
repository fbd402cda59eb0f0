//! The trained predictors of one or more models: their layout in bytes, written by training and checked on loading.
//!
//! Layout, little endian: magic, version, sizes, a hash of the domain names, payload length, BLAKE3 over all the rest; then the
//! inverse frequencies, the number of models, and each model's numbers in the order of [`Learned`]. Invariant: no byte can
//! change without [`parse`] refusing the file, and what it accepts is finite and has the sizes that serving expects.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::lengths::Lengths;
use super::{Learned, Predictor};
use crate::classify::domain::{DOMAINS, NAMES};
use crate::classify::features::WORD_BITS;
use crate::predict::fit::dense::DENSE;
use crate::predict::fit::model::KNOWN;
use crate::predict::fit::sparse::BUCKETS;

/// Version of the layout and of the features; an artifact of another version is refused.
pub const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"WRSUCCES";
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 32;
const CHECKSUM_AT: usize = HEADER_BYTES - 32;
const WORDS: usize = 1 << WORD_BITS;
/// Longest name of a model.
const NAME_BYTES: usize = 300;

/// Predictors that share their features.
#[derive(Clone, Debug)]
pub struct Success {
    /// Inverse document frequency of each bucket of words, then of characters, see [`super::IDF_STEPS`].
    pub idf: Arc<Vec<u8>>,
    /// One per model.
    pub models: Vec<Arc<Learned>>,
}

/// Why an artifact was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file could not be read.
    #[error("cannot read the success artifact {path}: {cause}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The magic bytes are missing.
    #[error("this is not a success artifact: it does not begin with WRSUCCES")]
    Magic,
    /// Written by another version of the program.
    #[error(
        "the success artifact has version {0}, this program reads version {VERSION}: train it again with `wattroute train success`"
    )]
    Version(u32),
    /// Sizes of the features or the list of domains differ from this program's.
    #[error("the success artifact has another shape ({0}): train it again with `wattroute train success`")]
    Shape(&'static str),
    /// Cut short or too long.
    #[error("the success artifact has {found} bytes where its header promises {wanted}")]
    Length {
        /// Bytes there should be.
        wanted: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The content does not match its own checksum.
    #[error("the success artifact is corrupt: its checksum does not match its content")]
    Checksum,
    /// A number in it cannot be used.
    #[error("the success artifact holds an impossible number: {0}")]
    Value(&'static str),
    /// It was not trained on this model.
    #[error("the success artifact knows nothing of {wanted}; it was trained on {known}")]
    Model {
        /// The model asked for.
        wanted: String,
        /// Those it has.
        known: String,
    },
}

impl Success {
    /// Reads an artifact.
    ///
    /// # Errors
    /// As [`parse`], or the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, ArtifactError> {
        let read = |cause| ArtifactError::Read { path: path.display().to_string(), cause };
        parse(&std::fs::read(path).map_err(read)?)
    }

    /// The predictor of a model, by its name without owner and case.
    ///
    /// # Errors
    /// It has no such model; the error names those it has.
    pub fn of_model(&self, model: &str) -> Result<Predictor, ArtifactError> {
        let short = |name: &str| name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        let found = self.models.iter().find(|m| short(&m.model) == short(model));
        let learned = found.ok_or_else(|| {
            let known: Vec<&str> = self.models.iter().map(|m| m.model.as_str()).collect();
            ArtifactError::Model { wanted: model.to_owned(), known: known.join(", ") }
        })?;
        Ok(Predictor { idf: Arc::clone(&self.idf), learned: Arc::clone(learned) })
    }
}

/// The bytes of an artifact.
pub fn render(success: &Success) -> Vec<u8> {
    let mut payload = success.idf.to_vec();
    payload.extend((success.models.len() as u32).to_le_bytes());
    for m in &success.models {
        let name = m.model.as_bytes();
        payload.extend((name.len() as u32).to_le_bytes());
        payload.extend(name);
        payload.extend(m.rows.to_le_bytes());
        payload.extend(m.words.iter().map(|w| w.to_le_bytes()[0]));
        let numbers = [m.scale, m.bias].into_iter().chain(m.own).chain(m.ease).chain(m.counts).chain(m.cells);
        let numbers = numbers.chain(m.dense).chain(m.known);
        payload.extend(numbers.flat_map(f32::to_le_bytes));
        payload.extend(u32::from(m.lengths.is_some()).to_le_bytes());
        if let Some(l) = &m.lengths {
            let numbers = l.dense.into_iter().chain([l.bias]).chain(l.factors).chain([l.mean]);
            payload.extend(numbers.flat_map(f32::to_le_bytes));
        }
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(sizes());
    out.extend(names_hash());
    out.extend((payload.len() as u64).to_le_bytes());
    let sum = checksum(&out, &payload);
    out.extend(sum);
    out.extend(payload);
    out
}

/// Checks the bytes of an artifact and takes it apart.
///
/// # Errors
/// Another program's or version's file, a changed byte, a number that is not finite.
pub fn parse(bytes: &[u8]) -> Result<Success, ArtifactError> {
    if !bytes.starts_with(MAGIC) {
        return Err(ArtifactError::Magic);
    }
    let short = || ArtifactError::Length { wanted: HEADER_BYTES as u64, found: bytes.len() as u64 };
    let (header, payload) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(short)?;
    let (head, sum) = header.split_at_checked(CHECKSUM_AT).ok_or_else(short)?;
    let mut fields = Reader { rest: head };
    fields.take(MAGIC.len())?;
    let version = fields.whole()?;
    if version != VERSION {
        return Err(ArtifactError::Version(version));
    }
    if fields.array::<4>()? != sizes() {
        return Err(ArtifactError::Shape("sizes of the features"));
    }
    if fields.array::<8>()? != names_hash() {
        return Err(ArtifactError::Shape("list of domains"));
    }
    let wanted = u64::from_le_bytes(fields.array()?);
    if wanted != payload.len() as u64 {
        return Err(ArtifactError::Length { wanted, found: payload.len() as u64 });
    }
    if sum != checksum(head, payload) {
        return Err(ArtifactError::Checksum);
    }
    let mut rest = Reader { rest: payload };
    let idf = Arc::new(rest.take(BUCKETS)?.to_vec());
    let count = rest.whole()?;
    let models = (0..count).map(|_| rest.learned().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    if !rest.rest.is_empty() {
        return Err(ArtifactError::Shape("bytes after the last model"));
    }
    Ok(Success { idf, models })
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], ArtifactError> {
        let found = self.rest.len() as u64;
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(ArtifactError::Length { wanted: n as u64, found })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArtifactError> {
        let found = self.rest.len() as u64;
        self.take(N)?.try_into().map_err(|_| ArtifactError::Length { wanted: N as u64, found })
    }

    fn whole(&mut self) -> Result<u32, ArtifactError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn floats<const N: usize>(&mut self) -> Result<[f32; N], ArtifactError> {
        let mut all = [0.0; N];
        for x in &mut all {
            *x = f32::from_le_bytes(self.array()?);
            if !x.is_finite() {
                return Err(ArtifactError::Value("not finite"));
            }
        }
        Ok(all)
    }

    fn shares<const N: usize>(&mut self) -> Result<[f32; N], ArtifactError> {
        let all = self.floats::<N>()?;
        let fine = all.iter().all(|p| (0.0..=1.0).contains(p));
        if fine { Ok(all) } else { Err(ArtifactError::Value("a share beyond 0 to 1")) }
    }

    fn learned(&mut self) -> Result<Learned, ArtifactError> {
        let name = self.whole()? as usize;
        if name > NAME_BYTES {
            return Err(ArtifactError::Value("length of a model's name"));
        }
        let model = String::from_utf8(self.take(name)?.to_vec()).map_err(|_| ArtifactError::Value("a model's name"))?;
        let rows = self.whole()?;
        let words = self.take(WORDS)?.iter().map(|b| i8::from_le_bytes([*b])).collect();
        let [scale, bias] = self.floats()?;
        Ok(Learned {
            model,
            rows,
            scale,
            words,
            bias,
            own: self.shares()?,
            ease: self.shares()?,
            counts: self.floats::<DOMAINS>()?,
            cells: self.floats()?,
            dense: self.floats::<DENSE>()?,
            known: self.floats::<KNOWN>()?,
            lengths: if self.whole()? == 0 { None } else { Some(self.lengths()?) },
        })
    }

    fn lengths(&mut self) -> Result<Lengths, ArtifactError> {
        let dense = self.floats::<DENSE>()?;
        let [bias] = self.floats()?;
        let factors = self.floats()?;
        let [mean] = self.floats()?;
        Ok(Lengths { dense, bias, factors, mean })
    }
}

fn sizes() -> [u8; 4] {
    [WORD_BITS as u8, DENSE as u8, KNOWN as u8, DOMAINS as u8]
}

fn names_hash() -> [u8; 8] {
    let mut short = [0; 8];
    for (s, b) in short.iter_mut().zip(blake3::hash(NAMES.join("\n").as_bytes()).as_bytes()) {
        *s = *b;
    }
    short
}

fn checksum(head: &[u8], payload: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(head).update(payload).finalize().as_bytes()
}
