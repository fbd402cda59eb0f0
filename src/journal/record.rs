//! One journal entry.

use std::sync::Arc;

use serde::Serialize;

use crate::classify::domain::Posterior;
use crate::energy::Joules;
use crate::policy::types::{Alternative, Place, Saved};

/// `endpoint` and `verdict` of an entry that is no request of a client's: its query was asked again for a comparison.
pub const SHADOW: &str = "shadow";

/// What is written about one request. Holds no text of prompt or answer.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Request id, UUIDv7 or the client's `x-request-id` (checked, at most 128 visible ASCII characters).
    pub id: String,
    /// Decision id, UUIDv7.
    pub decision_id: String,
    /// Arrival, Unix milliseconds.
    pub arrived_ms: u64,
    /// Tenant; empty on an open loopback listener.
    pub tenant: Arc<str>,
    /// `chat`, `completions`, `route`, `shadow`.
    pub endpoint: &'static str,
    /// Model as asked, at most 128 characters.
    pub model_asked: String,
    /// Streamed.
    pub stream: bool,
    /// Domain name after abstention.
    pub domain: &'static str,
    /// Its probability.
    pub domain_p: f32,
    /// Distribution over the 23 domains; none where nothing was decided.
    pub posterior: Option<Posterior>,
    /// Policy name.
    pub policy: Arc<str>,
    /// Its hash.
    pub policy_hash: Arc<str>,
    /// Probability of this choice.
    pub propensity: f64,
    /// Sentence.
    pub reason: Arc<str>,
    /// Every backend as the decision saw it; shared with the decision, not copied.
    pub alternatives: Arc<[Alternative]>,
    /// Backend that answered (or was last tried).
    pub backend: Option<Arc<str>>,
    /// Its place.
    pub place: Option<Place>,
    /// Attempts made.
    pub attempts: u32,
    /// `ok`, `fault`, `hangup`, `cached`, `refused`.
    pub outcome: Outcome,
    /// Fault code, if any.
    pub fault: Option<&'static str>,
    /// Status sent.
    pub status: Option<u16>,
    /// Prompt tokens.
    pub input_tokens: Option<u32>,
    /// Generated tokens.
    pub output_tokens: Option<u32>,
    /// Where the counts come from.
    pub token_source: Option<&'static str>,
    /// Joules of the answer, from actual token counts; wasted attempts included.
    pub joules: Option<Joules>,
    /// Meters of this machine saw them; else they are the table's.
    pub metered: bool,
    /// Of those, spent on classifying the query.
    pub router_joules: Option<f64>,
    /// Which tier of the classifier had the last word (`fast`, `encoder`), where more than one is configured.
    pub tier: Option<&'static str>,
    /// Of those, spent on attempts that were thrown away.
    pub wasted_joules: Option<f64>,
    /// US dollars of them; null where nothing was thrown away after it had begun.
    pub wasted_usd: Option<f64>,
    /// Seconds of them, of the client's time.
    pub wasted_seconds: Option<f64>,
    /// P(the local answer is right) as its check had it; of a shadow, how far it agrees with the answer that was given. Null
    /// where neither is known.
    pub confidence: Option<f64>,
    /// Of a shadow whose answers a judge read in both orders: 1 where it is better than the answer that was given, 0.5 as good,
    /// 0 worse; null where the readings disagree.
    pub judged: Option<f64>,
    /// What came of the check: `kept`, `escalated`, or `given` because the cloud could not answer; `shadow` of a shadow.
    pub verdict: Option<&'static str>,
    /// Baseline minus `joules`.
    pub saved: Saved,
    /// Predicted P(correct) of the chosen backend minus the baseline's: expected quality change.
    pub quality_change: Option<f64>,
    /// US dollars.
    pub usd: Option<f64>,
    /// Milliseconds from arrival to the first byte of the answer.
    pub ttft_ms: Option<f64>,
    /// Milliseconds from arrival to the last byte.
    pub total_ms: f64,
    /// Our own time in the request path before the backend was asked, microseconds.
    pub overhead_us: f64,
    /// Hash of the conversation key.
    pub session: Option<u64>,
}

impl Record {
    /// The meters saw what the answer took: this replaces the table's figure, in the saving too. Attempts that were thrown
    /// away and the classifier's own share stay as they were told.
    pub fn measured(&mut self, own: Joules) {
        self.metered = true;
        let beside = self.wasted_joules.unwrap_or(0.0) + self.router_joules.unwrap_or(0.0);
        let total = if beside > 0.0 { own.plus(Joules::range(beside, beside, beside, own.basis)) } else { own };
        if let Some(expected) = self.joules.replace(total) {
            let moved = |saved: Option<f64>, was: Option<f64>, is: Option<f64>| Some(saved? + was? - is?);
            let Saved { low, mid, high } = self.saved;
            // The least that was saved is the cheapest baseline against the dearest answer.
            self.saved = Saved {
                low: moved(low, expected.high, total.high),
                mid: moved(mid, expected.mid, total.mid),
                // What an answer took without the idle machine is not below 0, where nobody knows it.
                high: moved(high, expected.low, total.low.or(total.mid.map(|_| 0.0))),
            };
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Answered completely.
    Ok,
    /// From the cache.
    Cached,
    /// Refused before a backend was asked.
    Refused,
    /// An upstream's own error status was passed on.
    Upstream,
    /// A fault after a backend was asked.
    Fault,
    /// The client went away.
    #[default]
    Hangup,
}
