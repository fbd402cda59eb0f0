//! `wattroute train`: labelled sets to a new artifact with its provenance, records to weights. Feature `train`.

mod success;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::classify::Classifier;
use crate::classify::artifact::{self, Artifact};
use crate::classify::labelled::{Example, FILES, Split};
use crate::classify::measure::{self, Change, Score};
use crate::classify::taxonomy::Taxonomy;
use crate::cli::classify::Tier;
use crate::cli::train_topics::{self, Asked};
use crate::tier;
use crate::train::own::Fields;
use crate::train::run::{DECAY, Options, RATE};
use crate::train::topics;

/// Arguments of `wattroute train`.
#[derive(Args, Debug)]
pub struct TrainArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Train the domain classifier
    Domain(DomainArgs),
    /// Learn how a cascade checks local answers, from profile records
    Verify(verify::VerifyArgs),
    /// Learn P(correct) and answer length per query and model, from outcomes
    Success(success::SuccessArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  wattroute train domain
  wattroute train domain --taxonomy mmlu-pro
  wattroute train domain --taxonomy mine.toml --data my.jsonl --out mine.bin
  wattroute classify --taxonomy mine.bin \"a text\"")]
struct DomainArgs {
    /// Labels: aei, mmlu-pro, or a TOML file of your own
    #[arg(long, value_name = "NAME|FILE", default_value = "aei")]
    taxonomy: String,
    /// Labelled rows (JSONL, may be gzipped); for aei the folder of the labelled sets [default: those of the repository]
    #[arg(long, value_name = "FILE|FOLDER")]
    data: Option<PathBuf>,
    /// The field of a row that holds the text
    #[arg(long, default_value = "prompt")]
    field: String,
    /// The field of a row that holds the label [default: label; category for mmlu-pro]
    #[arg(long, value_name = "FIELD")]
    label_field: Option<String>,
    /// Where the artifact goes; its provenance goes beside it as .json [default: eval/artifacts/ for shipped taxonomies]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also train the head of the encoder tier; needs `wattroute models pull minilm`
    #[arg(long, value_enum, default_value = "fast")]
    tier: Tier,
    /// Seed of every random choice
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Passes over the data
    #[arg(long, default_value_t = 8)]
    epochs: u32,
}

