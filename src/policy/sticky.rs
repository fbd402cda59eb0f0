//! `[sticky]`: a conversation stays where it was answered last, unless another backend is better by what switching costs.

use std::time::Duration;

use super::section::Section;
use super::types::{Candidate, Signals};
use crate::config::problem::Problems;

/// Of what is minimised: about what reading a conversation's beginning again adds to an answer.
const SWITCHING: f64 = 0.2;
/// Seconds after which a provider's or server's prompt cache has usually forgotten it.
const KEEP_S: f64 = 600.0;

/// How conversations stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sticky {
    /// How much better another backend must be, as a share of what the rule minimises.
    pub switching: f64,
    /// How long after its last answer.
    pub keep: Duration,
    /// Also known by the body's `user` or `metadata.session`; by `x-session-id` or `wattroute.session` always.
    pub user: bool,
    /// Also known by its first messages.
    pub prefix: bool,
}

/// Reads `[sticky]`.
pub fn section(mut s: Section<'_>, problems: &mut Problems) -> Sticky {
    let made = Sticky {
        switching: s.number("switching", 0.0..=100.0, problems).unwrap_or(SWITCHING),
        keep: Duration::from_secs_f64(s.number("keep_s", 1.0..=86_400.0, problems).unwrap_or(KEEP_S)),
        user: s.flag("user", problems).unwrap_or(false),
        prefix: s.flag("prefix", problems).unwrap_or(false),
    };
    s.finish(problems);
    made
}

/// What a candidate's figure is multiplied by: more than 1 for one that the conversation would have to switch to.
pub fn factor(sticky: Option<Sticky>, signals: &Signals, candidate: &Candidate) -> f64 {
    match (sticky, &signals.last) {
        (Some(sticky), Some(last)) if *last != candidate.backend => 1.0 + sticky.switching,
        _ => 1.0,
    }
}

/// Whether the conversation was answered by this candidate last, and that counts.
pub fn stays(sticky: Option<Sticky>, signals: &Signals, candidate: &Candidate) -> bool {
    sticky.is_some() && signals.last.as_ref() == Some(&candidate.backend)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::parse;
    use super::super::sample::{candidate, signals};

    const TEXT: &str = "name = \"s\"\nabout = \"S.\"\n[rule]\nkind = \"objective\"\nminimise = \"energy\"\n[sticky]\nswitching = 0.5\n";

    #[test]
    fn a_conversation_stays_until_another_backend_is_better_by_the_cost_of_switching() {
        let policy = parse(TEXT, "s.toml").unwrap();
        let of = |here: f64, last: Option<&str>| {
            let mut s = signals(vec![candidate("local/a", 0.9, Some(100.0)), candidate("local/b", 0.9, Some(here))]);
            s.last = last.map(Arc::from);
            policy.decide(&s)
        };
        assert_eq!(of(140.0, None).chosen, Some(0));
        let d = of(140.0, Some("local/b"));
        assert_eq!(d.chosen, Some(1));
        assert!(d.reason.ends_with("and its conversation is there: 140 J, and switching costs 50 %"), "{}", d.reason);
        assert_eq!(d.alternatives[0].why_not.as_deref(), Some("100 J, and switching from local/b costs 50 %"));
        assert_eq!(of(160.0, Some("local/b")).chosen, Some(0));
        assert_eq!(of(140.0, Some("cloud/gone")).chosen, Some(0));
        let plain = parse(&TEXT.replace("[sticky]\nswitching = 0.5\n", ""), "s.toml").unwrap();
        let mut s = signals(vec![candidate("local/a", 0.9, Some(100.0)), candidate("local/b", 0.9, Some(140.0))]);
        s.last = Some(Arc::from("local/b"));
        assert_eq!(plain.decide(&s).chosen, Some(0), "off unless the policy has it");
    }

    #[test]
    fn a_conversation_never_stays_where_it_is_not_good_enough() {
        let policy = parse(TEXT, "s.toml").unwrap();
        let mut s = signals(vec![candidate("local/a", 0.5, Some(1.0)), candidate("cloud/b", 0.9, Some(900.0))]);
        s.last = Some(Arc::from("local/a"));
        assert_eq!(policy.decide(&s).chosen, Some(1));
    }
}
