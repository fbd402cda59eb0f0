//! A table for people: one line a domain.

use std::fmt::Write;

use super::{Row, Table};

/// The table as text. Unknown figures are a dash.
pub fn text(table: &Table) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{} on {} ({}, {})", table.model, table.device, table.runtime, table.attention);
    let _ = writeln!(out, "basis {}; {}; {}", table.basis.name(), table.provenance.source, table.provenance.licence);
    let t = &table.tokens;
    let _ = writeln!(
        out,
        "J/input token {}, J/output token {}, W {}, first token {} s, {} tokens/s",
        figure(t.joules_per_input_token),
        figure(t.joules_per_output_token),
        figure(t.watts),
        figure(t.ttft_s),
        figure(t.output_tokens_per_s)
    );
    let _ = writeln!(
        out,
        "\n{:<48} {:>7} {:>8} {:>15} {:>8} {:>10} {:>10} {:>9}",
        "domain", "n", "coverage", "interval", "shrunk", "IPJ 1/J", "J/query", "gain"
    );
    let shrunk = table.shrunk();
    for (domain, row) in &table.domains {
        line(&mut out, domain.name(), row, Some(shrunk.of_domain(*domain).mean));
    }
    line(&mut out, "overall", &table.overall, None);
    for note in &table.provenance.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn line(out: &mut String, name: &str, row: &Row, shrunk: Option<f64>) {
    let _ = writeln!(
        out,
        "{name:<48} {:>7} {:>8.3} {:>15} {:>8} {:>10} {:>10} {:>9}",
        row.n,
        row.coverage,
        format!("{:.3} to {:.3}", row.coverage_low, row.coverage_high),
        shrunk.map_or_else(|| "-".to_owned(), |s| format!("{s:.3}")),
        row.ipj.map_or_else(|| "-".to_owned(), |x| format!("{x:.3e}")),
        figure(row.joules_per_query),
        row.gain.map_or_else(|| "-".to_owned(), |g| format!("{g:+.3}")),
    );
}

fn figure(x: Option<f64>) -> String {
    match x {
        None => "-".to_owned(),
        Some(x) if x >= 100.0 => format!("{x:.0}"),
        Some(x) => format!("{x:.3}"),
    }
}
