//! `wattroute replay`: what policies would have done with a log.

mod bar;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::bar::Shown;
use super::say;
use crate::config::checked::{Energy, EnergyModel, Price};
use crate::policy::{self, Policy};
use crate::replay::cost::Stated;
use crate::replay::outcome::Outcome;
use crate::replay::run::{self, Request, Watch};
use crate::replay::show;

/// Policies when none is named.
const DEFAULTS: [&str; 7] = ["balanced", "all-local", "all-cloud", "coverage-threshold", "quality", "green", "fast"];

/// Arguments of `wattroute replay`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  wattroute replay --outcomes eval/data/routing/mmlu_pro.jsonl.gz --weak Llama-3.1-8B-Instruct --strong gemini-1.5-pro
  wattroute replay --outcomes mine.jsonl.gz --weak small --strong large --policy balanced --policy my.toml --diff balanced my
  wattroute replay --outcomes mine.jsonl.gz --weak small --strong large --rate 2 --seats 4 --json --out result.json

An outcome table is NAME.jsonl.gz, one query a line with arrays `ok` (or `score`), `out_chars`, `cost_usd`, `latency_ms`, one entry
per model, and NAME.models.json beside it with `models`: the order of those arrays. Exit codes: 0 done, 1 failed, 2 usage.")]
pub struct Args {
    /// Outcome table: plain, gzip or zstd
    #[arg(long, value_name = "NAME.jsonl.gz")]
    outcomes: PathBuf,
    /// Model of the table that stands for the local side
    #[arg(long, value_name = "MODEL")]
    weak: String,
    /// Model of the table that stands for the cloud
    #[arg(long, value_name = "MODEL")]
    strong: String,
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
    /// Seed of intervals, draws and made-up arrivals
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop at the first bad line
    #[arg(long)]
    strict: bool,
    /// Lines to read, at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Batch of the cloud's server for low, mid and high joules
    #[arg(long, num_args = 3, value_names = ["LOW", "MID", "HIGH"], default_values_t = [256, 64, 16])]
    batch: Vec<u32>,
    /// Power usage effectiveness of the cloud for low, mid and high joules
    #[arg(long, num_args = 3, value_names = ["LOW", "MID", "HIGH"], default_values_t = [1.1, 1.2, 1.4])]
    pue: Vec<f64>,
    /// Joules per output token of the local device
    #[arg(long, value_name = "J")]
    local_joules_per_token: Option<f64>,
    /// Output tokens per second of the local device
    #[arg(long, value_name = "N")]
    local_tokens_per_s: Option<f64>,
    /// Billions of parameters of the cloud model: ACTIVE, LOW:HIGH or LOW:HIGH/TOTAL; `unknown` for null joules; or a measured model's name
    #[arg(long, value_name = "SIZE|NAME")]
    cloud_params: Option<String>,
    /// US dollars per million prompt and answer tokens of the cloud model
    #[arg(long, num_args = 2, value_names = ["IN", "OUT"])]
    cloud_usd: Option<Vec<f64>>,
    /// US dollars per kWh of the local device
    #[arg(long, value_name = "USD", default_value_t = 0.30)]
    electricity: f64,
    /// Country or number of g CO2e per kWh of the local device
    #[arg(long, value_name = "PLACE")]
    local_region: Option<String>,
    /// Country, cloud region or number of g CO2e per kWh of the cloud
    #[arg(long, value_name = "PLACE")]
    cloud_region: Option<String>,
    /// Queries per second, arriving at random, in place of logged times
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Queries that the local device works on at a time
    #[arg(long, value_name = "K", default_value_t = 1)]
    seats: usize,
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
    let done = run::run(&request, &watch);
    bar.end();
    match done {
        Ok(outcome) => tell(args, &outcome),
        Err(why) => super::fail(&why),
    }
}

fn tell(args: &Args, outcome: &Outcome) -> ExitCode {
    let json = match serde_json::to_string_pretty(outcome) {
        Ok(json) => json + "\n",
        Err(e) => return super::fail(&e.to_string()),
    };
    if let Some(path) = &args.out {
        if let Err(e) = whole(path, &json) {
            return super::fail(&format!("{}: {e}", path.display()));
        }
    }
    say(&if args.json { json } else { show::text(outcome) });
    ExitCode::SUCCESS
}

