//! A log found in its store and cut into pieces.

use std::path::Path as File;
use std::sync::Arc;

use object_store_013::path::Path;
use object_store_013::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::groups::groups;
use super::lines::{Packed, Piece};
use super::scan::{Log, Pieces};
use super::stores::Stores;
use crate::columnar::read::files;
use crate::store;
use datafusion::execution::object_store::ObjectStoreRegistry;

/// A log in its store.
pub struct Found {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Bytes as it lies there.
    pub size: u64,
    sizes: Vec<u64>,
    log: Log,
}

/// The address of the store and the places of the log's files in it.
fn place(name: &str, found: store::Found) -> Result<(Url, Vec<Path>), String> {
    let url = |file: &File| {
        let whole = file.canonicalize().map_err(|e| format!("{name}: {e}"))?;
        Url::from_file_path(&whole).map_err(|()| format!("{name}: is no file's name"))
    };
    let urls: Vec<Url> = match found {
        store::Found::Here(folder) if folder.is_dir() => {
            let files = files(&folder).map_err(|e| format!("{name}: {e}"))?;
            files.iter().map(|file| url(file)).collect::<Result<_, _>>()?
        }
        store::Found::Here(file) => vec![url(&file)?],
        store::Found::There(object) => vec![address(&object)?],
        store::Found::Below(objects) => {
            let parquet = objects.iter().filter(|o| o.address.key.extension() == Some("parquet"));
            parquet.map(address).collect::<Result<_, _>>()?
        }
    };
    let path = |url: &Url| Path::from_url_path(url.path()).map_err(|e| format!("{name}: {e}"));
    let paths = urls.iter().map(path).collect::<Result<Vec<_>, _>>()?;
    let mut store = urls.into_iter().next().ok_or_else(|| format!("{name}: is a folder without Parquet files"))?;
    store.set_path("/");
    Ok((store, paths))
}

fn address(object: &store::Object) -> Result<Url, String> {
    if object.address.endpoint.is_some() {
        return Err(format!(
            "{object}: a cluster's processes find a store by their environment (AWS_ENDPOINT_URL): name the log s3://{}/{}",
            object.address.bucket, object.address.key
        ));
    }
    Url::parse(&object.address.name).map_err(|e| format!("{object}: {e}"))
}

impl Found {
    /// Looks at a log.
    ///
    /// # Errors
    /// It is not there, or is packed in a way that is not read here.
    pub async fn of(name: &str, found: store::Found) -> Result<Self, String> {
        let (url, files) = place(name, found)?;
        let told = |e: object_store_013::Error| format!("{name}: {e}");
        let store = Stores::default().get_store(&url).map_err(|e| format!("{name}: {e}"))?;
        let mut sizes = Vec::with_capacity(files.len());
        for file in &files {
            sizes.push(store.head(file).await.map_err(told)?.size);
        }
        let (Some(first), Some(length)) = (files.first(), sizes.first().filter(|size| **size > 0)) else {
            return Err(format!("{name}: holds no queries"));
        };
        let head = store.get_range(first, 0..(*length).min(16)).await.map_err(told)?;
        let packed = Packed::of(&head).map_err(|e| format!("{name}: {e}"))?;
        let files = files.iter().map(Path::to_string).collect();
        let log = Log { store: url.as_str().trim_end_matches('/').to_owned() + "/", files, packed };
        Ok(Self { store, size: sizes.iter().sum(), sizes, log })
    }

    /// All of it, in pieces of about so many bytes: of whole lines, of row groups where it is Parquet, of all where it is packed. Lines count
    /// from 2^40 times the piece's index.
    ///
    /// # Errors
    /// The store's, or a file that is no Parquet among others that are.
    pub async fn cut(&self, name: &str, bytes: u64) -> Result<Vec<Piece>, String> {
        let bytes = bytes.max(1);
        let mut pieces: Vec<Piece> = Vec::new();
        for (file, size) in (0..).zip(&self.sizes) {
            match self.log.packed {
                Packed::Columns => self.by_groups(name, file, bytes, &mut pieces).await?,
                Packed::No => {
                    pieces.extend((0..*size).step_by(usize::try_from(bytes).unwrap_or(usize::MAX)).map(|start| {
                        let end = size.min(&(start + bytes)).to_owned();
                        Piece { file, start, end, bytes: end - start, first: 0 }
                    }))
                }
                Packed::Gzip | Packed::Zstd => {
                    pieces.push(Piece { file, start: 0, end: *size, bytes: *size, first: 0 })
                }
            }
        }
        pieces.iter_mut().zip(0..).for_each(|(piece, i)| piece.first = (i << 40) + 1);
        Ok(pieces)
    }

    async fn by_groups(&self, name: &str, file: u64, bytes: u64, into: &mut Vec<Piece>) -> Result<(), String> {
        let path = self.log.files.get(usize::try_from(file).unwrap_or(usize::MAX));
        let path = path.ok_or_else(|| format!("{name}: lost a file"))?;
        let parsed = Path::parse(path).map_err(|e| format!("{name}: {e}"))?;
        let all = groups(self.store.as_ref(), &parsed).await.map_err(|e| format!("{name}: {e}"))?;
        let mut open: Option<Piece> = None;
        for (index, group) in (0..).zip(&all) {
            let own = group.bytes.end.saturating_sub(group.bytes.start);
            let piece = open.get_or_insert(Piece { file, start: index, ..Piece::default() });
            (piece.end, piece.bytes) = (index + 1, piece.bytes + own);
            if piece.bytes >= bytes {
                into.extend(open.take());
            }
        }
        into.extend(open);
        Ok(())
    }

    /// Some of its pieces, as they travel.
    pub fn with(&self, pieces: &[Piece]) -> Pieces {
        Pieces { log: self.log.clone(), pieces: pieces.to_vec() }
    }
}
