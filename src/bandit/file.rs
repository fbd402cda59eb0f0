//! The bandit's file: JSON with a version and a checksum over the exact bytes of its state.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Arms;
use crate::predict::arm::Arm;

/// Version of the file.
const VERSION: u32 = 1;
/// A larger file is none of ours: nine points of sixty-four backends have 40 MB.
const MOST_BYTES: u64 = 64 << 20;

/// What outlives a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// Nothing is learned.
    pub frozen: bool,
    /// What is in force.
    pub arms: Arms,
    /// Where one can go back to, oldest first.
    pub points: Vec<Point>,
}

/// What was in force at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// What was known.
    pub arms: Arms,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u32,
    blake3: String,
    state: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    frozen: bool,
    arms: BTreeMap<String, Sums>,
    points: Vec<(u64, BTreeMap<String, Sums>)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sums {
    n: u32,
    sums: Vec<f64>,
}

/// Reads a file; nothing was learned where there is none.
///
/// # Errors
/// It cannot be read, is of another version, or its bytes are not those that were written.
pub fn read(path: &Path) -> Result<Kept, String> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MOST_BYTES => return Err(told(&"is too large")),
        Ok(_) => std::fs::read_to_string(path).map_err(|e| told(&e))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(e) => return Err(told(&e)),
    };
    let raw: Raw = serde_json::from_str(&text).map_err(|e| told(&e))?;
    if raw.version != VERSION {
        return Err(told(&format!("is version {}; this program reads version {VERSION}", raw.version)));
    }
    if raw.blake3 != sum(raw.state.get()) {
        return Err(told(&"its checksum is not that of its state"));
    }
    let state: State = serde_json::from_str(raw.state.get()).map_err(|e| told(&e))?;
    let arms = |all: BTreeMap<String, Sums>| {
        let each = all.into_iter().map(|(name, s)| Some((name, Arm::of(s.n, &s.sums)?)));
        each.collect::<Option<Arms>>().ok_or_else(|| told(&"its sums are no sums of judgements"))
    };
    let points = state.points.into_iter().map(|(at_ms, all)| Ok(Point { at_ms, arms: arms(all)? }));
    Ok(Kept { frozen: state.frozen, points: points.collect::<Result<_, String>>()?, arms: arms(state.arms)? })
}

/// Replaces the file whole.
///
/// # Errors
/// The system's own.
pub fn write(path: &Path, kept: &Kept) -> Result<(), String> {
    let sums = |arms: &Arms| arms.iter().map(|(name, a)| (name.clone(), Sums { n: a.n, sums: a.sums() })).collect();
    let points = kept.points.iter().map(|p| (p.at_ms, sums(&p.arms))).collect();
    let state = State { frozen: kept.frozen, arms: sums(&kept.arms), points };
    let unfinished = path.with_extension("part");
    let written = || {
        let state = serde_json::value::to_raw_value(&state).map_err(std::io::Error::other)?;
        let raw = Raw { version: VERSION, blake3: sum(state.get()), state };
        let mut file = std::fs::File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(&raw).map_err(std::io::Error::other)?)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    written().map_err(|e| format!("{}: {}", path.display(), e.kind()))
}

fn sum(state: &str) -> String {
    blake3::hash(state.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::arm::FEATURES;

    #[test]
    fn what_was_written_is_read_again_and_a_changed_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db.bandit.json");
        assert_eq!(read(&path), Ok(Kept::default()));
        let mut arm = Arm::default();
        arm.take(&[0.3; FEATURES], 0.5, 1.0);
        let arms = Arms::from([("local/a".to_owned(), arm)]);
        let kept = Kept { frozen: true, points: vec![Point { at_ms: 7, arms: Arms::new() }], arms };
        write(&path, &kept).unwrap();
        assert_eq!(read(&path), Ok(kept));
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to, want) in [
            ("\"frozen\":true", "\"frozen\":false", "checksum"),
            ("\"version\":1", "\"version\":9", "version 9"),
            ("{", "[", "expected"),
        ] {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let why = read(&path).unwrap_err();
            assert!(why.contains(want), "{why}");
        }
    }
}
