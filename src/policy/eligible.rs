//! Who may answer, and why not.

use super::rules::{Policy, Rule};
use super::types::{Candidate, Pin, Place, Signals, State};

/// What is said of one candidate before any choice.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// May answer.
    Ready,
    /// Could answer this query, but not now.
    Waiting(String),
    /// Must not or cannot answer this query.
    Out(String),
}

impl Verdict {
    /// May answer now.
    pub fn ready(&self) -> bool {
        matches!(self, Self::Ready)
    }

    /// May answer, now or once its state allows.
    pub fn able(&self) -> bool {
        !matches!(self, Self::Out(_))
    }

    /// Why not.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::Waiting(why) | Self::Out(why) => Some(why),
        }
    }
}

/// One verdict per candidate, in their order.
pub fn verdicts(policy: &Policy, signals: &Signals) -> Vec<Verdict> {
    signals.candidates.iter().map(|c| verdict(policy, signals, c)).collect()
}

fn verdict(policy: &Policy, signals: &Signals, candidate: &Candidate) -> Verdict {
    let out = pinned_away(signals, candidate)
        .or_else(|| must_not(policy, signals, candidate))
        .or_else(|| lacks(signals, candidate));
    if let Some(why) = out {
        return Verdict::Out(why);
    }
    match &candidate.state {
        // `lacks` has said no already.
        State::Unable(what) => Verdict::Out(what.to_string()),
        State::Ready => Verdict::Ready,
        State::Loading => Verdict::Waiting("its model is being fetched or loaded".to_owned()),
        State::Unhealthy => Verdict::Waiting("it failed recently and is given a rest".to_owned()),
        State::Full => Verdict::Waiting("its queue is full".to_owned()),
        State::NotConfigured(why) => Verdict::Waiting(format!("not configured: {why}")),
    }
}

/// Whether a pin means this backend: by its whole name or by the part after the slash.
pub fn pinned(pin: &Pin, candidate: &Candidate) -> bool {
    match pin {
        Pin::None => false,
        Pin::Backend(name) => {
            *name == candidate.backend || candidate.backend.split_once('/').is_some_and(|(_, n)| n == &**name)
        }
    }
}

fn pinned_away(signals: &Signals, candidate: &Candidate) -> Option<String> {
    match &signals.pin {
        Pin::Backend(name) if !pinned(&signals.pin, candidate) => Some(format!("the query asks for {name}")),
        _ => None,
    }
}

fn must_not(policy: &Policy, signals: &Signals, candidate: &Candidate) -> Option<String> {
    if candidate.place == Place::Local {
        return None;
    }
    if signals.private {
        return Some("the query is private: it stays on this machine".to_owned());
    }
    if policy.private {
        return Some(format!("policy {} is private: no query leaves this machine", policy.name));
    }
    // A pin is the client's explicit wish and overrides the rule, never privacy.
    if policy.rule == Rule::AllLocal && signals.pin == Pin::None {
        return Some(format!("policy {} keeps every query local", policy.name));
    }
    None
}

/// What the query needs and the backend does not have.
pub fn lacks(signals: &Signals, candidate: &Candidate) -> Option<String> {
    let (needs, caps) = (&signals.needs, &candidate.caps);
    let missing = [
        (needs.tools && !caps.tools, "tool calls"),
        (needs.images && !caps.images, "images"),
        (needs.audio && !caps.audio, "audio or files"),
        (needs.json && !caps.json, "structured output"),
        (needs.many && !caps.many, "more than one choice"),
        (needs.logprobs && !caps.logprobs, "log-probabilities"),
    ];
    if let Some((_, what)) = missing.into_iter().find(|(missing, _)| *missing) {
        return Some(format!("it cannot do {what}"));
    }
    if let Some(field) = signals.beyond_embedded.as_deref().filter(|_| !caps.any_field) {
        return Some(format!("it cannot honour `{field}`"));
    }
    if let State::Unable(what) = &candidate.state {
        return Some(what.to_string());
    }
    let wanted = signals.input_tokens.saturating_add(signals.max_output.unwrap_or(1));
    if wanted > caps.context {
        let asked = signals.max_output.map(|m| format!(" and {m} of answer")).unwrap_or_default();
        return Some(format!(
            "{} tokens of prompt{asked} exceed its context of {}",
            signals.input_tokens, caps.context
        ));
    }
    None
}
