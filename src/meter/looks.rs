//! Looks into what is kept, answers and posteriors, and what came of asking the sentence encoder.

use metrics::Counter;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::registry::counter;
use super::{METER, names};

/// What came of asking the sentence encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// Its answer stands.
    Answered,
    /// It took longer than its budget.
    Late,
    /// Others waited for it already.
    Busy,
    /// It could not.
    Failed,
}

/// Each pair: not found, found.
pub struct Looks {
    answers: [Counter; 2],
    posteriors: [Counter; 2],
    /// In the order of [`Encoder`].
    encoder: [Counter; 4],
}

impl Looks {
    pub fn new(r: &PrometheusRecorder) -> Self {
        Self {
            answers: ["miss", "hit"].map(|w| counter(r, names::CACHE, &[("result", w)])),
            posteriors: ["made", "kept"].map(|w| counter(r, names::POSTERIORS, &[("result", w)])),
            encoder: ["answered", "late", "busy", "failed"].map(|w| counter(r, names::ENCODER, &[("result", w)])),
        }
    }
}

/// A look into the cache of answers.
pub fn cache(hit: bool) {
    count(|looks| &looks.answers, hit);
}

/// A look for a text's posterior.
pub fn posterior(kept: bool) {
    count(|looks| &looks.posteriors, kept);
}

/// The encoder was asked.
pub fn encoder(result: Encoder) {
    let Some([answered, late, busy, failed]) = METER.get().map(|m| &m.looks.encoder) else { return };
    match result {
        Encoder::Answered => answered.increment(1),
        Encoder::Late => late.increment(1),
        Encoder::Busy => busy.increment(1),
        Encoder::Failed => failed.increment(1),
    }
}

fn count(of: impl FnOnce(&Looks) -> &[Counter; 2], found: bool) {
    if let Some([without, with]) = METER.get().map(|m| of(&m.looks)) {
        if found { with.increment(1) } else { without.increment(1) }
    }
}
