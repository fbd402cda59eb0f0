//! The whole of training, in order: examples, fold models, head, final models, temperature and threshold.

use std::path::Path;

use rayon::prelude::*;

use super::augment;
use super::head::{self, Row};
use super::sparse::{self, Doc, Settings};
use crate::classify::artifact::{Artifact, INPUTS, Weights};
use crate::classify::domain::{DOMAINS, Domain};
use crate::classify::features::{CHAR_BITS, Group, WORD_BITS, scan};
use crate::classify::labelled::{self, Example, Set, Split};
use crate::classify::{inputs, logits, soften};

/// Parts of the training data; the head sees each part scored by models of the other parts.
const FOLDS: usize = 4;
/// AdaGrad step and decay, chosen on the dev split from eleven pairs; the decay is what carries over to new wording.
pub const RATE: f32 = 0.5;
/// See [`RATE`].
pub const DECAY: f32 = 1e-3;
/// Generated texts of noise, label `None`.
const NOISE: u32 = 150;

/// Weight of a text made from the lexicon. Such texts teach the sparse models words, in every fold; the head never sees them.
const LEXICON_WEIGHT: f32 = 0.5;

/// What training may be told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Seed of every random choice.
    pub seed: u64,
    /// Passes of the sparse solver.
    pub epochs: u32,
}

impl Options {
    /// Passes over the data of all sparse models together, for a progress bar.
    pub fn ticks(&self) -> u64 {
        u64::from(self.epochs) * 2 * (FOLDS as u64 + 1)
    }
}

/// A labelled text as the models see it.
struct Text {
    words: Doc,
    chars: Doc,
    text: String,
    fold: usize,
}

/// Trains on the sets in a folder. `tick` is called [`Options::ticks`] times.
pub fn run(folder: &Path, options: &Options, tick: &(dyn Fn() + Sync)) -> Result<(Artifact, Vec<Example>), String> {
    let examples = labelled::load(folder)?;
    let texts = texts(&examples, Split::Train, options.seed);
    let models = fold_models(&texts, options, tick);
    let (_, full) = models.iter().find(|(fold, _)| *fold == FOLDS).ok_or("no final model")?;
    let mut rows = Vec::with_capacity(texts.len());
    for text in &texts {
        let Some((_, unseen)) = models.iter().find(|(fold, _)| *fold == text.fold) else { continue };
        if let Some(x) = inputs(unseen, &text.text) {
            rows.push(Row { x, label: text.words.label, weight: text.words.weight });
        }
    }
    let head = head::fit(&rows, options.seed)?;
    let mut artifact = Artifact { head: head.weights, bias: head.bias, ..full.clone() };
    settle(&mut artifact, &texts_of_dev(&examples, options.seed));
    Ok((artifact, examples))
}

/// Temperature and threshold on the dev split.
fn settle(artifact: &mut Artifact, dev: &[Text]) {
    let scored: Vec<_> = dev
        .iter()
        .filter_map(|t| inputs(artifact, &t.text).map(|x| (logits(artifact, &x), t.words.label, t.words.weight)))
        .collect();
    artifact.temperature = head::temperature(&scored);
    let posteriors: Vec<_> = scored.iter().map(|(z, label, w)| (soften(z, artifact.temperature), *label, *w)).collect();
    artifact.threshold = head::threshold(&posteriors);
}

/// A model without each fold, and one of everything under the number [`FOLDS`].
fn fold_models(texts: &[Text], options: &Options, tick: &(dyn Fn() + Sync)) -> Vec<(usize, Artifact)> {
    let settings = |seed: u64| Settings { epochs: options.epochs, rate: RATE, decay: DECAY, min_docs: 2, seed };
    let jobs: Vec<(usize, Group)> = (0..=FOLDS).flat_map(|f| [(f, Group::Word), (f, Group::Char)]).collect();
    let tables: Vec<Weights> = jobs
        .par_iter()
        .map(|(fold, group)| {
            let kept = texts.iter().filter(|t| t.fold != *fold);
            let seed = options.seed ^ (*fold as u64 + 1);
            match group {
                Group::Word => {
                    sparse::fit(&kept.map(|t| &t.words).collect::<Vec<_>>(), WORD_BITS, &settings(seed), tick)
                }
                Group::Char => {
                    sparse::fit(&kept.map(|t| &t.chars).collect::<Vec<_>>(), CHAR_BITS, &settings(seed), tick)
                }
            }
        })
        .collect();
    let mut tables = tables.into_iter();
    let mut models = Vec::new();
    for fold in 0..=FOLDS {
        let (Some(words), Some(chars)) = (tables.next(), tables.next()) else { break };
        let head = vec![[0.0; DOMAINS]; INPUTS];
        models.push((fold, Artifact { words, chars, head, bias: [0.0; DOMAINS], temperature: 1.0, threshold: 0.0 }));
    }
    models
}

fn texts(examples: &[Example], split: Split, seed: u64) -> Vec<Text> {
    let kept: Vec<&Example> = examples.iter().filter(|e| e.split == split).collect();
    let mut all: Vec<(String, Domain, f32, usize)> = Vec::new();
    for e in kept.iter().filter(|e| e.set != Set::Lexicon) {
        let fold = fold_of(e);
        all.extend(augment::texts(e).into_iter().map(|t| (t, e.domain, set_weight(e.set), fold)));
    }
    if split == Split::Train {
        let titles = augment::titles(&kept);
        all.extend(titles.into_iter().map(|(t, d)| {
            let fold = spread(&t);
            (t, d, 1.0, fold)
        }));
        let mentions = augment::mentions(&kept, seed);
        all.extend(mentions.into_iter().map(|(t, d)| (t, d, LEXICON_WEIGHT, FOLDS + 1)));
        let noise = augment::noise(NOISE, seed);
        all.extend(noise.into_iter().map(|t| {
            let fold = spread(&t);
            (t, Domain::NONE, 1.0, fold)
        }));
    }
    weighed(all)
}

fn texts_of_dev(examples: &[Example], seed: u64) -> Vec<Text> {
    texts(examples, Split::Dev, seed)
}

/// Rare domains count more, by the square root of their rarity; weights average 1.
fn weighed(all: Vec<(String, Domain, f32, usize)>) -> Vec<Text> {
    let mut mass = [0f32; DOMAINS];
    for (_, domain, weight, _) in &all {
        if let Some(m) = mass.get_mut(domain.index()) {
            *m += weight;
        }
    }
    let rarity = |d: Domain| 1.0 / mass.get(d.index()).copied().unwrap_or(1.0).max(1.0).sqrt();
    let total: f32 = all.iter().map(|(_, d, w, _)| w * rarity(*d)).sum();
    let unit = all.len() as f32 / total.max(1e-6);
    let one = |(text, domain, weight, fold): (String, Domain, f32, usize)| {
        let (mut words, mut chars) = (Vec::new(), Vec::new());
        scan(&text, |group, batch| match group {
            Group::Word => words.extend_from_slice(batch),
            Group::Char => chars.extend_from_slice(batch),
        });
        let doc = |features| Doc { features, label: domain.index(), weight: weight * rarity(domain) * unit };
        Text { words: doc(words), chars: doc(chars), text, fold }
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