/// Writes a file whole or not at all.
fn whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    std::fs::write(&unfinished, text)?;
    std::fs::rename(&unfinished, path)
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
    for (name, value) in [("--rate", args.rate), ("--local-tokens-per-s", args.local_tokens_per_s)] {
        if value.is_some_and(|v| !(v > 0.0 && v.is_finite())) {
            return Err(format!("{name} must be above 0"));
        }
    }
    if args.seats == 0 {
        return Err("--seats must be at least 1".to_owned());
    }
    Ok(Request {
        file: args.outcomes.clone(),
        weak: args.weak.clone(),
        strong: args.strong.clone(),
        policies,
        diff,
        stated: stated(args)?,
        seed: args.seed,
        strict: args.strict,
        limit: args.limit,
        rate: args.rate,
        seats: args.seats,
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

fn stated(args: &Args) -> Result<Stated, String> {
    let (Ok(batch), Ok(pue)) = (<[u32; 3]>::try_from(&*args.batch), <[f64; 3]>::try_from(&*args.pue)) else {
        return Err("--batch and --pue take three numbers each: for low, mid and high joules".to_owned());
    };
    if !(batch.iter().all(|b| (1..=65_536).contains(b)) && batch.is_sorted_by(|a, b| a >= b)) {
        return Err("--batch: largest first, from 1 to 65536".to_owned());
    }
    if !(pue.iter().all(|p| (1.0..=3.0).contains(p)) && pue.is_sorted()) {
        return Err("--pue: smallest first, from 1 to 3".to_owned());
    }
    let energy =
        Energy { batch, pue, cpu_tdp_w: None, region: None, wall: None, sysfs: PathBuf::new(), read_meters: false };
    let positive = |x: &f64| *x >= 0.0 && x.is_finite();
    let cloud_price = match args.cloud_usd.as_deref() {
        Some([input, output]) if positive(input) && positive(output) => Some(Price { input: *input, output: *output }),
        Some(_) => {
            return Err("--cloud-usd takes two numbers from 0 up: per million prompt and answer tokens".to_owned());
        }
        None => None,
    };
    if args.local_joules_per_token.is_some_and(|j| !positive(&j)) || !positive(&args.electricity) {
        return Err("--local-joules-per-token and --electricity must be from 0 up".to_owned());
    }
    Ok(Stated {
        energy,
        local_joules_per_token: args.local_joules_per_token,
        local_tokens_per_s: args.local_tokens_per_s,
        cloud: args.cloud_params.as_deref().map(size).transpose()?,
        cloud_price,
        electricity_usd_per_kwh: args.electricity,
        local_region: args.local_region.clone(),
        cloud_region: args.cloud_region.clone(),
    })
}

/// `70`, `44:132`, `44:132/440`, `unknown` or a measured model's name.
fn size(text: &str) -> Result<EnergyModel, String> {
    if text == "unknown" {
        return Ok(EnergyModel::Unknown);
    }
    let pair = |part: &str| -> Option<(f64, f64)> {
        let (low, high) = part.split_once(':').unwrap_or((part, part));
        let (low, high): (f64, f64) = (low.parse().ok()?, high.parse().ok()?);
        (low > 0.0 && low <= high && high.is_finite()).then_some((low, high))
    };
    let (active, total) = text.split_once('/').unwrap_or((text, text));
    match (pair(active), pair(total)) {
        (Some(active), Some(total)) => Ok(EnergyModel::Parameters { active, total }),
        _ => match crate::energy::cloud::points::curves(text) {
            Ok(_) => Ok(EnergyModel::Points(text.to_owned())),
            Err(e) => Err(format!("--cloud-params: neither a size (70, 44:132, 44:132/440) nor a measured model: {e}")),
        },
    }
}

/// An interrupt stops the reading; what was read is the result. A second one ends the program.
fn stop_on_interrupt(watch: &Arc<Watch>) {
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
