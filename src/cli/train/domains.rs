//! `wattroute train domain`: the labelled sets of the 22 domains to their classifier. Feature `train`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::kept::Kept;
use super::{DomainArgs, passes, write};
use crate::classify::domain::Posterior;
use crate::classify::labelled::{FILES, Split};
use crate::classify::measure::{self, Change, Held, Score};
use crate::classify::taxonomy::Taxonomy;
use crate::classify::topics::{Topics, file};
use crate::classify::{AEI, Classifier, posterior};
use crate::train::domains;
use crate::train::noise::LIGHT;
use crate::train::report;
use crate::train::topics::{self, Aids, DECAY, RATE};

type Scores = Vec<(String, Score)>;

/// Trains, measures, prints and writes.
pub fn train(args: &DomainArgs) -> Result<(), String> {
    let folder = args.data.clone().unwrap_or_else(|| PathBuf::from("eval/data/domain"));
    let target = args.out.clone().unwrap_or_else(|| PathBuf::from("eval/artifacts/domain.bin"));
    let sets = domains::read(&folder, args.seed)?;
    let (dev, test) = (measure::held(&sets.examples, Split::Dev), measure::held(&sets.examples, Split::Test));
    let mut kept = args.kept()?;
    if let Some(kept) = &mut kept {
        let held = dev.iter().chain(&test).flat_map(|h| &h.rows).map(|(text, _)| text);
        // Texts around the lexicon's words teach the sparse models only.
        let taught = sets.train.iter().filter(|s| s.fold < topics::FOLDS).chain(&sets.dev).map(|s| &s.text);
        kept.fill(taught.chain(held).map(String::as_str))?;
    }
    let taxonomy = Taxonomy::find(AEI).map_err(|e| e.to_string())?;
    let bar = passes(args.options(&LIGHT).ticks());
    let lookup = kept.as_ref().map(|k| |text: &str| k.of(text));
    let vectors = lookup.as_ref().map(|l| l as &topics::Lookup);
    let aids = Aids { gist: args.word_vectors()?, vectors, tick: &|| bar.inc(1) };
    let (trained, _) = topics::fit(&taxonomy, &sets.train, &sets.dev, &args.options(&LIGHT), &aids)?;
    bar.finish_and_clear();
    let bytes = file::render(&trained);
    let classifier = Classifier::of(trained).map_err(|e| e.to_string())?;
    let trained = classifier.topics().ok_or("nothing was trained")?;
    let mut figures = Map::new();
    println!("dev: settings, temperature, threshold and margin were chosen here");
    tell("dev", &scores(&classifier, &dev), &mut figures);
    println!("test: only measured");
    let scored = scores(&classifier, &test);
    tell("test", &scored, &mut figures);
    for (name, score) in &scored {
        println!("{name}\n{}", measure::classes(score));
    }
    println!("test, spoilt texts");
    tell("spoilt", &spoilt(&classifier, &test), &mut figures);
    figures.insert("decisions_kept".to_owned(), decisions_kept(trained, &test));
    if let (Some(kept), Some(below)) = (&kept, classifier.ask_below()) {
        by_encoder(trained, kept, (below, &classifier), &test, &mut figures)?;
    }
    let facts = provenance(args, &folder, trained, &bytes, figures)?;
    write(&target, &bytes)?;
    let beside = target.with_extension("json");
    write(&beside, format!("{facts:#}\n").as_bytes())?;
    println!("wrote {} ({} bytes) and {}", target.display(), bytes.len(), beside.display());
    Ok(())
}

fn scores(classifier: &Classifier, held: &[Held]) -> Scores {
    held.iter().map(|h| (h.name.to_owned(), measure::score(classifier, &h.rows))).collect()
}

fn tell(split: &str, scores: &Scores, figures: &mut Map<String, Value>) {
    println!("{}", measure::table(&scores.iter().map(|(n, s)| (n.as_str(), s)).collect::<Vec<_>>()));
    let sets: Map<String, Value> = scores.iter().map(|(name, s)| (name.clone(), s.facts())).collect();
    figures.insert(split.to_owned(), Value::Object(sets));
}

