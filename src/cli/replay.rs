//! `wattroute replay`: what policies would have done with a log.

mod bar;
pub mod costs;
mod keeping;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use self::bar::Shown;
use self::costs::Costs;
use self::keeping::{Keeping, stop_on_interrupt};
use super::say;
use crate::config::units;
use crate::policy::{self, Policy};
use crate::replay::outcome::Outcome;
use crate::replay::page::{self, texts};
use crate::replay::programs::JOURNAL;
use crate::replay::run::{self, Ask, Predictor, Request, Watch};
use crate::replay::{show, whole};

/// Policies when none is named.
pub const DEFAULTS: [&str; 7] =
    ["balanced", "all-local", "all-cloud", "coverage-threshold", "quality", "green", "fast"];

/// Arguments of `wattroute replay`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  wattroute replay --outcomes eval/data/routing/mmlu_pro.jsonl.gz --weak Llama-3.1-8B-Instruct --strong gemini-1.5-pro
  wattroute replay --outcomes mine.jsonl.gz --weak small --strong large --predictor query
  wattroute replay --outcomes mine.jsonl.gz --weak small --strong large --policy balanced --policy my.toml --diff balanced my
  wattroute replay --outcomes mine.jsonl.gz --weak small --strong large --rate 2 --seats 4 --json --out result.json
  wattroute replay --outcomes mine.jsonl.gz --weak small --strong large --html page.html --with-text
  wattroute replay --journal journal.db --since 30d --weak llama-3.1-8b-instruct --strong gemini-1.5-pro-002
  wattroute replay --outcomes s3://bucket/june.jsonl.gz --weak small --strong large
  wattroute replay --log big.jsonl.zst --weak mine.json --strong theirs.json --checkpoint big.state --resume

An outcome table is NAME.jsonl.gz, one query a line with arrays `ok` (or `score`), `out_chars`, `cost_usd`, `latency_ms`, one entry
per model, and NAME.models.json beside it with `models`: the order of those arrays. Rows of any log that tell what was done live, `action`
(local or cloud), its `propensity` and a `reward` (columns of CSV; in JSON at the top, or inside `metadata` or `properties`), are also
judged off-policy (IPS, SNIPS, doubly robust).

Files are paths or addresses: file:///path, s3://bucket/key, https://host/bucket/key of an S3-compatible store. Keys, region and endpoint
of a store come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL,
AWS_ALLOW_HTTP. Exit codes: 0 done, 1 failed, 2 usage.")]
pub struct Args {
    /// Outcome table: plain, gzip, zstd or Parquet
    #[arg(long, value_name = "NAME.jsonl.gz", required_unless_present_any = ["log", "journal"])]
    outcomes: Option<PathBuf>,
    /// Another log, without labels: these come from the tables of both models, and are marked as predicted. Text, wattroute's journal,
    /// Parquet or a folder of it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["outcomes", "journal"])]
    log: Option<PathBuf>,
    /// wattroute's own journal, or an export of it: short for --log FILE --format journal
    #[arg(long, value_name = "FILE", conflicts_with = "outcomes")]
    journal: Option<PathBuf>,
    /// What the log is, where its first line does not tell: journal, openai-batch, litellm, helicone, langfuse, mooncake, wildchat, sharegpt, chat or csv
    #[arg(long, value_name = "NAME", requires = "log")]
    format: Option<String>,
    /// Model of the outcome table that stands for the local side; of a log, a table's name or file
    #[arg(long, value_name = "MODEL")]
    weak: String,
    /// The same for the cloud
    #[arg(long, value_name = "MODEL")]
    strong: String,
    /// Who predicts what a policy sees of a query: the coverage of its domain, or a fit on its words, shape and domain
    #[arg(long, value_enum, default_value = "domain", conflicts_with = "log")]
    predictor: By,
    /// A shipped policy or a file; again for more [default: all shipped ones]
    #[arg(long, value_name = "NAME|FILE")]
    policy: Vec<String>,
    /// Two policies compared query by query
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    diff: Option<Vec<String>>,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Write the JSON document to a file, whole or not at all
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a page with charts that needs nothing else
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Show the beginnings of prompts beside the worst mistakes of the page
    #[arg(long, requires = "html")]
    with_text: bool,
    /// Seed of intervals, draws and made-up arrivals
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop at the first bad line
    #[arg(long)]
    strict: bool,
    /// Lines to read, at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Of a log with dates, only what arrived within this time, such as 24h or 7d
    #[arg(long, value_name = "TIME", value_parser = units::duration, conflicts_with_all = ["outcomes", "checkpoint"])]
    since: Option<Duration>,
    #[command(flatten)]
    costs: Costs,
    /// Queries per second, arriving at random, in place of logged times
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Queries that the local device works on at a time
    #[arg(long, value_name = "K", default_value_t = 1)]
    seats: usize,
    /// Scheduler of a cluster that does the work (see `wattroute cluster`)
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "checkpoint")]
    cluster: Option<String>,
    /// Bytes of a log that a cluster hands out at a time
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, hide = true)]
    piece: u64,
    #[command(flatten)]
    keeping: Keeping,
}

