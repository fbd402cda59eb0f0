//! Text to a posterior over the labels of any taxonomy, by the features and in the time of the domain classifier.
//!
//! Two hashed linear models score every label; a dense head joins the scores with the text's [`gist`] and its shape. Where a
//! sentence vector is at hand, a second head joins it with the first one's logits. Pure: no clock, no IO after loading; any
//! text gives a distribution, and a text without letters gives none of the labels.
//!
//! [`gist`]: super::gist

pub mod file;

pub mod table;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use self::table::{Sums, Table};
use super::artifact::ArtifactError;
use super::features::{Group, SHAPES, scan};
use super::gist::{DIMS, Gist, Mean};
use super::taxonomy::Taxonomy;

pub(super) static AEI_BYTES: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/eval/artifacts/domain.bin"));
static AEI: LazyLock<Option<Arc<Topics>>> = LazyLock::new(|| file::parse(AEI_BYTES).ok().map(Arc::new));

static MMLU_PRO_BYTES: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/eval/artifacts/mmlu-pro.bin"));
static MMLU_PRO: LazyLock<Option<Arc<Topics>>> = LazyLock::new(|| file::parse(MMLU_PRO_BYTES).ok().map(Arc::new));

/// Numbers in a sentence vector of the encoder tier.
pub const VECTOR: usize = 384;

/// A trained classifier over a taxonomy.
#[derive(Clone, Debug, PartialEq)]
pub struct Topics {
    /// Its labels.
    pub taxonomy: Taxonomy,
    /// Words and word pairs.
    pub words: Table,
    /// Characters.
    pub chars: Table,
    /// Word vectors; shared by all classifiers.
    pub gist: Arc<Gist>,
    /// From word scores, character scores, gist and shape.
    pub fast: Head,
    /// From the fast head's logits and a sentence vector, where one was trained.
    pub encoder: Option<Head>,
    /// The encoder is worth asking where the fast tier's margin is below this; chosen in training.
    pub ask_below: f32,
}

/// A linear layer with its calibration.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// One row of labels per input.
    pub weights: Vec<f32>,
    /// Intercepts, one per label.
    pub bias: Vec<f32>,
    /// Logits are divided by this.
    pub temperature: f32,
    /// Below this top probability the answer is better left open.
    pub threshold: f32,
}

/// A distribution over labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sorted {
    /// One probability per label; sums to 1, or all 0 where the text gives nothing to go on.
    pub p: Vec<f32>,
    /// Most likely label; `None` where the text gives nothing to go on.
    pub top: Option<usize>,
    /// Whether the top probability reaches the threshold that training chose.
    pub sure: bool,
}

impl Topics {
    /// The shipped classifier of a taxonomy.
    pub fn shipped(taxonomy: &str) -> Option<Arc<Self>> {
        match taxonomy {
            "mmlu-pro" => MMLU_PRO.clone(),
            "aei" => AEI.clone(),
            _ => None,
        }
    }

    /// Loads an artifact from a file.
    pub fn load(path: &Path) -> Result<Self, ArtifactError> {
        let bytes =
            std::fs::read(path).map_err(|cause| ArtifactError::Read { path: path.display().to_string(), cause })?;
        file::parse(&bytes)
    }

    /// Number of labels.
    pub fn labels(&self) -> usize {
        self.taxonomy.labels.len()
    }

    /// How many numbers the fast head takes for so many labels.
    pub const fn numbers(labels: usize) -> usize {
        2 * labels + DIMS + SHAPES
    }

    /// The distribution by the fast tier.
    pub fn sort(&self, text: &str) -> Sorted {
        self.inputs(text).map_or_else(|| self.nothing(), |x| self.fast.sorted(self.fast.logits(&x)))
    }

    /// The distribution by both heads; the vector must have [`VECTOR`] numbers, else the fast tier answers alone.
    pub fn sort_with(&self, text: &str, vector: &[f32]) -> Sorted {
        let fits = vector.len() == VECTOR && usable(vector);
        let Some(head) = self.encoder.as_ref().filter(|_| fits) else { return self.sort(text) };
        let Some(x) = self.inputs(text) else { return self.nothing() };
        let mut joined = self.fast.logits(&x);
        joined.extend_from_slice(vector);
        head.sorted(head.logits(&joined))
    }

    /// Inputs of the fast head: word scores, character scores, gist, shape. `None` where the text gives nothing to go on.
    pub fn inputs(&self, text: &str) -> Option<Vec<f32>> {
        let (mut words, mut chars, mut gist) = (Sums::default(), Sums::default(), Mean::default());
        let shape = scan(text, |group, batch| match group {
            Group::Word => words.add(&self.words, batch),
            Group::Char => chars.add(&self.chars, batch),
            Group::Whole => gist.add(&self.gist, batch),
        });
        if shape.is_void() {
            return None;
        }
        let mut x = Vec::with_capacity(Self::numbers(self.labels()));
        words.scores(&self.words, &mut x);
        chars.scores(&self.chars, &mut x);
        x.extend(gist.numbers());
        x.extend(shape.numbers(words.known(), chars.known()));
        Some(x)
    }

    fn nothing(&self) -> Sorted {
        Sorted { p: vec![0.0; self.labels()], top: None, sure: true }
    }
}

impl Sorted {
    /// The first probability minus the second; 1 where there is nothing to sort.
    pub fn margin(&self) -> f32 {
        let (mut first, mut second) = (0.0f32, 0.0f32);
        for p in &self.p {
            if *p > first {
                (first, second) = (*p, first);
            } else if *p > second {
                second = *p;
            }
        }
        if self.top.is_none() { 1.0 } else { first - second }
    }
}

impl Head {
    /// Weights times inputs plus bias.
    pub fn logits(&self, x: &[f32]) -> Vec<f32> {
        let mut z = self.bias.clone();
        for (xi, row) in x.iter().zip(self.weights.chunks_exact(self.bias.len().max(1))) {
            for (zc, w) in z.iter_mut().zip(row) {
                *zc += xi * w;
            }
        }
        z
    }

    /// Logits to a calibrated distribution. Numbers that are not finite give none of the labels.
    pub fn sorted(&self, mut z: Vec<f32>) -> Sorted {
        if !usable(&z) {
            return Sorted { p: vec![0.0; z.len()], top: None, sure: false };
        }
        soften(&mut z, self.temperature);
        let mut top = (None, 0.0f32);
        for (at, p) in z.iter().enumerate() {
            if top.0.is_none() || *p > top.1 {
                top = (Some(at), *p);
            }
        }
        Sorted { p: z, top: top.0, sure: top.1 >= self.threshold }
    }
}

/// Softmax over a temperature, in place.
pub fn soften(z: &mut [f32], temperature: f32) {
    let top = z.iter().copied().fold(f32::MIN, f32::max);
    z.iter_mut().for_each(|v| *v = ((*v - top) / temperature).exp());
    let total: f32 = z.iter().sum();
    z.iter_mut().for_each(|v| *v /= total);
}

fn usable(numbers: &[f32]) -> bool {
    numbers.iter().all(|x| x.is_finite())
}
