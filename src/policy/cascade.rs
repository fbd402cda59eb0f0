//! The cascade of a policy: a local backend answers first, its answer is checked, and the best cloud backend is asked when
//! the check fails. Here: the `[verify]` section, whether a decision has a cascade, and whether it can pay.
//!
//! Invariant: without a [`CloudPermit`] there is no cascade, so that a private query never has one; nor does a query that
//! asks for a backend by name.

use std::sync::Arc;
use std::time::Duration;

use super::decimal::Decimal;
use super::rank::{Ranked, best_by_chance, figure};
use super::rules::{Minimise, Policy, Rule};
use super::samples::{self, Samples};
use super::section::Section;
use super::types::{Candidate, Cascade, CloudPermit, Pin, Place, Saved, Signals};
use crate::classify::domain::Domain;
use crate::config::problem::Problems;
use crate::verify::Model;
use crate::verify::evidence::FEATURES;

/// P(the answer is right) below which the cloud is asked, where the file does not say.
const ESCALATE_BELOW: f64 = 0.5;
/// How far apart two backends' P(correct) may be for a decision to be close.
const CLOSE: f64 = 0.25;
/// Tokens of a stream that are held: two or three sentences, in which a refusal or a muddle shows.
const HOLD_TOKENS: f64 = 48.0;
/// Milliseconds for them: longer than that, people notice.
const HOLD_MS: f64 = 2000.0;

/// How local answers are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Verify {
    /// P(the answer is right) below which the cloud is asked.
    pub escalate_below: f64,
    /// A decision is close when the local backend's P(correct) is at most this far from the cloud backend's.
    pub close: f64,
    /// Tokens of a stream that are held before it is judged.
    pub hold_tokens: u32,
    /// How long they are waited for, from the first of them.
    pub hold: Duration,
    /// From evidence to P(the answer is right).
    pub model: Model,
    /// Second answers that it is compared with; none asks for none.
    pub samples: Option<Samples>,
}

/// Whether a cascade can pay, by what the policy minimises.
#[derive(Clone, Debug, PartialEq)]
pub struct Pays {
    /// It does, as far as can be told.
    pub ok: bool,
    /// For people.
    pub text: String,
}

/// Reads `[verify]`.
pub fn section(mut s: Section<'_>, problems: &mut Problems) -> Verify {
    let escalate_below = s.number("escalate_below", 0.0..=1.0, problems).unwrap_or(ESCALATE_BELOW);
    let close = s.number("close", 0.0..=1.0, problems).unwrap_or(CLOSE);
    let tokens = s.number("hold_tokens", 1.0..=4096.0, problems).unwrap_or(HOLD_TOKENS);
    let ms = s.number("hold_ms", 1.0..=60_000.0, problems).unwrap_or(HOLD_MS);
    let model = s.optional_table("model", problems).map_or_else(Model::shipped, |m| weights(m, problems));
    let samples = s.optional_table("samples", problems).map(|s| samples::section(s, problems));
    s.finish(problems);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 4096")]
    let hold_tokens = tokens as u32;
    Verify { escalate_below, close, hold_tokens, hold: Duration::from_secs_f64(ms / 1e3), model, samples }
}

/// The shipped weights with those of the file in their place.
fn weights(mut s: Section<'_>, problems: &mut Problems) -> Model {
    let mut model = Model::shipped();
    for name in FEATURES {
        if let Some(weight) = s.number(name, -1e3..=1e3, problems) {
            model.set(name, weight);
        }
    }
    s.finish(problems);
    model
}

/// What `[verify]` contradicts.
pub fn contradictions(rule: Rule, private: bool, draws: bool, problems: &mut Problems) {
    let why = match rule {
        Rule::AllLocal => Some("rule.kind = \"all-local\": nothing may be asked when a local answer fails"),
        Rule::AllCloud => Some("rule.kind = \"all-cloud\": no local answer comes first"),
        _ if private => Some("private = true: nothing may be asked when a local answer fails"),
        _ if draws => Some("explore above 0: the probability of a choice would no longer be known"),
        _ => None,
    };
    if let Some(why) = why {
        problems.add("verify", format!("has no meaning with {why}"));
    }
}

