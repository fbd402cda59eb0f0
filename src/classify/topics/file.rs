//! The artifact of a taxonomy's classifier in bytes.
//!
//! Layout, little endian: magic, version, bits of both tables and number of shapes, payload length, BLAKE3 over all the rest;
//! then the taxonomy as TOML, both tables (scale, rows, each with the distance from the bucket before), the name of the table
//! of word vectors that the heads were trained with, and the heads. Invariant:
//! no byte can change without [`parse`] refusing it, and what it accepts has the sizes that serving goes by.

use super::table::Table;
use std::sync::Arc;

use super::{Head, Topics, VECTOR};
use crate::classify::artifact::ArtifactError;
use crate::classify::features::{CHAR_BITS, SHAPES, WORD_BITS};
use crate::classify::gist::{DIMS, Gist};
use crate::classify::taxonomy::Taxonomy;

/// Version of the layout and of the features; an artifact of another version is refused.
pub const VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"WRTOPICS";
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 32;
const CHECKSUM_AT: usize = HEADER_BYTES - 32;

/// The bytes of an artifact.
pub fn render(topics: &Topics) -> Vec<u8> {
    let mut payload = Vec::new();
    let text = topics.taxonomy.render();
    number(&mut payload, text.len());
    payload.extend(text.as_bytes());
    for table in [&topics.words, &topics.chars] {
        payload.extend(table.scale.to_le_bytes());
        number(&mut payload, table.filled().count());
        let mut before = 0;
        for (bucket, row) in table.filled() {
            distance(&mut payload, bucket - before);
            before = bucket;
            payload.extend(row.iter().map(|w| w.to_le_bytes()[0]));
        }
    }
    payload.extend(topics.gist.id());
    head(&mut payload, &topics.fast);
    payload.push(u8::from(topics.encoder.is_some()));
    if let Some(encoder) = &topics.encoder {
        head(&mut payload, encoder);
        payload.extend(topics.ask_below.to_le_bytes());
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(sizes());
    out.extend((payload.len() as u64).to_le_bytes());
    let sum = checksum(&out, &payload);
    out.extend(sum);
    out.extend(payload);
    out
}

fn head(out: &mut Vec<u8>, head: &Head) {
    number(out, head.weights.len());
    let all = head.weights.iter().chain(&head.bias).chain([&head.temperature, &head.threshold]);
    out.extend(all.flat_map(|x| x.to_le_bytes()));
}

fn number(out: &mut Vec<u8>, n: usize) {
    out.extend(u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn distance(out: &mut Vec<u8>, mut n: usize) {
    while n >= 128 {
        out.push((n % 128) as u8 | 128);
        n /= 128;
    }
    out.push(n as u8);
}

/// Checks the bytes of an artifact and takes it apart.
pub fn parse(bytes: &[u8]) -> Result<Topics, ArtifactError> {
    parse_with(bytes, Gist::shipped())
}

/// The same with a table of word vectors other than the one inside the program: training makes both.
pub fn parse_with(bytes: &[u8], gist: Arc<Gist>) -> Result<Topics, ArtifactError> {
    if !bytes.starts_with(MAGIC) {
        return Err(ArtifactError::Magic);
    }
    let short = || ArtifactError::Length { wanted: HEADER_BYTES as u64, found: bytes.len() as u64 };
    let (header, payload) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(short)?;
    let (head, sum) = header.split_at_checked(CHECKSUM_AT).ok_or_else(short)?;
    let mut fields = Reader { rest: head };
    fields.take(MAGIC.len())?;
    let version = fields.number()?;
    if version != VERSION as usize {
        return Err(ArtifactError::Version { found: version, wanted: VERSION });
    }
    if fields.array::<4>()? != sizes() {
        return Err(ArtifactError::Shape("table sizes"));
    }
    let wanted = u64::from_le_bytes(fields.array()?);
    if wanted != payload.len() as u64 {
        return Err(ArtifactError::Length { wanted, found: payload.len() as u64 });
    }
    if sum != checksum(head, payload) {
        return Err(ArtifactError::Checksum);
    }
    checked(Reader { rest: payload }, gist)
}

fn checked(mut payload: Reader<'_>, gist: Arc<Gist>) -> Result<Topics, ArtifactError> {
    let length = payload.number()?;
    let text = std::str::from_utf8(payload.take(length)?).map_err(|_| ArtifactError::Shape("taxonomy"))?;
    let taxonomy = Taxonomy::parse(text).map_err(|_| ArtifactError::Shape("taxonomy"))?;
    let labels = taxonomy.labels.len();
    let words = payload.table(WORD_BITS, labels)?;
    let chars = payload.table(CHAR_BITS, labels)?;
    if payload.array::<8>()? != gist.id() {
        return Err(ArtifactError::Shape("table of word vectors"));
    }
    let fast = payload.head(Topics::numbers(labels), labels)?;
    let [more] = payload.array::<1>()?;
    let (encoder, ask_below) = if more == 0 { (None, 0.0) } else { payload.second(labels)? };
    if !payload.rest.is_empty() {
        return Err(ArtifactError::Shape("bytes after the last field"));
    }
    Ok(Topics { taxonomy, words, chars, gist, fast, encoder, ask_below })
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

    fn number(&mut self) -> Result<usize, ArtifactError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn float(&mut self) -> Result<f32, ArtifactError> {
        let x = f32::from_le_bytes(self.array()?);
        if x.is_finite() { Ok(x) } else { Err(ArtifactError::Value("not finite")) }
    }

    fn distance(&mut self) -> Result<usize, ArtifactError> {
        let mut n = 0;
        for shift in [0, 7, 14] {
            let [byte] = self.array::<1>()?;
            n |= usize::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(n);
            }
        }
        Err(ArtifactError::Value("bucket"))
    }

    fn table(&mut self, bits: u32, labels: usize) -> Result<Table, ArtifactError> {
        let scale = self.float()?;
        if scale <= 0.0 {
            return Err(ArtifactError::Value("scale"));
        }
        let mut table = Table::new(bits, labels, scale);
        let count = self.number()?;
        let mut bucket = 0;
        let mut row = Vec::with_capacity(labels + 1);
        for _ in 0..count {
            bucket += self.distance()?;
            row.clear();
            row.extend(self.take(labels + 1)?.iter().map(|b| i8::from_le_bytes([*b])));
            if !table.put(bucket, &row) {
                return Err(ArtifactError::Value("bucket"));
            }
        }
        Ok(table)
    }

    fn second(&mut self, labels: usize) -> Result<(Option<Head>, f32), ArtifactError> {
        let head = self.head(labels + VECTOR, labels)?;
        let ask_below = self.float()?;
        if !(0.0..=2.0).contains(&ask_below) {
            return Err(ArtifactError::Value("margin"));
        }
        Ok((Some(head), ask_below))
    }

    fn head(&mut self, inputs: usize, labels: usize) -> Result<Head, ArtifactError> {
        if self.number()? != inputs * labels {
            return Err(ArtifactError::Shape("head"));
        }
        let weights = (0..inputs * labels).map(|_| self.float()).collect::<Result<_, _>>()?;
        let bias = (0..labels).map(|_| self.float()).collect::<Result<_, _>>()?;
        let (temperature, threshold) = (self.float()?, self.float()?);
        if !(0.01..=100.0).contains(&temperature) {
            return Err(ArtifactError::Value("temperature"));
        }
        if !(0.0..=1.0).contains(&threshold) {
            return Err(ArtifactError::Value("threshold"));
        }
        Ok(Head { weights, bias, temperature, threshold })
    }
}

fn sizes() -> [u8; 4] {
    [WORD_BITS as u8, CHAR_BITS as u8, SHAPES as u8, DIMS as u8]
}

fn checksum(head: &[u8], payload: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(head).update(payload).finalize().as_bytes()
}
