//! Intelligence-per-watt and coverage tables: what was measured for one (model, device, runtime, attention).
//!
//! Invariants: a loaded table has passed [`check`]; unknown figures are null, never 0. Off the request path: `predict`
//! prepares what a query needs from a table once.

mod check;
mod costs;
pub mod diff;
pub mod fit;
pub mod gain;
pub mod make;
pub mod merge;
pub mod routing;
pub mod sample;
mod schema;
mod shipped;
pub mod show;
pub mod stats;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::check::check_text;
pub use self::schema::{Counts, Level, Provenance, Quantiles, Row, Setup, Table, TokenCosts};
pub use self::shipped::{names, shipped, texts};
use self::stats::Shrunk;
use crate::config::problem::{Problem, Problems, did_you_mean};

/// Version of the schema that this program reads and writes.
pub const SCHEMA: u32 = 1;

impl Table {
    /// Coverage of every domain, shrunk.
    pub fn shrunk(&self) -> Shrunk {
        Shrunk::of(&self.overall, self.domains.iter().map(|(d, r)| (*d, r)))
    }
}

/// Reads and checks a table file.
///
/// # Errors
/// Every problem found, with row and key.
pub fn load(path: &Path) -> Result<Table, Problems> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Problem::new("", format!("cannot be read: {}", e.kind())).file(name.clone()))?;
    read(&text, &name)
}

/// Every problem of a table file; empty for a good one.
pub fn check(path: &Path) -> Vec<Problem> {
    load(path).err().map(|p| p.0).unwrap_or_default()
}

/// The file that belongs to a table and ends in `ending`: beside `NAME.json` it is `NAME.ENDING`; any other name keeps its
/// own ending, so that `m-1.5` and `m-1.7` have files of their own.
pub fn beside(table: &Path, ending: &str) -> PathBuf {
    if table.extension().is_some_and(|e| e == "json") {
        return table.with_extension(ending);
    }
    let mut name = table.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Writes a table file whole or not at all.
///
/// # Errors
/// The file cannot be written, or the table does not pass its own check.
pub fn save(table: &Table, path: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(table).map_err(|e| e.to_string())? + "\n";
    let problems = check_text(&text, &path.display().to_string());
    if !problems.is_empty() {
        return Err(Problems(problems).to_string());
    }
    let unfinished = beside(path, "part");
    std::fs::write(&unfinished, &text)
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// The table that a backend's configuration means: a file, the name of a shipped table, or, with neither, the shipped
/// one of the same model if there is one.
///
/// # Errors
/// A file with problems, or a name that is not shipped.
pub fn find(named: Option<&Path>, model: &str) -> Result<Option<Arc<Table>>, Problems> {
    let Some(path) = named else { return Ok(shipped(model)) };
    let text = path.to_string_lossy();
    if text.contains(['/', '\\']) || text.ends_with(".json") {
        return load(path).map(|t| Some(Arc::new(t)));
    }
    match shipped(&text) {
        Some(table) => Ok(Some(table)),
        None => {
            let near = did_you_mean(&text, names()).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            Err(Problem::new("table", format!("no shipped table of that name{near}")).into())
        }
    }
}

fn read(text: &str, file: &str) -> Result<Table, Problems> {
    let problems = check_text(text, file);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    serde_json::from_str(text).map_err(|e| Problem::new("", format!("cannot be read: {e}")).file(file).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_differ_behind_a_point_have_files_of_their_own() {
        for (table, want) in [("a/m.json", "a/m.part"), ("a/m-1.5", "a/m-1.5.part"), ("m-1.7.json", "m-1.7.part")] {
            assert_eq!(beside(Path::new(table), "part"), Path::new(want));
        }
    }
}
