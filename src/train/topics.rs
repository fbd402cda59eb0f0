//! Training of a classifier over any taxonomy: fold models, head, final models, calibration.

use rayon::prelude::*;

use super::dense::{self, Row, Scored};
use super::encoder::{self, Seen, Vectors};
use super::noise;
use super::solver::{self, Doc};
use crate::classify::features::{CHAR_BITS, Group, SHAPES, WORD_BITS, scan};
use crate::classify::taxonomy::Taxonomy;
use crate::classify::topics::table::Table;
use crate::classify::topics::{Head, Topics};

/// Parts of the training data; the head sees each part scored by models of the other parts.
pub const FOLDS: usize = 4;
/// Examples under this fold number teach the sparse models of every fold and never the head.
pub const EVERY_FOLD: usize = FOLDS + 1;
/// AdaGrad step and decay, as chosen for domains.
const RATE: f32 = 0.5;
const DECAY: f32 = 1e-3;
/// L2 weight of the head. Chosen on the dev split of MMLU-Pro.
const ALPHA: f64 = 1.0;
/// Upper bound of L-BFGS steps; the loss is flat long before.
const STEPS: u64 = 60;
/// Rows that the head is fitted on, at most about so many.
const ROWS: f32 = 20_000.0;
/// With fewer dev examples temperature and threshold are set on the folds.
const DEV_ENOUGH: usize = 200;

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

/// A labelled text.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The text.
    pub text: String,
    /// Index of its label.
    pub label: usize,
    /// How many times it counts, about 1.
    pub weight: f32,
    /// Part of the data: below [`FOLDS`], or [`EVERY_FOLD`].
    pub fold: usize,
}

/// Which head was better on examples that it did not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Weights per label, by linfa.
    PerLabel,
    /// Three numbers for all.
    Shared,
}

/// Trains; the second of `told` is called [`Options::ticks`] times. With sentence vectors there is a head for them, too.
pub fn fit(
    taxonomy: &Taxonomy,
    train: &[Sample],
    dev: &[Sample],
    options: &Options,
    told: (Option<&Vectors>, &(dyn Fn() + Sync)),
) -> Result<(Topics, Chosen), String> {
    let (vectors, tick) = told;
    enough(taxonomy, train)?;
    let train = &noise::doubled(train, options.seed);
    let models = fold_models(taxonomy, train, options, tick);
    let full = models.last().ok_or("no final model")?;
    let unseen = |s: &Sample| row(models.get(s.fold).filter(|_| s.fold < FOLDS)?, s);
    let (texts, rows): (Vec<&str>, Vec<Row>) = train.iter().filter_map(|s| Some((s.text.as_str(), unseen(s)?))).unzip();
    let (chosen, crossed) = choose(&rows, taxonomy.labels.len(), options.seed)?;
    let mut fast = head(chosen, &rows.iter().collect::<Vec<_>>(), taxonomy.labels.len(), options.seed)?;
    let dev_rows: Vec<Row> = dev.iter().filter_map(|s| row(full, s)).collect();
    if dev_rows.len() >= DEV_ENOUGH {
        let scored: Vec<Scored> = dev_rows.iter().map(|r| (fast.logits(&r.x), r.label, r.weight)).collect();
        dense::settle(&mut fast, &scored);
    } else {
        dense::settle(&mut fast, &crossed);
    }
    let encoder = match vectors {
        Some(vectors) => {
            let seen = texts.iter().zip(&rows).map(|(text, r)| Seen {
                text,
                logits: fast.logits(&r.x),
                label: r.label,
                weight: r.weight,
                fold: r.fold,
            });
            let seen = seen.collect();
            Some(encoder::fit(seen, taxonomy.labels.len(), options.seed, vectors, &|| ())?)
        }
        None => None,
    };
    Ok((Topics { fast, encoder, ..full.clone() }, chosen))
}

/// An error that says which labels are without examples.
fn enough(taxonomy: &Taxonomy, train: &[Sample]) -> Result<(), String> {
    let empty: Vec<&str> = taxonomy
        .labels
        .iter()
        .enumerate()
        .filter(|(at, _)| !train.iter().any(|s| s.label == *at))
        .map(|(_, l)| l.name.as_str())
        .collect();
    if empty.is_empty() {
        return Ok(());
    }
    Err(format!("no training example of: {}; give some, or take the label out of the taxonomy", empty.join(", ")))
}

