//! A piece of a Parquet file as batches of lines: some of its row groups, fetched with the file's end.

use std::ops::Range;

use bytes::Bytes;
use datafusion::common::Result;
use object_store_013::path::Path;
use object_store_013::{ObjectStore, ObjectStoreExt};

use super::lines::{Batch, Piece};
use super::sums::failed;
use crate::columnar::parts::{self, Group, Parts};

/// Lines of a batch.
const LINES: usize = 4096;

/// A piece being read: one row group's lines are held.
pub struct Groups {
    file: Parts,
    left: Range<usize>,
    lines: std::vec::IntoIter<Vec<u8>>,
    next: u64,
}

/// The end of a file, which tells where its row groups are.
async fn end(store: &dyn ObjectStore, path: &Path) -> Result<Parts> {
    let size = store.head(path).await?.size;
    let told = |why: String| failed(&format!("{path}: {why}"));
    let last = store.get_range(path, size.saturating_sub(parts::TAIL)..size).await?;
    let length = parts::end(&last, size).map_err(told)?;
    let footer = store.get_range(path, size - length..size).await?;
    Parts::new(size, footer).map_err(told)
}

/// The row groups of a file.
///
/// # Errors
/// The store's, or it is no Parquet.
pub async fn groups(store: &dyn ObjectStore, path: &Path) -> Result<Vec<Group>> {
    Ok(end(store, path).await?.groups())
}

impl Groups {
    /// Fetches a piece.
    ///
    /// # Errors
    /// The store's, or it is no Parquet.
    pub async fn open(store: &dyn ObjectStore, path: &Path, piece: &Piece) -> Result<Self> {
        let mut file = end(store, path).await?;
        let index = |x: u64| usize::try_from(x).unwrap_or(usize::MAX);
        let left = index(piece.start)..index(piece.end);
        let all = file.groups();
        let wanted = all.get(left.clone()).ok_or_else(|| failed(&format!("{path}: changed while it was read")))?;
        let ends = wanted.iter().map(|g| g.bytes.start).min().zip(wanted.iter().map(|g| g.bytes.end).max());
        if let Some((from, to)) = ends {
            let bytes: Bytes = store.get_range(path, from..to).await?;
            file.add(from, bytes);
        }
        Ok(Self { file, left, lines: Vec::new().into_iter(), next: piece.first })
    }

    /// The next lines; none at the end.
    ///
    /// # Errors
    /// Damaged data.
    pub fn batch(&mut self) -> Result<Option<Batch>> {
        while self.lines.len() == 0 {
            let Some(group) = self.left.next() else { return Ok(None) };
            self.lines = self.file.lines(group).map_err(|why| failed(&why))?.into_iter();
        }
        let lines: Vec<Vec<u8>> = self.lines.by_ref().take(LINES).collect();
        let first = self.next;
        self.next += lines.len() as u64;
        Ok(Some(Batch { first, lines }))
    }
}
