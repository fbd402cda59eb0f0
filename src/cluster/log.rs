//! A log found in its store and cut into pieces.

use std::path::Path as File;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::lines::{Packed, Piece};
use super::scan::{Log, Pieces};
use super::stores::Stores;
use datafusion::execution::object_store::ObjectStoreRegistry;

/// A log in its store.
pub struct Found {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Its place there.
    pub path: Path,
    /// Bytes as it lies there.
    pub size: u64,
    log: Log,
}

/// Whether this is an address and not a file of this machine.
pub fn is_address(name: &str) -> bool {
    Url::parse(name).is_ok_and(|url| url.scheme().len() > 1)
}

/// Splits an address, or a file's name, into store and place.
fn place(name: &str) -> Result<(Url, Path), String> {
    let url = if is_address(name) {
        Url::parse(name).map_err(|e| format!("{name}: {e}"))?
    } else {
        let whole = File::new(name).canonicalize().map_err(|e| format!("{name}: {e}"))?;
        Url::from_file_path(&whole).map_err(|()| format!("{name}: is no file's name"))?
    };
    let path = Path::from_url_path(url.path()).map_err(|e| format!("{name}: {e}"))?;
    let mut store = url;
    store.set_path("/");
    store.set_query(None);
    Ok((store, path))
}

impl Found {
    /// Looks at a log.
    ///
    /// # Errors
    /// It is not there, or is packed in a way that is not read here.
    pub async fn at(name: &str) -> Result<Self, String> {
        let (url, path) = place(name)?;
        let store = Stores::default().get_store(&url).map_err(|e| format!("{name}: {e}"))?;
        let size = store.head(&path).await.map_err(|e| format!("{name}: {e}"))?.size;
        if size == 0 {
            return Err(format!("{name}: holds no queries"));
        }
        let head = store.get_range(&path, 0..size.min(8)).await.map_err(|e| format!("{name}: {e}"))?;
        let packed = Packed::of(&head).map_err(|e| format!("{name}: {e}"))?;
        let log = Log { store: url.as_str().trim_end_matches('/').to_owned() + "/", path: path.to_string(), packed };
        Ok(Self { store, path, size, log })
    }

    /// How it is packed.
    pub fn packed(&self) -> Packed {
        self.log.packed
    }

    /// All of it, in pieces of about so many bytes; a packed log is one piece. Lines count from 2^40 times the piece's index.
    pub fn cut(&self, bytes: u64) -> Vec<Piece> {
        let bytes = if self.log.packed == Packed::No { bytes.max(1) } else { self.size };
        let starts = (0..self.size).step_by(usize::try_from(bytes).unwrap_or(usize::MAX));
        let piece = |(i, start): (u64, u64)| Piece { start, end: self.size.min(start + bytes), first: (i << 40) + 1 };
        (0..).zip(starts).map(piece).collect()
    }

    /// Some of its pieces, as they travel.
    pub fn with(&self, pieces: &[Piece]) -> Pieces {
        Pieces { log: self.log.clone(), pieces: pieces.to_vec() }
    }
}
