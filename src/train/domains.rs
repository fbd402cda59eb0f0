//! The labelled sets of the 22 domains as training takes them: texts in the words of who asks, weights, parts.

use std::path::Path;

use super::augment;
use super::topics::{EVERY_FOLD, FOLDS, Sample};
use crate::classify::domain::{DOMAINS, Domain};
use crate::classify::labelled::{self, Example, Set, Split};

/// Generated texts of noise, label `None`.
const NOISE: u32 = 150;
/// Weight of a text made from the lexicon. Such texts teach the sparse models words, in every fold; the head never sees them.
const LEXICON_WEIGHT: f32 = 0.5;

/// The sets of a folder.
pub struct Sets {
    /// All of them, as they are.
    pub examples: Vec<Example>,
    /// Fitted on.
    pub train: Vec<Sample>,
    /// Temperature, threshold and margin are chosen on it.
    pub dev: Vec<Sample>,
}

/// Reads and prepares them; the error names file and line.
pub fn read(folder: &Path, seed: u64) -> Result<Sets, String> {
    let examples = labelled::load(folder)?;
    let (train, dev) = (texts(&examples, Split::Train, seed), texts(&examples, Split::Dev, seed));
    Ok(Sets { examples, train, dev })
}

fn texts(examples: &[Example], split: Split, seed: u64) -> Vec<Sample> {
    let kept: Vec<&Example> = examples.iter().filter(|e| e.split == split).collect();
    let mut all: Vec<(String, Domain, f32, usize)> = Vec::new();
    for e in kept.iter().filter(|e| e.set != Set::Lexicon) {
        let fold = fold_of(e);
        all.extend(augment::texts(e).into_iter().map(|t| (t, e.domain, set_weight(e.set), fold)));
    }
    if split == Split::Train {
        let placed = |(text, domain): (String, Domain)| {
            let fold = spread(&text);
            (text, domain, 1.0, fold)
        };
        all.extend(augment::titles(&kept).into_iter().map(placed));
        let mentions = augment::mentions(&kept, seed);
        all.extend(mentions.into_iter().map(|(t, d)| (t, d, LEXICON_WEIGHT, EVERY_FOLD)));
        all.extend(augment::noise(NOISE, seed).into_iter().map(|t| (t, Domain::NONE)).map(placed));
    }
    weighed(all)
}

/// Rare domains count more, by the square root of their rarity; weights average 1.
fn weighed(all: Vec<(String, Domain, f32, usize)>) -> Vec<Sample> {
    let mut mass = [0f32; DOMAINS];
    for (_, domain, weight, _) in &all {
        if let Some(m) = mass.get_mut(domain.index()) {
            *m += weight;
        }
    }
    let rarity = |d: Domain| 1.0 / mass.get(d.index()).copied().unwrap_or(1.0).max(1.0).sqrt();
    let total: f32 = all.iter().map(|(_, d, w, _)| w * rarity(*d)).sum();
    let unit = all.len() as f32 / total.max(1e-6);
    let one = |(text, domain, weight, fold): (String, Domain, f32, usize)| Sample {
        text,
        label: domain.index(),
        weight: weight * rarity(domain) * unit,
        fold,
        source: 0,
    };
    all.into_iter().map(one).collect()
}

/// Exam questions are kept in two forms, so each counts half; the one template of CRUXEval counts little; prompts in the
/// style of real traffic count most.
fn set_weight(set: Set) -> f32 {
    match set {
        Set::MmluPro => 0.5,
        Set::CruxEval => 0.2,
        Set::Gsm8k => 0.5,
        Set::Onet | Set::MtBench | Set::Acts => 1.0,
        Set::Chat | Set::Nothing => 3.0,
        Set::Lexicon => LEXICON_WEIGHT,
    }
}

/// Texts with the same beginning, and all tasks of an occupation, share a fold.
fn fold_of(e: &Example) -> usize {
    match &e.occupation {
        Some(title) => spread(title),
        None => spread(&e.text.chars().filter(|c| c.is_alphanumeric()).take(80).collect::<String>()),
    }
}

fn spread(key: &str) -> usize {
    usize::from(blake3::hash(key.as_bytes()).as_bytes().first().copied().unwrap_or(0)) % FOLDS
}
