//! What a policy sees and what it says.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cascade::Verify;
use crate::api::query::Needs;
use crate::classify::domain::{Domain, Posterior};
use crate::energy::Joules;
use crate::energy::carbon::Grams;

/// Where a backend runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On a device of ours.
    Local,
    /// At a provider.
    Cloud,
}

impl Place {
    /// The word used in headers and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cloud => "cloud",
        }
    }
}

/// Everything the policy may look at.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Domain distribution of the query's text.
    pub posterior: Posterior,
    /// Prompt tokens, estimated.
    pub input_tokens: u32,
    /// The client's limit on generated tokens.
    pub max_output: Option<u32>,
    /// Capabilities the query needs.
    pub needs: Needs,
    /// First request field that only a backend which passes unknown fields on can honour.
    pub beyond_embedded: Option<String>,
    /// What the client pinned.
    pub pin: Pin,
    /// The query must not leave this machine, whatever the policy file says.
    pub private: bool,
    /// The backend that answered this conversation last, if it is remembered.
    pub last: Option<Arc<str>>,
    /// All configured backends, in configuration order.
    pub candidates: Vec<Candidate>,
    /// Seed of any random draw; recorded, so that a decision can be replayed.
    pub draw: u64,
}

/// What the model name asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// `auto` and presets: the policy decides.
    None,
    /// `local/NAME`, `cloud/NAME` or a plain backend name.
    Backend(Arc<str>),
}

/// One backend as the policy sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name from the configuration.
    pub backend: Arc<str>,
    /// Where it runs.
    pub place: Place,
    /// Whether it can take a query now.
    pub state: State,
    /// What it can do.
    pub caps: Capabilities,
    /// P(correct), with where it comes from.
    pub chance: Chance,
    /// What judged answers taught beyond it; none where no policy asks.
    pub learned: Option<Learned>,
    /// Predicted energy of this query.
    pub joules: Joules,
    /// Predicted price in US dollars; null when there is no price.
    pub usd: Option<f64>,
    /// Predicted seconds to the last token.
    pub seconds: Option<f64>,
    /// Predicted generated tokens.
    pub output_tokens: f64,
    /// g CO2e per kWh where it runs; none leaves it to the policy's assumption.
    pub grid_g_per_kwh: Option<f64>,
    /// Predicted CO2e, if the place is configured.
    pub gco2e: Option<Grams>,
}

/// What judged answers taught of a backend's P(correct) on one query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learned {
    /// How much more it is than predicted.
    pub shift: f64,
    /// How little is known of that: 0 is all.
    pub width: f64,
}

/// Whether a backend can take a query now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Yes.
    Ready,
    /// A model is being fetched or loaded.
    Loading,
    /// Its breaker is open.
    Unhealthy,
    /// Its queue or its permits are used up.
    Full,
    /// Known but switched off, with the reason: "OPENAI_API_KEY is not set".
    NotConfigured(Arc<str>),
    /// It cannot do what this query asks, with the field: the embedded engine and `tools`.
    Unable(Arc<str>),
}

/// What a backend can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Context window in tokens, prompt and answer together.
    pub context: u32,
    /// Tool calls.
    pub tools: bool,
    /// Image input.
    pub images: bool,
    /// Audio and file input.
    pub audio: bool,
    /// Structured output.
    pub json: bool,
    /// More than one choice.
    pub many: bool,
    /// Token log-probabilities.
    pub logprobs: bool,
    /// Request fields it does not know: passed on (a proxy) or refused (the embedded engine).
    pub any_field: bool,
}

impl Capabilities {
    /// Can do everything, at any length.
    pub const ANY: Self = Self {
        context: u32::MAX,
        tools: true,
        images: true,
        audio: true,
        json: true,
        many: true,
        logprobs: true,
        any_field: true,
    };
}

/// A predicted probability of a correct answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Chance {
    /// Posterior-weighted, shrunk.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Scored queries behind it; 0 for a prior.
    pub n: u32,
    /// `table`, `predictor` or `prior`.
    pub source: &'static str,
}

