//! Appends to a record file so that nothing written is ever lost: whole lines only, synced in batches.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::Line;
use crate::clock::{self, Instant};

/// What a crash of the machine may cost at most: the answers of so long.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// An open record file.
pub struct Log {
    file: File,
    path: PathBuf,
    /// Bytes up to the end of the last whole line.
    whole: u64,
    unsynced: bool,
    synced: Instant,
}

impl Log {
    /// Opens or creates a file; what stands behind its last whole line (`whole` bytes) is cut off.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: &Path, whole: u64) -> Result<Self, String> {
        let told = |e: std::io::Error| format!("{}: {e}", path.display());
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(told)?;
        if file.metadata().map_err(told)?.len() > whole {
            file.set_len(whole).map_err(told)?;
        }
        Ok(Self { file, path: path.to_owned(), whole, unsynced: false, synced: clock::now() })
    }

    /// Appends a line. If it does not fit, what was written of it is taken back.
    ///
    /// # Errors
    /// The disk is full or gone; everything before this line is kept.
    pub fn put(&mut self, line: &Line) -> Result<(), String> {
        let mut text = serde_json::to_vec(line).map_err(|e| e.to_string())?;
        text.push(b'\n');
        if let Err(e) = self.file.write_all(&text) {
            // A torn line is dropped by the next run in any case.
            let _ = self.file.set_len(self.whole);
            return Err(format!("{}: {e}; all answers before this are kept", self.path.display()));
        }
        self.whole += u64::try_from(text.len()).unwrap_or(0);
        self.unsynced = true;
        Ok(())
    }

    /// Makes what was appended safe from a crash of the machine, at most once a second unless it is the end.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn sync(&mut self, end: bool) -> Result<(), String> {
        if !self.unsynced || (!end && clock::now() < self.synced + SYNC_EVERY) {
            return Ok(());
        }
        self.file.sync_data().map_err(|e| format!("{}: {e}", self.path.display()))?;
        (self.unsynced, self.synced) = (false, clock::now());
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::record::{self, Record};

    fn line(id: &str) -> Line {
        Line::Answer(Box::new(Record { id: id.to_owned(), ..Record::default() }))
    }

    #[test]
    fn a_torn_end_is_cut_off_and_the_file_goes_on_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        Log::open(&path, 0).unwrap().put(&line("1")).unwrap();
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"line\":\"answer\",\"id\":\"2\"");
        std::fs::write(&path, &torn).unwrap();
        let found = record::read(&path).unwrap();
        let mut log = Log::open(&path, found.whole_bytes).unwrap();
        log.put(&line("3")).unwrap();
        log.sync(true).unwrap();
        let ids: Vec<String> = record::read(&path).unwrap().answers.into_iter().map(|r| r.id).collect();
        assert_eq!(ids, ["1", "3"]);
    }

    #[test]
    fn a_full_disk_is_said_with_the_files_name() {
        let full = Path::new("/dev/full");
        if full.exists() {
            let said = Log::open(full, 0).unwrap().put(&line("1")).unwrap_err();
            assert!(said.starts_with("/dev/full: No space left") && said.contains("are kept"), "{said}");
        }
    }
}
