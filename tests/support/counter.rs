//! A machine with an energy counter: a powercap tree whose counter rises by a hundred watts.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What the machine draws.
pub const WATTS: f64 = 100.0;

/// The tree, and a thread that counts.
pub struct Counter {
    sysfs: TempDir,
    stop: Arc<AtomicBool>,
    away: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Counter {
    /// Starts to count.
    pub fn start() -> Self {
        let sysfs = tempfile::tempdir().unwrap();
        let zone = sysfs.path().join("class/powercap/intel-rapl:0");
        fs::create_dir_all(&zone).unwrap();
        fs::write(zone.join("name"), "package-0\n").unwrap();
        fs::write(zone.join("max_energy_range_uj"), "262143328850\n").unwrap();
        let (began, stop, away) = (Instant::now(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let gone = away.clone();
        let count = move || {
            if gone.load(Ordering::Relaxed) {
                let _ = fs::remove_file(zone.join("energy_uj"));
                return;
            }
            let microjoules = WATTS * began.elapsed().as_secs_f64() * 1e6;
            fs::write(zone.join("next"), format!("{microjoules:.0}\n")).unwrap();
            fs::rename(zone.join("next"), zone.join("energy_uj")).unwrap();
        };
        count();
        let theirs = stop.clone();
        let thread = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                count();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { sysfs, stop, away, thread: Some(thread) }
    }

    /// Takes the counter's file away, or puts it back.
    pub fn away(&self, gone: bool) {
        self.away.store(gone, Ordering::Relaxed);
    }

    /// `[energy]` of a machine that has it.
    pub fn config(&self) -> String {
        format!("[energy]\nsysfs = \"{}\"\n", self.sysfs.path().display())
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}
