//! Appends to a record file so that nothing written is ever lost: whole lines only, synced in batches.
//!
//! Invariant: one run at a time writes to a file. The lock is taken before the file is read and held until the [`Log`] goes,
//! so that what was read is what is there when the first line is appended.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
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
    /// Opens or creates a file and keeps other runs from it.
    ///
    /// # Errors
    /// It cannot be written, or another run writes it.
    pub fn open(path: &Path) -> Result<Self, String> {
        let told = |e: std::io::Error| format!("{}: {e}", path.display());
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(told)?;
        let busy = || format!("{} is being written by another run; --out names another file", path.display());
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy()),
            // A file system without locks: then nobody can be kept out.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(told(e)),
        }
        let (own, there) = (file.metadata().map_err(told)?, std::fs::metadata(path).map_err(told)?);
        if own.ino() != there.ino() || own.dev() != there.dev() {
            // Another run has put the file aside between our opening and our lock.
            return Err(busy());
        }
        Ok(Self { file, path: path.to_owned(), whole: own.len(), unsynced: false, synced: clock::now() })
    }

    /// Cuts off what stands behind the last whole line, `whole` bytes from the start.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn cut(&mut self, whole: u64) -> Result<(), String> {
        if whole < self.whole {
            self.file.set_len(whole).map_err(|e| format!("{}: {e}", self.path.display()))?;
            self.whole = whole;
        }
        Ok(())
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
        Log::open(&path).unwrap().put(&line("1")).unwrap();
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"line\":\"answer\",\"id\":\"2\"");
        std::fs::write(&path, &torn).unwrap();
        let found = record::read(&path).unwrap();
        let mut log = Log::open(&path).unwrap();
        log.cut(found.whole_bytes).unwrap();
        log.put(&line("3")).unwrap();
        log.sync(true).unwrap();
        let ids: Vec<String> = record::read(&path).unwrap().answers.into_iter().map(|r| r.id).collect();
        assert_eq!(ids, ["1", "3"]);
    }

    #[test]
    fn a_second_run_on_the_same_file_is_refused_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        let mut first = Log::open(&path).unwrap();
        first.put(&line("1")).unwrap();
        let said = Log::open(&path).err().unwrap();
        assert!(said.contains("is being written by another run"), "{said}");
        drop(first);
        assert!(Log::open(&path).unwrap().whole > 0);
    }

    #[test]
    fn a_full_disk_is_said_with_the_files_name() {
        let full = Path::new("/dev/full");
        if full.exists() {
            let said = Log::open(full).unwrap().put(&line("1")).unwrap_err();
            assert!(said.starts_with("/dev/full: No space left") && said.contains("are kept"), "{said}");
        }
    }
}
