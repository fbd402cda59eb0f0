//! Tables for people: one line a domain, best IPJ first.

use std::fmt::Write;

use super::diff::{Diff, Verdict};
use super::{Row, Table};

/// The table as text. Unknown figures are a dash.
pub fn text(table: &Table) -> String {
    let mut out = String::new();
    head(&mut out, table);
    let _ = writeln!(
        out,
        "\n{:<46} {:>6} {:>22} {:>7} {:>18} {:>27} {:>10} {:>16} {:>10} {:>7} {:>11} {:>7}",
        "domain",
        "n",
        "coverage (95 %)",
        "shrunk",
        "gain",
        "IPJ 1/J (95 %)",
        "IPW 1/W",
        "J/query",
        "J/correct",
        "W",
        "first p50/95",
        "written"
    );
    let mut domains: Vec<_> = table.domains.iter().collect();
    domains.sort_by(|(_, a), (_, b)| b.ipj.unwrap_or(-1.0).total_cmp(&a.ipj.unwrap_or(-1.0)));
    let shrunk = table.shrunk();
    for (domain, row) in domains {
        line(&mut out, domain.name(), row, Some(shrunk.of_domain(*domain).mean));
    }
    line(&mut out, "overall", &table.overall, None);
    levels(&mut out, table);
    for note in &table.provenance.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn head(out: &mut String, table: &Table) {
    let _ = writeln!(out, "{} on {} ({}, {})", table.model, table.device, table.runtime, table.attention);
    let from = &table.provenance;
    let _ = writeln!(out, "basis {}; {}; {}; {}", table.basis.name(), from.source, from.date, from.licence);
    let setup = &table.setup;
    let mut facts: Vec<String> = Vec::new();
    facts.extend(setup.runtime_version.as_ref().map(|v| format!("runtime version {v}")));
    facts.extend(setup.driver.as_ref().map(|d| format!("driver {d}")));
    facts.extend(setup.power_cap_w.map(|w| format!("power cap {} W", figure(w))));
    facts.extend(setup.idle_w.map(|w| format!("{} W at rest", figure(w))));
    facts.extend(setup.repeats.filter(|n| *n > 1).map(|n| format!("each question {n} times")));
    facts.extend(setup.baseline.as_ref().map(|b| format!("gain is that of {b}")));
    if !facts.is_empty() {
        let _ = writeln!(out, "{}", facts.join("; "));
    }
    if !from.suites.is_empty() {
        let asked = setup.questions.as_ref().map(|hash| format!(", ids {hash}")).unwrap_or_default();
        let hashes = if setup.suite_hashes.is_empty() {
            String::new()
        } else {
            format!("; hashes {}", setup.suite_hashes.join(" "))
        };
        let _ = writeln!(out, "questions: {}{hashes}{asked}", from.suites.join(", "));
    }
    if let Some(command) = &from.command {
        let _ = writeln!(out, "made by: {command}");
    }
    costs(out, table);
}

fn costs(out: &mut String, table: &Table) {
    let t = &table.tokens;
    let unsure = t.relative_uncertainty.map(|u| format!(", meter +-{:.0} %", u * 100.0)).unwrap_or_default();
    let method = t.method.as_ref().map(|m| format!(" by {m}")).unwrap_or_default();
    let _ = writeln!(
        out,
        "J/input token {}{}, J/output token {}{}{method}{unsure}",
        maybe(t.joules_per_input_token),
        ends(t.input_interval),
        maybe(t.joules_per_output_token),
        ends(t.output_interval),
    );
    if let Some(why) = &t.refused {
        let _ = writeln!(out, "no regression: {why}");
    }
    let _ = writeln!(
        out,
        "W {}, first token {} s, reads {} tokens/s, writes {} tokens/s",
        maybe(t.watts),
        maybe(t.ttft_s),
        maybe(t.input_tokens_per_s),
        maybe(t.output_tokens_per_s)
    );
    let row = &table.overall;
    let phases = [("J before", row.prefill_joules), ("J after the first token", row.decode_joules)];
    let mut more: Vec<String> =
        phases.into_iter().filter_map(|(name, x)| Some(format!("{} {name}", figure(x?)))).collect();
    more.extend(row.net_joules_per_query.map(|j| format!("{} J net of the idle machine", figure(j))));
    more.extend(row.gap_p50_s.zip(row.gap_p99_s).map(|(a, b)| format!("between tokens p50 {a:.4} s, p99 {b:.4} s")));
    more.extend(
        row.output_quantiles.map(|q| format!("{:.0}/{:.0}/{:.0} tokens written (p5/50/95)", q.p5, q.p50, q.p95)),
    );
    if !more.is_empty() {
        let _ = writeln!(out, "per query: {}", more.join(", "));
    }
    if row.failed.unwrap_or(0) + row.unscored.unwrap_or(0) > 0 {
        let (failed, unscored) = (row.failed.unwrap_or(0), row.unscored.unwrap_or(0));
        let _ =
            writeln!(out, "{failed} questions without an answer and {unscored} that nobody graded are in no figure");
    }
}

fn line(out: &mut String, name: &str, row: &Row, shrunk: Option<f64>) {
    let gain = row.gain.map_or_else(
        || "-".to_owned(),
        |g| row.gain_interval.map_or_else(|| format!("{g:+.3}"), |[a, b]| format!("{g:+.3} ({a:+.2} {b:+.2})")),
    );
    let ipj = row.ipj.map_or_else(
        || "-".to_owned(),
        |x| row.ipj_interval.map_or_else(|| format!("{x:.3e}"), |[a, b]| format!("{x:.3e} ({a:.1e} {b:.1e})")),
    );
    let joules = row.joules_per_query.map_or_else(
        || "-".to_owned(),
        |j| row.joules_interval.map_or_else(|| figure(j), |[_, b]| format!("{} +-{}", figure(j), figure(b - j))),
    );
    let first = row.ttft_p50_s.zip(row.ttft_p95_s).map(|(a, b)| format!("{}/{}", figure(a), figure(b)));
    let _ = writeln!(
        out,
        "{name:<46} {:>6} {:>22} {:>7} {gain:>18} {ipj:>27} {:>10} {joules:>16} {:>10} {:>7} {:>11} {:>7}",
        row.n,
        format!("{:.3} ({:.3} {:.3})", row.coverage, row.coverage_low, row.coverage_high),
        shrunk.map_or_else(|| "-".to_owned(), |s| format!("{s:.3}")),
        row.ipw.map_or_else(|| "-".to_owned(), |x| format!("{x:.2e}")),
        maybe(row.joules_per_correct),
        maybe(row.watts),
        first.unwrap_or_else(|| "-".to_owned()),
        maybe(row.output_tokens),
    );
}

fn levels(out: &mut String, table: &Table) {
    if table.concurrency.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{:>10} {:>6} {:>18} {:>15} {:>9} {:>9} {:>11}",
        "at a time", "n", "J/query", "J/output token", "s/query", "tokens/s", "first p50 s"
    );
    for (streams, l) in &table.concurrency {
        let joules = l.joules_per_query.map_or_else(
            || "-".to_owned(),
            |j| l.joules_interval.map_or_else(|| figure(j), |[_, b]| format!("{} +-{}", figure(j), figure(b - j))),
        );
        let _ = writeln!(
            out,
            "{streams:>10} {:>6} {joules:>18} {:>15} {:>9} {:>9} {:>11}",
            l.n,
            maybe(l.joules_per_output_token),
            maybe(l.seconds_per_query),
            maybe(l.output_tokens_per_s),
            maybe(l.ttft_p50_s)
        );
    }
}

