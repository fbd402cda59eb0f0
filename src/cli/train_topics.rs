//! `wattroute train domain --taxonomy`: labelled rows to a classifier over the labels of a taxonomy. Feature `train`.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::classify::taxonomy::Taxonomy;
use crate::classify::topics::{Sorted, Topics, file};
use crate::engine::encoder::Encoder;
use crate::tier;
use crate::train::encoder::Vectors;
use crate::train::own::{self, Fields, Sides};
use crate::train::report::{self, Report};
use crate::train::topics::{self, Chosen, Options, Sample};

/// A label with fewer training texts is named: its figures mean little.
const THIN: usize = 10;

/// The encoder tier is measured on one held-out text in so many: each costs milliseconds.
const MEASURED_EVERY: usize = 3;

/// What is asked for.
pub struct Asked<'a> {
    /// Labels.
    pub taxonomy: Taxonomy,
    /// Labelled rows.
    pub data: &'a Path,
    /// Where the artifact goes.
    pub out: &'a Path,
    /// Which fields of a row mean what.
    pub fields: Fields,
    /// Seed and passes.
    pub options: Options,
    /// The sentence encoder, where a head for it is wanted.
    pub encoder: Option<Encoder>,
}

/// Trains, measures, prints and writes.
pub fn train(asked: &Asked) -> Result<(), String> {
    let sides = own::read(asked.data, &asked.taxonomy, &asked.fields)?;
    told(&asked.taxonomy, &sides);
    let bar = ProgressBar::new(asked.options.ticks());
    let style = ProgressStyle::with_template("{spinner} {wide_bar} {pos}/{len} passes, {elapsed}, then the head");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let vectors = asked.encoder.as_ref().map(|e| |texts: &[&str]| e.encode(texts).map_err(|e| e.to_string()));
    let vectors = vectors.as_ref().map(|v| v as &Vectors);
    let (trained, chosen) =
        topics::fit(&asked.taxonomy, &sides.train, &sides.dev, &asked.options, (vectors, &|| bar.inc(1)))?;
    bar.finish_and_clear();
    let bytes = file::render(&trained);
    let trained = file::parse(&bytes).map_err(|e| e.to_string())?;
    let mut figures = figures(&trained, &sides);
    if let (Some(encoder), Value::Object(all)) = (&asked.encoder, &mut figures) {
        all.extend(by_encoder(&trained, &sides, encoder)?);
    }
    let content = std::fs::read(asked.data).map_err(|e| format!("{}: {e}", asked.data.display()))?;
    let facts = json!({
        "artifact": { "version": file::VERSION, "bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().as_str() },
        "taxonomy": trained.taxonomy.name,
        "settings": { "seed": asked.options.seed, "epochs": asked.options.epochs,
                      "head": if chosen == Chosen::PerLabel { "per label" } else { "shared" },
                      "temperature": trained.fast.temperature, "threshold": trained.fast.threshold },
        "rows": { "train": sides.train.len(), "dev": sides.dev.len(), "test": sides.test.len(), "without_text": sides.empty },
        "data_blake3": blake3::hash(&content).to_hex().as_str(),
        "figures": figures,
    });
    write(asked.out, &bytes)?;
    let beside = asked.out.with_extension("json");
    write(&beside, format!("{facts:#}\n").as_bytes())?;
    println!("wrote {} ({} bytes) and {}", asked.out.display(), bytes.len(), beside.display());
    Ok(())
}

/// Says what is odd about the data before the work begins.
fn told(taxonomy: &Taxonomy, sides: &Sides) {
    if sides.empty > 0 {
        eprintln!("note: {} rows have no text to go on and are left out", sides.empty);
    }
    let counts = own::counts(&sides.train);
    for (at, label) in taxonomy.labels.iter().enumerate() {
        let n = counts.get(&at).copied().unwrap_or(0);
        if (1..THIN).contains(&n) {
            let towards = label.parent.as_ref().map(|p| format!(" and leans on its group `{p}`")).unwrap_or_default();
            eprintln!("note: label `{}` has {n} training texts{towards}: expect little of it", label.name);
        }
    }
}

/// Prints and collects the figures on what was held out.
fn figures(trained: &Topics, sides: &Sides) -> Value {
    let sort = |text: &str| trained.sort(text);
    let labels = trained.labels();
    let mut sets: Vec<(&str, Report)> = Vec::new();
    for (name, samples) in [("dev", &sides.dev), ("test", &sides.test), ("test, with options", &sides.test_options)] {
        if !samples.is_empty() {
            sets.push((name, report::measure(labels, samples, &sort)));
        }
    }
    println!("{}", report::table(&sets.iter().map(|(n, r)| (*n, r)).collect::<Vec<_>>()));
    let mut facts: serde_json::Map<String, Value> = sets.iter().map(|(n, r)| ((*n).to_owned(), r.facts())).collect();
    let Some((_, test)) = sets.iter().find(|(name, _)| *name == "test") else { return Value::Object(facts) };
    println!("test\n{}\n{}", report::classes(trained, test), report::confusion(trained, test));
    let kept = report::robustness(&sides.test, &sort);
    for (change, share) in &kept {
        println!("decisions kept, {change}: {share:.3}");
    }
    facts.insert("decisions_kept".into(), kept.into_iter().map(|(c, s)| (c.to_owned(), json!(s))).collect());
    facts.insert("confusion".into(), json!(test.confusion));
    Value::Object(facts)
}

/// Figures of the encoder tier and of asking it only where the fast tier is unsure.
fn by_encoder(trained: &Topics, sides: &Sides, encoder: &Encoder) -> Result<serde_json::Map<String, Value>, String> {
    let mut sets: Vec<(String, Report)> = Vec::new();
    for (name, samples) in [("test", &sides.test), ("test, with options", &sides.test_options)] {
        let samples: &[Sample] = &samples.iter().step_by(MEASURED_EVERY).cloned().collect::<Vec<_>>();
        let texts: Vec<&str> = samples.iter().map(|s| s.text.as_str()).collect();
        let vectors = encoder.encode(&texts).map_err(|e| e.to_string())?;
        let vectors: std::collections::HashMap<&str, Vec<f32>> = texts.into_iter().zip(vectors).collect();
        let of = |text: &str| vectors.get(text).map_or(&[][..], Vec::as_slice);
        if samples.is_empty() {
            continue;
        }
        let unsure = samples.iter().filter(|s| trained.sort(&s.text).margin() < tier::ASK_BELOW).count();
        println!("{name}: the encoder is asked for {unsure} of {}", samples.len());
        let auto = |text: &str| {
            let fast = trained.sort(text);
            if fast.margin() < tier::ASK_BELOW { trained.sort_with(text, of(text)) } else { fast }
        };
        let measure = |sort: &dyn Fn(&str) -> Sorted| report::measure(trained.labels(), samples, sort);
        sets.push((format!("encoder: {name}, every third"), measure(&|text| trained.sort_with(text, of(text)))));
        sets.push((format!("auto: {name}, every third"), measure(&auto)));
    }
    println!("{}", report::table(&sets.iter().map(|(n, r)| (n.as_str(), r)).collect::<Vec<_>>()));
    Ok(sets.iter().map(|(n, r)| (n.clone(), r.facts())).collect())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}
