//! The state of a replay on the disk, so that one that was stopped goes on where it was and gives the result that it would have given.
//!
//! Invariant: a checkpoint is written whole or not at all, between two rounds; sums come back bit for bit. One of another log, other
//! policies or another program is refused, and what differs is named.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::outcome::Log;
use super::partial::Partial;
use super::queue::Device;
use super::run::{Ask, Request};
use super::whole;
use crate::policy::Policy;
use crate::store::{self, Found, Object};

/// First bytes: what it is, and the layout.
const MARK: &[u8] = b"wattroute replay 2\n";
/// Length of the hash at the end, bytes.
const HASH: usize = 32;
/// Read of a log's beginning and of its end to tell it from another, bytes.
const LOOK: u64 = 1 << 20;

/// Where checkpoints go.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// Lines between two of them.
    pub every: u64,
    /// Go on from the one that is there.
    pub resume: bool,
}

/// Everything that a second pass knows between two rounds.
#[derive(Serialize, Deserialize)]
pub struct State {
    /// Lines taken from the log, empty ones too.
    pub taken: u64,
    /// Names of domains in their order.
    pub names: Vec<String>,
    /// Hashes of keys seen.
    pub keys: Vec<u64>,
    /// More keys came by than are remembered.
    pub forgot: bool,
    /// Counts of what was read.
    pub log: Log,
    /// First arrival, seconds of the log's clock.
    pub first_arrival: Option<f64>,
    /// Latest arrival since.
    pub last_arrival: f64,
    /// Every query had a time.
    pub timed: bool,
    /// State of the random numbers.
    pub random: u64,
    /// Sums.
    pub partial: Partial,
    /// Devices.
    pub devices: Vec<Device>,
}

/// What a replay is of; two are the same where all of these are.
type Facts = Vec<(String, String)>;

impl Checkpoint {
    /// The state to go on from; none where the replay starts at the beginning.
    ///
    /// # Errors
    /// There is one and nobody asked to go on from it, or it is damaged or of another replay.
    pub fn load(&self, request: &Request) -> Result<Option<State>, String> {
        let file = self.path.display();
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("{file}: {e}")),
        };
        if !self.resume {
            return Err(format!("{file} is there already: go on from it with --resume, or remove it"));
        }
        let damaged = || format!("{file}: is no checkpoint of a replay, or is damaged: remove it to start anew");
        let inside = bytes.strip_prefix(MARK).ok_or_else(damaged)?;
        let (body, hash) = inside.split_last_chunk::<HASH>().ok_or_else(damaged)?;
        if blake3::hash(body) != *hash {
            return Err(damaged());
        }
        let (told, rest): (Facts, &[u8]) = postcard::take_from_bytes(body).map_err(|_| damaged())?;
        let now = facts(request)?;
        if let Some(((what, then), (_, is))) = told.iter().zip(&now).find(|(a, b)| a != b) {
            return Err(format!("{file}: is of another replay: {what} was {then} and is {is}"));
        }
        if told.len() != now.len() {
            return Err(damaged());
        }
        postcard::from_bytes(rest).map(Some).map_err(|_| damaged())
    }

    /// Writes a state.
    ///
    /// # Errors
    /// The disk.
    pub fn save(&self, request: &Request, state: &State) -> Result<(), String> {
        let told = |e: String| format!("{}: {e}", self.path.display());
        let mut body = postcard::to_stdvec(&facts(request)?).map_err(|e| told(e.to_string()))?;
        body = postcard::to_extend(state, body).map_err(|e| told(e.to_string()))?;
        let hash = blake3::hash(&body);
        let all = [MARK, &body, hash.as_bytes()].concat();
        whole::write(&self.path, &all).map_err(|e| told(e.to_string()))
    }

    /// The replay has ended: there is nothing to go on from.
    pub fn done(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Every setting is taken apart by name, so that a new one cannot be forgotten here.
fn facts(request: &Request) -> Result<Facts, String> {
    let Request {
        file,
        ask,
        weak,
        strong,
        predictor,
        policies,
        diff,
        stated,
        seed,
        strict,
        limit,
        since_s,
        rate,
        seats,
        checkpoint: _,
    } = request;
    let policy = |p: &Policy| format!("{} ({})", p.name, p.hash);
    let names: Vec<String> = policies.iter().map(|p| policy(p)).collect();
    let format = match ask {
        Ask::Outcomes => "outcome table".to_owned(),
        Ask::Log { format } => format.clone().unwrap_or_default(),
    };
    let all = [
        ("wattroute", env!("CARGO_PKG_VERSION").to_owned()),
        ("the log", look(file)?),
        ("its format", format),
        ("--weak", weak.clone()),
        ("--strong", strong.clone()),
        ("--predictor", format!("{predictor:?}")),
        ("policies", names.join(", ")),
        ("--diff", format!("{diff:?}")),
        ("costs", format!("{stated:?}")),
        ("--seed", seed.to_string()),
        ("--strict", strict.to_string()),
        ("--limit", format!("{limit:?}")),
        ("--since", format!("{since_s:?}")),
        ("--rate", format!("{rate:?}")),
        ("--seats", seats.to_string()),
    ];
    Ok(all.into_iter().map(|(what, is)| (what.to_owned(), is)).collect())
}

/// What tells a log from another: of an object, its length and what the store calls its version.
fn look(path: &Path) -> Result<String, String> {
    let one =
        |object: &Object| format!("{} bytes, {}", object.size, object.version.as_deref().unwrap_or("of no version"));
    match store::find(path)? {
        Found::Here(path) => content(&path).map_err(|e| format!("{}: {e}", path.display())),
        Found::There(object) => Ok(one(&object)),
        Found::Below(objects) => Ok(objects.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

/// Length, and a hash of the beginning and the end: to read all of a log twice would cost more than it tells.
fn content(path: &Path) -> std::io::Result<String> {
    if path.is_dir() {
        let mut parts: Vec<PathBuf> = std::fs::read_dir(path)?.flatten().map(|e| e.path()).collect();
        parts.sort();
        let each: Vec<String> = parts.iter().map(|p| content(p)).collect::<Result<_, _>>()?;
        return Ok(each.join(", "));
    }
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    let mut look = Vec::new();
    (&mut file).take(LOOK).read_to_end(&mut look)?;
    hasher.update(&look);
    file.seek(SeekFrom::Start(size.saturating_sub(LOOK)))?;
    look.clear();
    (&mut file).take(LOOK).read_to_end(&mut look)?;
    hasher.update(&look);
    let hash: String = hasher.finalize().to_hex().chars().take(16).collect();
    Ok(format!("{size} bytes, {hash}"))
}
