//! Log files as batches of whole lines: plain, gzip or zstd text, a journal, Parquet, told by their first bytes; of this machine or
//! of a store.
//!
//! What is no text is made into lines of JSON on the way ([`super::blocks`]), so that one reader knows every format. Invariant: what
//! is read is bounded by the batch, never by the file. A file that ends in the middle of its compression is an error with the
//! line it was reached in, not a shorter log.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::blocks::{Blocks, FAILED};
use super::learned::LINES;
use crate::columnar::read as columns;
use crate::journal::stream;
use crate::store::{self, Found};

/// Longest line that is read, bytes: one query with its whole conversation.
const LINE_BYTES: usize = 64 << 20;
/// Read from the file at a time, bytes.
const READ_BYTES: usize = 256 << 10;
/// First bytes of a SQLite file.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Whole lines of a file, without their ends.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// Number of the first line, from 1.
    pub first: u64,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Chunk {
    /// Lines.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// No lines.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Each line with its number.
    pub fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let each = starts.zip(self.ends.iter().copied()).zip(self.first..);
        each.map(|((from, to), n)| (n, trimmed(self.text.get(from..to).unwrap_or_default())))
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A log being read.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
    file: String,
    packed: Option<&'static str>,
    next: u64,
    /// Bytes of the chunk before: about what the next will take.
    usual: usize,
    read: Arc<AtomicU64>,
    /// Bytes of the file as it lies on the disk.
    pub size: u64,
}

/// Counts what passes.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl Lines {
    /// Opens a file, a folder of Parquet files, or the same at an address.
    ///
    /// # Errors
    /// It cannot be read, or its first bytes are of a packing that is not read here.
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = path.display().to_string();
        let found = store::find(path)?;
        if let Some(parts) = parts(&found).map_err(|e| format!("{file}: {e}"))? {
            return Self::parquet(file, parts);
        }
        let (bytes, size) = raw(&found, &file)?;
        let told = |e: std::io::Error| format!("{file}: {e}");
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: bytes, read: Arc::clone(&read) };
        let mut raw = BufReader::with_capacity(READ_BYTES, counted);
        let head = raw.fill_buf().map_err(|e| if e.kind() == FAILED { e.to_string() } else { told(e) })?;
        let (reader, packed): (Box<dyn BufRead + Send>, _) = match head {
            [0x1f, 0x8b, ..] => {
                (Box::new(BufReader::with_capacity(READ_BYTES, MultiGzDecoder::new(raw))), Some("gzip"))
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let zstd = zstd::Decoder::with_buffer(raw).map_err(told)?;
                (Box::new(BufReader::with_capacity(READ_BYTES, zstd)), Some("zstd"))
            }
            [b'P', b'A', b'R', b'1', ..] => return Self::parquet(file, vec![found]),
            head if head.starts_with(SQLITE) => return Self::journal(file, found, size),
            [b'B', b'Z', b'h', ..] => return Err(format!("{file}: is bzip2; gzip, zstd and plain text are read")),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => {
                return Err(format!("{file}: is xz; gzip, zstd and plain text are read"));
            }
            _ => (Box::new(raw), None),
        };
        Ok(Self { reader, file, packed, next: 1, usual: 0, read, size })
    }

    fn journal(file: String, found: Found, size: u64) -> Result<Self, String> {
        Self::made(file, size, move |told| stream::stream(found.bring()?.path(), told))
    }

    /// Of files one after the other; those of a store are copied here one at a time.
    fn parquet(file: String, parts: Vec<Found>) -> Result<Self, String> {
        let sizes: Vec<u64> = parts.iter().map(bytes_of).collect();
        let size = sizes.iter().sum::<u64>();
        Self::made(file, size, move |told| {
            let (mut before, all) = (0.0, size.max(1) as f64);
            for (part, own) in parts.iter().zip(sizes) {
                let here = part.bring()?;
                let name = match part {
                    Found::There(object) => object.to_string(),
                    _ => here.path().display().to_string(),
                };
                let mut give = |block, share: f64| told(block, (before + own as f64 * share) / all);
                if !columns::lines(&name, here.path(), &mut give)? {
                    break;
                }
                before += own as f64;
            }
            Ok(())
        })
    }

    /// Of what a thread makes into lines; it tells which share of the whole it has read.
    fn made<P>(file: String, size: u64, produce: P) -> Result<Self, String>
    where
        P: FnOnce(&mut dyn FnMut(Vec<u8>, f64) -> bool) -> Result<(), String> + Send + 'static,
    {
        let read = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&read);
        let blocks = Blocks::of(move |give| {
            produce(&mut |block, share| {
                seen.store((share * size as f64) as u64, Ordering::Relaxed);
                give(block)
            })
        });
        let reader = Box::new(BufReader::with_capacity(READ_BYTES, blocks.map_err(|e| format!("{file}: {e}"))?));
        Ok(Self { reader, file, packed: None, next: 1, usual: 0, read, size })
    }

    /// Bytes of the file read so far, to be watched from elsewhere.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    /// The next lines: at most `lines` of them, and no more than some megabytes. None at the end.
    ///
    /// # Errors
    /// File and line where the packing is broken or cut off, or where a line does not end.
    pub fn chunk(&mut self, lines: usize) -> Result<Option<Chunk>, String> {
        let text = Vec::with_capacity(self.usual + self.usual / 16);
        let mut chunk = Chunk { first: self.next, text, ends: Vec::with_capacity(lines.min(LINES)) };
        while chunk.ends.len() < lines && chunk.text.len() < 4 << 20 {
            let before = chunk.text.len();
            let mut bounded = (&mut self.reader).take(LINE_BYTES as u64);
            let read = bounded.read_until(b'\n', &mut chunk.text);
            match read {
                Ok(0) => break,
                Ok(n) if n >= LINE_BYTES => {
                    return Err(format!("{}:{}: a line of more than {} MiB", self.file, self.next, LINE_BYTES >> 20));
                }
                Ok(_) => {}
                Err(e) => return Err(self.broken(&e)),
            }
            if chunk.text.len() > before {
                chunk.ends.push(chunk.text.len());
                self.next += 1;
            }
        }
        self.usual = chunk.text.len();
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn broken(&self, e: &std::io::Error) -> String {
        let what = match (self.packed, e.kind()) {
            (_, FAILED) => e.to_string(),
            (Some(packed), std::io::ErrorKind::UnexpectedEof) => format!("the {packed} data ends early: {e}"),
            (Some(packed), _) => format!("the {packed} data is damaged: {e}"),
            (None, _) => e.to_string(),
        };
        format!("{}:{}: {what}; nothing was written", self.file, self.next)
    }
}

