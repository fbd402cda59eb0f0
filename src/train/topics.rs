//! Training of a classifier over any taxonomy: fold models, head, final models, calibration.

use std::sync::Arc;

use rayon::prelude::*;

use super::dense::{self, Row, Scored};
use super::encoder::{self, Seen};
use super::noise::{self, Copies};
use super::solver::{self, Doc};
use crate::classify::features::{CHAR_BITS, Group, WORD_BITS, scan};
use crate::classify::gist::Gist;
use crate::classify::taxonomy::Taxonomy;
use crate::classify::topics::table::Table;
use crate::classify::topics::{Head, Topics};

/// Parts of the training data; the head sees each part scored by models of the other parts.
pub const FOLDS: usize = 4;
/// Examples under this fold number teach the sparse models of every fold and never the head.
pub const EVERY_FOLD: usize = FOLDS + 1;
/// AdaGrad step and decay, as chosen for domains.
pub const RATE: f32 = 0.5;
/// See [`RATE`]; the decay is what carries over to new wording.
pub const DECAY: f32 = 1e-3;
/// L2 weight of the head. Set after one run on MMLU-Pro, whose report has the dev and the test split; nothing was swept.
const ALPHA: f64 = 20.0;
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
    /// How copies of the examples are spoilt.
    pub copies: &'static Copies,
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
    /// Hash of where it comes from; 0 where rows do not say.
    pub source: u64,
}

/// Which head was better on examples that it did not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Weights per label, by linfa.
    PerLabel,
    /// Three numbers for all.
    Shared,
}

/// What training goes by besides examples.
pub struct Aids<'a> {
    /// Word vectors.
    pub gist: Arc<Gist>,
    /// Sentence vectors of the examples; with them there is a head for the encoder.
    pub vectors: Option<&'a Lookup<'a>>,
    /// Called [`Options::ticks`] times.
    pub tick: &'a (dyn Fn() + Sync),
}

/// A text to its sentence vector, where there is one.
pub type Lookup<'a> = dyn Fn(&str) -> Option<Vec<f32>> + 'a;

/// Trains the fast tier, and the encoder's head where there are vectors.
pub fn fit(
    taxonomy: &Taxonomy,
    train: &[Sample],
    dev: &[Sample],
    options: &Options,
    aids: &Aids,
) -> Result<(Topics, Chosen), String> {
    enough(taxonomy, train)?;
    let all = noise::doubled(train, options.copies, options.seed);
    let models = fold_models(taxonomy, &all, options, aids);
    let full = models.last().ok_or("no final model")?;
    let unseen = |s: &Sample| row(models.get(s.fold).filter(|_| s.fold < FOLDS)?, s);
    let rows: Vec<Option<Row>> = all.iter().map(unseen).collect();
    let taught: Vec<&Row> = rows.iter().flatten().collect();
    let labels = taxonomy.labels.len();
    let (chosen, crossed) = choose(&taught, labels, options.seed)?;
    let mut fast = head(chosen, &taught, labels, options.seed)?;
    let dev_rows: Vec<Row> = dev.iter().filter_map(|s| row(full, s)).collect();
    if dev_rows.len() >= DEV_ENOUGH {
        let scored: Vec<Scored> = dev_rows.iter().map(|r| (fast.logits(&r.x), r.label, r.weight)).collect();
        dense::settle(&mut fast, &scored);
    } else {
        dense::settle(&mut fast, &crossed);
    }
    let mut trained = Topics { fast, ..full.clone() };
    if let Some(vectors) = aids.vectors {
        // Copies with slips have no vectors of their own.
        let own = train.iter().zip(&rows).filter_map(|(s, r)| Some((s, r.clone()?)));
        let dev = dev.iter().filter_map(|s| Some((s, row(full, s)?)));
        let (head, ask_below) = second(&trained, own, dev, vectors, options.seed)?;
        (trained.encoder, trained.ask_below) = (Some(head), ask_below);
    }
    Ok((trained, chosen))
}

/// The encoder's head. Where there is little dev data, a part of the training data takes its place.
fn second<'a>(
    trained: &Topics,
    train: impl Iterator<Item = (&'a Sample, Row)>,
    dev: impl Iterator<Item = (&'a Sample, Row)>,
    vectors: &Lookup,
    seed: u64,
) -> Result<(Head, f32), String> {
    let seen = |(sample, row): (&Sample, Row)| {
        let logits = trained.fast.logits(&row.x);
        let said = trained.fast.sorted(logits.clone());
        let x = [logits, vectors(&sample.text)?].concat();
        Some(Seen { fast: (said.margin(), said.top == Some(row.label)), row: Row { x, ..row } })
    };
    let (mut kept, mut held): (Vec<Seen>, Vec<Seen>) =
        (train.filter_map(seen).collect(), dev.filter_map(seen).collect());
    if held.len() < DEV_ENOUGH {
        (held, kept) = kept.into_iter().partition(|s| s.row.fold == 0);
    }
    let kept: Vec<Row> = kept.into_iter().map(|s| s.row).collect();
    encoder::fit(&kept, &held, trained.labels(), seed)
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
fn choose(rows: &[&Row], labels: usize, seed: u64) -> Result<(Chosen, Vec<Scored>), String> {
    let mut best: Option<(Chosen, Vec<Scored>, f64)> = None;
    for kind in [Chosen::PerLabel, Chosen::Shared] {
        let one = |fold: usize| -> Vec<Scored> {
            let (held, seen): (Vec<&Row>, Vec<&Row>) = rows.iter().copied().partition(|r| r.fold == fold);
            if held.is_empty() || seen.is_empty() {
                return Vec::new();
            }
            // A label that occurs in one fold only leaves linfa a single class: such data gets the shared head.
            let Ok(head) = head(kind, &seen, labels, seed) else { return Vec::new() };
            held.iter().map(|r| (head.logits(&r.x), r.label, r.weight)).collect()
        };
        let scored: Vec<Vec<Scored>> = (0..FOLDS).into_par_iter().map(one).collect();
        let scored: Vec<Scored> = scored.into_iter().flatten().collect();
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
fn fold_models(taxonomy: &Taxonomy, train: &[Sample], options: &Options, aids: &Aids) -> Vec<Topics> {
    let docs: Vec<[Doc; 2]> = train.iter().map(docs).collect();
    let tick = aids.tick;
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
        weights: vec![0.0; Topics::numbers(labels) * labels],
        bias: vec![0.0; labels],
        temperature: 1.0,
        threshold: 0.0,
    };
    let mut tables = tables.into_iter();
    let mut models = Vec::new();
    while let (Some(words), Some(chars)) = (tables.next(), tables.next()) {
        let (taxonomy, gist, fast) = (taxonomy.clone(), Arc::clone(&aids.gist), empty.clone());
        models.push(Topics { taxonomy, words, chars, gist, fast, encoder: None, ask_below: 0.0 });
    }
    models
}

fn docs(sample: &Sample) -> [Doc; 2] {
    let (mut words, mut chars) = (Vec::new(), Vec::new());
    scan(&sample.text, |group, batch| match group {
        Group::Word => words.extend_from_slice(batch),
        Group::Char => chars.extend_from_slice(batch),
        Group::Whole => {}
    });
    [words, chars].map(|features| Doc { features, label: sample.label, weight: sample.weight })
}
