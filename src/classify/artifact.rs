//! The trained artifact: its layout in bytes, written by training and checked on loading.
//!
//! Layout, little endian: magic, version, bits of both tables, numbers of lanes and shapes, a hash of the domain names,
//! payload length, BLAKE3 over all the rest; then scales, tables, head, temperature and threshold. Invariant: no byte of the
//! file can change without [`parse`] refusing it, and what it accepts has the sizes that serving indexes by.

use std::io;

use super::domain::{DOMAINS, NAMES};
use super::features::{CHAR_BITS, SHAPES, WORD_BITS};

/// Version of the layout and of the features; an artifact of another version is refused.
pub const VERSION: u32 = 1;
/// Bytes per bucket: one weight per domain, and the squared inverse document frequency.
pub const LANES: usize = 24;
/// Inputs of the dense head: a score per domain from each table, then the shape.
pub const INPUTS: usize = 2 * DOMAINS + SHAPES;

const MAGIC: &[u8; 8] = b"WRDOMAIN";
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 32;
const CHECKSUM_AT: usize = HEADER_BYTES - 32;

/// Why an artifact was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file could not be read.
    #[error("cannot read the classifier artifact {path}: {cause}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The magic bytes are missing.
    #[error("this is not a classifier artifact: it does not begin with WRDOMAIN")]
    Magic,
    /// Written by another version of the program.
    #[error(
        "the artifact has version {0}, this program reads version {VERSION}: train it again with `wattroute train domain`"
    )]
    Version(u32),
    /// Not the artifact of a taxonomy's classifier.
    #[error("this is not the artifact of a taxonomy: it does not begin with WRTOPICS")]
    NoTopics,
    /// A taxonomy's artifact, written by another version of the program.
    #[error(
        "the artifact has version {0}, this program reads version {1}: train it again with `wattroute train domain`"
    )]
    OtherVersion(usize, u32),
    /// An artifact for other labels than were asked for.
    #[error(
        "the artifact sorts by taxonomy `{found}`, not by `{wanted}`: train one with `wattroute train domain --taxonomy`"
    )]
    Taxonomy {
        /// In the artifact.
        found: String,
        /// Asked for.
        wanted: String,
    },
    /// Table sizes or the list of domains differ from this program's.
    #[error("the artifact has another shape ({0}): train it again with `wattroute train domain`")]
    Shape(&'static str),
    /// Cut short or too long.
    #[error("the artifact has {found} bytes where its header promises {wanted}")]
    Length {
        /// Bytes there should be.
        wanted: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The content does not match its own checksum.
    #[error("the artifact is corrupt: its checksum does not match its content")]
    Checksum,
    /// A number in it cannot be used.
    #[error("the artifact holds an impossible number: {0}")]
    Value(&'static str),
}

/// Weights of one table: `buckets` rows of [`LANES`] bytes, times `scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// One unit of a weight.
    pub scale: f32,
    /// Rows; the last lane is the squared inverse document frequency, 0 where training never saw the feature.
    pub rows: Vec<[i8; LANES]>,
}

/// Everything that training decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// Words and word pairs.
    pub words: Weights,
    /// Characters.
    pub chars: Weights,
    /// Dense head, one row of domains per input.
    pub head: Vec<[f32; DOMAINS]>,
    /// Intercepts of the head.
    pub bias: [f32; DOMAINS],
    /// Logits are divided by this.
    pub temperature: f32,
    /// Below this top probability the classifier abstains.
    pub threshold: f32,
}

/// The bytes of an artifact.
pub fn render(artifact: &Artifact) -> Vec<u8> {
    let mut payload = Vec::new();
    for table in [&artifact.words, &artifact.chars] {
        payload.extend(table.scale.to_le_bytes());
        payload.extend(table.rows.iter().flatten().map(|w| w.to_le_bytes()[0]));
    }
    let head = artifact.head.iter().flatten().chain(&artifact.bias);
    payload.extend(head.chain([&artifact.temperature, &artifact.threshold]).flat_map(|x| x.to_le_bytes()));
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(sizes());
    out.extend(names_hash());
    out.extend((payload.len() as u64).to_le_bytes());
    let checksum = checksum(&out, &payload);
    out.extend(checksum);
    out.extend(payload);
    out
}

/// Checks the bytes of an artifact and takes it apart.
pub fn parse(bytes: &[u8]) -> Result<Artifact, ArtifactError> {
    let short = || ArtifactError::Length { wanted: HEADER_BYTES as u64, found: bytes.len() as u64 };
    if !bytes.starts_with(MAGIC) {
        return Err(ArtifactError::Magic);
    }
    let (header, payload) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(short)?;
    let (head, sum) = header.split_at_checked(CHECKSUM_AT).ok_or_else(short)?;
    let mut fields = Reader { rest: head };
    fields.take(MAGIC.len())?;
    let version = u32::from_le_bytes(fields.array()?);
    if version != VERSION {
        return Err(ArtifactError::Version(version));
    }
    if fields.array::<4>()? != sizes() {
        return Err(ArtifactError::Shape("table sizes"));
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
    checked(Reader { rest: payload })
}

fn checked(mut payload: Reader<'_>) -> Result<Artifact, ArtifactError> {
    let words = payload.weights(WORD_BITS)?;
    let chars = payload.weights(CHAR_BITS)?;
    let head = (0..INPUTS).map(|_| payload.floats::<DOMAINS>()).collect::<Result<Vec<_>, _>>()?;
    let bias = payload.floats::<DOMAINS>()?;
    let [temperature, threshold] = payload.floats::<2>()?;
    if !(0.01..=100.0).contains(&temperature) {
        return Err(ArtifactError::Value("temperature"));
    }
    if !(0.0..=1.0).contains(&threshold) {
        return Err(ArtifactError::Value("threshold"));
    }
    if !payload.rest.is_empty() {
        return Err(ArtifactError::Shape("bytes after the last field"));
    }
    Ok(Artifact { words, chars, head, bias, temperature, threshold })
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

    fn weights(&mut self, bits: u32) -> Result<Weights, ArtifactError> {
        let [scale] = self.floats::<1>()?;
        if scale <= 0.0 {
            return Err(ArtifactError::Value("scale"));
        }
        let (chunks, _) = self.take(LANES << bits)?.as_chunks::<LANES>();
        Ok(Weights { scale, rows: chunks.iter().map(|row| row.map(|b| i8::from_le_bytes([b]))).collect() })
    }
}

fn sizes() -> [u8; 4] {
    [WORD_BITS as u8, CHAR_BITS as u8, LANES as u8, SHAPES as u8]
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
