//! `wattroute report`: measured tables as a page, as JSON and as pictures; with a journal, everything that is known on one page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use jiff::Zoned;
use serde_json::json;

use super::replay::DEFAULTS;
use super::{fail, say, serve};
use crate::config::checked::{Config, Kind};
use crate::config::units;
use crate::journal::JournalError;
use crate::journal::stats::{self, Filter};
use crate::policy;
use crate::policy::types::Place;
use crate::profile::record;
use crate::profile::report::{Report, Subject};
use crate::replay::cost::Stated;
use crate::replay::outcome::Outcome;
use crate::replay::programs::JOURNAL;
use crate::replay::run::{self, Ask, Predictor, Request, Watch};
use crate::report::Joined;
use crate::{store, tables};

/// Draw measured tables, or a journal with tables and a replay: a page that needs nothing else, JSON, and PNGs
#[derive(clap::Args)]
#[command(after_help = "Examples:
  wattroute report --tables mine.json --out report
  wattroute report --tables softmax.json lla.json llama-server.json --out report
  wattroute report --tables smollm2-135m qwen3-8b@m4-max --cloud openai/gpt-oss-120b --out report
  wattroute report --journal journal.db --since 7d --out report
  wattroute report --journal journal.db --tables mine.json --weak mine.json --strong gemini-1.5-pro-002 --out report

