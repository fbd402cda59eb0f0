//! A tuned policy as a file: the old one with new values, above it where they come from.

use similar::{ChangeTag, TextDiff};

use super::Found;
use super::space::Space;

/// Where a tuned file comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The command as typed.
    pub command: String,
    /// The day, `2026-11-23`.
    pub date: String,
    /// What was replayed, with its hash and how it was split.
    pub data: String,
    /// Name and hash of the old policy.
    pub from: String,
}

/// The text of the new file, named `name`.
pub fn text(space: &Space, found: &Found, origin: &Origin, name: &str) -> String {
    let body = space.named(&found.values, name);
    let mut head =
        format!("# Tuned from {} on {} by\n#   {}\n# on {}.\n", origin.from, origin.date, origin.command, origin.data);
    for change in &found.changes {
        head.push_str(&format!("#   {}: {} -> {}\n", change.key, change.old, change.new));
    }
    let (old, new) = (&found.held_out.old, &found.held_out.new);
    head.push_str(&format!("# On {} held-out queries:\n", new.n));
    if let (Some(old), Some(new)) = (old.objective, new.objective) {
        head.push_str(&format!("#   {} per query {old:.4} -> {new:.4}", found.goal.unit()));
        if let Some(saved) = found.saved {
            let percent = |x: f64| 100.0 * x;
            head.push_str(&format!(
                ", {:.1} % saved (95 %: {:.1} to {:.1})",
                percent(saved.value),
                percent(saved.low),
                percent(saved.high)
            ));
        }
        head.push('\n');
    }
    head.push_str(&format!(
        "#   accuracy {:.4} -> {:.4}, always-strong {:.4}; local share {:.3} -> {:.3}\n\n",
        old.accuracy, new.accuracy, new.accuracy_strong, old.local_share, new.local_share
    ));
    head + &body
}

/// Lines that differ, as a person reads a diff: `-` old, `+` new, in order.
pub fn diff(old: &str, new: &str) -> String {
    let lines = TextDiff::from_lines(old, new);
    let changed = lines.iter_all_changes().filter(|c| c.tag() != ChangeTag::Equal);
    changed.map(|c| format!("{}{}\n", c.tag(), c.value().trim_end_matches('\n'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_has_the_lines_that_differ_in_order() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\nd\n"), "-b\n+x\n+d\n");
        assert_eq!(diff("a\n", "a\n"), "");
        assert_eq!(diff("", "a\n"), "+a\n");
    }
}
