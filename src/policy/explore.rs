//! `[explore]`: a bounded share of decisions goes to another backend than the best, so that the journal can tell what that one is
//! worth. Pure.
//!
//! Invariants: the probability of every choice is exact and told with the decision; what is drawn was eligible anyway, so that a
//! private query stays local; nothing is drawn beyond the stated losses of quality, joules and money.

use super::rank::Ranked;
use super::section::Section;
use super::types::{Candidate, Signals};
use crate::config::problem::Problems;

/// Largest share of decisions that may be drawn.
const MOST: f64 = 0.1;

/// How a policy explores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Explore {
    /// Share of decisions that are drawn evenly among the backends below; 0 draws none.
    pub share: f64,
    /// Backends that are not good enough by the rule are drawn too, if their P(correct) is at most this much below the best one's;
    /// none draws among those that are good enough.
    pub max_quality_loss: Option<f64>,
    /// Joules that a drawn answer may cost beyond the best one's; with a bound, a backend of unknown joules is not drawn.
    pub max_joules: Option<f64>,
    /// US dollars, likewise.
    pub max_usd: Option<f64>,
    /// Nothing is drawn, as if the section were not there.
    pub freeze: bool,
}

/// Reads `explore`: the share alone, or a table.
pub fn read(top: &mut Section<'_>, problems: &mut Problems) -> Explore {
    if !top.values.get("explore").is_some_and(toml::Value::is_table) {
        let share = top.number("explore", 0.0..=MOST, problems).unwrap_or(0.0);
        return Explore { share, ..Explore::default() };
    }
    top.optional_table("explore", problems).map_or_else(Explore::default, |s| keys(s, problems))
}

/// Reads a share and its bounds; what else was asked of the section is known too.
pub fn keys(mut s: Section<'_>, problems: &mut Problems) -> Explore {
    let share = s.number("share", 0.0..=MOST, problems);
    if share.is_none() && !s.values.contains_key("share") {
        problems.add(s.at("share"), "is missing: the share of decisions that are drawn, at most 0.1");
    }
    let made = Explore {
        share: share.unwrap_or(0.0),
        max_quality_loss: s.number("max_quality_loss", 0.0..=1.0, problems),
        max_joules: s.number("max_joules", 0.0..=1e9, problems),
        max_usd: s.number("max_usd", 0.0..=1e3, problems),
        freeze: s.flag("freeze", problems).unwrap_or(false),
    };
    s.finish(problems);
    made
}

impl Explore {
    /// Whether anything is ever drawn.
    pub fn draws(&self) -> bool {
        self.share > 0.0 && !self.freeze
    }

    /// The first, or with the stated share any of those that may be drawn; and the probability of that choice.
    pub fn draw(&self, order: &[Ranked], signals: &Signals) -> (Option<usize>, f64) {
        let Some(first) = order.first() else { return (None, 1.0) };
        let Some(best) = signals.candidates.get(first.index).filter(|_| self.draws()) else {
            return (Some(first.index), 1.0);
        };
        let among = self.drawable(order, (first.index, best), signals);
        if among.len() < 2 {
            return (Some(first.index), 1.0);
        }
        let each = self.share / as_f64(among.len());
        let usual = each + (1.0 - self.share);
        let mut point = unit(signals.draw);
        for index in among {
            let share = if index == first.index { usual } else { each };
            if point < share {
                return (Some(index), share);
            }
            point -= share;
        }
        // Rounding may leave a sliver above the last share.
        (Some(first.index), usual)
    }

    /// Those that may be chosen: the first, and with a share those that bear their losses.
    pub fn among(&self, order: &[Ranked], signals: &Signals) -> Vec<usize> {
        let Some(first) = order.first() else { return Vec::new() };
        match signals.candidates.get(first.index).filter(|_| self.draws()) {
            Some(best) => self.drawable(order, (first.index, best), signals),
            None => vec![first.index],
        }
    }

    fn drawable(&self, order: &[Ranked], (first, best): (usize, &Candidate), signals: &Signals) -> Vec<usize> {
        let may = |r: &&Ranked| {
            let own = signals.candidates.get(r.index);
            r.index == first || own.is_some_and(|c| self.bears(r.class, best, c))
        };
        order.iter().filter(may).map(|r| r.index).collect()
    }

    /// Whether this one may be drawn in place of the best: its losses are within their bounds.
    fn bears(&self, class: u8, best: &Candidate, c: &Candidate) -> bool {
        let good = match self.max_quality_loss {
            Some(loss) => c.chance.mean >= best.chance.mean - loss,
            None => class == 0,
        };
        let within = |bound: Option<f64>, own: Option<f64>, least: Option<f64>| {
            bound.is_none_or(|most| own.zip(least).is_some_and(|(own, least)| own - least <= most))
        };
        good && within(self.max_joules, c.joules.mid, best.joules.mid)
            && within(self.max_usd, c.usd, best.usd.or(Some(0.0)))
    }
}

