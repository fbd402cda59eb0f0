//! [`Policy::decide`]: eligible, then good enough, then the least; explained, with every alternative.

use std::sync::Arc;

use super::bandit::{Bandit, drawn};
use super::cascade;
use super::eligible::{self, Verdict};
use super::rank::{Bench, Ranked, best_by_chance};
use super::reason;
use super::rules::{Fallback, Policy, Rule};
use super::types::{Alternative, Candidate, Cascade, CloudPermit, Decision, Pin, Place, Saved, Signals};

impl Policy {
    /// Decides one query. Pure: the same signals give the same decision, bit for bit.
    pub fn decide(&self, signals: &Signals) -> Decision {
        match &self.bandit {
            Some(bandit) => self.settle(&bandit.corrected(signals), Some((bandit, signals))),
            None => self.settle(signals, None),
        }
    }

    /// With a bandit the signals are corrected, and those that came are beside them.
    fn settle(&self, signals: &Signals, bandit: Option<(&Bandit, &Signals)>) -> Decision {
        let verdicts = eligible::verdicts(self, signals);
        let (domain, domain_p) = signals.posterior.top();
        let bench = Bench::new(self, signals, &verdicts, domain);
        let order = bench.rank(Verdict::ready);
        let wish = bench.rank(Verdict::able).first().map(|r| r.index);
        let odds = bandit.map_or_else(Vec::new, |(bandit, came)| bandit.odds(&bench, &order, came));
        let (preferred, mut propensity) = match bandit {
            Some(_) => (drawn(&odds, signals.draw), 1.0),
            None => self.explore.draw(&order, signals),
        };
        let explored = preferred != order.first().map(|r| r.index);
        let baseline = baseline(signals);
        let cloud = self.permit(signals);
        let mut reason = reason::sentence(&bench, preferred, wish, explored);
        let mut alternatives = alternatives(&bench, preferred, &order);
        let plan = |preferred| cascade::plan(self, signals, (&order, preferred), cloud.as_ref(), domain);
        let planned = plan(preferred);
        let done = |planned: &Option<(usize, Cascade)>, preferred: Option<usize>| {
            (planned.as_ref().map(|(local, _)| *local).or(preferred), planned.is_some())
        };
        let chosen = done(&planned, preferred).0;
        if let Some((_, came)) = bandit {
            // Several draws may come to the same: a cascade begins with its local backend, whoever was drawn.
            let same = |i: usize| done(&plan(Some(i)), Some(i)) == (chosen, planned.is_some());
            let all: f64 = odds.iter().filter(|(i, _)| same(*i)).map(|(_, share)| share).sum();
            propensity = if odds.is_empty() { 1.0 } else { all };
            for (alternative, c) in alternatives.iter_mut().zip(&came.candidates) {
                alternative.prior = Some(c.chance.mean);
            }
        }
        let mut saved = chosen.map(|c| saved(signals, c, baseline)).unwrap_or_default();
        if let Some((local, cascade)) = &planned {
            reason += &cascade::suffix(signals, cascade, *local, chosen != preferred);
            saved = cascade::expected(saved, signals, cascade);
            after_a_check(&mut alternatives, *local, cascade);
        }
        Decision {
            chosen,
            reason: reason.into(),
            alternatives: alternatives.into(),
            domain,
            domain_p,
            posterior: signals.posterior,
            propensity,
            draw: self.bandit.map_or(self.explore, |b| b.bounds).draws().then_some(signals.draw),
            policy: Arc::clone(&self.name),
            policy_hash: Arc::clone(&self.hash),
            ranked: order.iter().map(|r| r.index).collect(),
            fallbacks: self.fallbacks(signals, chosen, &order),
            saved,
            baseline,
            cascade: planned.map(|(_, cascade)| cascade),
            tier: None,
            router_joules: 0.0,
            cloud,
        }
    }

    /// The only place that makes a permit. Neither a private query nor a private policy gets one, nor does one whose
    /// rule keeps every query local, unless the client asked for a cloud backend by name.
    fn permit(&self, signals: &Signals) -> Option<CloudPermit> {
        let stays = self.rule == Rule::AllLocal && signals.pin == Pin::None;
        (!signals.private && !self.private && !stays).then_some(CloudPermit(()))
    }