fn row(model: &Topics, sample: &Sample) -> Option<Row> {
    Some(Row { x: model.inputs(&sample.text)?, label: sample.label, weight: sample.weight, fold: sample.fold })
}

/// Each kind of head on each fold as the others taught it; the kind with the lower loss, and its logits.
fn choose(rows: &[Row], labels: usize, seed: u64) -> Result<(Chosen, Vec<Scored>), String> {
    let mut best: Option<(Chosen, Vec<Scored>, f64)> = None;
    for kind in [Chosen::PerLabel, Chosen::Shared] {
        let mut scored: Vec<Scored> = Vec::with_capacity(rows.len());
        for fold in 0..FOLDS {
            let (held, seen): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|r| r.fold == fold);
            if held.is_empty() || seen.is_empty() {
                continue;
            }
            // A label that occurs in one fold only leaves linfa a single class: such data gets the shared head.
            let Ok(head) = head(kind, &seen, labels, seed) else { continue };
            scored.extend(held.iter().map(|r| (head.logits(&r.x), r.label, r.weight)));
        }
        let loss = dense::loss(&scored, 1.0);
        let complete = scored.len() == rows.len() || kind == Chosen::Shared;
        if complete && best.as_ref().is_none_or(|b| loss < b.2) {
            best = Some((kind, scored, loss));
        }
    }
    best.map(|(kind, scored, _)| (kind, scored)).ok_or_else(|| "nothing to fit the head on".to_owned())
}

fn head(kind: Chosen, rows: &[&Row], labels: usize, seed: u64) -> Result<Head, String> {
    match kind {
        Chosen::PerLabel => {
            dense::regress(rows, labels, &dense::Settings { alpha: ALPHA, steps: STEPS, rows: ROWS, seed })
        }
        Chosen::Shared => Ok(dense::shared(rows, labels)),
    }
}

/// A model without each fold, and last one of everything. Their heads are empty.
fn fold_models(taxonomy: &Taxonomy, train: &[Sample], options: &Options, tick: &(dyn Fn() + Sync)) -> Vec<Topics> {
    let docs: Vec<[Doc; 2]> = train.iter().map(docs).collect();
    let jobs: Vec<(usize, Group)> = (0..=FOLDS).flat_map(|f| [(f, Group::Word), (f, Group::Char)]).collect();
    let tables: Vec<Table> = jobs
        .par_iter()
        .map(|(fold, group)| {
            let (at, bits) = if *group == Group::Word { (0, WORD_BITS) } else { (1, CHAR_BITS) };
            let kept: Vec<&Doc> =
                docs.iter().zip(train).filter(|(_, s)| s.fold != *fold).filter_map(|(d, _)| d.get(at)).collect();
            let seed = options.seed ^ (*fold as u64 + 1);
            let settings = solver::Settings { epochs: options.epochs, rate: RATE, decay: DECAY, min_docs: 2, seed };
            solver::fit(&kept, taxonomy, bits, &settings, tick)
        })
        .collect();
    let labels = taxonomy.labels.len();
    let empty = Head {
        weights: vec![0.0; (2 * labels + SHAPES) * labels],
        bias: vec![0.0; labels],
        temperature: 1.0,
        threshold: 0.0,
    };
    let mut tables = tables.into_iter();
    let mut models = Vec::new();
    while let (Some(words), Some(chars)) = (tables.next(), tables.next()) {
        models.push(Topics { taxonomy: taxonomy.clone(), words, chars, fast: empty.clone(), encoder: None });
    }
    models
}

fn docs(sample: &Sample) -> [Doc; 2] {
    let (mut words, mut chars) = (Vec::new(), Vec::new());
    scan(&sample.text, |group, batch| match group {
        Group::Word => words.extend_from_slice(batch),
        Group::Char => chars.extend_from_slice(batch),
    });
    [words, chars].map(|features| Doc { features, label: sample.label, weight: sample.weight })
}
