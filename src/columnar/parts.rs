//! A Parquet file of which some bytes are at hand: its end, and the row groups that are wanted. Pure.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};

use super::read;

/// Bytes at a file's end that tell how long its footer is.
pub const TAIL: u64 = 8;

/// Where a row group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its bytes in the file.
    pub bytes: Range<u64>,
    /// Its rows.
    pub rows: u64,
}

/// Bytes of the end that have to be at hand, for a file of so many bytes that ends with these.
///
/// # Errors
/// It is no Parquet, or is cut off.
pub fn end(tail: &[u8], size: u64) -> Result<u64, String> {
    let odd = || "is cut off or no Parquet".to_owned();
    let (length, mark) = tail.last_chunk::<8>().and_then(|tail| tail.split_first_chunk::<4>()).ok_or_else(odd)?;
    let whole = u64::from(u32::from_le_bytes(*length)) + TAIL;
    if mark == b"PAR1" && whole < size { Ok(whole) } else { Err(odd()) }
}

/// What is at hand of a file.
#[derive(Clone)]
pub struct Parts {
    size: u64,
    parts: Vec<(u64, Bytes)>,
    footer: Arc<ParquetMetaData>,
}

impl Parts {
    /// A file of which the end is at hand.
    ///
    /// # Errors
    /// It is no Parquet, or is packed in a way that is not read here.
    pub fn new(size: u64, footer: Bytes) -> Result<Self, String> {
        let inside = footer.len().saturating_sub(TAIL as usize);
        let told = |e: ParquetError| format!("is cut off or no Parquet: {e}");
        let read = ParquetMetaDataReader::decode_metadata(footer.get(..inside).unwrap_or_default()).map_err(told)?;
        read::unpackable(&read)?;
        Ok(Self { size, parts: vec![(size - footer.len() as u64, footer)], footer: Arc::new(read) })
    }

    /// Takes bytes from there on.
    pub fn add(&mut self, from: u64, bytes: Bytes) {
        self.parts.push((from, bytes));
    }

    /// Its row groups.
    pub fn groups(&self) -> Vec<Group> {
        let group = |group: &RowGroupMetaData| {
            let ranges = group.columns().iter().map(|c| c.byte_range());
            let (from, to) =
                ranges.fold((u64::MAX, 0), |(from, to), (start, n)| (from.min(start), to.max(start.saturating_add(n))));
            Group { bytes: from..to, rows: u64::try_from(group.num_rows()).unwrap_or(0) }
        };
        self.footer.row_groups().iter().map(group).collect()
    }

    /// The rows of a group, whose bytes are at hand, as lines of JSON.
    ///
    /// # Errors
    /// Damaged data.
    pub fn lines(&self, group: usize) -> Result<Vec<Vec<u8>>, String> {
        let told = |e: ParquetError| format!("row group {}: {e}", group + 1);
        let reader = SerializedFileReader::new(self.clone()).map_err(told)?;
        let rows = reader.get_row_group(group).map_err(told)?;
        let each = rows.get_row_iter(None).map_err(told)?;
        each.map(|row| row.map(|row| read::line(&row)).map_err(told)).collect()
    }

    /// From there to the end of the part that it is in.
    fn from(&self, start: u64) -> Option<Bytes> {
        self.parts.iter().find_map(|(from, bytes)| {
            let skip = usize::try_from(start.checked_sub(*from)?).ok()?;
            (skip < bytes.len()).then(|| bytes.slice(skip..))
        })
    }
}

fn missing(start: u64) -> ParquetError {
    ParquetError::EOF(format!("byte {start} was not fetched"))
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Parts {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(Box::new(self.from(start).ok_or_else(|| missing(start))?.reader()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start).filter(|bytes| bytes.len() >= length).ok_or_else(|| missing(start))?;
        Ok(bytes.slice(..length))
    }
}