Answers are read from NAME.records.jsonl beside NAME.json where that is there; they give joules against tokens and calibration.")]
pub struct Args {
    /// JSON files, or names of shipped tables; with a journal, by default those of the configured backends
    #[arg(long, required_unless_present = "journal", num_args = 1..)]
    tables: Vec<PathBuf>,
    /// A journal, as a path or an address: what happened, joined with the tables and with a replay under the shipped policies
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Of the journal, only what arrived within this time, such as 24h or 7d
    #[arg(long, value_name = "TIME", value_parser = units::duration, requires = "journal")]
    since: Option<Duration>,
    /// Table of the local side of the replay [default: that of the first configured local backend]
    #[arg(long, value_name = "TABLE", requires = "journal")]
    weak: Option<String>,
    /// Table of the cloud [default: that of the first configured cloud backend]
    #[arg(long, value_name = "TABLE", requires = "journal")]
    strong: Option<String>,
    /// Where report.html, report.json and the PNGs go
    #[arg(long)]
    out: PathBuf,
    /// The cloud that savings are against: a model by name, or measured on one set-up as NAME@8xH100/bfloat16
    #[arg(long, default_value = "Qwen/Qwen3-235B-A22B-Instruct-2507")]
    cloud: String,
    /// Print the files and what is missing as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(file: Option<&Path>, args: &Args) -> ExitCode {
    let config = match serve::checked(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let date = Zoned::now().date().to_string();
    let written = match &args.journal {
        Some(journal) => {
            joined(args, &config, journal, date).and_then(|page| Ok((page.write(&args.out)?, page.absent())))
        }
        None => subjects(&args.tables)
            .and_then(|s| Report::new(s, &args.cloud, &config.energy, date))
            .and_then(|report| Ok((report.write(&args.out)?, report.missing))),
    };
    match written {
        Ok((files, missing)) if args.json => {
            say(&format!("{}\n", json!({ "files": files, "missing": missing })));
            ExitCode::SUCCESS
        }
        Ok((files, missing)) => {
            files.iter().for_each(|f| say(&format!("{}\n", f.display())));
            missing.iter().for_each(|m| say(&format!("{m}\n")));
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

/// The journal's sums, the tables of its backends and a replay of it. Only a journal that cannot be read is an error: what else is
/// not to be had is missing on the page.
fn joined(args: &Args, config: &Config, journal: &Path, date: String) -> Result<Joined, String> {
    let since_ms = super::since_ms(args.since);
    let filter = Filter { since_ms, tenant: None };
    let brought = store::find(journal)?.bring()?;
    let file = brought.path();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let read =
        async { Ok::<_, JournalError>((stats::stats(file, &filter).await?, stats::hours(file, &filter).await?)) };
    let traffic = runtime.block_on(read).map_err(|e| e.to_string())?;
    drop(runtime);
    let side = |named: &Option<String>, place: Place| named.clone().or_else(|| table_of(config, place));
    let (weak, strong) = (side(&args.weak, Place::Local), side(&args.strong, Place::Cloud));
    let paths = match args.tables.as_slice() {
        [] => weak.iter().chain(&strong).map(PathBuf::from).collect(),
        given => given.to_vec(),
    };
    let tables = subjects(&paths).and_then(|s| Report::new(s, &args.cloud, &config.energy, date.clone()));
    // Tables that were asked for by name must be there.
    if let (Err(why), false) = (&tables, args.tables.is_empty()) {
        return Err(why.clone());
    }
    let replay = match (weak, strong) {
        (Some(weak), Some(strong)) => replayed((file, since_ms), weak, strong, config).map(|mut outcome| {
            outcome.log.file = journal.display().to_string();
            outcome
        }),
        _ => Err("no table of a local and of a cloud backend is configured: --weak and --strong name two".to_owned()),
    };
    Ok(Joined { date, traffic, tables, replay })
}

/// What a configured backend of a place has for a table: its file or name, else its model, if a table of that is shipped.
fn table_of(config: &Config, place: Place) -> Option<String> {
    config.backends.iter().filter(|b| b.place == place).find_map(|backend| match (&backend.table, &backend.kind) {
        (Some(path), _) => Some(path.display().to_string()),
        (None, Kind::OpenAi(to)) => tables::shipped(&to.model).map(|_| to.model.to_string()),
        (None, Kind::Embedded(own)) => tables::shipped(&own.model).map(|_| own.model.to_string()),
    })
}

fn replayed(
    (journal, since_ms): (&Path, u64),
    weak: String,
    strong: String,
    config: &Config,
) -> Result<Outcome, String> {
    let policies: Result<Vec<_>, _> = DEFAULTS.iter().map(|name| policy::load(name, None)).collect();
    let request = Request {
        file: journal.to_owned(),
        ask: Ask::Log { format: Some(JOURNAL.to_owned()) },
        weak,
        strong,
        predictor: Predictor::default(),
        policies: policies.map_err(|e| e.to_string())?,
        diff: None,
        stated: Stated::assumed(config.energy.clone()),
        seed: 1,
        strict: false,
        limit: None,
        since_s: Some(since_ms as f64 / 1e3),
        rate: None,
        seats: 1,
        checkpoint: None,
    };
    run::run(&request, &Watch::default())
}

/// Tables with the answers beside them.
fn subjects(paths: &[PathBuf]) -> Result<Vec<Subject>, String> {
    let mut out: Vec<Subject> = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let here = store::find(path)?.bring()?;
        let found = tables::find(Some(here.path()), &name).map_err(|problems| problems.to_string())?;
        let table = found.ok_or_else(|| format!("{name}: no such table"))?;
        // Where nothing lies beside a table in a store, its answers are missing as they are on a disk.
        let beside = store::find(&tables::beside(path, "records.jsonl")).and_then(|beside| beside.bring());
        let answers = match beside {
            Ok(beside) if beside.path().is_file() => Some(record::read(beside.path())?),
            _ => None,
        };
        out.push(Subject::new(table.model.clone(), (*table).clone(), answers.as_ref()));
    }
    let all: Vec<tables::Table> = out.iter().map(|s| s.table.clone()).collect();
    for (i, subject) in out.iter_mut().enumerate() {
        subject.name = distinct(&subject.table, &all, i);
    }
    Ok(out)
}

/// The model, and of runtime, attention and device what tells it from the others of the same model.
fn distinct(table: &tables::Table, all: &[tables::Table], index: usize) -> String {
    let like: Vec<&tables::Table> = all.iter().filter(|t| t.model == table.model).collect();
    let parts: [fn(&tables::Table) -> &str; 3] = [|t| &t.runtime, |t| &t.attention, |t| &t.device];
    let telling = parts.iter().filter(|part| like.iter().any(|t| part(t) != part(table)));
    let mut name =
        std::iter::once(table.model.as_str()).chain(telling.map(|part| part(table))).collect::<Vec<_>>().join(", ");
    let same = |t: &&tables::Table| t.model == table.model && parts.iter().all(|part| part(t) == part(table));
    if all.iter().filter(same).count() > 1 {
        name.push_str(&format!(" #{}", index + 1));
    }
    name
}
