//! Sentence vectors of what is trained on: from the file of kept ones, the rest from the encoder.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::encoder::Encoder;
use crate::models::{Store, catalogue};
use crate::tier;
use crate::train::vectors::Vectors;

/// Texts that the encoder is timed with, one at a time.
const TIMED: usize = 60;

/// An encoder with the vectors that it gave before.
pub struct Kept {
    encoder: Encoder,
    vectors: Vectors,
}

impl Kept {
    /// Loads the encoder and opens a file; without one, that of the user's cache folder.
    pub fn open(file: Option<&Path>) -> Result<Self, String> {
        let path = match file {
            Some(path) => path.to_owned(),
            None => usual()?,
        };
        let known = catalogue::find(catalogue::ENCODER).ok_or("the sentence encoder is not in the catalogue")?;
        let name = *blake3::hash(known.sha256.as_bytes()).as_bytes();
        Ok(Self { encoder: tier::encoder(None)?, vectors: Vectors::open(&path, &name)? })
    }

    /// Whole words that the encoder knows, frequent ones first.
    pub fn vocabulary(&self) -> &[String] {
        self.encoder.vocabulary()
    }

    /// Works out what is missing, with a bar.
    pub fn fill<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let missing = self.vectors.missing(texts);
        if missing.is_empty() {
            return Ok(());
        }
        eprintln!("{} texts to encode, {} are kept", missing.len(), self.vectors.len());
        // Long texts come last and take longer: the bar goes by bytes.
        let bar = ProgressBar::new(missing.iter().map(|t| t.len() as u64).sum());
        let style = ProgressStyle::with_template("{spinner} {wide_bar} {percent} % of the texts, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let encoder = &self.encoder;
        let encode = |texts: &[&str]| encoder.encode(texts).map_err(|e| e.to_string());
        self.vectors.fill(&missing, &encode, &|bytes| bar.inc(bytes as u64))?;
        bar.finish_and_clear();
        Ok(())
    }

    /// A text's vector, where it was filled in.
    pub fn of(&self, text: &str) -> Option<Vec<f32>> {
        self.vectors.of(text)
    }

    /// Milliseconds of one text alone: median and 99th percentile.
    pub fn milliseconds(&self, texts: &[&str]) -> Result<[f64; 2], String> {
        let step = (texts.len() / TIMED).max(1);
        let mut took = Vec::new();
        for text in texts.iter().step_by(step) {
            let start = crate::clock::now();
            self.encoder.encode(&[text]).map_err(|e| e.to_string())?;
            took.push(crate::clock::now().duration_since(start).as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or(0.0);
        Ok([at(0.5), at(0.99)])
    }
}

fn usual() -> Result<PathBuf, String> {
    let store = Store::of_user().map_err(|e| e.to_string())?;
    Ok(store.root().join("vectors").join(format!("{}.bin", catalogue::ENCODER)))
}