/// What capitals and typos cost on exam questions and on prompts.
fn spoilt(classifier: &Classifier, test: &[Held]) -> Scores {
    let cases = [
        ("MMLU-Pro, question only", Change::Upper, "MMLU-Pro questions in capitals"),
        ("MMLU-Pro, question only", Change::Typos, "MMLU-Pro questions with typos"),
        ("chat", Change::Upper, "chat in capitals"),
        ("chat", Change::Typos, "chat with typos"),
    ];
    let mut scores = Vec::new();
    for (set, change, name) in cases {
        if let Some(held) = test.iter().find(|h| h.name == set) {
            scores.push((name.to_owned(), measure::score(classifier, &measure::changed(&held.rows, change))));
        }
    }
    scores
}

/// Share of the fast tier's decisions that stay when exam questions and prompts are typed or put otherwise.
fn decisions_kept(trained: &Topics, test: &[Held]) -> Value {
    let mut sets = Map::new();
    for held in test.iter().filter(|h| ["MMLU-Pro, question only", "chat"].contains(&h.name)) {
        let texts: Vec<&str> = held.rows.iter().map(|(text, _)| text.as_str()).collect();
        let kept = report::robustness(&texts, &|text| trained.sort(text));
        println!(
            "decisions kept, {}: {}",
            held.name,
            kept.iter().map(|(c, s)| format!("{c} {s:.3}")).collect::<Vec<_>>().join(", ")
        );
        sets.insert(
            held.name.to_owned(),
            kept.into_iter().map(|(change, share)| (change.to_owned(), json!(share))).collect(),
        );
    }
    Value::Object(sets)
}

/// The encoder tier, and asking it only where the fast tier is unsure.
fn by_encoder(
    trained: &Topics,
    kept: &Kept,
    (below, classifier): (f32, &Classifier),
    test: &[Held],
    figures: &mut Map<String, Value>,
) -> Result<(), String> {
    let vector = |text: &str| kept.of(text).unwrap_or_default();
    let encoder = |text: &str| -> (Posterior, Posterior) {
        let vector = vector(text);
        (posterior(&trained.sort_with(text, &vector)), classifier.posterior_with(text, &vector))
    };
    let auto = |text: &str| match classifier.fast(text) {
        (said, margin) if margin >= below => (classifier.calibrated(text), said),
        _ => encoder(text),
    };
    let by = |sort: &dyn Fn(&str) -> (Posterior, Posterior)| -> Scores {
        test.iter().map(|h| (h.name.to_owned(), measure::score_by(&h.rows, sort))).collect()
    };
    println!("test, encoder tier");
    tell("encoder", &by(&encoder), figures);
    println!("test, auto: the encoder is asked where the margin is below {below:.2}");
    tell("auto", &by(&auto), figures);
    let mut asked = Map::new();
    for held in test {
        let n = held.rows.iter().filter(|(text, _)| classifier.fast(text).1 < below).count();
        println!("{}: asked for {n} of {}", held.name, held.rows.len());
        asked.insert(held.name.to_owned(), json!(n as f64 / held.rows.len().max(1) as f64));
    }
    let texts: Vec<&str> = test.iter().flat_map(|h| &h.rows).map(|(text, _)| text.as_str()).collect();
    let [median, slow] = kept.milliseconds(&texts)?;
    println!("one text through the encoder: median {median:.1} ms, 99th percentile {slow:.1} ms");
    figures.insert("asked".into(), Value::Object(asked));
    figures.insert("encoder_ms".into(), json!({ "p50": median, "p99": slow }));
    Ok(())
}

fn provenance(
    args: &DomainArgs,
    folder: &Path,
    trained: &Topics,
    bytes: &[u8],
    figures: Map<String, Value>,
) -> Result<Value, String> {
    let mut data = Map::new();
    for (name, _, _) in FILES {
        let path = folder.join(name);
        let content = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        data.insert(name.to_owned(), json!(blake3::hash(&content).to_hex().as_str()));
    }
    Ok(json!({
        "artifact": { "version": file::VERSION, "bytes": bytes.len(), "blake3": blake3::hash(bytes).to_hex().as_str() },
        "command": args.command(),
        "settings": { "seed": args.seed, "epochs": args.epochs, "rate": RATE, "decay": DECAY,
                      "temperature": trained.fast.temperature, "threshold": trained.fast.threshold,
                      "ask_below": trained.encoder.as_ref().map(|_| trained.ask_below) },
        "splits": "MMLU-Pro: as given in the file. O*NET: by BLAKE3 of the occupation code, one part in ten dev, one test. \
                   GSM8K, CRUXEval: the same by row id. chat_train, none_train: two parts in ten dev. \
                   chat_test and MT-Bench: test only. lexicon: train only.",
        "data_blake3": data,
        "figures": figures,
    }))
}