/// Who predicts.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum By {
    /// Shrunk coverage of the query's domain
    Domain,
    /// The per-query predictor, learned from this table out of fold
    Query,
}

impl From<By> for Predictor {
    fn from(by: By) -> Self {
        match by {
            By::Domain => Self::Domain,
            By::Query => Self::Query,
        }
    }
}

/// Runs the command.
pub fn run(_config: Option<&Path>, args: &Args) -> ExitCode {
    let request = match request(args) {
        Ok(request) => request,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    let watch = Arc::new(Watch::default());
    stop_on_interrupt(&watch);
    let bar = Shown::start(&watch);
    let checkpoint = request.checkpoint.clone();
    let done = match &args.cluster {
        None => run::run(&request, &watch),
        Some(scheduler) => on_cluster(args, scheduler, &request, &watch),
    };
    bar.end();
    let outcome = match done {
        Ok(outcome) => outcome,
        Err(why) => return super::fail(&why),
    };
    let told = tell(args, &outcome);
    match checkpoint.filter(|_| told == ExitCode::SUCCESS) {
        Some(checkpoint) if outcome.complete => checkpoint.done(),
        Some(checkpoint) => eprintln!("the rest: the same command with --resume ({})", checkpoint.path.display()),
        None => {}
    }
    told
}

#[cfg(not(feature = "cluster"))]
fn on_cluster(_args: &Args, _scheduler: &str, _request: &Request, _watch: &Watch) -> Result<Outcome, String> {
    Err(super::cluster::MISSING.to_owned())
}

#[cfg(feature = "cluster")]
fn on_cluster(args: &Args, scheduler: &str, request: &Request, watch: &Watch) -> Result<Outcome, String> {
    use crate::cluster::run::{Cluster, run};
    let named = args.policy.iter().chain(args.diff.iter().flatten()).map(String::as_str);
    let mut texts = std::collections::HashMap::new();
    for name in named.chain(DEFAULTS) {
        let (text, file) = policy::text(name, None).map_err(|e| e.to_string())?;
        let hash = policy::parse(&text, &file).map_err(|e| e.to_string())?.hash;
        texts.insert(hash.to_string(), text);
    }
    let scheduler = scheduler.trim_start_matches("http://").trim_start_matches("df://").trim_end_matches('/');
    let cluster = Cluster { scheduler: scheduler.to_owned(), piece: args.piece.max(1), texts };
    run(request, &cluster, watch)
}

fn tell(args: &Args, outcome: &Outcome) -> ExitCode {
    let json = match serde_json::to_string_pretty(outcome) {
        Ok(json) => json + "\n",
        Err(e) => return super::fail(&e.to_string()),
    };
    if let Some(path) = &args.out
        && let Err(e) = whole::write(path, json.as_bytes())
    {
        return super::fail(&format!("{}: {e}", path.display()));
    }
    if let Some(path) = &args.html {
        let texts = match args.with_text {
            true => match &args.outcomes {
                Some(table) => texts::of(outcome, table),
                None => Err("--with-text goes with --outcomes".to_owned()),
            },
            false => Ok(BTreeMap::new()),
        };
        let date = jiff::Zoned::now().date().to_string();
        let made = texts.map(|texts| page::html(outcome, &date, &|line| texts.get(&line).cloned()));
        let written =
            made.and_then(|page| whole::write(path, page.as_bytes()).map_err(|e| format!("{}: {e}", path.display())));
        if let Err(why) = written {
            return super::fail(&why);
        }
    }
    say(&if args.json { json } else { show::text(outcome) });
    ExitCode::SUCCESS
}

fn request(args: &Args) -> Result<Request, String> {
    let names: Vec<String> = match (&args.diff, args.policy.is_empty()) {
        (_, false) => args.policy.clone(),
        (Some(pair), true) => pair.clone(),
        (None, true) => DEFAULTS.iter().map(|n| (*n).to_owned()).collect(),
    };
    let mut policies = policies(&names)?;
    let mut place = |wanted: &str| -> Result<usize, String> {
        if let Some(at) = policies.iter().position(|p| *p.name == *wanted) {
            return Ok(at);
        }
        let loaded = policy::load(wanted, None).map_err(|e| e.to_string())?;
        let at = policies.iter().position(|p| p.hash == loaded.hash);
        Ok(at.unwrap_or_else(|| {
            policies.push(loaded);
            policies.len() - 1
        }))
    };
    let diff = match args.diff.as_deref() {
        Some([a, b]) => Some((place(a)?, place(b)?)),
        _ => None,
    };
    if diff.is_some_and(|(a, b)| a == b) {
        return Err("--diff needs two different policies".to_owned());
    }
    if policies.len() > 60 {
        return Err(format!("{} policies; 60 at a time can be replayed", policies.len()));
    }
    for (name, value) in [("--rate", args.rate), ("--local-tokens-per-s", args.costs.local_tokens_per_s)] {
        if value.is_some_and(|v| !(v > 0.0 && v.is_finite())) {
            return Err(format!("{name} must be above 0"));
        }
    }
    if args.seats == 0 {
        return Err("--seats must be at least 1".to_owned());
    }
    let (file, ask) = match (&args.outcomes, &args.log, &args.journal) {
        (Some(table), ..) => (table.clone(), Ask::Outcomes),
        (None, Some(log), _) => (log.clone(), Ask::Log { format: args.format.clone() }),
        (None, None, Some(journal)) => (journal.clone(), Ask::Log { format: Some(JOURNAL.to_owned()) }),
        (None, None, None) => return Err("--outcomes, --log or --journal is needed".to_owned()),
    };
    Ok(Request {
        file,
        ask,
        weak: args.weak.clone(),
        strong: args.strong.clone(),
        predictor: args.predictor.into(),
        policies,
        diff,
        stated: args.costs.stated()?,
        seed: args.seed,
        strict: args.strict,
        limit: args.limit,
        since_s: args.since.map(|ago| super::since_ms(Some(ago)) as f64 / 1e3),
        rate: args.rate,
        seats: args.seats,
        checkpoint: args.keeping.checkpoint(),
    })
}

fn policies(names: &[String]) -> Result<Vec<Arc<Policy>>, String> {
    let mut out: Vec<Arc<Policy>> = Vec::new();
    for name in names {
        let loaded = policy::load(name, None).map_err(|e| e.to_string())?;
        if out.iter().any(|p| p.hash == loaded.hash) {
            continue;
        }
        // Two files may call themselves alike: the file tells them apart.
        let twice = out.iter().any(|p| p.name == loaded.name);
        out.push(if twice {
            let mut own = (*loaded).clone();
            own.name = name.as_str().into();
            Arc::new(own)
        } else {
            loaded
        });
    }
    Ok(out)
}