    fn fallbacks(&self, signals: &Signals, chosen: Option<usize>, order: &[Ranked]) -> Vec<usize> {
        let place = chosen.and_then(|i| signals.candidates.get(i)).map(|c| c.place);
        let may = |c: &Candidate| match self.fallback {
            Fallback::Any => true,
            Fallback::SamePlace => Some(c.place) == place,
            Fallback::Never => false,
        };
        let rest = order.iter().map(|r| r.index).filter(|i| Some(*i) != chosen);
        rest.filter(|i| signals.candidates.get(*i).is_some_and(&may)).collect()
    }
}

/// The cloud backend that a saving is counted against: the one most likely to be right of those that can do what the
/// query needs, configured or not, private or not.
fn baseline(signals: &Signals) -> Option<usize> {
    let clouds = signals.candidates.iter().enumerate().filter(|(_, c)| c.place == Place::Cloud);
    best_by_chance(clouds.filter(|(_, c)| eligible::lacks(signals, c).is_none()))
}

/// Baseline minus chosen. Two cloud figures rest on the same assumptions; a local one errs on its own, so its high end
/// is set against the cloud's low end.
fn saved(signals: &Signals, chosen: usize, baseline: Option<usize>) -> Saved {
    let Some(index) = baseline else { return Saved::default() };
    if index == chosen {
        return Saved { low: Some(0.0), mid: Some(0.0), high: Some(0.0) };
    }
    let (Some(base), Some(own)) = (signals.candidates.get(index), signals.candidates.get(chosen)) else {
        return Saved::default();
    };
    let minus = |a: Option<f64>, b: Option<f64>| Some(a? - b?);
    let (b, c) = (base.joules, own.joules);
    let (c_low, c_high) = if own.place == Place::Cloud { (c.high, c.low) } else { (c.low, c.high) };
    let (x, y) = (minus(b.low, c_high), minus(b.high, c_low));
    let (low, high) = match (x, y) {
        (Some(x), Some(y)) => (Some(x.min(y)), Some(x.max(y))),
        _ => (None, None),
    };
    Saved { low, mid: minus(b.mid, c.mid), high }
}

/// In a cascade the local backend is the choice, and why the cloud backend is not is another matter.
fn after_a_check(alternatives: &mut [Alternative], local: usize, cascade: &Cascade) {
    let name = alternatives.get(local).map(|a| Arc::clone(&a.backend)).unwrap_or_default();
    for (index, a) in alternatives.iter_mut().enumerate() {
        let before = a.why_not.take();
        a.why_not = match index {
            _ if index == local => None,
            _ if index == cascade.strong => Some(format!("is asked if the answer of {name} is not trusted")),
            _ => before.or_else(|| Some(format!("it is close: {name} answers first"))),
        };
    }
}