/// A comparison as text.
pub fn comparison(diff: &Diff) -> String {
    let [a, b] = &diff.tables;
    let mut out = format!("A: {a}\nB: {b}\n");
    for (name, x, y) in &diff.settings {
        let _ = writeln!(out, "differs in {name}: {x} | {y}");
    }
    for note in &diff.notes {
        let _ = writeln!(out, "note: {note}");
    }
    let _ = writeln!(
        out,
        "\n{:<46} {:>11} {:>15} {:>24} {:<13} {:>19} {:>20} {:<13}",
        "domain", "n", "coverage", "B - A (95 %)", "", "J/query", "B / A (95 %)", ""
    );
    for l in &diff.lines {
        let ([n1, n2], [c1, c2], [j1, j2]) = (l.n, l.coverage, l.joules);
        let change =
            l.difference.map_or_else(|| "-".to_owned(), |d| format!("{:+.3} ({:+.3} {:+.3})", d.value, d.low, d.high));
        let ratio = l.ratio.map_or_else(|| "-".to_owned(), |r| format!("{:.2} ({:.2} {:.2})", r.value, r.low, r.high));
        let told = |v: Verdict, known: bool| if known { v.name() } else { "-" };
        let _ = writeln!(
            out,
            "{:<46} {:>11} {:>15} {change:>24} {:<13} {:>19} {ratio:>20} {:<13}",
            l.name,
            if n1 == n2 { n1.to_string() } else { format!("{n1} {n2}") },
            format!("{c1:.3} {c2:.3}"),
            told(l.quality, l.difference.is_some()),
            format!("{} {}", maybe(j1), maybe(j2)),
            told(l.energy, l.ratio.is_some()),
        );
    }
    let differing = diff.lines.iter().filter(|l| matches!(l.quality, Verdict::Better | Verdict::Worse)).count();
    let _ = writeln!(
        out,
        "{differing} of {} rows differ in coverage at 95 %; one in twenty would by chance alone",
        diff.lines.len()
    );
    out
}

fn ends(interval: Option<[f64; 2]>) -> String {
    interval.map(|[a, b]| format!(" ({} {})", figure(a), figure(b))).unwrap_or_default()
}

/// A figure, or a dash where it is unknown.
pub fn maybe(x: Option<f64>) -> String {
    x.map_or_else(|| "-".to_owned(), figure)
}

/// Three digits that matter, without an exponent where one can do without.
pub fn figure(x: f64) -> String {
    let size = x.abs();
    if size >= 100.0 {
        format!("{x:.0}")
    } else if size >= 10.0 {
        format!("{x:.1}")
    } else if size >= 1.0 {
        format!("{x:.2}")
    } else if size >= 0.001 || size == 0.0 {
        let digits = if size >= 0.1 { 3 } else { 4 };
        format!("{x:.digits$}")
    } else {
        format!("{x:.1e}")
    }
}
