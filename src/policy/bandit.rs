//! `[bandit]`: what answers turned out to be worth corrects P(correct), and a bounded share of decisions goes to see what is
//! not known yet. Pure: the correction comes with the signals.
//!
//! A share of the decisions is drawn: half of it evenly among the backends that may be drawn, half to the one that the rule
//! would choose if every P(correct) were at the upper end of what is known of it (LinUCB, Li et al. 2010). Invariants: as
//! for `[explore]`, the probability of every choice is exact, what is drawn was eligible anyway and bears its losses; a
//! correction is at most `max_shift`; what was learned needs no file of ours to be left out: without it nothing changes.

use super::eligible::Verdict;
use super::explore::{self, Explore};
use super::rank::{Bench, Ranked};
use super::section::Section;
use super::types::{Candidate, Signals};
use crate::config::problem::Problems;

/// Widths that the upper end is away from the middle, where the file does not say.
const OPTIMISM: f64 = 0.5;
/// Widths that a correction is drawn towards none, where the file does not say: half a width is about the standard error of
/// a share of right answers. Without it the noise of a few judgements moves queries at every margin (`eval/bandit`).
const CAUTION: f64 = 0.5;
/// The largest correction of a P(correct), where the file does not say.
const MAX_SHIFT: f64 = 0.2;

/// How a policy learns from judged answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandit {
    /// Share that is drawn, and the losses it may bear.
    pub bounds: Explore,
    /// How many widths the upper end of what is known is away.
    pub optimism: f64,
    /// How many widths a correction is drawn towards none.
    pub caution: f64,
    /// The largest correction of a P(correct), either way.
    pub max_shift: f64,
}

/// Reads `bandit`, beside what `explore` says.
pub fn read(top: &mut Section<'_>, explore: &Explore, problems: &mut Problems) -> Option<Bandit> {
    let found = top.optional_table("bandit", problems).map(|s| section(s, problems));
    if found.is_some() && explore.share > 0.0 {
        problems.add("explore", "has no meaning beside [bandit], which has a share of its own");
    }
    found
}

fn section(mut s: Section<'_>, problems: &mut Problems) -> Bandit {
    let optimism = s.number("optimism", 0.0..=10.0, problems).unwrap_or(OPTIMISM);
    let caution = s.number("caution", 0.0..=10.0, problems).unwrap_or(CAUTION);
    let max_shift = s.number("max_shift", 0.0..=0.5, problems).unwrap_or(MAX_SHIFT);
    Bandit { bounds: explore::keys(s, problems), optimism, caution, max_shift }
}

impl Bandit {
    /// The signals with every P(correct) corrected by what was learned of it.
    pub fn corrected(&self, signals: &Signals) -> Signals {
        self.moved(signals, |c| self.shift(c))
    }

    /// What of a correction is in force: what is known of it beyond doubt, at most `max_shift`.
    pub fn shift(&self, c: &Candidate) -> f64 {
        let (shift, doubt) = c.learned.map_or((0.0, 0.0), |l| (l.shift, self.caution * l.width));
        let known = shift.signum() * (shift.abs() - doubt).max(0.0);
        if known.is_finite() { known.clamp(-self.max_shift, self.max_shift) } else { 0.0 }
    }

    /// The most that a correction may be.
    fn hope(&self, c: &Candidate) -> f64 {
        let most = c.learned.map_or(0.0, |l| l.shift.clamp(-self.max_shift, self.max_shift) + self.optimism * l.width);
        if most.is_finite() { most } else { 0.0 }
    }