fn alternatives(bench: &Bench<'_>, chosen: Option<usize>, order: &[Ranked]) -> Vec<Alternative> {
    let each = bench.signals.candidates.iter().zip(bench.verdicts).enumerate();
    each.map(|(i, (c, verdict))| Alternative {
        backend: Arc::clone(&c.backend),
        place: c.place,
        p_correct: c.chance.mean,
        chance: c.chance,
        prior: None,
        joules: c.joules,
        usd: c.usd,
        seconds: c.seconds,
        gco2e: c.gco2e,
        eligible: verdict.ready(),
        why_not: match verdict.why() {
            Some(why) => Some(why.to_owned()),
            None if Some(i) == chosen => None,
            None => Some(reason::why_not(bench, i, chosen, order)),
        },
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::super::explore::Explore;
    use super::super::sample::{any_signals, candidate, signals};
    use super::super::types::State;
    use super::super::{explain, load, names, parse};
    use super::*;

    fn policy(name: &str) -> Policy {
        (*load(name, None).unwrap()).clone()
    }

    fn exploring() -> Policy {
        Policy {
            explore: Explore { share: 0.1, max_quality_loss: Some(0.5), ..Explore::default() },
            ..policy("balanced")
        }
    }

    fn two(local: f64, cloud: f64) -> Signals {
        signals(vec![candidate("local/a", local, Some(100.0)), candidate("cloud/b", cloud, Some(900.0))])
    }

    fn chosen(policy: &Policy, s: &Signals) -> (String, String) {
        let d = policy.decide(s);
        (d.chosen.map_or(String::new(), |i| d.alternatives[i].backend.to_string()), d.reason.to_string())
    }

    #[test]
    fn ten_thousand_signals_give_the_same_decision_bit_for_bit() {
        let mut policies: Vec<Policy> = names().map(policy).collect();
        policies.push(exploring());
        let mut runner = TestRunner::deterministic();
        let any = any_signals();
        for _ in 0..10_000 {
            let s = any.new_tree(&mut runner).unwrap().current();
            for p in &policies {
                let (a, b) = (p.decide(&s), p.clone().decide(&s.clone()));
                assert_eq!(format!("{a:?}"), format!("{b:?}"));
                sound(p, &s, &a);
            }
        }
    }

    /// What holds for every decision.
    fn sound(p: &Policy, s: &Signals, d: &Decision) {
        assert_eq!(d.alternatives.len(), s.candidates.len());
        assert!(d.reason.is_ascii() && !d.reason.contains(['\n', '\r']) && d.reason.len() < 2000, "{}", d.reason);
        assert!(d.propensity > 0.0 && d.propensity <= 1.0, "{}", d.propensity);
        for i in d.chosen.iter().chain(&d.fallbacks) {
            assert!(d.alternatives[*i].eligible, "{d:?}");
            assert_eq!(s.candidates[*i].state, State::Ready);
            // A cloud backend in reach means a permit, and never for a private query or policy.
            if s.candidates[*i].place == Place::Cloud {
                assert!(d.cloud.is_some() && !s.private && !p.private, "{d:?}");
            }
        }
        assert!(d.chosen.is_none_or(|c| !d.fallbacks.contains(&c)));
        assert_eq!(d.chosen.is_none(), d.alternatives.iter().all(|a| !a.eligible), "{d:?}");
        if let Some(cascade) = &d.cascade {
            let place = |i: usize| s.candidates[i].place;
            assert!(d.cloud.is_some() && !s.private && !p.private && s.pin == Pin::None, "{d:?}");
            assert!(d.chosen.is_some_and(|c| place(c) == Place::Local) && place(cascade.strong) == Place::Cloud);
            assert!(d.alternatives[cascade.strong].eligible, "{d:?}");
        }
        for (i, a) in d.alternatives.iter().enumerate() {
            assert_eq!(a.why_not.is_none(), d.chosen == Some(i), "{d:?}");
        }
        if s.private || p.private {
            assert!(d.cloud.is_none());
            assert!(d.alternatives.iter().all(|a| a.place == Place::Local || !a.eligible));
        }
        if let (Some(low), Some(mid), Some(high)) = (d.saved.low, d.saved.mid, d.saved.high) {
            assert!(low <= mid && mid <= high, "{:?}", d.saved);
        }
        assert!(d.baseline.is_none_or(|b| s.candidates[b].place == Place::Cloud));
    }

    proptest! {
        #[test]
        fn explanations_name_every_backend(s in any_signals()) {
            let d = policy("balanced").decide(&s);
            let json = explain::to_json(&d, None);
            prop_assert_eq!(json["decision"]["alternatives"].as_array().unwrap().len(), s.candidates.len());
            let text = explain::to_text(&d, None);
            for c in &s.candidates {
                prop_assert!(text.contains(&*c.backend));
            }
        }
    }

    #[test]
    fn balanced_takes_fewest_joules_within_the_quality_budget() {
        let p = policy("balanced");
        let (who, why) = chosen(&p, &two(0.86, 0.90));
        assert_eq!(who, "local/a");
        assert_eq!(why, "P(correct) 0.86 of local/a in None is enough (at least 0.85) with the least energy: 100 J");
        let (who, why) = chosen(&p, &two(0.84, 0.90));
        assert_eq!((&*who, &*why), ("cloud/b", "only cloud/b reaches P(correct) 0.85 in None: it has 0.90"));
        let d = p.decide(&two(0.84, 0.90));
        assert_eq!(d.alternatives[0].why_not.as_deref(), Some("P(correct) 0.84 is below the 0.85 asked for"));
        assert_eq!(d.saved, Saved { low: Some(0.0), mid: Some(0.0), high: Some(0.0) });
        // The cloud at its best batch may beat a device of ours: the local share is not the aim.
        let mut s = two(0.86, 0.90);
        s.candidates[1] = candidate("cloud/b", 0.90, Some(20.0));
        assert_eq!(chosen(&p, &s).0, "cloud/b");
    }

    #[test]
    fn a_preferred_cloud_without_a_key_is_said_and_local_answers() {
        let mut s = two(0.3, 0.9);
        s.candidates[1].state = State::NotConfigured(Arc::from("OPENAI_API_KEY is not set"));
        let d = policy("balanced").decide(&s);
        assert_eq!(d.chosen, Some(0));
        assert_eq!(
            &*d.reason,
            "cloud preferred (cloud/b) but not configured: OPENAI_API_KEY is not set; answered locally"
        );
        assert_eq!(d.alternatives[1].why_not.as_deref(), Some("not configured: OPENAI_API_KEY is not set"));
        assert_eq!(d.saved, Saved { low: Some(250.0), mid: Some(800.0), high: Some(1750.0) });
        s.candidates[1].state = State::Unhealthy;
        let (_, why) = chosen(&policy("all-cloud"), &s);
        assert_eq!(why, "cloud/b preferred, but it failed recently and is given a rest; answered locally");
    }

    #[test]
    fn a_floor_is_kept_whatever_the_cloud_reaches() {
        let mut p = policy("balanced");
        p.floors = [0.7; crate::classify::domain::DOMAINS];
        let (who, why) = chosen(&p, &two(0.5, 0.52));
        assert_eq!(who, "cloud/b");
        assert!(why.starts_with("no backend reaches P(correct) 0.70"), "{why}");
        assert_eq!(chosen(&p, &two(0.71, 0.72)).0, "local/a");
    }

    #[test]
    fn unknown_joules_are_never_taken_for_zero() {
        let mut s = two(0.9, 0.9);
        s.candidates[1].joules = crate::energy::Joules::UNKNOWN;
        let (who, why) = chosen(&policy("balanced"), &s);
        assert_eq!(who, "local/a");
        assert!(why.contains("energy is not known everywhere: local is preferred"), "{why}");
        let cloud = Policy { prefer: Place::Cloud, ..policy("balanced") };
        assert_eq!(chosen(&cloud, &s).0, "cloud/b");
        assert_eq!(cloud.decide(&s).saved, Saved { low: Some(0.0), mid: Some(0.0), high: Some(0.0) });
        assert_eq!(policy("balanced").decide(&s).saved, Saved::default());
    }

    #[test]
    fn ties_go_to_fewer_joules_then_to_configuration_order() {
        let mut s = signals(vec![
            candidate("local/a", 0.9, Some(50.0)),
            candidate("local/b", 0.9, Some(50.0)),
            candidate("local/c", 0.9, Some(40.0)),
        ]);
        assert_eq!(policy("quality").decide(&s).fallbacks, vec![0, 1]);
        assert_eq!(chosen(&policy("quality"), &s).0, "local/c");
        s.candidates.pop();
        assert_eq!(chosen(&policy("quality"), &s).0, "local/a");
    }

    #[test]
    fn an_order_of_the_file_comes_before_joules_and_after_quality() {
        let mut s = signals(vec![
            candidate("local/small", 0.88, Some(50.0)),
            candidate("local/large", 0.90, Some(400.0)),
            candidate("cloud/b", 0.90, Some(900.0)),
        ]);
        let ordered =
            |names: &[&str]| Policy { order: names.iter().map(|n| Arc::from(*n)).collect(), ..policy("balanced") };
        let (who, why) = chosen(&ordered(&["local/large", "local"]), &s);
        assert_eq!(
            (&*who, &*why),
            (
                "local/large",
                "local/large comes first in the policy's order and reaches P(correct) 0.85 in None: it has 0.90"
            )
        );
        let d = ordered(&["large", "cloud"]).decide(&s);
        assert_eq!((d.chosen, &*d.fallbacks), (Some(1), &[2, 0][..]));
        assert_eq!(
            d.alternatives[0].why_not.as_deref(),
            Some("local/large comes first in the order of policy balanced")
        );
        assert_eq!(chosen(&ordered(&["nobody"]), &s).0, "local/small", "without a name that is here the rule decides");
        s.candidates[1].chance.mean = 0.5;
        assert_eq!(chosen(&ordered(&["local/large"]), &s).0, "local/small", "not good enough is not good enough");
    }

    #[test]
    fn the_papers_rule_looks_at_the_best_local_coverage_only() {
        let p = policy("coverage-threshold");
        assert_eq!(chosen(&p, &two(0.70, 1.0)).0, "local/a");
        let (who, why) = chosen(&p, &two(0.69, 0.1));
        assert_eq!((&*who, &*why), ("cloud/b", "no local coverage of None reaches the threshold 0.70: cloud/b"));
    }

    #[test]
    fn a_name_is_stronger_than_a_rule_and_weaker_than_privacy() {
        let mut s = two(0.9, 0.9);
        s.pin = Pin::Backend(Arc::from("b"));
        let d = policy("all-local").decide(&s);
        assert_eq!((d.chosen, d.cloud.is_some()), (Some(1), true));
        assert!(d.fallbacks.is_empty());
        s.private = true;
        let d = policy("all-local").decide(&s);
        assert_eq!((d.chosen, d.cloud.is_some()), (None, false));
        assert!(d.reason.contains("the query is private"), "{}", d.reason);
        s.private = false;
        assert_eq!(policy("private").decide(&s).chosen, None);
        assert!(policy("all-local").decide(&two(0.1, 0.9)).cloud.is_none());
    }

    #[test]
    fn exploring_states_the_probability_of_each_choice() {
        let (p, mut s) = (exploring(), two(0.9, 0.9));
        let (mut first, mut shares) = (0, [0.0, 0.0]);
        for draw in 0..20_000 {
            s.draw = draw;
            let d = p.decide(&s);
            let i = d.chosen.unwrap();
            first += usize::from(i == 0);
            shares[i] = d.propensity;
        }
        assert!((shares[0] - 0.95).abs() < 1e-12 && (shares[1] - 0.05).abs() < 1e-12, "{shares:?}");
        assert!((18_850..19_150).contains(&first), "{first}");
        // Only within the loss of quality that it may take.
        assert_eq!(p.decide(&two(0.2, 0.9)).propensity, 1.0);
    }

    #[test]
    fn carbon_cost_and_sums_weigh_what_they_name() {
        let mut s = two(0.9, 0.9);
        s.candidates[1].usd = Some(1e-6);
        // 100 J of electricity at 0.30 USD per kWh is 8.3e-6 USD.
        let text = |rule: &str| format!("name = \"x\"\nabout = \"y\"\n[rule]\nkind = \"objective\"\n{rule}\n");
        let made = |rule: &str| parse(&text(rule), "x.toml").unwrap();
        assert_eq!(chosen(&made("minimise = \"cost\""), &s).0, "cloud/b");
        assert_eq!(chosen(&made("minimise = \"sum\"\nweights = { energy = 1.0 }"), &s).0, "local/a");
        assert_eq!(chosen(&made("minimise = \"sum\"\nweights = { cost = 1.0 }"), &s).0, "cloud/b");
        let mut green = made("minimise = \"carbon\"");
        assert_eq!(chosen(&green, &s).0, "local/a");
        green.grid_g_per_kwh.cloud = 1.0;
        assert_eq!(chosen(&green, &s).0, "cloud/b");
    }
}
