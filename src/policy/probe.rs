//! Probes: prompts that a policy file promises to send to a place, checked without asking anybody.

use std::sync::Arc;

use super::rules::Policy;
use super::types::{Candidate, Capabilities, Chance, Pin, Place, Signals, State};
use crate::api::query::Needs;
use crate::classify::domain::{DOMAINS, Posterior};
use crate::energy::{Basis, Joules};

/// A backend that exists only for probes.
#[derive(Clone, Debug)]
pub struct StandIn {
    /// `local/NAME` or `cloud/NAME`.
    pub backend: Arc<str>,
    /// Where it would run.
    pub place: Place,
    /// P(correct) of each domain.
    pub coverage: [f64; DOMAINS],
    /// J of one answer; the range is half to one and a half. None is unknown.
    pub joules: Option<f64>,
    /// US dollars of one answer.
    pub usd: Option<f64>,
    /// Seconds of one answer.
    pub seconds: Option<f64>,
    /// Off stands for a backend whose key is missing.
    pub ready: bool,
}

/// A prompt and where it must go.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The text to classify.
    pub prompt: String,
    /// Where it must go.
    pub place: Place,
    /// Which stand-in must get it, if that matters.
    pub backend: Option<Arc<str>>,
    /// Ask as a private query.
    pub private: bool,
}

/// What became of one probe.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Its place in the file, from 0.
    pub index: usize,
    /// Went where it must.
    pub ok: bool,
    /// The backend that was chosen; none if nobody could answer.
    pub backend: Option<Arc<str>>,
    /// One line for people: what was expected, what happened, and the policy's reason.
    pub text: String,
}

/// Runs all probes of a policy over its stand-ins. `classify` gives a prompt's posterior.
pub fn run_probes(policy: &Policy, classify: impl Fn(&str) -> Posterior) -> Vec<Checked> {
    policy.probes.iter().enumerate().map(|(i, probe)| one(policy, i, probe, &classify)).collect()
}

fn one(policy: &Policy, index: usize, probe: &Probe, classify: &impl Fn(&str) -> Posterior) -> Checked {
    let posterior = classify(&probe.prompt);
    let signals = Signals {
        posterior,
        input_tokens: u32::try_from(probe.prompt.len() / 4 + 1).unwrap_or(u32::MAX),
        max_output: None,
        needs: Needs::default(),
        beyond_embedded: None,
        pin: Pin::None,
        private: probe.private,
        last: None,
        candidates: policy.stand_ins.iter().map(|s| s.candidate(&posterior)).collect(),
        draw: 0,
    };
    let decision = policy.decide(&signals);
    let chosen = decision.chosen.and_then(|i| decision.alternatives.get(i));
    let named = probe.backend.as_ref().is_none_or(|b| chosen.is_some_and(|c| c.backend == *b));
    let ok = chosen.is_some_and(|c| c.place == probe.place) && named;
    let want = probe.backend.as_deref().unwrap_or(probe.place.name());
    let got = chosen.map_or("nobody", |c| &*c.backend);
    Checked {
        index,
        ok,
        backend: chosen.map(|c| Arc::clone(&c.backend)),
        text: format!(
            "probes[{index}]: expected {want}, got {got} ({} p {:.2}): {}",
            decision.domain, decision.domain_p, decision.reason
        ),
    }
}

impl StandIn {
    fn candidate(&self, posterior: &Posterior) -> Candidate {
        let mean: f64 = posterior.0.iter().zip(self.coverage).map(|(p, c)| f64::from(*p) * c).sum();
        let off = || State::NotConfigured(Arc::from("the stand-in is off"));
        Candidate {
            backend: Arc::clone(&self.backend),
            place: self.place,
            state: if self.ready { State::Ready } else { off() },
            caps: Capabilities::ANY,
            learned: None,
            chance: Chance { mean, low: mean, high: mean, n: 0, source: "prior" },
            joules: self.joules.map_or(Joules::UNKNOWN, |j| Joules::range(0.5 * j, j, 1.5 * j, Basis::Modelled)),
            usd: self.usd,
            seconds: self.seconds,
            output_tokens: 200.0,
            grid_g_per_kwh: None,
            gco2e: None,
        }
    }
}
