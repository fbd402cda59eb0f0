//! Files written whole or not at all: under another name first, then moved into place.

use std::io::Write;
use std::path::Path;

/// Writes a file; whoever reads it meanwhile sees the old one or the new one. It is on the disk before it has its name.
///
/// # Errors
/// The disk; then nothing is left behind.
pub fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = Path::new(&unfinished);
    let made = std::fs::File::create(unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let moved = made.and_then(|()| std::fs::rename(unfinished, path));
    if moved.is_err() {
        let _ = std::fs::remove_file(unfinished);
    }
    moved
}
