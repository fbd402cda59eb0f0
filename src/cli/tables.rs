//! `wattroute tables`: the tables inside this program and in files, shown, checked, compared and joined.

mod outcomes;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};

use super::say;
use crate::classify::domain::Domain;
use crate::config::problem::{Problem, Problems};
use crate::learn;
use crate::profile::table;
use crate::tables::merge::Questions;
use crate::tables::{self, Table, show};

/// Arguments of `wattroute tables`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  wattroute tables show                                all shipped tables, best IPJ first
  wattroute tables show qwen3-8b@m4-max --json
  wattroute tables show --learned                      what traffic has taught beside the tables
  wattroute tables check mine.json eval/tables         every problem with file, row and key
  wattroute tables diff before.json after.json         what differs, and whether that is more than noise
  wattroute tables diff a.json b.json --answers a.records.jsonl b.records.jsonl
  wattroute tables merge chat.json code.json --out all.json")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show a table: coverage by domain with n and interval, IPJ, J per query; all shipped ones in short without a name
    Show {
        /// A shipped table (qwen3-8b@m4-max), a model's name, or a JSON file
        name: Option<String>,
        /// What the gateway of this configuration has learned beside its tables
        #[arg(long, conflicts_with = "name")]
        learned: bool,
    },
    /// List every problem of table files; all shipped tables without a file
    Check {
        /// JSON files, or folders of them
        files: Vec<PathBuf>,
    },
    /// Compare two tables: coverage and joules by domain with intervals, and whether a difference is more than noise
    #[command(after_help = "Examples:
  wattroute tables diff smollm2-135m qwen3-8b
  wattroute tables diff softmax.json lla.json --answers softmax.records.jsonl lla.records.jsonl

With the answers of both runs the same questions are compared pair by pair, which sees smaller differences.")]
    Diff {
        /// A shipped table or a JSON file
        a: String,
        /// Another
        b: String,
        /// The record files of both runs
        #[arg(long, num_args = 2, value_names = ["A.records.jsonl", "B.records.jsonl"])]
        answers: Option<Vec<PathBuf>>,
    },
    /// Join tables of one model on one machine, measured on different questions
    #[command(after_help = "Examples:
  wattroute tables merge mmlu.json gsm8k.json --out all.json
  wattroute tables merge monday.json tuesday.json --pooled --out both.json

Unlike tables (model, device, runtime, attention, basis, driver, power cap) are refused with what differs.")]
    Merge {
        /// JSON files
        #[arg(required = true, num_args = 2..)]
        files: Vec<PathBuf>,
        /// Where the joined table goes
        #[arg(long)]
        out: PathBuf,
        /// Join them even if they hold the same questions; intervals then come out too narrow
        #[arg(long)]
        pooled: bool,
    },
    /// Make an outcome table of the record files of several models on the same questions, for replay, tune and train success
    #[command(after_help = "Examples:
  wattroute tables outcomes --records small.records.jsonl large.records.jsonl --out mine.jsonl
  wattroute replay --outcomes mine.jsonl --weak small --strong large --policy cascade.toml")]
    Outcomes {
        /// Record files of `wattroute profile`, one of each model
        #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
        records: Vec<PathBuf>,
        /// Where the table goes; its models go beside it
        #[arg(long, value_name = "NAME.jsonl")]
        out: PathBuf,
    },
}

/// Runs the command: 0 done and no problem, 1 otherwise.
pub fn run(config: Option<&Path>, args: &Args) -> ExitCode {
    match &args.action {
        Action::Show { learned: true, .. } => learned(config, args.json),
        Action::Show { name: Some(name), .. } => show_one(name, args.json),
        Action::Show { name: None, .. } => list(args.json),
        Action::Check { files } => check(files, args.json),
        Action::Diff { a, b, answers } => diff(a, b, answers.as_deref(), args.json),
        Action::Merge { files, out, pooled } => merge(files, out, *pooled, args.json),
        Action::Outcomes { records, out } => match outcomes::write(records, out) {
            Ok(told) => {
                say(&told);
                ExitCode::SUCCESS
            }
            Err(why) => super::fail(&why),
        },
    }
}

/// Factors on the tables, from the file beside the journal.
fn learned(config: Option<&Path>, as_json: bool) -> ExitCode {
    let config = match super::serve::checked(config) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let estimates = match learn::earlier(&learn::file(&config.journal.path)) {
        Ok(estimates) => estimates,
        Err(why) => return super::fail(&why),
    };
    if as_json {
        return print_json(&json!({ "learning": config.learning.name(), "backends": learn::told(&estimates) }));
    }
    let mut out = format!("learning is {}; each figure is its table's times the factor\n", config.learning.name());
    let _ = writeln!(out, "{:<28} {:<46} {:>8} {:>8}", "backend", "figure", "factor", "answers");
    for (name, e) in &estimates {
        let figures = [("joules", &e.joules), ("seconds to the first token", &e.first), ("seconds per token", &e.rest)];
        let lengths = Domain::all().map(Domain::name).zip(&e.output).filter(|(_, t)| t.n > 0);
        for (figure, track) in figures.into_iter().chain(lengths) {
            let _ = writeln!(out, "{name:<28} {figure:<46} {:>8.3} {:>8}", track.factor(), track.n);
        }
    }
    say(&out);
    ExitCode::SUCCESS
}

