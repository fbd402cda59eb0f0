//! Reload on change: the file is checked again when it, a key file or a policy changes; a bad one changes nothing.
//!
//! Folders are watched, not files: editors and orchestrators replace files by renaming. What counts is whether the
//! bytes differ, so a touched file does nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::checked::Config;
use super::problem::Problems;

/// A burst of events is taken as one change after this much quiet.
const QUIET: Duration = Duration::from_millis(200);
/// A burst that does not end is looked at anyway after this many quiet periods.
const PATIENCE: usize = 10;

/// Watches until it is dropped.
pub struct Watch {
    _watcher: RecommendedWatcher,
}

/// Starts watching the file of a configuration. `changed` gets each new configuration, or every problem of a file that
/// was refused; it runs on the watch's own thread. The problems are logged here.
///
/// # Errors
/// There is no file (the built-in configuration), or the system has no more watches to give.
pub fn watch<F>(config: &Config, mut changed: F) -> Result<Watch, String>
where
    F: FnMut(Result<Config, Problems>) + Send + 'static,
{
    let Some(file) = config.file.clone() else {
        return Err("the built-in configuration has no file to watch".to_owned());
    };
    let (tell, events) = channel();
    let mut watcher =
        notifier(tell, config.journal.path.clone()).map_err(|e| format!("cannot watch for changes: {e}"))?;
    let mut files = files_of(config, &file);
    for folder in folders(&files) {
        watcher
            .watch(&folder, RecursiveMode::NonRecursive)
            .map_err(|e| format!("cannot watch {}: {:?}", folder.display(), e.kind))?;
    }
    let mut seen = fingerprint(&files);
    let look = move || {
        while settled(&events) {
            let now = fingerprint(&files);
            if now == seen {
                continue;
            }
            seen = now;
            let loaded = super::load(Some(&file));
            match &loaded {
                Ok(new) => {
                    files = files_of(new, &file);
                    seen = fingerprint(&files);
                    tracing::info!(file = %file.display(), "configuration read again");
                }
                Err(problems) => {
                    for problem in &problems.0 {
                        tracing::error!(%problem, "new configuration refused; the old one stays");
                    }
                }
            }
            changed(loaded);
        }
    };
    std::thread::Builder::new()
        .name("config-watch".to_owned())
        .spawn(look)
        .map_err(|e| format!("the watch's thread did not start: {}", e.kind()))?;
    Ok(Watch { _watcher: watcher })
}

/// Keys that differ and take effect only after a restart.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    // Other files of TLS are read at once; whether TLS is spoken at all belongs to the port.
    let tls = |c: &Config| c.server.tls.is_some();
    let journal = |c: &Config| (c.journal.enabled, c.journal.path.clone(), c.journal.queue);
    let retention = |c: &Config| (c.journal.keep, c.journal.max_bytes);
    [
        ("server.listen", old.server.listen != new.server.listen),
        ("server.admin", old.server.admin != new.server.admin),
        ("server.workers", old.server.workers != new.server.workers),
        ("server.tls", tls(old) != tls(new)),
        ("learning", old.learning != new.learning),
        ("journal", journal(old) != journal(new) || retention(old) != retention(new)),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(key, _)| key)
    .collect()
}

/// A journal in the same folder is written all the time: its events, and those of its `-wal` and `-shm`, are no changes.
fn notifier(tell: Sender<()>, journal: PathBuf) -> notify::Result<RecommendedWatcher> {
    let journal = journal.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let of_journal = move |path: &PathBuf| {
        !journal.is_empty() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&journal))
    };
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let idle = event
            .as_ref()
            .is_ok_and(|e| e.kind.is_access() || (!e.paths.is_empty() && e.paths.iter().all(&of_journal)));
        if !idle {
            // The receiver is gone only when the watch is.
            let _ = tell.send(());
        }
    })
}

/// Waits for a change and for the quiet after it. False: the watch is gone.
fn settled(events: &Receiver<()>) -> bool {
    if events.recv().is_err() {
        return false;
    }
    for _ in 0..PATIENCE {
        match events.recv_timeout(QUIET) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}

/// The files whose bytes decide: the configuration itself and what is read with it.
fn files_of(config: &Config, file: &Path) -> Vec<PathBuf> {
    let mut files = vec![file.to_owned()];
    files.extend(config.read.iter().cloned());
    if let Some(folder) = &config.policy.folder {
        let listed = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        files.extend(listed.filter(|p| p.extension().is_some_and(|x| x == "toml")));
    }
    files
}

fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let here = |f: &Path| if f.as_os_str().is_empty() { PathBuf::from(".") } else { f.to_owned() };
    files.iter().filter_map(|f| f.parent()).map(here).collect()
}

fn fingerprint(files: &[PathBuf]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        match std::fs::read(file) {
            Ok(bytes) => hasher.update(blake3::hash(&bytes).as_bytes()),
            Err(_) => hasher.update(b"missing"),
        };
    }
    hasher.finalize()
}
