//! Text to a posterior over domains, in microseconds. See [`Classifier`].
//!
//! The domains are one taxonomy of [`topics`]: two hashed linear models (words, characters) score every label; a small dense
//! head joins the scores with the shape of the text; a temperature makes the result a probability. Where a sentence vector is
//! at hand a second head joins it with these. Where the text says too little the classifier abstains: most of the mass goes
//! to `None`. Pure: no clock, no randomness, no IO after loading, and any text gives a posterior.

pub mod artifact;
pub mod domain;
pub mod features;
mod fresh;
pub mod gist;
pub mod labelled;
pub mod measure;
pub mod taxonomy;
pub mod topics;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use self::artifact::ArtifactError;
use self::domain::{Domain, Posterior};
use self::topics::{Sorted, Topics};

static SHIPPED: LazyLock<Arc<Classifier>> = LazyLock::new(|| {
    // The bytes are part of the program and a test loads them; were they bad all the same, abstaining is always right.
    Arc::new(Classifier { topics: Topics::shipped(AEI) })
});

/// Name of the taxonomy of the domains.
pub const AEI: &str = "aei";

/// A trained domain classifier. Deterministic; any text gives a posterior.
pub struct Classifier {
    topics: Option<Arc<Topics>>,
}

impl Classifier {
    /// The classifier embedded in this program.
    pub fn shipped() -> Arc<Self> {
        Arc::clone(&SHIPPED)
    }

    /// Loads an artifact from a file.
    pub fn load(path: &Path) -> Result<Self, ArtifactError> {
        Self::of(Topics::load(path)?)
    }

    /// Takes an artifact from its bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        Self::of(topics::file::parse(bytes)?)
    }

    /// A classifier whose labels are the domains, in their order.
    pub fn of(topics: Topics) -> Result<Self, ArtifactError> {
        if topics.taxonomy.labels.iter().map(|l| l.name.as_str()).ne(Domain::all().map(Domain::name)) {
            return Err(ArtifactError::Taxonomy { found: topics.taxonomy.name, wanted: AEI.into() });
        }
        Ok(Self { topics: Some(Arc::new(topics)) })
    }

    /// The distribution over domains; never panics, whatever the text is. Abstention puts at least half of it on `None`.
    pub fn posterior(&self, text: &str) -> Posterior {
        self.fast(text).0
    }

    /// [`Self::posterior`], and how far its first is ahead of its second before abstention: below [`Self::ask_below`] the
    /// encoder is worth asking. 1 where there is nothing to ask about.
    pub fn fast(&self, text: &str) -> (Posterior, f32) {
        let Some(topics) = &self.topics else { return (Posterior::none(), 1.0) };
        let sorted = topics.sort(text);
        (abstain(posterior(&sorted), topics.fast.threshold), sorted.margin())
    }

    /// The distribution with the text's sentence vector; a vector of another length, or an artifact without a head for it,
    /// gives [`Self::posterior`].
    pub fn posterior_with(&self, text: &str, vector: &[f32]) -> Posterior {
        let Some(topics) = &self.topics else { return Posterior::none() };
        let threshold = topics.encoder.as_ref().unwrap_or(&topics.fast).threshold;
        abstain(posterior(&topics.sort_with(text, vector)), threshold)
    }

    /// Below this margin of the fast tier the encoder is worth asking; `None` where the artifact has no head for it.
    pub fn ask_below(&self) -> Option<f32> {
        self.topics.as_ref().filter(|topics| topics.encoder.is_some()).map(|topics| topics.ask_below)
    }

    /// The calibrated distribution before abstention, for measuring calibration.
    pub fn calibrated(&self, text: &str) -> Posterior {
        self.topics.as_ref().map_or_else(Posterior::none, |topics| posterior(&topics.sort(text)))
    }

    /// The classifier of the taxonomy underneath.
    pub fn topics(&self) -> Option<&Topics> {
        self.topics.as_deref()
    }
}

/// A distribution over the labels of [`AEI`] as one over the domains; a text without a label is `None`.
pub fn posterior(sorted: &Sorted) -> Posterior {
    let mut out = Posterior::none();
    if sorted.top.is_some() {
        for (to, from) in out.0.iter_mut().zip(&sorted.p) {
            *to = *from;
        }
    }
    out
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