/// Runs the command: 0 done, 1 failed.
pub fn run(args: &TrainArgs) -> ExitCode {
    let done = match &args.what {
        What::Domain(domain) if domain.taxonomy == "aei" => train(domain),
        What::Domain(domain) => taxonomy(domain),
        What::Verify(args) => verify::run(args),
        What::Success(args) => success::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Any taxonomy but the 22 domains.
fn taxonomy(args: &DomainArgs) -> Result<(), String> {
    let taxonomy = Taxonomy::find(&args.taxonomy).map_err(|e| e.to_string())?;
    let shipped = taxonomy.name == "mmlu-pro";
    let or_shipped = |given: &Option<PathBuf>, path: &str, flag: &str| match given {
        Some(path) => Ok(path.clone()),
        None if shipped => Ok(PathBuf::from(path)),
        None => Err(format!("--{flag} is needed with a taxonomy of your own")),
    };
    let data = or_shipped(&args.data, "eval/data/domain/mmlu_pro.jsonl.gz", "data")?;
    let out = or_shipped(&args.out, "eval/artifacts/mmlu-pro.bin", "out")?;
    let label = args.label_field.clone().unwrap_or_else(|| if shipped { "category" } else { "label" }.to_owned());
    let fields = Fields { text: args.field.clone(), label };
    let options = topics::Options { seed: args.seed, epochs: args.epochs };
    let encoder = if args.tier == Tier::Fast { None } else { Some(tier::encoder(None)?) };
    train_topics::train(&Asked { taxonomy, data: &data, out: &out, fields, options, encoder })
}

fn train(args: &DomainArgs) -> Result<(), String> {
    if args.tier != Tier::Fast {
        return Err("the 22 domains are sorted by the fast tier alone: --tier encoder is for other taxonomies".into());
    }
    let data = args.data.clone().unwrap_or_else(|| PathBuf::from("eval/data/domain"));
    let target = args.out.clone().unwrap_or_else(|| PathBuf::from("eval/artifacts/domain.bin"));
    let options = Options { seed: args.seed, epochs: args.epochs };
    let bar = ProgressBar::new(options.ticks());
    let style = ProgressStyle::with_template("{spinner} {wide_bar} {pos}/{len} passes, {elapsed}, then the head");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (artifact, examples) = crate::train::run::run(&data, &options, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let bytes = artifact::render(&artifact);
    let classifier = Classifier::parse(&bytes).map_err(|e| e.to_string())?;
    let dev = scores(&classifier, &examples, Split::Dev);
    let test = scores(&classifier, &examples, Split::Test);
    println!(
        "dev: settings, temperature {:.3} and threshold {:.2} were chosen here",
        artifact.temperature, artifact.threshold
    );
    println!("{}\ntest: only measured\n{}", measure::table(&dev), measure::table(&test));
    for (name, score) in &test {
        println!("{name}\n{}", measure::classes(score));
    }
    let spoilt = spoilt(&classifier, &examples);
    println!("test, spoilt texts\n{}", measure::table(&spoilt));
    let facts = provenance((args, &data), &artifact, &bytes, [("dev", &dev), ("test", &test), ("spoilt", &spoilt)])?;
    write(&target, &bytes)?;
    let beside = target.with_extension("json");
    write(&beside, format!("{facts:#}\n").as_bytes())?;
    println!("wrote {} ({} bytes) and {}", target.display(), bytes.len(), beside.display());
    Ok(())
}

fn scores(classifier: &Classifier, examples: &[Example], split: Split) -> Vec<(&'static str, Score)> {
    measure::held(examples, split).into_iter().map(|h| (h.name, measure::score(classifier, &h.rows))).collect()
}

/// What capitals and typos cost on exam questions and on prompts.
fn spoilt(classifier: &Classifier, examples: &[Example]) -> Vec<(&'static str, Score)> {
    let held = measure::held(examples, Split::Test);
    let cases = [
        ("MMLU-Pro, question only", Change::Upper, "MMLU-Pro questions in capitals"),
        ("MMLU-Pro, question only", Change::Typos, "MMLU-Pro questions with typos"),
        ("chat", Change::Upper, "chat in capitals"),
        ("chat", Change::Typos, "chat with typos"),
    ];
    let mut scores = Vec::new();
    for (set, change, name) in cases {
        if let Some(held) = held.iter().find(|h| h.name == set) {
            scores.push((name, measure::score(classifier, &measure::changed(&held.rows, change))));
        }
    }
    scores
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}

fn provenance(
    (args, folder): (&DomainArgs, &Path),
    artifact: &Artifact,
    bytes: &[u8],
    splits: [(&str, &Vec<(&'static str, Score)>); 3],
) -> Result<Value, String> {
    let mut data = serde_json::Map::new();
    for (name, _, _) in FILES {
        let path = folder.join(name);
        let content = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        data.insert(name.to_owned(), json!(blake3::hash(&content).to_hex().as_str()));
    }
    let mut figures = serde_json::Map::new();
    for (split, scores) in splits {
        let sets: serde_json::Map<String, Value> =
            scores.iter().map(|(name, s)| ((*name).to_owned(), figure(s))).collect();
        figures.insert(split.to_owned(), Value::Object(sets));
    }
    Ok(json!({
        "artifact": { "version": artifact::VERSION, "bytes": bytes.len(), "blake3": blake3::hash(bytes).to_hex().as_str() },
        "command": format!("wattroute train domain --seed {} --epochs {}", args.seed, args.epochs),
        "settings": { "seed": args.seed, "epochs": args.epochs, "rate": RATE, "decay": DECAY,
                      "temperature": artifact.temperature, "threshold": artifact.threshold },
        "splits": "MMLU-Pro: as given in the file. O*NET: by BLAKE3 of the occupation code, one part in ten dev, one test. \
                   GSM8K, CRUXEval: the same by row id. chat_train, none_train: two parts in ten dev. \
                   chat_test and MT-Bench: test only. lexicon: train only.",
        "data_blake3": data,
        "figures": figures,
    }))
}

fn figure(score: &Score) -> Value {
    let (low, high) = measure::wilson(score.correct, score.n);
    json!({
        "n": score.n, "correct": score.correct, "accuracy": score.accuracy(), "low": low, "high": high,
        "macro_f1": score.macro_f1, "ece": score.ece, "answered": score.answered, "answered_correct": score.answered_correct,
    })
}
