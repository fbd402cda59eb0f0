//! `wattroute cluster`: the processes that replay logs on several machines.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `wattroute cluster`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  wattroute cluster scheduler --listen 0.0.0.0:50050 --host head
  wattroute cluster executor --scheduler head:50050 --listen 0.0.0.0:50051
  wattroute replay --cluster head:50050 --outcomes s3://logs/june.jsonl --weak small --strong large

All processes must be of one version and be able to read the log: from a folder that all share, or from a store, whose keys each
takes from its environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT). The ports speak no TLS and ask for
no password: keep them in a network of their own.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Hand out pieces of logs
    Scheduler {
        /// Address to listen on
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
        listen: SocketAddr,
        /// The name that executors reach it by, if it is not the address it listens on
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
        /// Seconds without a sign of life after which an executor is lost and others get its pieces
        #[arg(long, value_name = "S", default_value_t = 20)]
        timeout: u64,
    },
    /// Work on pieces of logs
    Executor {
        /// The scheduler
        #[arg(long, value_name = "HOST:PORT")]
        scheduler: String,
        /// Address to listen on; the port after it is used too
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
        listen: SocketAddr,
        /// The name that others reach it by, if not by the address it calls from
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
        /// Pieces to work on at a time [default: one a core]
        #[arg(long, value_name = "N")]
        cores: Option<usize>,
        /// Folder of intermediate results [default: a new one for temporary files]
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
}

/// How to build what is missing.
#[cfg(not(feature = "cluster"))]
pub const MISSING: &str =
    "this program was built without clusters; build one with: cargo build --release --features cluster";

/// Runs the command.
#[cfg(not(feature = "cluster"))]
pub fn run(args: &Args) -> ExitCode {
    match &args.command {
        Command::Scheduler { .. } | Command::Executor { .. } => super::fail(MISSING),
    }
}

/// Runs the command.
#[cfg(feature = "cluster")]
pub fn run(args: Args) -> ExitCode {
    use crate::cluster::engine;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => return super::fail(&e.to_string()),
    };
    let done = match args.command {
        Command::Scheduler { listen, host: None, .. } if listen.ip().is_unspecified() => {
            return super::fail("--host: the name that executors reach this machine by is needed with this address");
        }
        Command::Scheduler { listen, host, timeout } => {
            eprintln!("scheduler on {listen}");
            runtime.block_on(engine::scheduler(listen, host, timeout))
        }
        Command::Executor { scheduler, listen, host, cores, folder } => {
            let Some((name, Ok(port))) = scheduler.rsplit_once(':').map(|(name, port)| (name, port.parse())) else {
                return super::fail(&format!("--scheduler: `{scheduler}` is no HOST:PORT"));
            };
            let new = || std::env::temp_dir().join(format!("wattroute-executor-{}", uuid::Uuid::now_v7()));
            let folder = folder.unwrap_or_else(new);
            if let Err(e) = std::fs::create_dir_all(&folder) {
                return super::fail(&format!("{}: {e}", folder.display()));
            }
            eprintln!("executor on {listen}, intermediate results in {}", folder.display());
            let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let cores = cores.unwrap_or(all).max(1);
            let told = engine::Executor { scheduler: (name.to_owned(), port), listen, host, cores, folder };
            runtime.block_on(engine::executor(told))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::fail(&why),
    }
}
