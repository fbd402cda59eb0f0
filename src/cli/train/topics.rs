//! `wattroute train domain --taxonomy`: labelled rows to a classifier over the labels of a taxonomy. Feature `train`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::kept::Kept;
use super::{DomainArgs, passes, write};
use crate::classify::taxonomy::Taxonomy;
use crate::classify::topics::{Sorted, Topics, file};
use crate::train::across;
use crate::train::noise::HEAVY;
use crate::train::own::{self, Fields, Sides};
use crate::train::report::{self, Report};
use crate::train::topics::{self, Aids, Chosen};

/// A label with fewer training texts is named: its figures mean little.
const THIN: usize = 10;

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
    /// The rest.
    pub args: &'a DomainArgs,
}

/// Trains, measures, prints and writes.
pub fn train(asked: &Asked) -> Result<(), String> {
    let sides = own::read(asked.data, &asked.taxonomy, &asked.fields)?;
    told(&asked.taxonomy, &sides);
    let mut kept = asked.args.kept()?;
    if let Some(kept) = &mut kept {
        let all = [&sides.train, &sides.dev, &sides.test, &sides.test_options];
        kept.fill(all.into_iter().flatten().map(|s| s.text.as_str()))?;
    }
    let options = asked.args.options(&HEAVY);
    let bar = passes(options.ticks());
    let lookup = kept.as_ref().map(|k| |text: &str| k.of(text));
    let vectors = lookup.as_ref().map(|l| l as &topics::Lookup);
    let aids = Aids { gist: asked.args.word_vectors()?, vectors, tick: &|| bar.inc(1) };
    let (trained, chosen) = topics::fit(&asked.taxonomy, &sides.train, &sides.dev, &options, &aids)?;
    bar.finish_and_clear();
    let bytes = file::render(&trained);
    let mut figures = figures(&trained, &sides);
    if let (Some(kept), Some(_), Value::Object(all)) = (&kept, &trained.encoder, &mut figures) {
        all.extend(by_encoder(&trained, &sides, kept, trained.ask_below)?);
    }
    if let (Some(_), Value::Object(all)) = (&asked.fields.source, &mut figures) {
        all.extend(other_sources(asked, &sides, &aids)?);
    }
    let content = std::fs::read(asked.data).map_err(|e| format!("{}: {e}", asked.data.display()))?;
    let facts = json!({
        "artifact": { "version": file::VERSION, "bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().as_str() },
        "taxonomy": trained.taxonomy.name,
        "command": asked.args.command(),
        "settings": { "seed": options.seed, "epochs": options.epochs,
                      "head": if chosen == Chosen::PerLabel { "per label" } else { "shared" },
                      "temperature": trained.fast.temperature, "threshold": trained.fast.threshold,
                      "ask_below": trained.encoder.as_ref().map(|_| trained.ask_below) },
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
    let mut facts: Map<String, Value> = sets.iter().map(|(n, r)| ((*n).to_owned(), r.facts())).collect();
    let Some((_, test)) = sets.iter().find(|(name, _)| *name == "test") else { return Value::Object(facts) };
    println!("test\n{}\n{}", report::classes(trained, test), report::confusion(trained, test));
    let texts: Vec<&str> = sides.test.iter().map(|s| s.text.as_str()).collect();
    let kept = report::robustness(&texts, &sort);
    for (change, share) in &kept {
        println!("decisions kept, {change}: {share:.3}");
    }
    facts.insert("decisions_kept".into(), kept.into_iter().map(|(c, s)| (c.to_owned(), json!(s))).collect());
    facts.insert("confusion".into(), json!(test.confusion));
    Value::Object(facts)
}

/// Figures of the encoder tier and of asking it only where the fast tier is unsure.
fn by_encoder(trained: &Topics, sides: &Sides, kept: &Kept, below: f32) -> Result<Map<String, Value>, String> {
    let of = |text: &str| kept.of(text).unwrap_or_default();
    let auto = |text: &str| {
        let fast = trained.sort(text);
        if fast.margin() < below { trained.sort_with(text, &of(text)) } else { fast }
    };
    let (mut sets, mut facts): (Vec<(String, Report)>, Map<String, Value>) = (Vec::new(), Map::new());
    for (name, samples) in [("test", &sides.test), ("test, with options", &sides.test_options)] {
        if samples.is_empty() {
            continue;
        }
        let asked = samples.iter().filter(|s| trained.sort(&s.text).margin() < below).count();
        println!("{name}: auto asks the encoder for {asked} of {}: a margin below {below:.2}", samples.len());
        facts.insert(format!("asked: {name}"), json!(asked as f64 / samples.len() as f64));
        let measure = |sort: &dyn Fn(&str) -> Sorted| report::measure(trained.labels(), samples, sort);
        sets.push((format!("encoder: {name}"), measure(&|text| trained.sort_with(text, &of(text)))));
        sets.push((format!("auto: {name}"), measure(&auto)));
    }
    println!("{}", report::table(&sets.iter().map(|(n, r)| (n.as_str(), r)).collect::<Vec<_>>()));
    if let Some((_, auto)) = sets.get(1) {
        println!("auto, test\n{}", report::classes(trained, auto));
    }
    let texts: Vec<&str> = sides.test.iter().map(|s| s.text.as_str()).collect();
    let [median, slow] = kept.milliseconds(&texts)?;
    println!("one text through the encoder: median {median:.1} ms, 99th percentile {slow:.1} ms");
    facts.insert("encoder_ms".into(), json!({ "p50": median, "p99": slow }));
    facts.extend(sets.iter().map(|(n, r)| (n.clone(), r.facts())));
    Ok(facts)
}

/// What a tier says of a text.
type Answer<'a> = dyn Fn(&Topics, &str) -> Sorted + 'a;

/// Figures on sources that were not trained on, by each tier.
fn other_sources(asked: &Asked, sides: &Sides, aids: &Aids) -> Result<Map<String, Value>, String> {
    eprintln!("{} more trainings, each without a part of the sources", across::PARTS);
    let tick: &(dyn Fn() + Sync) = &|| ();
    let aids = &Aids { gist: aids.gist.clone(), vectors: aids.vectors, tick };
    let samples = [sides.test.as_slice(), &sides.test_options].concat();
    let parts = across::fit(&asked.taxonomy, [&sides.train, &sides.dev, &samples], &asked.args.options(&HEAVY), aids)?;
    let vector = |text: &str| aids.vectors.and_then(|of| of(text)).unwrap_or_default();
    let tiers: [(&str, &Answer); 3] = [
        ("fast", &|topics, text| topics.sort(text)),
        ("encoder", &|topics, text| topics.sort_with(text, &vector(text))),
        ("auto", &|topics, text| {
            let fast = topics.sort(text);
            let below = topics.ask_below;
            if fast.margin() < below { topics.sort_with(text, &vector(text)) } else { fast }
        }),
    ];
    let mut sets: Vec<(String, Report)> = Vec::new();
    for (tier, sort) in tiers.iter().take(if aids.vectors.is_some() { 3 } else { 1 }) {
        for (form, range) in [("", 0..sides.test.len()), (", with options", sides.test.len()..samples.len())] {
            let mut rows = Vec::new();
            let mut said: HashMap<&str, Sorted> = HashMap::new();
            for part in &parts {
                for sample in part.places.iter().filter(|at| range.contains(at)).filter_map(|at| samples.get(*at)) {
                    said.insert(&sample.text, sort(&part.topics, &sample.text));
                    rows.push(sample.clone());
                }
            }
            let nothing = Sorted { p: Vec::new(), top: None, sure: false };
            let of = |text: &str| said.get(text).unwrap_or(&nothing).clone();
            if !rows.is_empty() {
                let report = report::measure(asked.taxonomy.labels.len(), &rows, &of);
                sets.push((format!("{tier}: other sources{form}"), report));
            }
        }
    }
    println!("{}", report::table(&sets.iter().map(|(n, r)| (n.as_str(), r)).collect::<Vec<_>>()));
    Ok(sets.iter().map(|(n, r)| (n.clone(), r.facts())).collect())
}
