//! `wattroute train`: labelled sets to a new artifact with its provenance, records to weights. Feature `train`.

mod domains;
mod gist;
mod kept;
mod recorded;
mod success;
mod topics;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use self::kept::Kept;
use self::topics::Asked;
use crate::classify::gist::Gist;
use crate::classify::taxonomy::Taxonomy;
use crate::cli::classify::Tier;
use crate::train::noise::Copies;
use crate::train::own::Fields;
use crate::train::topics::Options;

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
    /// Distil the word vectors of all classifiers from the sentence encoder
    Gist(gist::GistArgs),
    /// Learn how a cascade checks local answers, from profile records
    Verify(verify::VerifyArgs),
    /// Learn P(correct) and answer length per query and model, from outcomes
    Success(success::SuccessArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  wattroute train domain
  wattroute train domain --taxonomy mmlu-pro --tier encoder
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
    /// The field of a row that says where it comes from: also measure on sources that were not trained on, which takes five
    /// times as long
    #[arg(long, value_name = "FIELD")]
    across: Option<String>,
    /// Where the artifact goes; its provenance goes beside it as .json [default: eval/artifacts/ for shipped taxonomies]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also train the head of the encoder tier; needs `wattroute models pull minilm`
    #[arg(long, value_enum, default_value = "fast")]
    tier: Tier,
    /// Where sentence vectors are kept, so that each text is encoded once [default: in the user's cache folder]
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Word vectors by `train gist` [default: those inside the program]
    #[arg(long, value_name = "FILE")]
    gist: Option<PathBuf>,
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
        What::Domain(domain) if domain.taxonomy == crate::classify::AEI => domains::train(domain),
        What::Domain(domain) => taxonomy(domain),
        What::Gist(args) => gist::run(args),
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
    let fields = Fields { text: args.field.clone(), label, source: args.across.clone() };
    topics::train(&Asked { taxonomy, data: &data, out: &out, fields, args })
}

impl DomainArgs {
    fn options(&self, copies: &'static Copies) -> Options {
        Options { seed: self.seed, epochs: self.epochs, copies }
    }

    /// The encoder with what it gave before, where its tier is wanted.
    fn kept(&self) -> Result<Option<Kept>, String> {
        if self.tier == Tier::Fast { Ok(None) } else { Kept::open(self.vectors.as_deref()).map(Some) }
    }

    fn word_vectors(&self) -> Result<Arc<Gist>, String> {
        let Some(path) = &self.gist else { return Ok(Gist::shipped()) };
        let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let bytes = std::fs::read(path).map_err(|e| fail(&e))?;
        Gist::parse(&bytes).map(Arc::new).map_err(|e| fail(&e))
    }

    fn command(&self) -> String {
        let taxonomy = if self.taxonomy == crate::classify::AEI {
            String::new()
        } else {
            format!(" --taxonomy {}", self.taxonomy)
        };
        let tier = if self.tier == Tier::Fast { "" } else { " --tier encoder" };
        let across = self.across.as_ref().map(|field| format!(" --across {field}")).unwrap_or_default();
        format!("wattroute train domain{taxonomy}{tier}{across} --seed {} --epochs {}", self.seed, self.epochs)
    }
}

/// A bar of passes over the data.
fn passes(ticks: u64) -> ProgressBar {
    let bar = ProgressBar::new(ticks);
    let style = ProgressStyle::with_template("{spinner} {wide_bar} {pos}/{len} passes, {eta} left, then the heads");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}
