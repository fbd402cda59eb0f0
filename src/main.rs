//! Arguments, then one match from subcommand to function.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(feature = "train")]
use wattroute::cli::train;
use wattroute::cli::{
    ask, bandit, check, classify, cluster, energy, explain, journal, models, profile, replay, report, serve, tables,
    tune,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sends each LLM query to a local accelerator or a cloud endpoint by measured intelligence per watt.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    /// Configuration file [default: ./wattroute.toml, else the built-in quickstart]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "Examples:
  wattroute                                  start the gateway with the built-in quickstart
  wattroute ask \"What is the capital of France?\"
  wattroute explain \"Prove that 2 is prime\"  where would this go, and why?
  wattroute check --config wattroute.toml    list every problem of a configuration
  wattroute journal stats --since 24h        what stayed local, and what it saved

Exit codes: 0 ok, 1 failed, 2 usage, 78 bad configuration.";

#[derive(Subcommand)]
enum Command {
    /// Start the gateway (the default)
    Serve(serve::Args),
    /// Ask one question through the gateway and print answer and decision
    Ask(ask::Args),
    /// Show where a query would go, and why, without asking anybody
    Explain(explain::Args),
    /// The domain of a text, or of every row of a JSONL file
    Classify(classify::ClassifyArgs),
    /// Train an artifact
    #[cfg(feature = "train")]
    Train(train::TrainArgs),
    /// List every problem of a configuration; opens no port
    Check(check::CheckArgs),
    /// List, fetch and verify local models
    Models(models::ModelsArgs),
    /// Show every energy meter of this machine, why others are missing, and live watts
    Energy(energy::Args),
    /// Ask a local model every question of a suite and write its table
    Profile(Box<profile::Args>),
    /// Show, check, compare and join intelligence-per-watt tables
    Tables(tables::Args),
    /// What policies would have done with a log: quality, joules, dollars, with intervals
    Replay(Box<replay::Args>),
    /// Processes that replay logs on several machines
    Cluster(cluster::Args),
    /// Draw measured tables: a page, JSON and pictures
    Report(report::Args),
    /// Search a policy's numbers on a log, and write a new policy file where they hold up
    Tune(Box<tune::Args>),
    /// What judged answers taught policies that learn, and how to stop it or take it back
    Bandit(bandit::BanditArgs),
    /// What was decided, used and saved
    Journal(journal::JournalArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = cli.config.as_deref();
    match cli.command.unwrap_or_else(|| Command::Serve(serve::Args::default())) {
        Command::Serve(args) => serve::run(config, &args),
        Command::Ask(args) => ask::run(config, &args),
        Command::Explain(args) => explain::run(config, &args),
        Command::Classify(args) => classify::run(&args),
        #[cfg(feature = "train")]
        Command::Train(args) => train::run(&args),
        Command::Check(args) => check::run(config, &args),
        Command::Models(args) => models::run(&args),
        Command::Energy(args) => energy::run(config, &args),
        Command::Profile(args) => profile::run(config, &args),
        Command::Tables(args) => tables::run(config, &args),
        Command::Replay(args) => replay::run(config, &args),
        #[cfg(feature = "cluster")]
        Command::Cluster(args) => cluster::run(args),
        #[cfg(not(feature = "cluster"))]
        Command::Cluster(args) => cluster::run(&args),
        Command::Report(args) => report::run(config, &args),
        Command::Tune(args) => tune::run(&args),
        Command::Bandit(args) => bandit::run(config, &args),
        Command::Journal(args) => journal::run(config, &args),
    }
}