/// The outcome of a policy: a choice, why, and everything it was chosen over.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Index into `alternatives`; none when nothing is eligible.
    pub chosen: Option<usize>,
    /// One sentence for people: header, journal, explain.
    pub reason: Arc<str>,
    /// Every backend, in configuration order.
    pub alternatives: Arc<[Alternative]>,
    /// Most likely domain (after abstention).
    pub domain: Domain,
    /// Its probability.
    pub domain_p: f32,
    /// Distribution over domains that the decision used.
    pub posterior: Posterior,
    /// Probability with which this policy makes this choice on these signals; 1 for a deterministic one.
    pub propensity: f64,
    /// The seed of the draw, where the policy explores: the same seed and signals give the same choice.
    pub draw: Option<u64>,
    /// Name of the policy.
    pub policy: Arc<str>,
    /// BLAKE3 of the policy file, first 16 hex digits.
    pub policy_hash: Arc<str>,
    /// Indices of all backends that could answer now, best first by the policy's rule.
    pub ranked: Vec<usize>,
    /// Ranked indices to try after `chosen` fails before the first byte. Never crosses to cloud for a private query.
    pub fallbacks: Vec<usize>,
    /// Index of the baseline: the cloud backend that would answer if everything went to the cloud, configured or not.
    pub baseline: Option<usize>,
    /// Baseline's joules minus the chosen one's: what this decision is expected to save. May be negative.
    pub saved: Saved,
    /// The chosen backend is local and its answer is checked before it is sent.
    pub cascade: Option<Cascade>,
    /// Which tier of the classifier had the last word, where more than one is configured.
    pub tier: Option<&'static str>,
    /// Joules that classifying the query took; part of `saved`.
    pub router_joules: f64,
    /// Present unless query or policy is private, or the rule keeps every query local: without it no cloud socket opens.
    pub cloud: Option<CloudPermit>,
}

impl Decision {
    /// Charges what classifying the query took, and notes who did it: the router's own cost is in every saving.
    #[must_use]
    pub fn charged(mut self, joules: f64, tier: Option<&'static str>) -> Self {
        let less = |saved: Option<f64>| saved.map(|s| s - joules);
        self.saved = Saved { low: less(self.saved.low), mid: less(self.saved.mid), high: less(self.saved.high) };
        self.router_joules += joules;
        self.tier = tier;
        self
    }
}

/// How the answer of the chosen backend is checked, and who is asked if it is not trusted.
#[derive(Clone, Debug, PartialEq)]
pub struct Cascade {
    /// Index of the cloud backend most likely to be right.
    pub strong: usize,
    /// The policy's settings.
    pub verify: Arc<Verify>,
    /// P(correct) of the local backend before it has answered.
    pub prior: f64,
    /// Tokens that its answer is expected to have.
    pub expected_tokens: f64,
}

/// Expected saving against the baseline (the best eligible cloud backend, configured or not), low/mid/high, may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Saved {
    /// Against the cheapest cloud assumption.
    pub low: Option<f64>,
    /// Against the central one.
    pub mid: Option<f64>,
    /// Against the dearest one.
    pub high: Option<f64>,
}

/// Proof that a decision may use the cloud. Only `policy` can make one, and it makes none for a private query.
#[derive(Clone, Debug)]
pub struct CloudPermit(pub(in crate::policy) ());

impl CloudPermit {
    /// For the questions of a suite only: whoever types `wattroute profile --backend cloud/NAME` sends his own suite there.
    /// No client's query is ever asked with it.
    pub fn of_the_operator() -> Self {
        Self(())
    }
}

/// One backend in a decision. Serialised as `decision.alternatives[]` of `explain --json` and `/v1/route`.
#[derive(Clone, Debug, Serialize)]
pub struct Alternative {
    /// Name from the configuration.
    pub backend: Arc<str>,
    /// Where it runs.
    pub place: Place,
    /// Predicted probability of a correct answer.
    pub p_correct: f64,
    /// Its interval and source.
    pub chance: Chance,
    /// `p_correct` before what judged answers taught of it, where the policy learns from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior: Option<f64>,
    /// Predicted energy.
    pub joules: Joules,
    /// Predicted price.
    pub usd: Option<f64>,
    /// Predicted seconds.
    pub seconds: Option<f64>,
    /// Predicted grams of CO2e, if the place is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gco2e: Option<Grams>,
    /// Could have been chosen.
    pub eligible: bool,
    /// Why it could not, or why it was not.
    pub why_not: Option<String>,
}