    /// Every backend that may be chosen, with its probability; they sum to 1. `order` is the rule's, on corrected signals,
    /// and `signals` are those that came.
    pub fn odds(&self, bench: &Bench<'_>, order: &[Ranked], signals: &Signals) -> Vec<(usize, f64)> {
        let Some(first) = order.first() else { return Vec::new() };
        let among = self.bounds.among(order, bench.signals);
        if among.len() < 2 {
            return vec![(first.index, 1.0)];
        }
        let upper = self.moved(signals, |c| self.hope(c));
        let hoped = Bench { signals: &upper, ..*bench }.rank(Verdict::ready).first().map(|r| r.index);
        let hoped = hoped.filter(|h| among.contains(h)).unwrap_or(first.index);
        let share = self.bounds.share;
        #[expect(clippy::cast_precision_loss, reason = "a handful of backends")]
        let each = 0.5 * share / among.len() as f64;
        let odds = |index: usize| {
            let usual = if index == first.index { 1.0 - share } else { 0.0 };
            usual + each + if index == hoped { 0.5 * share } else { 0.0 }
        };
        among.into_iter().map(|index| (index, odds(index))).collect()
    }

    fn moved(&self, signals: &Signals, by: impl Fn(&Candidate) -> f64) -> Signals {
        let mut moved = signals.clone();
        for c in &mut moved.candidates {
            let by = by(c);
            let at = |p: f64| (p + by).clamp(0.0, 1.0);
            (c.chance.mean, c.chance.low, c.chance.high) = (at(c.chance.mean), at(c.chance.low), at(c.chance.high));
        }
        moved
    }
}