/// The cascade of a decision and the local backend that answers first; none where the policy has none, nothing may go to
/// the cloud, or the decision is not close.
pub fn plan(
    policy: &Policy,
    signals: &Signals,
    (order, chosen): (&[Ranked], Option<usize>),
    permit: Option<&CloudPermit>,
    domain: Domain,
) -> Option<(usize, Cascade)> {
    let verify = policy.verify.as_ref().filter(|_| permit.is_some() && signals.pin == Pin::None)?;
    let at = |i: usize| signals.candidates.get(i);
    let ready = || order.iter().filter_map(|r| Some((r.index, at(r.index)?)));
    let strong = best_by_chance(ready().filter(|(_, c)| c.place == Place::Cloud))?;
    let first = chosen.and_then(|i| Some((i, at(i)?)))?;
    let (index, local) = match first.1.place {
        Place::Local => first,
        Place::Cloud => {
            let good = |c: &Candidate| c.place == Place::Local && c.chance.mean >= policy.floor(domain);
            ready().find(|(_, c)| good(c))?
        }
    };
    let cloud = at(strong)?;
    let lead = cloud.chance.mean - local.chance.mean;
    // A local backend that is far better needs no check; one that is far worse is not asked, unless the rule chose it.
    let close = lead >= -verify.close && (lead <= verify.close || first.1.place == Place::Local);
    let worth = first.1.place == Place::Local || may_pay(policy, local, cloud);
    let cascade =
        Cascade { strong, verify: Arc::clone(verify), prior: local.chance.mean, expected_tokens: local.output_tokens };
    (close && worth).then_some((index, cascade))
}

/// What the rule of a policy would have little of.
fn goal(policy: &Policy) -> Minimise {
    match policy.rule {
        Rule::Objective { minimise: Minimise::Errors, .. } => Minimise::Energy,
        Rule::Objective { minimise, .. } => minimise,
        _ => Minimise::Energy,
    }
}

/// Local first, cloud after a wrong answer: cheaper than the cloud at once if wrong answers are rarer than the break-even
/// rate. Where figures are not known the preferred place decides.
fn may_pay(policy: &Policy, local: &Candidate, cloud: &Candidate) -> bool {
    match break_even(policy, local, cloud) {
        Some(rate) => 1.0 - local.chance.mean < rate,
        None => policy.prefer == Place::Local,
    }
}

/// Share of escalations at which a cascade costs what the cloud alone does: 1 - C_local / C_cloud.
fn break_even(policy: &Policy, local: &Candidate, cloud: &Candidate) -> Option<f64> {
    let (small, large) = (figure(policy, goal(policy), local), figure(policy, goal(policy), cloud));
    (small.is_finite() && large.is_finite() && large > 0.0).then(|| 1.0 - small / large)
}

/// Whether the cascade of a policy can pay with these backends, on a query of which nothing is known.
pub fn pays(policy: &Policy, candidates: &[Candidate]) -> Option<Pays> {
    policy.verify.as_ref()?;
    let best = |place| {
        let each = candidates.iter().enumerate().filter(|(_, c)| c.place == place);
        best_by_chance(each).and_then(|i| candidates.get(i))
    };
    let (Some(local), Some(cloud)) = (best(Place::Local), best(Place::Cloud)) else {
        let text = "a cascade needs a local and a cloud backend: answers are checked nowhere".to_owned();
        return Some(Pays { ok: false, text });
    };
    let pair = format!("{} before {}", local.backend, cloud.backend);
    let (rate, wrong) = (break_even(policy, local, cloud), (1.0 - local.chance.mean) * 1e2);
    let (ok, text) = match rate.map(|r| r * 1e2) {
        None => (true, format!("{pair}: whether it pays is not known, because figures of one of them are not")),
        Some(r) if r <= 0.0 => {
            (false, format!("{pair} cannot pay: the local answer alone costs as much as the cloud's"))
        }
        Some(r) if wrong >= r => (
            false,
            format!(
                "{pair} pays while at most {:.0} % of the answers are escalated, and about {:.0} % are expected to be wrong",
                Decimal(r),
                Decimal(wrong)
            ),
        ),
        Some(r) => (true, format!("{pair} pays while at most {:.0} % of the answers are escalated", Decimal(r))),
    };
    Some(Pays { ok, text })
}

