//! A trained predictor as the serving path asks it: P(correct) and tokens of an answer, per query, in microseconds.
//!
//! Made from a [`fit`](crate::predict::fit) of one backend: its two sparse lines folded into one row of bytes, its cells by the
//! classifier's domains, its head. Pure after loading: no clock, no randomness, any text gives finite numbers.

pub mod artifact;
pub mod lengths;
pub mod make;

use std::path::Path;
use std::sync::Arc;

pub use self::artifact::{ArtifactError, Success};
use self::lengths::Lengths;
use crate::classify::domain::{DOMAINS, Posterior};
use crate::policy::types::Chance;
use crate::predict::fit::dense::{DENSE, dense};
use crate::predict::fit::model::KNOWN;
use crate::predict::fit::sparse::{self, logit, sigmoid};
use crate::tables::stats::wilson_share;

/// What the predictors of all backends see of one query; read once.
#[derive(Clone, Debug)]
pub struct Read {
    buckets: Vec<u32>,
    dense: [f32; DENSE],
}

impl Read {
    /// Reads a text: at most the classifier's window of it.
    pub fn of(text: &str) -> Self {
        Self { buckets: sparse::buckets(text).0, dense: dense(text) }
    }
}

/// One backend's predictor.
#[derive(Clone, Debug)]
pub struct Predictor {
    pub(crate) idf: Arc<Vec<u8>>,
    pub(crate) learned: Arc<Learned>,
}

/// What training decided for one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// The model it was learned of, as its outcomes call it.
    pub model: String,
    /// Outcomes behind it.
    pub rows: u32,
    /// One unit of a word's weight.
    pub scale: f32,
    /// Weight per bucket of words.
    pub words: Vec<i8>,
    /// Intercept of everything.
    pub bias: f32,
    /// Shrunk share of right answers per domain, then overall.
    pub own: [f32; CELLS],
    /// The same of ease.
    pub ease: [f32; CELLS],
    /// Outcomes per domain.
    pub counts: [f32; DOMAINS],
    /// Weights of the logits of the two.
    pub cells: [f32; 2],
    /// Weights of the shape of the prompt.
    pub dense: [f32; DENSE],
    /// Weights of what is known of the words.
    pub known: [f32; KNOWN],
    /// Tokens of an answer, if the outcomes had any.
    pub lengths: Option<Lengths>,
}

/// Domains and overall.
pub const CELLS: usize = DOMAINS + 1;
/// Steps of a stored inverse frequency per unit; the largest one of a million rows is below 15.
pub const IDF_STEPS: f32 = 16.0;

impl Predictor {
    /// Loads the predictor of a model from an artifact.
    ///
    /// # Errors
    /// An unreadable artifact, or one of other models; the error names those it has.
    pub fn load(path: &Path, model: &str) -> Result<Self, ArtifactError> {
        Success::load(path)?.of_model(model)
    }

    /// P(correct) with an interval: as wide as the outcomes of the query's domains are few.
    pub fn chance(&self, read: &Read, posterior: &Posterior) -> Chance {
        let mean = self.p(read, posterior);
        let each = posterior.0.iter().zip(self.learned.counts);
        let n: f64 = each.map(|(p, n)| f64::from(p.max(0.0)) * f64::from(n)).sum();
        let (low, high) = wilson_share(mean, n.max(1.0));
        Chance { mean, low: low.min(mean), high: high.max(mean), n: n.round() as u32, source: "predictor" }
    }

    /// Quantiles .1, .5 and .9 of the tokens of an answer, and their mean; none if no outcome had any.
    pub fn tokens(&self, read: &Read) -> Option<lengths::Expected> {
        self.learned.lengths.as_ref().map(|l| l.of(&read.dense))
    }

    /// Outcomes behind it, and of which model.
    pub fn about(&self) -> (&str, u32) {
        (&self.learned.model, self.learned.rows)
    }

    fn p(&self, read: &Read, posterior: &Posterior) -> f64 {
        let l = &*self.learned;
        let (mut dot, mut square, mut sum, mut found) = (0.0f32, 0.0f32, 0.0f32, 0.0f32);
        for bucket in &read.buckets {
            let at = *bucket as usize;
            let idf = f32::from(self.idf.get(at).copied().unwrap_or(0)) / IDF_STEPS;
            sum += idf;
            found += f32::from(u8::from(idf > 0.0));
            // Characters count for what is known only; their buckets lie behind those of words.
            if let Some(weight) = l.words.get(at) {
                dot += idf * f32::from(*weight);
                square += idf * idf;
            }
        }
        let mut z = f64::from(l.bias) + f64::from(dot * l.scale / square.max(1e-9).sqrt());
        let cells = [mixed(&l.own, posterior), mixed(&l.ease, posterior)];
        z += cells.iter().zip(l.cells).map(|(p, w)| logit(*p) * f64::from(w)).sum::<f64>();
        z += f64::from(read.dense.iter().zip(l.dense).map(|(x, w)| x * w).sum::<f32>());
        let known = [found / read.buckets.len().max(1) as f32, sum / found.max(1.0) / 4.0];
        z += f64::from(known.iter().zip(l.known).map(|(x, w)| x * w).sum::<f32>());
        sigmoid(z)
    }
}

/// A cell expected under the posterior; what the posterior leaves out counts as overall.
fn mixed(cells: &[f32; CELLS], posterior: &Posterior) -> f64 {
    let overall = cells.last().copied().unwrap_or(0.5);
    let (mut sum, mut mass) = (0.0, 0.0);
    for (p, cell) in posterior.0.iter().zip(cells) {
        sum += p * cell;
        mass += p;
    }
    f64::from(sum + (1.0 - mass).max(0.0) * overall)
}
