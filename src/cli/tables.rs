//! `wattroute tables`: the tables inside this program and in files, shown and checked.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};

use super::say;
use crate::config::problem::Problems;
use crate::tables::{self, Table, show};

/// Arguments of `wattroute tables`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  wattroute tables show
  wattroute tables show qwen3-8b@m4-max --json
  wattroute tables check mine.json")]
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
    },
    /// List every problem of table files; all shipped tables without a file
    Check {
        /// JSON files, or folders of them
        files: Vec<PathBuf>,
    },
}

/// Runs the command: 0 done and no problem, 1 otherwise.
pub fn run(args: &Args) -> ExitCode {
    match &args.action {
        Action::Show { name: Some(name) } => show_one(name, args.json),
        Action::Show { name: None } => list(args.json),
        Action::Check { files } => check(files, args.json),
    }
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
    let found: Vec<(&str, Arc<Table>)> = tables::names().filter_map(|n| Some((n, tables::shipped(n)?))).collect();
    if as_json {
        let each: Vec<Value> = found
            .iter()
            .map(|(name, t)| {
                json!({ "name": name, "model": t.model, "device": t.device, "basis": t.basis.name(),
                    "n": t.overall.n, "coverage": t.overall.coverage, "domains": t.domains.len() })
            })
            .collect();
        return print_json(&json!(each));
    }
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<30} {:<34} {:<24} {:<12} {:>6} {:>8} domains",
        "name", "model", "device", "basis", "n", "coverage"
    );
    for (name, t) in &found {
        let _ = writeln!(
            out,
            "{name:<30} {:<34} {:<24} {:<12} {:>6} {:>8.3} {}",
            t.model,
            t.device,
            t.basis.name(),
            t.overall.n,
            t.overall.coverage,
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
