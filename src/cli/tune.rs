//! `wattroute tune`: a policy file's numbers from a log, believed only where they were not searched.

mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Zoned;

use super::replay::costs::Costs;
use super::{fail, say};
use crate::classify::Classifier;
use crate::policy;
use crate::replay::prepare::{Gathered, gather};
use crate::replay::run::{Ask, Request};
use crate::replay::whole;
use crate::tune::cases::{self, Split};
use crate::tune::judge::Limits;
use crate::tune::space::Space;
use crate::tune::write::{self, Origin};
use crate::tune::{self, Found, Goal, Task, Verdict, search};

/// Exit code of a search that found nothing worth taking; the figures say why.
const REFUSED: u8 = 1;

/// Search a policy's numbers on a log, validate them on queries held out, and write a new policy file
#[derive(clap::Args)]
#[command(after_help = "Examples:
  wattroute tune balanced --outcomes examples/tune/log.jsonl.gz --weak Llama-3.1-8B-Instruct --strong gemini-1.5-pro \\
      --minimise energy --accuracy 0.95 --out tuned.toml
  wattroute tune mine.toml --outcomes log.jsonl.gz --weak small --strong large --minimise cost --p95 5 --json
  wattroute tune mine.toml --outcomes log.jsonl.gz --weak small --strong large --p95 20 --rate 2 --seats 4

