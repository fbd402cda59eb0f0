//! Logs by address: `s3://bucket/key`, `https://host/bucket/key` of an S3-compatible store (plain `http://` where the address says so),
//! `file:///path`, and plain paths.
//!
//! Keys, region and endpoint come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`,
//! `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`), else from the machine's role. Invariants: memory does not grow with an object; every wait has a
//! limit; an object that changes while it is read is an error; no key, secret or token is part of an error, nor is an address that has one
//! in it. Never writes to a store. Blocks its thread, which must not be one of a runtime.

mod address;
mod client;
mod object;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

pub use self::address::Address;
pub use self::object::Object;

/// Bytes of a small file that is read as a whole, at most.
const SMALL: u64 = 64 << 20;

/// What an address or a path names.
#[derive(Clone, Debug)]
pub enum Found {
    /// A file or folder of this machine.
    Here(PathBuf),
    /// An object of a store.
    There(Object),
    /// Objects below one key, in the order of their names; none of them hidden.
    Below(Vec<Object>),
}

/// Whether this is an address and not a path.
pub fn is_address(path: &Path) -> bool {
    path.to_str().is_some_and(|text| address::scheme(text).is_some())
}

/// Looks where an address or a path leads. A path is not looked at.
///
/// # Errors
/// An address that is not read here, a store that does not answer, nothing there; each names the address, unless a secret may be in it.
pub fn find(path: &Path) -> Result<Found, String> {
    let Some(text) = path.to_str().filter(|text| address::scheme(text).is_some()) else {
        return Ok(Found::Here(path.to_owned()));
    };
    match Address::parse(text)? {
        Ok(address) => object::find(&address),
        Err(here) => Ok(Found::Here(here)),
    }
}

/// A small file as a whole.
///
/// # Errors
/// It cannot be read, or is not small.
pub fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match find(path)? {
        Found::Here(path) => {
            let told = |e: std::io::Error| format!("{}: {e}", path.display());
            File::open(&path).and_then(|file| file.take(SMALL).read_to_end(&mut out)).map_err(told)?;
        }
        Found::There(object) if object.size > SMALL => {
            return Err(format!("{object}: is of {} bytes; at most {SMALL} are read of such a file", object.size));
        }
        Found::There(object) => object.read(&mut |block| {
            out.extend(block);
            true
        })?,
        Found::Below(_) => return Err(format!("{}: is a folder", path.display())),
    }
    Ok(out)
}

/// A file of this machine; a copy goes when this is dropped.
#[derive(Debug)]
pub struct Brought {
    path: PathBuf,
    copy: bool,
}

impl Brought {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Brought {
    fn drop(&mut self) {
        if self.copy {
            // Best effort: the folder for temporary files is swept by the system.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Found {
    /// As a file of this machine: what needs to be read here and there is copied into the folder for temporary files.
    ///
    /// # Errors
    /// The store, the disk, or it is more than one object.
    pub fn bring(&self) -> Result<Brought, String> {
        match self {
            Self::Here(path) => Ok(Brought { path: path.clone(), copy: false }),
            Self::There(object) => copied(object),
            Self::Below(objects) => Err(format!("{} objects, and one file is wanted", objects.len())),
        }
    }
}

fn copied(object: &Object) -> Result<Brought, String> {
    let path = std::env::temp_dir().join(format!("wattroute-{}", uuid::Uuid::now_v7()));
    let told = |e: std::io::Error| format!("{object}: cannot be copied to {}: {e}", path.display());
    let mut file = File::create_new(&path).map_err(told)?;
    let brought = Brought { path: path.clone(), copy: true };
    let mut failed = None;
    object.read(&mut |block| {
        failed = file.write_all(&block).err();
        failed.is_none()
    })?;
    failed.map_or(Ok(brought), |e| Err(told(e)))
}
