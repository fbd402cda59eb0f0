//! `wattroute report`: measured tables as a page, as JSON and as pictures.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Zoned;
use serde_json::json;

use super::{fail, say, serve};
use crate::profile::record;
use crate::profile::report::{Report, Subject};
use crate::tables;

/// Draw measured tables: a page that needs nothing else, JSON, and PNGs
#[derive(clap::Args)]
#[command(after_help = "Examples:
  wattroute report --tables mine.json --out report
  wattroute report --tables softmax.json lla.json llama-server.json --out report
  wattroute report --tables smollm2-135m qwen3-8b@m4-max --cloud openai/gpt-oss-120b --out report

Answers are read from NAME.records.jsonl beside NAME.json where that is there; they give joules against tokens and calibration.")]
pub struct Args {
    /// JSON files, or names of shipped tables
    #[arg(long, required = true, num_args = 1..)]
    tables: Vec<PathBuf>,
    /// Where report.html, report.json and the PNGs go
    #[arg(long)]
    out: PathBuf,
    /// The cloud that savings are against: a model with measured points, see `wattroute energy --cloud`
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
    let report = subjects(&args.tables)
        .and_then(|s| Report::new(s, &args.cloud, &config.energy, Zoned::now().date().to_string()));
    let written = report.and_then(|report| Ok((report.write(&args.out)?, report)));
    match written {
        Ok((files, report)) if args.json => {
            say(&format!("{}\n", json!({ "files": files, "missing": report.missing })));
            ExitCode::SUCCESS
        }
        Ok((files, report)) => {
            files.iter().for_each(|f| say(&format!("{}\n", f.display())));
            report.missing.iter().for_each(|m| say(&format!("{m}\n")));
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

/// Tables with the answers beside them.
fn subjects(paths: &[PathBuf]) -> Result<Vec<Subject>, String> {
    let mut out: Vec<Subject> = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let found = tables::find(Some(path), &name).map_err(|problems| problems.to_string())?;
        let table = found.ok_or_else(|| format!("{name}: no such table"))?;
        let beside = path.with_extension("records.jsonl");
        let answers = if beside.is_file() { Some(record::read(&beside)?) } else { None };
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
