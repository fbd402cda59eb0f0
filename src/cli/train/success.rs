//! `wattroute train success`: outcomes to the predictors of their models, with what they are worth. Feature `train`.

mod outcomes;

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use self::outcomes::Gathered;
use crate::predict::quality::{CALIBRATION_BINS, auc, brier, ece};
use crate::predict::success::make::{FEWEST, Outcome, learn};
use crate::predict::success::{Read, artifact};

/// Folds that the report is measured on.
const FOLDS: u32 = 5;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  wattroute train success --outcomes mmlu_pro.jsonl.gz --models Meta-Llama-3.1-8B-Instruct --out llama.success.bin
  wattroute train success --records small.records.jsonl --out small.success.bin
then, in the configuration:
  [backends.small]
  success = \"small.success.bin\"")]
pub struct SuccessArgs {
    /// Tables of outcomes, NAME.jsonl or NAME.jsonl.gz with NAME.models.json beside it
    #[arg(long, value_name = "FILE", value_delimiter = ',', num_args = 1.., required_unless_present = "records")]
    outcomes: Vec<PathBuf>,
    /// Record files of `wattroute profile`
    #[arg(long, value_name = "FILE", num_args = 1..)]
    records: Vec<PathBuf>,
    /// Where the prompts of the records are, if not in shipped suites
    #[arg(long, value_name = "FILE", num_args = 1..)]
    suite: Vec<String>,
    /// Only these models, by name with or without owner
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1..)]
    models: Vec<String>,
    /// Where the artifact goes; its provenance and report go beside it as .json
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seed of the folds
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Reads, judges by cross-validation, learns from all, prints and writes.
pub fn run(args: &SuccessArgs) -> Result<(), String> {
    let gathered = outcomes::gather(args)?;
    let (models, rows) = (&gathered.models, &gathered.rows);
    println!("{} queries, {} models", rows.len(), models.len());
    let bar = ProgressBar::new((models.len() as u64) * u64::from(FOLDS + 1));
    let style = ProgressStyle::with_template("{spinner} {wide_bar} {pos}/{len} fits, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let report = judge(&gathered, args.seed, &|| bar.inc(1))?;
    let made = learn(models, rows, args.seed, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let bytes = artifact::render(&made);
    artifact::parse(&bytes).map_err(|e| e.to_string())?;
    print(&report);
    let micros = micros(&made, rows)?;
    println!("reading a query and one prediction: {micros:.1} us on average");
    let facts = json!({
        "artifact": { "version": artifact::VERSION, "bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().as_str() },
        "command": command(args),
        "seed": args.seed,
        "sources": gathered.sources,
        "queries": rows.len(),
        "fewest_outcomes": FEWEST,
        "report": report.iter().map(Worth::json).collect::<Vec<_>>(),
        "measured": format!("{FOLDS} folds by stem; every figure is of rows that the predictor did not see"),
    });
    write(&args.out, &bytes)?;
    let beside = args.out.with_extension("json");
    write(&beside, format!("{facts:#}\n").as_bytes())?;
    println!("wrote {} ({} bytes) and {}", args.out.display(), bytes.len(), beside.display());
    Ok(())
}

/// What a predictor is worth on rows that it did not see.
struct Worth {
    model: String,
    rows: usize,
    accuracy: f64,
    auc: Option<f64>,
    ece: Option<f64>,
    brier: Option<f64>,
    /// Share of answers between the .1 and .9 quantile of their tokens.
    covered: Option<f64>,
}

impl Worth {
    fn json(&self) -> Value {
        json!({
            "model": self.model, "outcomes": self.rows, "accuracy": self.accuracy, "auc": self.auc, "ece": self.ece,
            "brier": self.brier, "tokens_between_quantiles": self.covered,
        })
    }
}

fn judge(gathered: &Gathered, seed: u64, tick: &(dyn Fn() + Sync)) -> Result<Vec<Worth>, String> {
    let (models, rows) = (&gathered.models, &gathered.rows);
    let folds: Vec<u32> = rows.iter().map(|o| crate::predict::fit::Seen::of(&o.text).fold(FOLDS, seed)).collect();
    let mut held: Vec<Vec<(f64, bool)>> = vec![Vec::new(); models.len()];
    let mut covered: Vec<(f64, f64)> = vec![(0.0, 0.0); models.len()];
    for fold in 0..FOLDS {
        let others: Vec<Outcome> =
            rows.iter().zip(&folds).filter(|(_, f)| **f != fold).map(|(o, _)| o.clone()).collect();
        let made = learn(models, &others, seed, tick).map_err(|e| format!("without one of {FOLDS} folds: {e}"))?;
        for (index, name) in models.iter().enumerate() {
            let predictor = made.of_model(name).map_err(|e| e.to_string())?;
            let (Some(held), Some(inside)) = (held.get_mut(index), covered.get_mut(index)) else { continue };
            for (o, _) in rows.iter().zip(&folds).filter(|(_, f)| **f == fold) {
                let Some((quality, tokens)) = o.models.get(index) else { continue };
                let read = Read::of(&o.text);
                if let Some(quality) = quality {
                    held.push((predictor.chance(&read, &o.posterior).mean, *quality >= 0.5));
                }
                if let Some((tokens, expected)) = tokens.zip(predictor.tokens(&read)) {
                    let [low, _, high] = expected.quantiles;
                    inside.0 += f64::from(u8::from(low <= tokens && tokens <= high));
                    inside.1 += 1.0;
                }
            }
        }
    }
    let worth = |model: &String, held: Vec<(f64, bool)>, (inside, all): (f64, f64)| {
        let (chances, right): (Vec<f64>, Vec<bool>) = held.into_iter().unzip();
        Worth {
            model: model.clone(),
            rows: right.len(),
            accuracy: right.iter().filter(|r| **r).count() as f64 / right.len().max(1) as f64,
            auc: auc(&chances, &right),
            ece: ece(&chances, &right, CALIBRATION_BINS),
            brier: brier(&chances, &right),
            covered: (all > 0.0).then(|| inside / all),
        }
    };
    Ok(models.iter().zip(held).zip(covered).map(|((model, held), covered)| worth(model, held, covered)).collect())
}

fn print(report: &[Worth]) {
    let show = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
    println!("{:<40} {:>7} {:>6} {:>6} {:>6} {:>6} {:>7}", "model", "n", "right", "AUC", "ECE", "Brier", "tokens");
    for w in report {
        println!(
            "{:<40} {:>7} {:>6.3} {:>6} {:>6} {:>6} {:>7}",
            w.model,
            w.rows,
            w.accuracy,
            show(w.auc),
            show(w.ece),
            show(w.brier),
            show(w.covered)
        );
    }
    println!("tokens: share of answers between their .1 and .9 quantile; .8 is right");
}

/// Microseconds of reading a query and predicting once.
fn micros(made: &artifact::Success, rows: &[Outcome]) -> Result<f64, String> {
    let Some(first) = made.models.first() else { return Ok(0.0) };
    let predictor = made.of_model(&first.model).map_err(|e| e.to_string())?;
    let some: Vec<&Outcome> = rows.iter().take(2000).collect();
    let start = crate::clock::now();
    let sum: f64 = some.iter().map(|o| predictor.chance(&Read::of(&o.text), &o.posterior).mean).sum();
    let took = crate::clock::now().duration_since(start).as_secs_f64();
    if sum.is_finite() {
        Ok(took * 1e6 / some.len().max(1) as f64)
    } else {
        Err("a prediction is no number".to_owned())
    }
}

fn command(args: &SuccessArgs) -> String {
    let name = |p: &PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let list = |flag: &str, all: &[String]| {
        if all.is_empty() { String::new() } else { format!(" --{flag} {}", all.join(",")) }
    };
    let outcomes = list("outcomes", &args.outcomes.iter().map(name).collect::<Vec<_>>());
    let records = list("records", &args.records.iter().map(name).collect::<Vec<_>>());
    let models = list("models", &args.models);
    format!("wattroute train success{outcomes}{records}{models} --seed {} --out {}", args.seed, name(&args.out))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}
