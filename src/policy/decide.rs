//! [`Policy::decide`]: eligible, then good enough, then the least; explained, with every alternative.

use std::sync::Arc;

use super::eligible::{self, Verdict};
use super::rank::{Bench, Ranked, best_by_chance};
use super::reason;
use super::rules::{Fallback, Policy, Rule};
use super::types::{Alternative, Candidate, CloudPermit, Decision, Pin, Place, Saved, Signals};

impl Policy {
    /// Decides one query. Pure: the same signals give the same decision, bit for bit.
    pub fn decide(&self, signals: &Signals) -> Decision {
        let verdicts = eligible::verdicts(self, signals);
        let (domain, domain_p) = signals.posterior.top();
        let bench = Bench::new(self, signals, &verdicts, domain);
        let order = bench.rank(Verdict::ready);
        let wish = bench.rank(Verdict::able).first().map(|r| r.index);
        let (chosen, propensity) = self.draw(&order, signals.draw);
        let explored = chosen != order.first().map(|r| r.index);
        let baseline = baseline(signals);
        Decision {
            chosen,
            reason: reason::sentence(&bench, chosen, wish, explored),
            alternatives: alternatives(&bench, chosen, &order),
            domain,
            domain_p,
            posterior: signals.posterior,
            propensity,
            policy: Arc::clone(&self.name),
            policy_hash: Arc::clone(&self.hash),
            fallbacks: self.fallbacks(signals, chosen, &order),
            saved: chosen.map(|c| saved(signals, c, baseline)).unwrap_or_default(),
            baseline,
            cloud: self.permit(signals),
        }
    }

    /// The only place that makes a permit. Neither a private query nor a private policy gets one, nor does one whose
    /// rule keeps every query local, unless the client asked for a cloud backend by name.
    fn permit(&self, signals: &Signals) -> Option<CloudPermit> {
        let stays = self.rule == Rule::AllLocal && signals.pin == Pin::None;
        (!signals.private && !self.private && !stays).then_some(CloudPermit(()))
    }

    /// The first, or with the share `explore` any of its class alike; and the probability of that choice.
    fn draw(&self, order: &[Ranked], draw: u64) -> (Option<usize>, f64) {
        let Some(first) = order.first() else { return (None, 1.0) };
        let alike: Vec<usize> = order.iter().take_while(|r| r.class == 0).map(|r| r.index).collect();
        if self.explore <= 0.0 || alike.len() < 2 {
            return (Some(first.index), 1.0);
        }
        let each = self.explore / as_f64(alike.len());
        let mut point = unit(draw);
        for index in alike {
            let share = if index == first.index { each + (1.0 - self.explore) } else { each };
            if point < share {
                return (Some(index), share);
            }
            point -= share;
        }
        // Rounding may leave a sliver above the last share.
        (Some(first.index), each + (1.0 - self.explore))
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

fn alternatives(bench: &Bench<'_>, chosen: Option<usize>, order: &[Ranked]) -> Vec<Alternative> {
    let each = bench.signals.candidates.iter().zip(bench.verdicts).enumerate();
    each.map(|(i, (c, verdict))| Alternative {
        backend: Arc::clone(&c.backend),
        place: c.place,
        p_correct: c.chance.mean,
        chance: c.chance,
        joules: c.joules,
        usd: c.usd,
        seconds: c.seconds,
        eligible: verdict.ready(),
        why_not: match verdict.why() {
            Some(why) => Some(why.to_owned()),
            None if Some(i) == chosen => None,
            None => Some(reason::why_not(bench, i, chosen, order)),
        },
    })
    .collect()
}

/// A seed as a number in \[0, 1): SplitMix64, so that neighbouring seeds do not give neighbouring draws.
fn unit(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let top = ((z ^ (z >> 31)) >> 11) as f64;
    top / 9_007_199_254_740_992.0
}

#[expect(clippy::cast_precision_loss, reason = "a handful of backends")]
fn as_f64(n: usize) -> f64 {
    n as f64
}
