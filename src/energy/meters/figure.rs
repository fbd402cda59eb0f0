//! A file of the kernel's that is read again and again: it stays open, so that a reading costs two system calls and no walk
//! through the folders.
//!
//! Invariant: a file that was taken away is missing, and one that was put in its place is read from then on.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

/// Longer than any number the kernel prints.
const ROOM: usize = 64;

/// A file that holds a figure.
pub struct Figure {
    path: PathBuf,
    file: Option<File>,
}

impl Figure {
    /// Opened at the first reading.
    pub fn of(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Its only number.
    pub fn number(&mut self) -> Option<f64> {
        let mut room = [0; ROOM];
        self.text(&mut room)?.trim().parse().ok().filter(|x: &f64| x.is_finite())
    }

    /// Its beginning, as much as there is room for.
    pub fn text<'a>(&mut self, room: &'a mut [u8]) -> Option<&'a str> {
        let n = self.fill(room)?;
        std::str::from_utf8(room.get(..n)?).ok()
    }

    fn fill(&mut self, room: &mut [u8]) -> Option<usize> {
        // A file kept open may be gone: then the path says what is there now.
        if let Some(n) = self.file.as_ref().and_then(|file| read(file, room)) {
            return Some(n);
        }
        // What was opened by its name just now counts even if another has taken its place since.
        self.file = File::open(&self.path).ok();
        self.file.as_ref()?.read_at(room, 0).ok()
    }
}

/// Bytes read from the start; none of a file that has no name any more or cannot be read.
fn read(file: &File, room: &mut [u8]) -> Option<usize> {
    let named = file.metadata().is_ok_and(|m| m.nlink() > 0);
    if named { file.read_at(room, 0).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_all_the_time_is_never_missing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, next) = (folder.path().join("energy_uj"), folder.path().join("next"));
        std::fs::write(&path, "0").unwrap();
        let mut figure = Figure::of(path.clone());
        std::thread::scope(|scope| {
            let replacing = scope.spawn(|| {
                for n in 0..20_000 {
                    std::fs::write(&next, n.to_string()).unwrap();
                    std::fs::rename(&next, &path).unwrap();
                }
            });
            while !replacing.is_finished() {
                assert!(figure.number().is_some());
            }
        });
        assert_eq!(figure.number(), Some(19_999.0));
    }

    #[test]
    fn a_file_is_read_anew_each_time_also_where_another_took_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("energy_uj");
        let mut figure = Figure::of(path.clone());
        assert_eq!(figure.number(), None);
        std::fs::write(&path, "1200\n").unwrap();
        assert_eq!(figure.number(), Some(1200.0));
        std::fs::write(&path, "7").unwrap();
        assert_eq!(figure.number(), Some(7.0));
        let other = folder.path().join("other");
        std::fs::write(&other, "8").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(figure.number(), Some(8.0));
        std::fs::write(&path, "torn 9").unwrap();
        assert_eq!(figure.number(), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(figure.number(), None);
    }
}
