//! `wattroute profile`: ask suites of a backend, measure, write a table.

mod bar;
mod finish;
mod setup;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::watch;

use super::serve;
use crate::clock;
use crate::config::Config;
use crate::config::units;
use crate::energy::estimate;
use crate::profile::asker::Asker;
use crate::profile::judge::{self, Against};
use crate::profile::log::Log;
use crate::profile::pick::{self, Item};
use crate::profile::record::{self, Line, Run};
use crate::profile::run::{self, End, Plan};

/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Ask a backend the questions of suites, measure its joules and write its table
#[derive(clap::Args)]
#[command(after_help = "Examples:
  wattroute profile                                     the default model on a sample of mmlu-pro and gsm8k
  wattroute profile --backend local/llama --suite mmlu-pro --suite gsm8k --limit 200 --out llama.json
  wattroute profile --suite mine.jsonl --domains legal,computer --repeats 3 --streams 1,4,16
  wattroute profile --backend local/llama --baseline gpt.records.jsonl --out llama.json
  wattroute profile --backend cloud/gpt --suite mt-bench --judge cloud/judge --against llama.records.jsonl

Suites inside: mmlu-pro, gsm8k, cruxeval, short, instructions, mt-bench; a file has one JSON object a line.
Every answer goes to TABLE.records.jsonl at once; a run that was cut goes on where it stopped.")]
pub struct Args {
    /// A backend of the configuration: local ones are metered, cloud ones modelled
    #[arg(long, default_value = "local/smollm2")]
    backend: String,
    /// A suite by name, or a JSONL file; may be given several times
    #[arg(long, value_name = "NAME|FILE", default_values = ["mmlu-pro", "gsm8k"])]
    suite: Vec<String>,
    /// Only these domains: names or parts of them
    #[arg(long, value_delimiter = ',')]
    domains: Vec<String>,
    /// Ask only so many questions, taken from all domains in turn
    #[arg(long)]
    limit: Option<usize>,
    /// Which ones a limit takes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Times each question is asked at each level of --streams
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Questions under way at a time; several levels are measured one after another
    #[arg(long, default_value = "1", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=256))]
    streams: Vec<u32>,
    /// Stop after so many joules
    #[arg(long)]
    budget_joules: Option<f64>,
    /// Stop after so many minutes
    #[arg(long)]
    budget_minutes: Option<f64>,
    /// Wait at most so long for the idle machine's watts to stand still: 10s, 500ms
    #[arg(long, default_value = "10s", value_parser = settle)]
    settle: Duration,
    /// Questions before each level that are not counted
    #[arg(long, default_value_t = 2)]
    warm_up: usize,
    /// Milliseconds between two readings of the meters
    #[arg(long, default_value_t = 50, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    sample: u64,
    /// Ridge of local linear attention for an embedded backend; `inf` is softmax
    #[arg(long)]
    lambda: Option<f32>,
    /// GGUF file or model of the catalogue whose tokenizer counts where a server sends no usage
    #[arg(long)]
    tokenizer: Option<String>,
    /// A backend that judges answers which no grader can score, in both orders
    #[arg(long)]
    judge: Option<String>,
    /// Records of another run whose answers the judge compares with; else the suite's references
    #[arg(long, value_name = "RECORDS.jsonl", requires = "judge")]
    against: Option<PathBuf>,
    /// Where the table goes; BACKEND.json if left out
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on with the record file that is there; this is what happens in any case
    #[arg(long, conflicts_with = "fresh")]
    resume: bool,
    /// Whose answers the table's gain is counted against: a table of the same questions, or the records of a run on them
    #[arg(long, value_name = "TABLE.json|RECORDS.jsonl")]
    baseline: Option<PathBuf>,
    /// Start over; a record file that is there is kept under another name
    #[arg(long)]
    fresh: bool,
    /// Name of the model in the table
    #[arg(long)]
    model_name: Option<String>,
    /// What serves an openai backend, for the table: `llama.cpp b4000`
    #[arg(long)]
    runtime: Option<String>,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

fn settle(text: &str) -> Result<Duration, String> {
    units::duration(text)
}

/// Runs the command.
pub fn run(file: Option<&Path>, args: &Args) -> ExitCode {
    crate::meter::log::init();
    let config = match serve::checked(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Some(watts) = config.energy.cpu_tdp_w {
        estimate::set_tdp(watts);
    }
    super::block_on(async { Box::pin(profile(args, &config)).await.unwrap_or_else(|e| super::fail(&e)) })
}

async fn profile(args: &Args, config: &Config) -> Result<ExitCode, String> {
    let out = args.out.clone().unwrap_or_else(|| setup::default_out(&args.backend));
    let records = out.with_extension("records.jsonl");
    let suites = args.suite.iter().map(|name| pick::open(name)).collect::<Result<Vec<_>, _>>()?;
    let items = pick::pick(&suites, &pick::domains(&args.domains)?, args.limit, args.seed)?;
    let about = setup::about(args, config, pick::sources(&suites, &items))?;
    let earlier = setup::earlier(&records, args.fresh, &about)?;
    let counter = setup::counter(args, config)?;
    let stop = on_signals();
    let asker = Asker::new(setup::backend(config, &args.backend, args).await?);
    let energy = setup::energy(args, config, asker.backend()).await?;
    let mut log = Log::open(&records, earlier.whole_bytes)?;
    let about = setup::measured(about, &energy);
    log.put(&Line::Run(Box::new(about.clone())))?;
    let plan = Plan {
        items,
        streams: args.streams.clone(),
        repeats: args.repeats,
        warm_up: args.warm_up,
        joules: args.budget_joules,
        time: args.budget_minutes.map(|m| Duration::from_secs_f64(m.max(0.0) * 60.0)),
    };
    let mut bar = bar::Bar::new();
    let mut tell = |seen: &run::Seen| bar.tell(seen);
    let mut running = run::Run {
        asker: &asker,
        counter: &counter,
        energy: &energy,
        log: &mut log,
        stop: stop.clone(),
        tell: &mut tell,
    };
    let ended = run::run(&mut running, &plan, &earlier.answers).await;
    bar.end();
    // A judge may need the memory of the model that answered.
    drop(asker);
    match ended? {
        End::Died(why) => {
            return Err(format!("{} does not answer any more: {why}\n{}", args.backend, go_on(&records, &about)));
        }
        End::Stopped => {
            eprintln!("stopped\n{}", go_on(&records, &about));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        End::Budget(which) => eprintln!("the budget of {which} is used up; {}", go_on(&records, &about)),
        End::Done => {}
    }
    if let Some(judge) = &args.judge {
        judged(args, config, judge, &plan.items, &mut log, &stop).await?;
    }
    drop(log);
    finish::write(args, &out, &records, &plan.items)
}

/// What to type to go on.
fn go_on(records: &Path, about: &Run) -> String {
    let kept = record::read(records).map(|f| f.answers.iter().filter(|r| !run::again(r)).count()).unwrap_or_default();
    format!("{kept} answers are in {}; go on with\n  {}", records.display(), about.command)
}

/// Judges what no grader could score.
async fn judged(
    args: &Args,
    config: &Config,
    judge: &str,
    items: &[Item],
    log: &mut Log,
    stop: &watch::Receiver<bool>,
) -> Result<(), String> {
    let records = record::read(log.path())?.answers;
    let against = match &args.against {
        Some(path) => {
            let file = record::read(path)?;
            let name = file.runs.first().map(|run| run.model.clone()).unwrap_or_default();
            Against::of(name, &file.answers)
        }
        None => Against::of("reference".to_owned(), &[]),
    };
    let asker = Asker::new(setup::backend(config, judge, args).await?);
    let done = judge::judge(&asker, items, &records, &against, log, stop).await?;
    eprintln!(
        "judge {judge}: {} scored, {} disagreed with itself in the other order, {} without a verdict, {} with nothing to compare with",
        done.scored, done.disagreed, done.failed, done.alone
    );
    Ok(())
}

/// Becomes true with the first Ctrl-C or SIGTERM; a second one ends the program at once. Answers are on disk by then.
fn on_signals() -> watch::Receiver<bool> {
    let (tell, told) = watch::channel(false);
    drop(clock::spawn(async move {
        signalled().await;
        let _ = tell.send(true);
        signalled().await;
        std::process::exit(i32::from(INTERRUPTED));
    }));
    told
}

async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}
