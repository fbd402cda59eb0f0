//! What a search found, for people and programs.

use serde_json::{Value, json};

use super::Args;
use crate::tables::show::{figure, maybe};
use crate::tune::judge::Sums;
use crate::tune::space::{Parameter, Space};
use crate::tune::write::Origin;
use crate::tune::{Found, Setting, Verdict};

/// The whole as JSON.
pub fn told(origin: &Origin, args: &Args, found: &Found, space: &Space, text: &str) -> Value {
    let keys: Vec<String> = space.parameters.iter().map(Parameter::key).collect();
    let written = args.out.as_ref().filter(|_| found.verdict == Verdict::Better);
    json!({ "policy": args.policy, "keys": keys, "found": found, "log": origin.data, "written": written, "text": text })
}

fn word(setting: &Setting) -> String {
    match setting {
        Setting::Number(x) => figure(*x),
        other => other.to_string(),
    }
}

fn line(name: &str, unit: &str, sums: &Sums) -> String {
    format!(
        "  {name:<22} n {:>6}  {:>10} {unit} a query  right {:.4} (strong {:.4})  local {:.3}  p95 {} s\n",
        sums.n,
        maybe(sums.objective),
        sums.accuracy,
        sums.accuracy_strong,
        sums.local_share,
        maybe(sums.p95_seconds)
    )
}

/// The whole for people.
pub fn shown(origin: &Origin, args: &Args, found: &Found, space: &Space, diff: &str) -> String {
    let unit = found.goal.unit();
    let waits = match found.waits {
        true => format!("with waiting at the local device ({} at a time)", args.seats),
        false => "without waiting: the log does not tell when queries arrived, and no --rate was given".to_owned(),
    };
    let mut out = format!("{}\n{} policies tried; seconds are {waits}\n\nsearched\n", origin.data, found.tried);
    out += &(line("as it is", unit, &found.training.old) + &line("best found", unit, &found.training.new));
    out += "held out\n";
    out += &(line("as it is", unit, &found.held_out.old) + &line("best found", unit, &found.held_out.new));
    if let Some(saved) = found.saved {
        let [value, low, high] = [saved.value, saved.low, saved.high].map(|x| 100.0 * x);
        out += &format!("  saved {value:.1} % of {unit} (95 %: {low:.1} to {high:.1})\n");
    }
    if let Some(kept) = found.kept {
        out += &format!(
            "  accuracy {:.4} of always-strong (95 %: {:.4} to {:.4}), wanted {}\n",
            kept.value, kept.low, kept.high, args.accuracy
        );
    }
    let keys: Vec<String> = space.parameters.iter().map(Parameter::key).collect();
    out += &format!("\nfront, on the held-out queries ({unit} a query, right, local share: {})\n", keys.join(", "));
    for point in &found.front {
        let values: Vec<String> = point.values.iter().map(word).collect();
        let s = &point.held_out;
        out +=
            &format!("  {:>10}  {:.4}  {:.3}  {}\n", maybe(s.objective), s.accuracy, s.local_share, values.join(", "));
    }
    match (&found.verdict, &args.out) {
        (Verdict::Refused(why), _) => out += &format!("\nrefused: {why}\n"),
        (Verdict::Better, Some(path)) => out += &format!("\n{diff}\nwrote {}\n", path.display()),
        (Verdict::Better, None) => out += &format!("\n{diff}\nnothing written: name a file with --out\n"),
    }
    out
}