/// The end of the sentence that says why.
pub fn suffix(signals: &Signals, cascade: &Cascade, local: usize, instead: bool) -> String {
    let name = |i: usize| signals.candidates.get(i).map(|c| &*c.backend).unwrap_or_default();
    let (below, strong) = (Decimal(cascade.verify.escalate_below), name(cascade.strong));
    if instead {
        let (p, local) = (Decimal(cascade.prior), name(local));
        return format!(
            "; it is close: {local} with P(correct) {p:.2} answers first, and below confidence {below:.2} {strong} is asked"
        );
    }
    format!("; the answer is checked, and below confidence {below:.2} {strong} is asked")
}

/// What is saved with the escalations that are expected taken off.
pub fn expected(saved: Saved, signals: &Signals, cascade: &Cascade) -> Saved {
    let wrong = 1.0 - cascade.prior;
    let joules = signals.candidates.get(cascade.strong).map(|c| c.joules);
    let less = |saved: Option<f64>, j: Option<f64>| Some(saved? - wrong * j?);
    Saved {
        low: less(saved.low, joules.and_then(|j| j.high)),
        mid: less(saved.mid, joules.and_then(|j| j.mid)),
        high: less(saved.high, joules.and_then(|j| j.low)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{candidate, signals};
    use super::super::{explain, parse};
    use super::*;

    const HEAD: &str = "name = \"c\"\nabout = \"C.\"\n";
    const RULE: &str = "[rule]\nkind = \"objective\"\nminimise = \"energy\"\n";

    fn policy(more: &str) -> Policy {
        parse(&format!("{HEAD}{RULE}[verify]\n{more}"), "c.toml").unwrap_or_else(|e| panic!("{e}"))
    }

    fn two(local: f64, cloud: f64) -> Signals {
        signals(vec![candidate("local/a", local, Some(100.0)), candidate("cloud/b", cloud, Some(900.0))])
    }

    #[test]
    fn a_close_decision_is_answered_locally_first_and_says_so() {
        let d = policy("escalate_below = 0.6").decide(&two(0.70, 0.90));
        let cascade = d.cascade.as_ref().unwrap();
        assert_eq!((d.chosen, cascade.strong, cascade.prior), (Some(0), 1, 0.70));
        assert!(
            d.reason.ends_with(
                "; it is close: local/a with P(correct) 0.70 answers first, and below confidence 0.60 cloud/b is asked"
            ),
            "{}",
            d.reason
        );
        assert!(d.fallbacks.contains(&1) && d.cloud.is_some());
        assert_eq!(d.alternatives[0].why_not, None);
        assert_eq!(d.alternatives[1].why_not.as_deref(), Some("is asked if the answer of local/a is not trusted"));
        // 900 - 100 J, minus 900 J for three in ten.
        assert!(d.saved.mid.is_some_and(|s| (s - 530.0).abs() < 1e-9), "{:?}", d.saved);
        let json = explain::to_json(&d, None);
        assert_eq!(json["decision"]["verify"]["escalates_to"], "cloud/b");
        assert!(explain::to_text(&d, None).contains("checked"));
    }

    #[test]
    fn a_chosen_local_answer_is_checked_and_a_far_better_one_is_not() {
        let p = policy("");
        let d = p.decide(&two(0.88, 0.90));
        assert_eq!((d.chosen, d.cascade.is_some()), (Some(0), true));
        assert!(
            d.reason.contains("; the answer is checked, and below confidence 0.50 cloud/b is asked"),
            "{}",
            d.reason
        );
        assert!(p.decide(&two(0.95, 0.60)).cascade.is_none());
        let d = p.decide(&two(0.50, 0.90));
        assert_eq!((d.chosen, d.cascade.is_none()), (Some(1), true));
    }

    #[test]
    fn no_cascade_without_a_permit_by_name_below_a_floor_or_where_it_cannot_pay() {
        let p = policy("close = 0.4");
        let mut s = two(0.70, 0.90);
        s.private = true;
        assert_eq!((p.decide(&s).cascade, p.decide(&s).chosen), (None, Some(0)));
        s.private = false;
        s.pin = Pin::Backend(Arc::from("local/a"));
        assert_eq!(p.decide(&s).cascade, None);
        let mut dear = two(0.70, 0.90);
        dear.candidates[0] = candidate("local/a", 0.70, Some(700.0));
        assert_eq!((p.decide(&dear).chosen, p.decide(&dear).cascade), (Some(1), None));
        let floor = parse(&format!("{HEAD}{RULE}[verify]\n[floors]\n\"None\" = 0.8\n"), "c.toml").unwrap();
        assert_eq!(floor.decide(&two(0.70, 0.90)).chosen, Some(1));
        let mut off = two(0.88, 0.90);
        off.candidates[1].state = super::super::types::State::Full;
        assert_eq!(p.decide(&off).cascade, None);
    }

    #[test]
    fn the_section_is_read_and_contradictions_are_named() {
        let p = policy("hold_tokens = 7\nhold_ms = 90\n[verify.model]\nmean_logprob = 9.5\n");
        let verify = p.verify.unwrap();
        assert_eq!((verify.hold_tokens, verify.hold), (7, Duration::from_millis(90)));
        assert_eq!(verify.model.weights[2], 9.5);
        assert_eq!(verify.model.weights[1], Model::shipped().weights[1]);
        let wrong = |text: &str| parse(text, "c.toml").unwrap_err().to_string();
        for (text, want) in [
            (
                format!("{HEAD}[rule]\nkind = \"all-local\"\n[verify]\n"),
                "verify: has no meaning with rule.kind = \"all-local\"",
            ),
            (
                format!("{HEAD}[rule]\nkind = \"all-cloud\"\n[verify]\n"),
                "verify: has no meaning with rule.kind = \"all-cloud\"",
            ),
            (format!("{HEAD}private = true\n{RULE}[verify]\n"), "verify: has no meaning with private = true"),
            (format!("{HEAD}explore = 0.1\n{RULE}[verify]\n"), "verify: has no meaning with explore"),
            (
                format!("{HEAD}{RULE}[verify]\nhold_token = 5\n"),
                "verify.hold_token: unknown key; did you mean `hold_tokens`?",
            ),
            (format!("{HEAD}{RULE}[verify.model]\nmean = 5\n"), "verify.model.mean: unknown key"),
        ] {
            assert!(wrong(&text).contains(want), "{}", wrong(&text));
        }
    }

    #[test]
    fn whether_it_pays_is_computed_from_both_figures() {
        let p = policy("");
        let told = |s: Signals| pays(&p, &s.candidates).unwrap();
        assert_eq!(
            told(two(0.70, 0.90)).text,
            "local/a before cloud/b pays while at most 89 % of the answers are escalated"
        );
        let mut s = two(0.70, 0.90);
        s.candidates[0] = candidate("local/a", 0.70, Some(720.0));
        assert_eq!(
            told(s.clone()),
            Pays { ok: false, text: "local/a before cloud/b pays while at most 20 % of the answers are escalated, and about 30 % are expected to be wrong".into() }
        );
        s.candidates[0] = candidate("local/a", 0.70, Some(950.0));
        assert!(told(s.clone()).text.contains("cannot pay"));
        s.candidates[0].joules = crate::energy::Joules::UNKNOWN;
        assert!(told(s.clone()).ok && told(s).text.contains("not known"));
        assert!(!pays(&p, &[]).unwrap().ok);
        assert!(pays(&super::super::load("balanced", None).unwrap(), &[]).is_none());
    }
}
