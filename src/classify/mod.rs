//! Text to a posterior over domains, in microseconds. See [`Classifier`].
//!
//! Two hashed linear models (words, characters) score every domain; a small dense head joins the scores with the shape of
//! the text; a temperature makes the result a probability. Where the text says too little the classifier abstains: most of
//! the mass goes to `None`. Pure: no clock, no randomness, no IO after loading, and any text gives a posterior.

pub mod artifact;
pub mod domain;
pub mod features;
mod fresh;
pub mod labelled;
pub mod measure;
pub mod taxonomy;
pub mod topics;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use self::artifact::{Artifact, ArtifactError, INPUTS, LANES, Weights};
use self::domain::{DOMAINS, Domain, Posterior};
use self::features::{Group, scan};

static SHIPPED_BYTES: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/eval/artifacts/domain.bin"));
static SHIPPED: LazyLock<Arc<Classifier>> = LazyLock::new(|| {
    // The bytes are part of the program and a test loads them; were they bad all the same, abstaining is always right.
    let artifact = artifact::parse(SHIPPED_BYTES).ok();
    Arc::new(Classifier { artifact })
});

/// A trained domain classifier. Deterministic; any text gives a posterior.
pub struct Classifier {
    artifact: Option<Artifact>,
}

impl Classifier {
    /// The classifier embedded in this program.
    pub fn shipped() -> Arc<Self> {
        Arc::clone(&SHIPPED)
    }

    /// Loads an artifact from a file.
    pub fn load(path: &Path) -> Result<Self, ArtifactError> {
        let bytes =
            std::fs::read(path).map_err(|cause| ArtifactError::Read { path: path.display().to_string(), cause })?;
        Self::parse(&bytes)
    }

    /// Takes an artifact from its bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        Ok(Self { artifact: Some(artifact::parse(bytes)?) })
    }

    /// The distribution over domains; never panics, whatever the text is. Abstention puts at least half of it on `None`.
    pub fn posterior(&self, text: &str) -> Posterior {
        let Some(artifact) = &self.artifact else { return Posterior::none() };
        match inputs(artifact, text) {
            None => Posterior::none(),
            Some(x) => abstain(soften(&logits(artifact, &x), artifact.temperature), artifact.threshold),
        }
    }

    /// The calibrated distribution before abstention, for measuring calibration.
    pub fn calibrated(&self, text: &str) -> Posterior {
        let Some(artifact) = &self.artifact else { return Posterior::none() };
        inputs(artifact, text).map_or_else(Posterior::none, |x| soften(&logits(artifact, &x), artifact.temperature))
    }
}

/// Inputs of the head: word scores, character scores, shape. None where the text is void.
pub fn inputs(artifact: &Artifact, text: &str) -> Option<[f32; INPUTS]> {
    let mut words = Sums::default();
    let mut chars = Sums::default();
    let shape = scan(text, |group, batch| match group {
        Group::Word => words.add(&artifact.words, batch),
        Group::Char => chars.add(&artifact.chars, batch),
    });
    if shape.is_void() {
        return None;
    }
    let mut x = [0.0; INPUTS];
    let scores = words.scores(&artifact.words).into_iter().chain(chars.scores(&artifact.chars));
    for (to, from) in x.iter_mut().zip(scores.chain(shape.numbers(words.known(), chars.known()))) {
        *to = from;
    }
    Some(x)
}

/// The head applied to its inputs.
pub fn logits(artifact: &Artifact, x: &[f32; INPUTS]) -> [f32; DOMAINS] {
    let mut z = artifact.bias;
    for (xi, row) in x.iter().zip(&artifact.head) {
        for (zc, w) in z.iter_mut().zip(row) {
            *zc += xi * w;
        }
    }
    z
}

/// Softmax of logits over a temperature.
pub fn soften(z: &[f32; DOMAINS], temperature: f32) -> Posterior {
    let top = z.iter().copied().fold(f32::MIN, f32::max);
    let mut p = z.map(|v| ((v - top) / temperature).exp());
    let total: f32 = p.iter().sum();
    for v in &mut p {
        *v /= total;
    }
    Posterior(p)
}

/// Below the threshold at least half of the mass goes to `None`, and all of it as the top probability goes to 0.
pub fn abstain(mut posterior: Posterior, threshold: f32) -> Posterior {
    let (top, p) = posterior.top();
    if top == Domain::NONE || p >= threshold {
        return posterior;
    }
    let keep = 0.5 * p / threshold;
    for (domain, v) in Domain::all().zip(&mut posterior.0) {
        *v = *v * keep + if domain == Domain::NONE { 1.0 - keep } else { 0.0 };
    }
    posterior
}

/// Running sums of the rows of one table.
#[derive(Default)]
struct Sums {
    lanes: [i32; LANES],
    active: u32,
    known: u32,
}

impl Sums {
    /// Adds the rows of at most 256 buckets: as many as 16 bits hold the sum of. The loads do not depend on each other, so
    /// that their cache misses overlap.
    fn add(&mut self, weights: &Weights, batch: &[u32]) {
        let mut near = [0i16; LANES];
        for bucket in batch {
            let Some(row) = weights.rows.get(*bucket as usize) else { continue };
            for (sum, w) in near.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i16::from(*w));
            }
            self.known += u32::from(row.last().is_some_and(|idf| *idf > 0));
        }
        for (sum, near) in self.lanes.iter_mut().zip(near) {
            *sum += i32::from(near);
        }
        self.active += batch.len() as u32;
    }

    /// Scores of the linear model on the unit-length vector of the known features.
    fn scores(&self, weights: &Weights) -> [f32; DOMAINS] {
        let squared = self.lanes.last().copied().unwrap_or(0).max(1) as f32;
        let unit = weights.scale / squared.sqrt();
        let mut out = [0.0; DOMAINS];
        for (to, sum) in out.iter_mut().zip(self.lanes) {
            *to = sum as f32 * unit;
        }
        out
    }

    fn known(&self) -> f32 {
        self.known as f32 / self.active.max(1) as f32
    }
}