fn named(name: &str) -> Result<Arc<Table>, Problems> {
    let missing = || Problem::new("", "no such table").file(name).into();
    tables::find(Some(Path::new(name)), name).and_then(|found| found.ok_or_else(missing))
}

fn diff(a: &str, b: &str, answers: Option<&[PathBuf]>, as_json: bool) -> ExitCode {
    let (a, b) = match (named(a), named(b)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(problems), _) | (_, Err(problems)) => return fail(&problems, as_json),
    };
    let read = |path: &PathBuf| table::answers(path);
    let answers = match answers {
        Some([x, y]) => match (read(x), read(y)) {
            (Ok(x), Ok(y)) => Some((x, y)),
            (Err(why), _) | (_, Err(why)) => return super::fail(&why),
        },
        _ => None,
    };
    let found = tables::diff::diff(&a, &b, answers.as_ref().map(|(x, y)| (x.as_slice(), y.as_slice())));
    if as_json {
        return print_json(&json!(found));
    }
    say(&show::comparison(&found));
    ExitCode::SUCCESS
}

fn merge(files: &[PathBuf], out: &Path, pooled: bool, as_json: bool) -> ExitCode {
    let mut parts = Vec::new();
    for file in files {
        match tables::load(file) {
            Ok(table) => parts.push(table),
            Err(problems) => return fail(&problems, as_json),
        }
    }
    let questions = if pooled { Questions::Pooled } else { Questions::Disjoint };
    let table = match tables::merge::merge(&parts, questions) {
        Ok(table) => table,
        Err(why) => return super::fail(&why),
    };
    if let Err(why) = tables::save(&table, out) {
        return super::fail(&why);
    }
    if as_json {
        return print_json(&json!(table));
    }
    say(&show::text(&table));
    ExitCode::SUCCESS
}

fn show_one(name: &str, as_json: bool) -> ExitCode {
    match tables::find(Some(Path::new(name)), name) {
        Ok(Some(table)) if as_json => print_json(&json!(*table)),
        Ok(Some(table)) => {
            say(&show::text(&table));
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::FAILURE,
        Err(problems) => fail(&problems, as_json),
    }
}

fn list(as_json: bool) -> ExitCode {
    let mut found: Vec<(&str, Arc<Table>)> = tables::names().filter_map(|n| Some((n, tables::shipped(n)?))).collect();
    found.sort_by(|(_, a), (_, b)| b.overall.ipj.unwrap_or(-1.0).total_cmp(&a.overall.ipj.unwrap_or(-1.0)));
    if as_json {
        let each: Vec<Value> = found
            .iter()
            .map(|(name, t)| {
                json!({ "name": name, "model": t.model, "device": t.device, "basis": t.basis.name(),
                    "n": t.overall.n, "coverage": t.overall.coverage, "ipj": t.overall.ipj,
                    "joules_per_query": t.overall.joules_per_query, "domains": t.domains.len() })
            })
            .collect();
        return print_json(&json!(each));
    }
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<28} {:<30} {:<34} {:<12} {:>6} {:>8} {:>10} {:>8} domains",
        "name", "model", "device", "basis", "n", "coverage", "IPJ 1/J", "J/query"
    );
    for (name, t) in &found {
        let _ = writeln!(
            out,
            "{name:<28} {:<30} {:<34} {:<12} {:>6} {:>8.3} {:>10} {:>8} {}",
            t.model,
            t.device,
            t.basis.name(),
            t.overall.n,
            t.overall.coverage,
            t.overall.ipj.map_or_else(|| "-".to_owned(), |x| format!("{x:.2e}")),
            t.overall.joules_per_query.map_or_else(|| "-".to_owned(), show::figure),
            t.domains.len()
        );
    }
    say(&out);
    ExitCode::SUCCESS
}

fn check(files: &[PathBuf], as_json: bool) -> ExitCode {
    let mut problems = Vec::new();
    let mut count = 0;
    if files.is_empty() {
        for (name, text) in tables::texts() {
            count += 1;
            problems.extend(tables::check_text(text, name));
        }
    }
    for file in files.iter().flat_map(|f| inside(f)) {
        count += 1;
        problems.extend(tables::check(&file));
    }
    if as_json {
        let done = print_json(&json!({ "tables": count, "problems": problems }));
        return if problems.is_empty() { done } else { ExitCode::FAILURE };
    }
    for problem in &problems {
        say(&format!("{problem}\n"));
    }
    say(&format!("{count} tables, {} problems\n", problems.len()));
    if problems.is_empty() && count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The JSON files of a folder in name order, or the file itself.
fn inside(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_owned()] };
    let json = |p: &PathBuf| p.extension().is_some_and(|e| e == "json");
    let mut found: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(json).collect();
    found.sort();
    found
}

fn print_json(value: &Value) -> ExitCode {
    say(&format!("{value:#}\n"));
    ExitCode::SUCCESS
}

fn fail(problems: &Problems, as_json: bool) -> ExitCode {
    if as_json {
        print_json(&json!({ "problems": problems.0 }));
    } else {
        eprintln!("error: {problems}");
    }
    ExitCode::FAILURE
}