/// The backend that a seed draws.
pub fn drawn(odds: &[(usize, f64)], seed: u64) -> Option<usize> {
    let mut point = explore::unit(seed);
    for (index, share) in odds {
        if point < *share {
            return Some(*index);
        }
        point -= share;
    }
    // Rounding may leave a sliver above the last share.
    odds.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| *index)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{any_signals, candidate, signals};
    use super::super::types::{Decision, Learned, Place};
    use super::super::{Policy, parse};
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str =
        "name = \"b\"\nabout = \"B.\"\n[rule]\nkind = \"objective\"\nminimise = \"energy\"\nmax_quality_loss = 0.05\n";

    fn policy(more: &str) -> Policy {
        parse(&format!("{HEAD}[bandit]\n{more}"), "b.toml").unwrap_or_else(|e| panic!("{e}"))
    }

    /// Local is far worse by its table, and cheaper.
    fn two(local: Option<Learned>) -> Signals {
        let mut s = signals(vec![candidate("local/a", 0.6, Some(100.0)), candidate("cloud/b", 0.9, Some(900.0))]);
        s.candidates[0].learned = local;
        s
    }

    fn many(policy: &Policy, s: &Signals, n: u64) -> Vec<Decision> {
        (0..n).map(|draw| policy.decide(&Signals { draw, ..s.clone() })).collect()
    }

    fn share(decisions: &[Decision], side: usize) -> f64 {
        decisions.iter().filter(|d| d.chosen == Some(side)).count() as f64 / decisions.len() as f64
    }

    #[test]
    fn what_was_learned_moves_the_choice_within_its_bound() {
        let good = two(Some(Learned { shift: 0.9, width: 0.0 }));
        let p = policy("share = 0.0\nmax_shift = 0.3\n");
        let decision = p.decide(&good);
        assert_eq!((decision.chosen, decision.propensity, decision.draw), (Some(0), 1.0, None));
        assert!((decision.alternatives[0].p_correct - 0.9).abs() < 1e-12);
        assert_eq!(decision.alternatives[0].prior, Some(0.6));
        assert_eq!(policy("share = 0.0\nmax_shift = 0.1\n").decide(&good).chosen, Some(1));
        assert_eq!(p.decide(&two(None)).chosen, Some(1), "nothing learned, nothing changed");
        for odd in [f64::NAN, f64::INFINITY] {
            let p_correct = p.decide(&two(Some(Learned { shift: odd, width: odd }))).alternatives[0].p_correct;
            assert!(p_correct.is_finite(), "{odd}");
        }
    }

    #[test]
    fn what_is_known_by_little_moves_nothing() {
        let (p, bold) =
            (policy("share = 0.0\nmax_shift = 0.3\n"), policy("share = 0.0\nmax_shift = 0.3\ncaution = 0\n"));
        let decided = |p: &Policy, shift: f64, width: f64| {
            p.decide(&two(Some(Learned { shift, width }))).alternatives[0].p_correct
        };
        assert!((decided(&p, 0.28, 0.6) - 0.6).abs() < 1e-12, "0.28 is less than half of 0.6");
        assert!((decided(&p, 0.28, 0.2) - 0.78).abs() < 1e-12);
        assert!((decided(&p, -0.28, 0.2) - 0.42).abs() < 1e-12);
        assert!((decided(&p, 0.9, 0.2) - 0.9).abs() < 1e-12, "at most 0.3, however much is known");
        assert!((decided(&bold, 0.28, 0.6) - 0.88).abs() < 1e-12);
    }

    #[test]
    fn a_bounded_share_is_drawn_with_its_exact_odds_and_more_where_it_may_be_good() {
        let text = "share = 0.1\nmax_quality_loss = 0.5\noptimism = 1.0\n";
        let known = many(&policy(text), &two(Some(Learned { shift: 0.0, width: 0.01 })), 20_000);
        assert!((share(&known, 0) - 0.025).abs() < 0.004, "{}", share(&known, 0));
        let unknown = many(&policy(text), &two(Some(Learned { shift: 0.0, width: 0.4 })), 20_000);
        assert!((share(&unknown, 0) - 0.075).abs() < 0.006, "{}", share(&unknown, 0));
        for (decisions, odds) in [(&known, 0.025), (&unknown, 0.075)] {
            let of = |d: &Decision| if d.chosen == Some(0) { odds } else { 1.0 - odds };
            assert!(decisions.iter().all(|d| (d.propensity - of(d)).abs() < 1e-12));
        }
        let frozen = many(&policy(&format!("{text}freeze = true\n")), &two(None), 500);
        assert!(frozen.iter().all(|d| d.chosen == Some(1) && d.propensity == 1.0 && d.draw.is_none()));
    }

    #[test]
    fn with_a_check_the_odds_are_those_of_what_is_done() {
        // Both draws come to the same: local answers first and is checked.
        let p = policy("share = 0.1\nmax_quality_loss = 0.5\n[verify]\nclose = 0.5\n");
        let decisions = many(&p, &two(None), 300);
        assert!(decisions.iter().all(|d| d.cascade.is_some() && d.chosen == Some(0)));
        assert!(decisions.iter().all(|d| (d.propensity - 1.0).abs() < 1e-12));
        assert!(
            parse(&format!("{HEAD}[bandit]\nshare = 0.1\n[explore]\nshare = 0.1\n"), "b.toml")
                .unwrap_err()
                .to_string()
                .contains("explore: has no meaning beside [bandit]")
        );
        let told = parse(&format!("{HEAD}[bandit]\nshare = 0.5\nmax_shft = 1\n"), "b.toml").unwrap_err().to_string();
        assert!(
            told.contains("bandit.share: must be a number from 0 to 0.1") && told.contains("`max_shift`"),
            "{told}"
        );
    }

    proptest! {
        #[test]
        fn odds_sum_to_one_choices_repeat_and_private_stays(
            signals in any_signals(),
            learned in proptest::collection::vec(proptest::option::of((-1.0..1.0f64, 0.0..1.0f64)), 6),
        ) {
            let mut s = signals;
            for (c, l) in s.candidates.iter_mut().zip(learned) {
                c.learned = l.map(|(shift, width)| Learned { shift, width });
            }
            let p = policy("share = 0.1\nmax_quality_loss = 1.0\n");
            let (one, again) = (p.decide(&s), p.decide(&s));
            prop_assert_eq!((one.chosen, one.propensity), (again.chosen, again.propensity));
            prop_assert!(one.propensity > 0.0 && one.propensity <= 1.0 + 1e-12);
            let mut seen = std::collections::BTreeMap::new();
            for draw in 0..400 {
                let d = p.decide(&Signals { draw, ..s.clone() });
                seen.insert(d.chosen, d.propensity);
                if s.private {
                    prop_assert!(d.chosen.is_none_or(|i| s.candidates[i].place == Place::Local));
                }
            }
            prop_assert!(seen.values().sum::<f64>() <= 1.0 + 1e-9, "{:?}", seen);
        }
    }
}
