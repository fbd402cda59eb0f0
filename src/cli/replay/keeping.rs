//! What becomes of a replay that does not reach the log's end: a checkpoint to go on from, and the result so far.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::replay::checkpoint::Checkpoint;
use crate::replay::run::Watch;

/// What a long replay leaves on the disk while it runs.
#[derive(clap::Args, Debug)]
pub struct Keeping {
    /// Keep the state in a file while the log is read; it is removed when the result is written
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint, if there is one: the result is what it would have been
    #[arg(long, requires = "checkpoint")]
    resume: bool,
    /// Lines between two checkpoints
    #[arg(long, value_name = "N", default_value_t = 1_000_000, requires = "checkpoint")]
    checkpoint_every: u64,
}

impl Keeping {
    /// Where the state goes, if anywhere.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let path = self.checkpoint.clone()?;
        Some(Checkpoint { path, every: self.checkpoint_every, resume: self.resume })
    }
}

/// An interrupt stops the reading; what was read is the result. A second one ends the program.
pub fn stop_on_interrupt(watch: &Arc<Watch>) {
    let watch = Arc::clone(watch);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                watch.stop.store(true, Ordering::Relaxed);
                eprintln!("stopping: the result will be of what was read so far (again to end at once)");
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
    });
}