/// The Parquet files of a folder; none where it is no folder.
fn parts(found: &Found) -> Result<Option<Vec<Found>>, String> {
    match found {
        Found::Here(path) if path.is_dir() => Ok(Some(columns::files(path)?.into_iter().map(Found::Here).collect())),
        Found::Below(objects) => {
            let parquet =
                |o: &&store::Object| o.address.key.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
            let parts: Vec<Found> = objects.iter().filter(parquet).cloned().map(Found::There).collect();
            if parts.is_empty() { Err("is a folder without Parquet files".to_owned()) } else { Ok(Some(parts)) }
        }
        _ => Ok(None),
    }
}

/// All bytes of one file, and how many they are.
fn raw(found: &Found, file: &str) -> Result<(Box<dyn Read + Send>, u64), String> {
    match found.clone() {
        Found::Here(path) => {
            let told = |e: std::io::Error| format!("{file}: {e}");
            let opened = File::open(path).map_err(told)?;
            let size = opened.metadata().map_err(told)?.len();
            Ok((Box::new(opened), size))
        }
        Found::There(object) => {
            let size = object.size;
            let blocks = Blocks::of(move |give| object.read(give)).map_err(|e| format!("{file}: {e}"))?;
            Ok((Box::new(blocks), size))
        }
        Found::Below(_) => Err(format!("{file}: is a folder")),
    }
}

fn bytes_of(part: &Found) -> u64 {
    match part {
        Found::Here(path) => path.metadata().map_or(0, |m| m.len()),
        Found::There(object) => object.size,
        Found::Below(_) => 0,
    }
}

/// BLAKE3 of all bytes of a log, first 16 hex digits; of a folder's files one after the other.
///
/// # Errors
/// It cannot be read.
pub fn hash(path: &Path) -> Result<String, String> {
    let found = store::find(path)?;
    let file = path.display().to_string();
    let parts = parts(&found).map_err(|e| format!("{file}: {e}"))?.unwrap_or_else(|| vec![found]);
    let mut hasher = blake3::Hasher::new();
    for part in &parts {
        let (mut bytes, _) = raw(part, &file)?;
        std::io::copy(&mut bytes, &mut hasher).map_err(|e| format!("{file}: {e}"))?;
    }
    Ok(hasher.finalize().to_hex().chars().take(16).collect())
}
