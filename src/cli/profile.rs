//! `wattroute profile`: ask a suite, write a table.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Zoned;

use super::serve;
use crate::config::checked::{Embedded, Kind};
use crate::energy::{Basis, estimate};
use crate::engine::Engine;
use crate::engine::types::{Batch, ModelSpec};
use crate::models::{self, Progress, Store};
use crate::profile::{run, suite, table};
use crate::tables::make::About;
use crate::tables::{Counts, Provenance, Setup, show};

/// Ask a local model every question of a suite and write its table
#[derive(clap::Args)]
#[command(after_help = "Examples:
  wattroute profile --suite eval/suites/first.jsonl --out smollm2.json
  wattroute profile --backend local/smollm2 --suite mine.jsonl --limit 50 --out mine.json

A run that was cut goes on where it stopped: the answers so far are in FILE.records.jsonl beside the table.
Energy is processor time times watts per busy core (basis `utilisation`) until a meter is read.")]
pub struct Args {
    /// An embedded backend of the configuration
    #[arg(long, default_value = "local/smollm2")]
    backend: String,
    /// Questions, one JSON object a line
    #[arg(long)]
    suite: PathBuf,
    /// Where the table goes
    #[arg(long)]
    out: PathBuf,
    /// Ask only this many
    #[arg(long)]
    limit: Option<usize>,
    /// Name of the model in the table
    #[arg(long)]
    model_name: Option<String>,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(file: Option<&Path>, args: &Args) -> ExitCode {
    let config = match serve::checked(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let found = config.backends.iter().find(|b| *b.name == *args.backend);
    let Some(Kind::Embedded(embedded)) = found.map(|b| &b.kind) else {
        return super::fail(&format!("{} is not an embedded backend of the configuration", args.backend));
    };
    if let Some(watts) = config.energy.cpu_tdp_w {
        estimate::set_tdp(watts);
    }
    super::block_on(async { profile(args, embedded).await.unwrap_or_else(|e| super::fail(&e)) })
}

async fn profile(args: &Args, embedded: &Embedded) -> Result<ExitCode, String> {
    let mut questions = suite::load(&args.suite)?;
    questions.truncate(args.limit.unwrap_or(usize::MAX));
    let store = Store::of_user().map_err(|e| e.to_string())?;
    let wanted = models::resolve(&embedded.model, embedded.sha256.as_deref()).map_err(|e| e.to_string())?;
    let path = models::pull(&store, &wanted, &Progress::stderr()).await.map_err(|e| e.to_string())?;
    let engine = Engine::load(&ModelSpec {
        name: embedded.model.clone(),
        path,
        context: embedded.context,
        template: embedded.template.clone(),
        threads: embedded.threads,
        attention: embedded.attention.clone(),
        queue: 1,
        batch: Batch { streams: 1, kv_memory: embedded.kv_memory, stall: embedded.stall },
    });
    let engine = engine.map_err(|e| e.to_string())?;
    let log = args.out.with_extension("records.jsonl");
    let mut records = run::earlier(&log)?;
    records.retain(|r| questions.iter().any(|q| q.id == r.id));
    let bar = progress(questions.len(), records.len());
    let mut right = records.iter().filter(|r| r.correct == Some(true)).count();
    let mut scored = records.iter().filter(|r| r.correct.is_some()).count();
    let failed = run::all(&engine, &questions, &mut records, &log, |record| {
        right += usize::from(record.correct == Some(true));
        scored += usize::from(record.correct.is_some());
        bar.set_message(format!("{right} of {scored} right"));
        bar.inc(1);
    })
    .await?;
    bar.finish();
    let unscored = records.len() - scored;
    let table = table::of(&records, about(args, embedded, failed, unscored));
    let text = serde_json::to_string_pretty(&table).map_err(|e| e.to_string())? + "\n";
    let unfinished = args.out.with_extension("part");
    std::fs::write(&unfinished, &text)
        .and_then(|()| std::fs::rename(&unfinished, &args.out))
        .map_err(|e| format!("{}: {e}", args.out.display()))?;
    if args.json {
        print!("{text}");
    } else {
        println!("{}", show::text(&table));
    }
    Ok(ExitCode::SUCCESS)
}

fn progress(all: usize, done: usize) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(all).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_position(u64::try_from(done).unwrap_or(u64::MAX));
    bar
}

fn about(args: &Args, embedded: &Embedded, failed: u32, unscored: usize) -> About {
    let processor = estimate::processor();
    let suite = args.suite.display();
    let limit = args.limit.map(|n| format!(" --limit {n}")).unwrap_or_default();
    let mut notes = vec![
        "one run, greedy, one query at a time, prompt cache of the opening only".to_owned(),
        format!("energy is processor time of the process times watts of a busy processor: {}", processor.why),
    ];
    if failed > 0 {
        notes.push(format!("{failed} questions got no answer and are in no figure"));
    }
    if unscored > 0 {
        notes.push(format!("{unscored} answers need a judge and are in no figure"));
    }
    About {
        model: args.model_name.clone().unwrap_or_else(|| embedded.model.clone()),
        device: format!("{} logical processors of {}", crate::config::env::cores(), name_or(&processor.name)),
        runtime: "wattroute embedded".to_owned(),
        attention: embedded.attention.to_string(),
        basis: Basis::Utilisation,
        relative_uncertainty: Some(estimate::relative_uncertainty()),
        provenance: Provenance {
            source: "wattroute profile".to_owned(),
            date: Zoned::now().date().to_string(),
            command: Some(format!("wattroute profile --backend {} --suite {suite}{limit}", args.backend)),
            suites: vec![format!("{suite} (licences beside it)")],
            licence: "Apache-2.0".to_owned(),
            counts: Counts::Exact,
            notes,
        },
        setup: Setup::default(),
    }
}

fn name_or(name: &str) -> &str {
    if name.is_empty() { "an unnamed processor" } else { name }
}
