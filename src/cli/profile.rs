//! `wattroute profile`: ask suites of a backend, measure, write a table.

mod bar;
mod before;
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
use crate::profile::pick;
use crate::profile::record::{self, File, Line, Run};
use crate::profile::regrade;
use crate::profile::run::{self, End, Plan};
use crate::tables;

/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Ask a backend the questions of suites, measure its joules and write its table
#[derive(Clone, clap::Args)]
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
    #[arg(long, value_parser = budget)]
    budget_joules: Option<f64>,
    /// Stop after so many minutes
    #[arg(long, value_parser = budget)]
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
    /// Keep the log-probability of every token in the records, not only their mean and the lowest
    #[arg(long)]
    keep_logprobs: bool,
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

/// The largest budget: 19 centuries of minutes, or 280 kWh.
const MOST_BUDGET: f64 = 1e9;

fn budget(text: &str) -> Result<f64, String> {
    let amount: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    // Neither infinity nor "not a number" is within these.
    if amount > 0.0 && amount <= MOST_BUDGET { Ok(amount) } else { Err("must be above 0 and at most 1e9".to_owned()) }
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
    let args = &setup::once(args);
    super::block_on(async { Box::pin(profile(args, &config)).await.unwrap_or_else(|e| super::fail(&e)) })
}

/// What is to be done, and the record file that nobody else writes meanwhile.
struct Job {
    out: PathBuf,
    plan: Plan,
    about: Run,
    log: Log,
    earlier: File,
}

impl Job {
    /// Everything that can be said to be wrong before a model is loaded.
    fn new(args: &Args, config: &Config) -> Result<Self, String> {
        let out = args.out.clone().unwrap_or_else(|| setup::default_out(&args.backend));
        let suites = pick::open_all(&args.suite)?;
        let items = pick::pick(&suites, &pick::domains(&args.domains)?, args.limit, args.seed)?;
        let about = setup::about(args, config, pick::sources(&suites, &items))?;
        let (log, earlier) = before::earlier(&tables::beside(&out, "records.jsonl"), args.fresh, &about)?;
        let plan = Plan {
            items,
            streams: args.streams.clone(),
            repeats: args.repeats,
            warm_up: args.warm_up,
            settle: args.settle,
            joules: args.budget_joules,
            time: args.budget_minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
            keep_logprobs: args.keep_logprobs,
        };
        Ok(Self { out, plan, about, log, earlier })
    }

    /// What to type to go on.
    fn go_on(&self) -> String {
        let path = self.log.path();
        let kept = record::read(path).map(|f| f.answers.iter().filter(|r| !run::again(r)).count()).unwrap_or_default();
        format!("{kept} answers are in {}; go on with\n  {}", path.display(), self.about.command)
    }
}

async fn profile(args: &Args, config: &Config) -> Result<ExitCode, String> {
    let mut job = Job::new(args, config)?;
    let stop = on_signals();
    let ended = match run::nothing_left(&job.plan, &job.earlier.answers) {
        true => End::Done,
        false => Box::pin(measure(args, config, &mut job, &stop)).await?,
    };
    match ended {
        End::Died(why) => return Err(format!("{} does not answer any more: {why}\n{}", args.backend, job.go_on())),
        End::Stopped => {
            eprintln!("stopped\n{}", job.go_on());
            return Ok(ExitCode::from(INTERRUPTED));
        }
        End::Budget(why) => eprintln!("{why}; {}", job.go_on()),
        End::Done => {}
    }
    let answers = record::read(job.log.path())?.answers;
    let regraded = regrade::regrade(&job.plan.items, &answers, &mut job.log)?;
    if regraded > 0 {
        eprintln!("{regraded} answers of earlier runs are graded otherwise by the graders of today");
    }
    let judged = match &args.judge {
        Some(judge) => judged(args, config, judge, &mut job, &stop).await,
        None => Ok(()),
    };
    if let Err(why) = &judged {
        eprintln!("{why}; what was judged before is kept, and the table is of what is graded");
    }
    let written = finish::write(args, &job.out, job.log.path(), &job.plan.items, &job.about)?;
    Ok(if judged.is_ok() { written } else { ExitCode::FAILURE })
}

/// Loads the backend, lets the machine come to rest, and asks what is left.
async fn measure(args: &Args, config: &Config, job: &mut Job, stop: &watch::Receiver<bool>) -> Result<End, String> {
    let loading = Box::pin(async {
        let asker = Asker::new(setup::backend(config, &args.backend, args).await?);
        let energy = setup::energy(args, config, asker.backend()).await?;
        Ok::<_, String>((asker, energy, setup::digest(config, args).await?))
    });
    let mut stopped = stop.clone();
    let (asker, energy, digest) = tokio::select! {
        biased;
        loaded = loading => loaded?,
        _ = stopped.wait_for(|stop| *stop) => {
            eprintln!("stopped before the first question");
            // Returning would wait for the model that is being loaded on another thread.
            std::process::exit(i32::from(INTERRUPTED));
        }
    };
    let about = setup::measured(Run { digest, ..job.about.clone() }, &energy);
    before::same(&job.earlier.runs, &about, job.log.path())?;
    if args.budget_joules.is_some() && about.basis.is_none() {
        return Err(format!("--budget-joules has nothing to count: {}", about.scope));
    }
    job.log.put(&Line::Run(Box::new(about)))?;
    let mut bar = bar::Bar::new();
    let mut tell = |seen: &run::Seen| bar.tell(seen);
    let counter = setup::counter(args, config)?;
    let mut running = run::Run {
        asker: &asker,
        counter: &counter,
        energy: &energy,
        log: &mut job.log,
        stop: stop.clone(),
        tell: &mut tell,
    };
    let ended = run::run(&mut running, &job.plan, &job.earlier.answers).await;
    bar.end();
    // A judge may need the memory of the model that answered, which goes here.
    ended
}

/// Judges what no grader could score.
async fn judged(
    args: &Args,
    config: &Config,
    judge: &str,
    job: &mut Job,
    stop: &watch::Receiver<bool>,
) -> Result<(), String> {
    let records = record::read(job.log.path())?.answers;
    let against = match &args.against {
        Some(path) => {
            let file = record::read(path)?;
            let name = file.runs.first().map(|run| run.model.clone()).unwrap_or_default();
            Against::of(name, &file.answers)
        }
        None => Against::of("reference".to_owned(), &[]),
    };
    let asker = Asker::new(setup::backend(config, judge, args).await?);
    let done = judge::judge(&asker, &job.plan.items, &records, &against, &mut job.log, stop).await?;
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
