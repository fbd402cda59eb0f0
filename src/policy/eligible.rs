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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::load;
    use super::super::sample::{ALL, candidate, signals};
    use super::*;
    use crate::api::query::Needs;

    /// One change to a query that a poor backend cannot take, and the words that say so.
    type Case = (fn(&mut Signals), &'static str);

    #[test]
    fn every_need_shuts_out_the_backend_that_lacks_it_and_says_why() {
        let cases: [Case; 10] = [
            (|s| s.needs.tools = true, "it cannot do tool calls"),
            (|s| s.needs.images = true, "it cannot do images"),
            (|s| s.needs.audio = true, "it cannot do audio or files"),
            (|s| s.needs.json = true, "it cannot do structured output"),
            (|s| s.needs.many = true, "it cannot do more than one choice"),
            (|s| s.needs.logprobs = true, "it cannot do log-probabilities"),
            (|s| s.beyond_embedded = Some("logit_bias".into()), "it cannot honour `logit_bias`"),
            (|s| s.input_tokens = 5000, "5000 tokens of prompt exceed its context of 2048"),
            (|s| s.max_output = Some(4096), "10 tokens of prompt and 4096 of answer exceed its context of 2048"),
            (
                |s| s.max_output = Some(u32::MAX),
                "10 tokens of prompt and 4294967295 of answer exceed its context of 2048",
            ),
        ];
        let policy = load("balanced", None).unwrap();
        for (change, why) in cases {
            let mut s = signals(vec![candidate("local/poor", 0.9, Some(1.0)), candidate("local/rich", 0.9, Some(9.0))]);
            s.candidates[0].caps = crate::policy::types::Capabilities {
                context: 2048,
                tools: false,
                images: false,
                audio: false,
                json: false,
                many: false,
                logprobs: false,
                any_field: false,
            };
            s.candidates[1].caps.context = u32::MAX;
            assert_eq!(policy.decide(&s).chosen, Some(0), "before the change");
            change(&mut s);
            let d = policy.decide(&s);
            assert_eq!(d.alternatives[0].why_not.as_deref(), Some(why));
            assert_eq!(d.chosen, Some(1), "{why}");
        }
    }

    #[test]
    fn states_and_privacy_have_their_own_words() {
        let policy = load("all-local", None).unwrap();
        let mut s = signals(vec![candidate("local/a", 0.5, None), candidate("cloud/b", 0.9, None)]);
        assert_eq!(s.needs, Needs::default());
        assert_eq!(s.candidates[0].caps, ALL);
        for (state, why) in [
            (State::Loading, "its model is being fetched or loaded"),
            (State::Unhealthy, "it failed recently and is given a rest"),
            (State::Full, "its queue is full"),
            (State::NotConfigured(Arc::from("K is not set")), "not configured: K is not set"),
            (State::Unable(Arc::from("`tools` is beyond it")), "`tools` is beyond it"),
        ] {
            s.candidates[0].state = state;
            let all = verdicts(&policy, &s);
            assert_eq!(all[0].why(), Some(why));
            assert!(!all[0].ready());
        }
        let all = verdicts(&policy, &s);
        assert_eq!(all[1].why(), Some("policy all-local keeps every query local"));
        s.private = true;
        assert_eq!(verdicts(&policy, &s)[1].why(), Some("the query is private: it stays on this machine"));
    }
}