/// A seed as a number in \[0, 1): SplitMix64, so that neighbouring seeds do not give neighbouring draws.
pub fn unit(seed: u64) -> f64 {
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

#[cfg(test)]
mod tests {
    use super::super::sample::{candidate, signals};
    use super::super::types::{Decision, Place};
    use super::super::{Policy, parse};
    use super::*;

    fn policy(explore: &str) -> Policy {
        let head = "name = \"e\"\nabout = \"E.\"\n[rule]\nkind = \"objective\"\nminimise = \"energy\"\nmax_quality_loss = 0.05\n";
        parse(&format!("{head}{explore}"), "e.toml").unwrap()
    }

    /// Local is far worse and cheaper; the rule sends the query to the cloud.
    fn two() -> Signals {
        signals(vec![candidate("local/a", 0.6, Some(100.0)), candidate("cloud/b", 0.9, Some(900.0))])
    }

    fn many(policy: &Policy, s: &Signals, n: u64) -> Vec<Decision> {
        (0..n).map(|draw| policy.decide(&Signals { draw, ..s.clone() })).collect()
    }

    #[test]
    fn the_other_side_is_drawn_as_often_as_its_propensity_says_and_by_the_seed() {
        let p = policy("[explore]\nshare = 0.1\nmax_quality_loss = 0.5\n");
        let decisions = many(&p, &two(), 20_000);
        let local: Vec<&Decision> = decisions.iter().filter(|d| d.chosen == Some(0)).collect();
        assert!((local.len() as f64 / 20_000.0 - 0.05).abs() < 0.005, "{}", local.len());
        assert!(local.iter().all(|d| (d.propensity - 0.05).abs() < 1e-12));
        assert!(decisions.iter().filter(|d| d.chosen == Some(1)).all(|d| (d.propensity - 0.95).abs() < 1e-12));
        assert!(local[0].reason.contains("to learn"), "{}", local[0].reason);
        let again = many(&p, &two(), 500);
        assert!(decisions.iter().zip(&again).all(|(a, b)| a.chosen == b.chosen));
        // The mean of 1 / propensity over what was drawn gives every query back, on either side.
        let weight =
            |side: usize| decisions.iter().filter(|d| d.chosen == Some(side)).map(|d| 1.0 / d.propensity).sum::<f64>();
        assert!((weight(0) / 20_000.0 - 1.0).abs() < 0.1 && (weight(1) / 20_000.0 - 1.0).abs() < 0.01);
    }

    #[test]
    fn without_a_bound_of_quality_only_good_ones_are_drawn_and_bounds_hold() {
        let never = |explore: &str, s: &Signals| {
            many(&policy(explore), s, 2000).iter().all(|d| d.chosen == Some(1) && d.propensity == 1.0)
        };
        assert!(never("[explore]\nshare = 0.1\n", &two()));
        assert!(never("[explore]\nshare = 0.1\nmax_quality_loss = 0.2\n", &two()));
        assert!(never("[explore]\nshare = 0.1\nmax_quality_loss = 0.5\nfreeze = true\n", &two()));
        let dear = signals(vec![candidate("local/a", 0.6, Some(2000.0)), candidate("cloud/b", 0.9, Some(900.0))]);
        assert!(never("[explore]\nshare = 0.1\nmax_quality_loss = 0.5\nmax_joules = 1000\n", &dear));
        let unknown = signals(vec![candidate("local/a", 0.6, None), candidate("cloud/b", 0.9, Some(900.0))]);
        assert!(never("[explore]\nshare = 0.1\nmax_quality_loss = 0.5\nmax_joules = 1000\n", &unknown));
        let mut priced = two();
        (priced.candidates[0].usd, priced.candidates[1].usd) = (Some(0.2), Some(0.1));
        assert!(never("[explore]\nshare = 0.1\nmax_quality_loss = 0.5\nmax_usd = 0.05\n", &priced));
        assert!(!never("[explore]\nshare = 0.1\nmax_quality_loss = 0.5\nmax_usd = 0.15\n", &priced));
    }

    #[test]
    fn a_private_query_is_never_drawn_to_the_cloud() {
        let p = policy("[explore]\nshare = 0.1\nmax_quality_loss = 1.0\n");
        let mut s = signals(vec![
            candidate("local/a", 0.6, Some(100.0)),
            candidate("local/c", 0.5, Some(50.0)),
            candidate("cloud/b", 0.9, Some(900.0)),
        ]);
        s.private = true;
        let decisions = many(&p, &s, 3000);
        assert!(decisions.iter().all(|d| d.alternatives[d.chosen.unwrap()].place == Place::Local && d.cloud.is_none()));
        assert!(decisions.iter().any(|d| d.propensity < 0.1), "the other local one is drawn");
    }

    #[test]
    fn the_share_is_bounded_and_what_is_wrong_is_said() {
        let head = "name = \"e\"\nabout = \"E.\"\n";
        let rule = "[rule]\nkind = \"objective\"\nminimise = \"energy\"\n";
        for (text, want) in [
            (format!("{head}explore = 0.9\n{rule}"), "explore: must be a number from 0 to 0.1 (got 0.9)"),
            (
                format!("{head}{rule}[explore]\nshare = 0.2\n"),
                "explore.share: must be a number from 0 to 0.1 (got 0.2)",
            ),
            (format!("{head}{rule}[explore]\nfreeze = false\n"), "explore.share: is missing"),
            (format!("{head}{rule}[explore]\nshare = 0.05\nmax_joule = 3\n"), "did you mean `max_joules`?"),
        ] {
            let said = parse(&text, "e.toml").unwrap_err().to_string();
            assert!(said.contains(want), "{said}");
        }
        assert_eq!(parse(&format!("{head}{rule}"), "e.toml").unwrap().explore, Explore::default());
        assert!(
            (parse(&format!("{head}explore = 0.05\n{rule}"), "e.toml").unwrap().explore.share - 0.05).abs() < 1e-12
        );
    }
}
