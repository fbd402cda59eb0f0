//! `wattroute train gist`: word vectors for the fast tier, distilled from the sentence encoder. Feature `train`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::kept::Kept;
use super::write;
use crate::classify::gist::{DIMS, Gist};
use crate::train::{domains, gist, topics};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  wattroute train gist --out gist.bin
  wattroute train domain --gist gist.bin")]
pub struct GistArgs {
    /// The folder of the labelled sets; their training texts are used, without labels
    #[arg(long, value_name = "FOLDER", default_value = "eval/data/domain")]
    data: PathBuf,
    /// Where the table goes; its provenance goes beside it as .json
    #[arg(long, value_name = "FILE", default_value = "eval/artifacts/gist.bin")]
    out: PathBuf,
    /// Where sentence vectors are kept [default: in the user's cache folder]
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
}

/// Encodes what is missing, fits and writes.
pub fn run(args: &GistArgs) -> Result<(), String> {
    let sets = domains::read(&args.data, SEED)?;
    let all: Vec<&str> = sets.train.iter().map(|s| s.text.as_str()).collect();
    let texts: Vec<&str> = sets.train.iter().filter(|s| s.fold < topics::FOLDS).map(|s| s.text.as_str()).collect();
    let mut kept = Kept::open(args.vectors.as_deref())?;
    let words = gist::choose(kept.vocabulary(), &all);
    kept.fill(words.iter().map(|w| w.text.as_str()).chain(texts.iter().copied()))?;
    let bytes = gist::fit(&words, &texts, &|text| kept.of(text))?;
    let words = Gist::parse(&bytes).map_err(|e| e.to_string())?.len();
    let facts = json!({
        "artifact": { "bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().as_str() },
        "command": "wattroute train gist",
        "words": words, "numbers": DIMS, "texts": texts.len(),
        "from": "all-MiniLM-L6-v2: its vectors of single words and of the training texts",
    });
    write(&args.out, &bytes)?;
    let beside = args.out.with_extension("json");
    write(&beside, format!("{facts:#}\n").as_bytes())?;
    println!("wrote {} ({words} words, {} bytes) and {}", args.out.display(), bytes.len(), beside.display());
    println!("the program carries it after the next build; then train the classifiers again, or give them --gist");
    Ok(())
}

/// Of the forms that tasks are put in: that of the shipped classifiers.
const SEED: u64 = 7;