What is searched stands in the policy's [tune] table, each key with its range:
  [tune]
  \"rule.max_quality_loss\" = [0.0, 0.4]
  floors = [0.0, 0.9]          # one floor in each domain with at least 200 queries
  order = [\"local\", \"cloud\"]   # every order of these backends or places; at most four
Without one the keys of its rule are searched. One or two keys are searched on a grid, more by a particle swarm.
A policy whose gain is within noise on the held-out queries, or that misses its limits there, is refused (exit code 1).")]
pub struct Args {
    /// A shipped policy or a file
    #[arg(value_name = "POLICY")]
    policy: String,
    /// Outcome table: plain, gzip, zstd or Parquet; a path or an address (s3://..., see `wattroute replay --help`)
    #[arg(long, value_name = "NAME.jsonl.gz")]
    outcomes: PathBuf,
    /// Model of the table that stands for the local side
    #[arg(long, value_name = "MODEL")]
    weak: String,
    /// Model of the table that stands for the cloud
    #[arg(long, value_name = "MODEL")]
    strong: String,
    /// Who predicts what a policy sees of a query
    #[arg(long, value_enum, default_value = "domain")]
    predictor: super::replay::By,
    /// What is made small
    #[arg(long, value_enum, default_value = "energy")]
    minimise: Aim,
    /// Accuracy, at least this share of the strong model's
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    accuracy: f64,
    /// 95 of 100 answers take at most so many seconds; with waiting at the local device where the log has arrivals or --rate makes them up
    #[arg(long, value_name = "SECONDS")]
    p95: Option<f64>,
    /// At least this share answered locally
    #[arg(long, value_name = "SHARE")]
    least_local: Option<f64>,
    /// At most this share answered locally
    #[arg(long, value_name = "SHARE")]
    most_local: Option<f64>,
    /// Queries per second, arriving at random, in place of logged times
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Queries that the local device works on at a time
    #[arg(long, value_name = "K", default_value_t = 1)]
    seats: usize,
    /// How queries are held out: by stem of the prompt, or the latest
    #[arg(long, value_enum, default_value = "stem")]
    split: By,
    /// Share held out
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    held_out: f64,
    /// Seed of the split, of the search and of intervals
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the tuned policy goes; its name becomes the file's
    #[arg(long, value_name = "FILE.toml")]
    out: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    costs: Costs,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Aim {
    Energy,
    Cost,
    Carbon,
    Latency,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum By {
    Stem,
    Time,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    match tuned(args) {
        Ok(code) => code,
        Err(why) => fail(&why),
    }
}

fn tuned(args: &Args) -> Result<ExitCode, String> {
    let name = checked(args)?;
    let old = policy::load(&args.policy, None).map_err(|e| e.to_string())?;
    let (text, file) = policy::text(&args.policy, None).map_err(|e| e.to_string())?;
    let gathered = gather(&request(args)?)?;
    let split = match args.split {
        By::Stem => Split::Stem,
        By::Time => Split::Time,
    };
    let cases = cases::of(&gathered.setup, &gathered.cases, split, args.held_out, args.seed)?;
    let classifier = Classifier::shipped();
    let classify = |text: &str| classifier.posterior(text);
    let task = Task {
        text: &text,
        file: &file,
        goal: goal(args.minimise),
        limits: limits(args),
        seats: args.seats,
        seed: args.seed,
        classify: &classify,
    };
    let (found, space) = searched(&task, &cases)?;
    let origin = Origin {
        command: args.command(),
        date: Zoned::now().date().to_string(),
        data: args.data(&gathered, cases.len()),
        from: format!("{} ({})", old.name, old.hash),
    };
    let new = write::text(&space, &found, &origin, &name);
    let taken = found.verdict == Verdict::Better;
    if let Some(path) = args.out.as_deref().filter(|_| taken) {
        whole::write(path, new.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let diff = write::diff(&text, &new);
    match args.json {
        true => say(&format!("{:#}\n", show::told(&origin, args, &found, &space, &new))),
        false => say(&show::shown(&origin, args, &found, &space, &diff)),
    }
    Ok(if taken { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// The new policy's name, after everything that can be refused before a long search.
fn checked(args: &Args) -> Result<String, String> {
    let share = |name: &str, x: Option<f64>| match x {
        Some(x) if !(0.0..=1.5).contains(&x) => Err(format!("{name}: must be a share such as 0.95")),
        _ => Ok(()),
    };
    share("--accuracy", Some(args.accuracy))?;
    share("--least-local", args.least_local)?;
    share("--most-local", args.most_local)?;
    if !(0.05..=0.9).contains(&args.held_out) {
        return Err("--held-out: must be from 0.05 to 0.9".to_owned());
    }
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) || args.seats == 0 {
        return Err("--rate must be above 0, and --seats at least 1".to_owned());
    }
    let Some(path) = &args.out else { return Ok("tuned".to_owned()) };
    if path.exists() && !args.force {
        return Err(format!("{} is there already: choose another --out, or --force", path.display()));
    }
    let stem = path.file_stem().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
    match policy::is_name(&stem) {
        true => Ok(stem),
        false => Err(format!("--out: `{stem}` cannot be a policy's name; use a-z, 0-9, `-` and `_`")),
    }
}

fn searched(task: &Task<'_>, cases: &[tune::Case]) -> Result<(Found, Space), String> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} policies tried, {eta} left") {
        bar.set_style(style);
    }
    let tried = AtomicU64::new(0);
    let tell = |sides: usize| {
        bar.set_length(u64::try_from(search::planned(sides)).unwrap_or(0));
        bar.set_position(tried.fetch_add(1, Ordering::Relaxed) + 1);
    };
    let found = tune::tune(task, cases, &tell);
    bar.finish_and_clear();
    found
}

fn goal(aim: Aim) -> Goal {
    match aim {
        Aim::Energy => Goal::Energy,
        Aim::Cost => Goal::Cost,
        Aim::Carbon => Goal::Carbon,
        Aim::Latency => Goal::Latency,
    }
}

fn limits(args: &Args) -> Limits {
    Limits {
        accuracy: Some(args.accuracy),
        p95_seconds: args.p95,
        least_local: args.least_local,
        most_local: args.most_local,
    }
}

fn request(args: &Args) -> Result<Request, String> {
    Ok(Request {
        ask: Ask::Outcomes,
        file: args.outcomes.clone(),
        weak: args.weak.clone(),
        strong: args.strong.clone(),
        predictor: args.predictor.into(),
        policies: Vec::new(),
        diff: None,
        stated: args.costs.stated()?,
        seed: args.seed,
        strict: false,
        limit: None,
        since_s: None,
        rate: args.rate,
        seats: args.seats,
        checkpoint: None,
    })
}

impl Args {
    /// What to type for the same search.
    fn command(&self) -> String {
        let word = |aim: &dyn Fn() -> Option<String>| aim().unwrap_or_default();
        let aim = word(&|| clap::ValueEnum::to_possible_value(&self.minimise).map(|v| v.get_name().to_owned()));
        let split = word(&|| clap::ValueEnum::to_possible_value(&self.split).map(|v| v.get_name().to_owned()));
        let mut said = format!(
            "wattroute tune {} --outcomes {} --weak {} --strong {} --minimise {aim} --accuracy {} --split {split} --held-out {} --seed {}",
            self.policy,
            self.outcomes.display(),
            self.weak,
            self.strong,
            self.accuracy,
            self.held_out,
            self.seed
        );
        if matches!(self.predictor, super::replay::By::Query) {
            said.push_str(" --predictor query");
        }
        for (name, value) in [
            ("--p95", self.p95),
            ("--least-local", self.least_local),
            ("--most-local", self.most_local),
            ("--rate", self.rate),
        ] {
            if let Some(value) = value {
                said.push_str(&format!(" {name} {value}"));
            }
        }
        if self.seats != 1 {
            said.push_str(&format!(" --seats {}", self.seats));
        }
        said + &self.costs.command()
    }

    fn data(&self, gathered: &Gathered, labelled: usize) -> String {
        format!(
            "{} (BLAKE3 {}, {} queries with both labels), {} against {}",
            self.outcomes.display(),
            gathered.hash,
            labelled,
            gathered.setup.weak,
            gathered.setup.strong
        )
    }
}
