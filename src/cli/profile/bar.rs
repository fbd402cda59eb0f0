//! The progress of a run: a bar with ETA, live accuracy and watts; a line a minute where there is no terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::{self, Instant};
use crate::profile::run::Seen;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// The bar.
pub struct Bar {
    bar: Option<ProgressBar>,
    began: Instant,
    said: Instant,
    /// Meters that were away when last looked.
    away: Vec<String>,
    /// What was there when this run began: it says nothing about this run's speed.
    before: Option<u64>,
}

impl Bar {
    /// On standard error.
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::new(0);
            match ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}, {eta} left") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self { bar, began: clock::now(), said: clock::now(), away: Vec::new(), before: None }
    }

    /// Shows where the run is.
    pub fn tell(&mut self, seen: &Seen) {
        if self.away != seen.away {
            self.away.clone_from(&seen.away);
            let text = meters(&seen.away);
            match &self.bar {
                Some(bar) => bar.suspend(|| eprintln!("{text}")),
                None => eprintln!("{text}"),
            }
        }
        let before = *self.before.get_or_insert(seen.asked);
        match &self.bar {
            Some(bar) => {
                if bar.length() != Some(seen.all) {
                    bar.set_length(seen.all);
                    bar.set_position(before);
                    bar.reset_eta();
                }
                bar.set_position(seen.asked);
                bar.set_message(message(seen));
            }
            None if clock::now() >= self.said + LINE_EVERY => {
                self.said = clock::now();
                let left = left(seen, before, self.began.elapsed());
                eprintln!("{}/{} {}{left}", seen.asked, seen.all, message(seen));
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn meters(away: &[String]) -> String {
    match away {
        [] => "every meter is read again".to_owned(),
        names => format!(
            "{} cannot be read any more: answers have no joules until it can, and the same command asks for them again later",
            names.join(", ")
        ),
    }
}

fn message(seen: &Seen) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts of questions")]
    let share = 100.0 * seen.right as f64 / seen.scored.max(1) as f64;
    let unscored = if seen.unscored > 0 { format!(", {} unscored", seen.unscored) } else { String::new() };
    let watts = seen.watts.map(|w| format!(", {w:.1} W")).unwrap_or_default();
    format!("{}/{} right ({share:.1} %){unscored}, {:.0} J{watts}", seen.right, seen.scored, seen.joules)
}

fn left(seen: &Seen, before: u64, elapsed: Duration) -> String {
    let done = seen.asked.saturating_sub(before);
    if done == 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of questions")]
    let seconds = elapsed.as_secs_f64() / done as f64 * seen.all.saturating_sub(seen.asked) as f64;
    format!(", {:.0} min left", (seconds / 60.0).ceil())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_tells_where_it_is_and_how_long_it_will_take() {
        let seen = Seen {
            asked: 30,
            all: 130,
            right: 9,
            scored: 27,
            unscored: 3,
            joules: 61.6,
            watts: Some(6.84),
            ..Seen::default()
        };
        assert_eq!(message(&seen), "9/27 right (33.3 %), 3 unscored, 62 J, 6.8 W");
        // Twenty of this run in a minute; a hundred are left.
        assert_eq!(left(&seen, 10, Duration::from_secs(60)), ", 5 min left");
        assert_eq!(left(&seen, 30, Duration::from_secs(60)), "");
        assert!(meters(&["rapl/package-0".to_owned()]).starts_with("rapl/package-0 cannot be read"));
    }
}
