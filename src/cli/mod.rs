//! One file per command. Only these print.
#![allow(clippy::print_stdout, reason = "a command prints")]

pub mod ask;
pub mod bandit;
pub mod check;
pub mod classify;
pub mod cluster;
pub mod energy;
pub mod explain;
pub mod journal;
pub mod models;
pub mod profile;
pub mod replay;
pub mod report;
pub mod serve;
mod sorter;
pub mod tables;
#[cfg(feature = "train")]
pub mod train;
pub mod tune;

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use crate::clock;

/// Runs a command's future on a runtime of its own.
fn block_on(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(e) => fail(&format!("the runtime did not start: {e}")),
    }
}

/// Milliseconds since 1970, so long before now; 0 without a limit.
fn since_ms(ago: Option<Duration>) -> u64 {
    ago.map_or(0, |ago| clock::unix_ms().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
}

/// Prints to standard output; a reader that went away (`| head`) is no failure of ours.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says what went wrong; exit code 1.
fn fail(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::FAILURE
}
