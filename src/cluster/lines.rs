//! A piece of a log as batches of whole lines, read from an object store while it streams.

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store_013::path::Path;
use object_store_013::{GetOptions, GetRange, ObjectStore};
use serde::{Deserialize, Serialize};

use super::sums::failed;

/// Lines of a batch.
const LINES: usize = 4096;
/// Bytes of a batch.
const BYTES: usize = 4 << 20;
/// Longest line, bytes.
const LONGEST: usize = 64 << 20;

/// How a log is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packed {
    /// Not at all.
    No,
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
    /// It is Parquet, whose pieces are row groups.
    Columns,
}

impl Packed {
    /// Told by the first bytes.
    ///
    /// # Errors
    /// They are of something that is not read here.
    pub fn of(head: &[u8]) -> std::result::Result<Self, String> {
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            [b'P', b'A', b'R', b'1', ..] => Ok(Self::Columns),
            [b'S', b'Q', b'L', b'i', b't', b'e', b' ', b'f', ..] => {
                Err("is a journal: one process reads such a file, from its beginning to its end; a cluster reads what \
                 `wattroute journal export --to parquet` or `--to jsonl` makes of it"
                    .to_owned())
            }
            [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] => {
                Err("is packed with bzip2 or xz; gzip, zstd and plain text are read".to_owned())
            }
            _ => Ok(Self::No),
        }
    }

    fn engine(self) -> FileCompressionType {
        match self {
            Self::No | Self::Columns => FileCompressionType::UNCOMPRESSED,
            Self::Gzip => FileCompressionType::GZIP,
            Self::Zstd => FileCompressionType::ZSTD,
        }
    }
}

/// Lines that begin within a range of bytes of a file, or row groups of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Which of the log's files.
    pub file: u64,
    /// First byte, or first row group.
    pub start: u64,
    /// The first that is not in it; the file's size in its last piece, and in the only one of a packed one.
    pub end: u64,
    /// Bytes as they lie in the store, for a progress bar.
    pub bytes: u64,
    /// Number of the first line.
    pub first: u64,
}

/// Lines with the number of the first.
#[derive(Debug, Default)]
pub struct Batch {
    /// Number of the first line.
    pub first: u64,
    /// The lines, without their ends.
    pub lines: Vec<Vec<u8>>,
}

/// A piece being read.
pub struct Reading {
    bytes: BoxStream<'static, Result<Bytes>>,
    rest: Vec<u8>,
    /// Bytes of `rest` that were cut into lines.
    used: usize,
    /// Where the next line begins, in bytes of the unpacked log.
    at: u64,
    end: u64,
    next: u64,
    done: bool,
}

impl Reading {
    /// Opens a piece.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(store: &dyn ObjectStore, path: &Path, packed: Packed, piece: &Piece) -> Result<Self> {
        // The byte before tells whether a line begins with the piece.
        let from = if packed == Packed::No { piece.start.saturating_sub(1) } else { 0 };
        let options = GetOptions { range: (from > 0).then_some(GetRange::Offset(from)), ..GetOptions::default() };
        let raw = store.get_opts(path, options).await?.into_stream();
        let bytes = packed.engine().convert_stream(raw.map(|r| r.map_err(Into::into)).boxed())?;
        let end = if packed == Packed::No { piece.end } else { u64::MAX };
        let mut own = Self { bytes, rest: Vec::new(), used: 0, at: from, end, next: piece.first, done: false };
        if piece.start > 0 && packed == Packed::No {
            own.line().await?;
        }
        Ok(own)
    }

    /// The next lines; none at the end.
    ///
    /// # Errors
    /// The store's, damaged packing, or a line that does not end.
    pub async fn batch(&mut self) -> Result<Option<Batch>> {
        let mut batch = Batch { first: self.next, lines: Vec::new() };
        let mut size = 0;
        while batch.lines.len() < LINES && size < BYTES && self.at < self.end {
            let Some(line) = self.line().await? else { break };
            size += line.len();
            batch.lines.push(line);
            self.next += 1;
        }
        Ok((!batch.lines.is_empty()).then_some(batch))
    }

    /// One line without its end; none at the log's end.
    async fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut seen = self.used;
        loop {
            let new = self.rest.get(seen..).unwrap_or_default();
            if let Some(found) = memchr::memchr(b'\n', new) {
                let stop = seen + found;
                let line = trimmed(self.rest.get(self.used..stop).unwrap_or_default()).to_vec();
                self.at += (stop + 1 - self.used) as u64;
                self.used = stop + 1;
                return Ok(Some(line));
            }
            self.rest.drain(..self.used);
            self.used = 0;
            seen = self.rest.len();
            if seen > LONGEST {
                return Err(failed(&format!("line {}: more than {} MiB", self.next, LONGEST >> 20)));
            }
            match if self.done { None } else { self.bytes.next().await } {
                Some(more) => self.rest.extend_from_slice(&more?),
                None => {
                    self.done = true;
                    self.at += self.rest.len() as u64;
                    let last = std::mem::take(&mut self.rest);
                    return Ok((!last.is_empty()).then(|| trimmed(&last).to_vec()));
                }
            }
        }
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
