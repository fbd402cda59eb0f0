//! `wattroute models`: what is known, what is here, fetching and checking.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::models::catalogue::{DEFAULT, KNOWN, Known};
use crate::models::{self, ModelError, Progress, Reference, Store};

/// Arguments of `wattroute models`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  wattroute models list
  wattroute models pull qwen2.5-coder-0.5b
  wattroute models verify --json")]
pub struct ModelsArgs {
    #[command(subcommand)]
    action: Action,
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Known models, and which of them are on this machine
    List,
    /// Fetch a model; going on where a broken download stopped
    Pull {
        /// A name from the list, or hf:OWNER/REPO/FILE
        #[arg(default_value = DEFAULT)]
        name: String,
        /// SHA-256 of the file, required for hf:
        #[arg(long)]
        sha256: Option<String>,
    },
    /// Read model files again and compare their hashes
    Verify {
        /// A name, hf:OWNER/REPO/FILE or a path; all known models on this machine if left out
        name: Option<String>,
        /// SHA-256 of the file, for hf: and paths
        #[arg(long)]
        sha256: Option<String>,
    },
}

/// Runs the command: 0 done, 1 failed.
pub fn run(args: &ModelsArgs) -> ExitCode {
    let done = Store::of_user().and_then(|store| match &args.action {
        Action::List => list(&store, args.json),
        Action::Pull { name, sha256 } => pull(&store, name, sha256.as_deref(), args.json),
        Action::Verify { name, sha256 } => verify(&store, name.as_deref(), sha256.as_deref(), args.json),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if args.json {
                println!("{}", json!({ "error": error.to_string() }));
            } else {
                eprintln!("error: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn list(store: &Store, as_json: bool) -> Result<bool, ModelError> {
    let mut rows = Vec::new();
    for known in &KNOWN {
        let wanted = known.wanted()?;
        let here = store.has(&wanted).then(|| store.path(&wanted));
        rows.push((known, here));
    }
    if as_json {
        let models: Vec<Value> = rows.iter().map(|(known, here)| row_json(known, here.as_deref())).collect();
        println!("{}", json!({ "folder": store.root(), "models": models }));
        return Ok(true);
    }
    println!("{:<36} {:>8}  {:<11} {:<7} FROM", "NAME", "MB", "LICENCE", "HERE");
    for (known, here) in &rows {
        let state = if here.is_some() { "yes" } else { "no" };
        println!("{:<36} {:>8}  {:<11} {state:<7} {}", known.name, known.bytes / 1_000_000, known.licence, from(known));
    }
    println!("\nfolder: {}", store.root().display());
    Ok(true)
}

fn pull(store: &Store, name: &str, sha256: Option<&str>, as_json: bool) -> Result<bool, ModelError> {
    let model = models::resolve(name, sha256)?;
    let was_here = models::locate(store, &model)?.is_some();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|cause| ModelError::Disk {
        what: "start a runtime for",
        path: store.root().to_owned(),
        cause,
    })?;
    let path = runtime.block_on(models::pull(store, &model, &Progress::stderr()))?;
    if as_json {
        println!("{}", json!({ "model": name, "path": path, "fetched": !was_here }));
    } else {
        println!("{} {}", if was_here { "already here:" } else { "fetched:" }, path.display());
    }
    Ok(true)
}

fn verify(store: &Store, name: Option<&str>, sha256: Option<&str>, as_json: bool) -> Result<bool, ModelError> {
    let chosen: Vec<(String, Reference)> = match name {
        Some(name) => vec![(name.to_owned(), models::resolve(name, sha256)?)],
        None => {
            let all = KNOWN.iter().map(|known| Ok((known.name.to_owned(), Reference::Stored(known.wanted()?))));
            let all: Vec<(String, Reference)> = all.collect::<Result<_, ModelError>>()?;
            all.into_iter().filter(|(_, model)| matches!(model, Reference::Stored(w) if store.has(w))).collect()
        }
    };
    let mut good = true;
    let mut results = Vec::new();
    for (name, model) in &chosen {
        let (fine, text) = match models::locate(store, model) {
            Ok(Some(path)) if matches!(model, Reference::File(_, None)) => {
                (true, format!("{}: there, but no --sha256 was given to compare with", path.display()))
            }
            Ok(Some(path)) => (true, format!("{}: hash is right", path.display())),
            Ok(None) => (false, format!("not on this machine: wattroute models pull {name}")),
            Err(error) => (false, error.to_string()),
        };
        good &= fine;
        if as_json {
            results.push(json!({ "model": name, "ok": fine, "detail": text }));
        } else {
            println!("{name}: {} - {text}", if fine { "ok" } else { "BAD" });
        }
    }
    if as_json {
        println!("{}", json!({ "ok": good, "models": results }));
    } else if chosen.is_empty() {
        println!("no known model is on this machine; wattroute models pull fetches the default one");
    }
    Ok(good)
}

fn row_json(known: &Known, here: Option<&std::path::Path>) -> Value {
    json!({
        "name": known.name, "aliases": known.aliases, "bytes": known.bytes, "sha256": known.sha256, "licence": known.licence,
        "here": here.is_some(), "path": here, "from": from(known),
    })
}

fn from(known: &Known) -> String {
    let hub = format!("hf:{}/{}", known.hub.repo, known.hub.file);
    known.package.map_or(hub.clone(), |p| format!("package {}=={}, else {hub}", p.name, p.version))
}
