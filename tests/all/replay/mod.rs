//! Replay as a person runs it: over published tables, logs of all kinds, and what is wrong with them.

mod bad_input;
mod columns;
mod journal;
mod kept;
mod off_policy;
mod stopped;
mod stores;
mod tables;
mod unlabelled;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// Tables of a local and of a cloud model, for logs without labels.
const PAIR: [&str; 4] = ["--weak", "llama-3.1-8b-instruct", "--strong", "gemini-1.5-pro-002"];

fn routing(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("eval/data/routing").join(format!("{name}.jsonl.gz"))
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattroute"));
    command.args(args);
    command
}

fn wattroute(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(args: &[&str]) -> Output {
    wattroute(&[&["replay"], args].concat())
}

fn replayed(table: &Path, weak: &str, strong: &str, more: &[&str]) -> Value {
    let table = table.display().to_string();
    let mut args = vec!["--outcomes", &table, "--weak", weak, "--strong", strong, "--json"];
    args.extend(more);
    let out = run(&args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// The same of whatever is named.
fn outcome_of(args: &[&str]) -> Value {
    let out = wattroute(&[&["replay"], args, &["--json"]].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn refused_replay(args: &[&str]) -> String {
    let out = run(args);
    assert!(!out.status.success() && out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stdout));
    String::from_utf8(out.stderr).unwrap()
}

fn refused(args: &[&str]) -> String {
    let out = wattroute(args);
    assert!(!out.status.success() && out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stdout));
    String::from_utf8(out.stderr).unwrap()
}

fn policy<'a>(outcome: &'a Value, name: &str) -> &'a Value {
    outcome["policies"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()
}

fn f(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

/// A table of this test: rows as given, models as given.
fn made(folder: &Path, name: &str, models: &Value, rows: &[Value]) -> PathBuf {
    std::fs::write(folder.join(format!("{name}.models.json")), models.to_string()).unwrap();
    let path = folder.join(format!("{name}.jsonl.gz"));
    let mut gz = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::fast());
    for row in rows {
        writeln!(gz, "{row}").unwrap();
    }
    gz.finish().unwrap();
    path
}

fn two() -> Value {
    json!({ "dataset": "made here", "models": [{ "id": "big", "params_b": 70 }, { "id": "own/Small-1B", "params_b": 1.0 }] })
}

fn stripped(mut outcome: Value) -> Value {
    outcome["log"]["seconds"] = Value::Null;
    outcome["log"]["file"] = Value::Null;
    outcome
}
