//! The report as one HTML page that needs nothing else: no network, no script, light and dark. Pure.

use std::fmt::Write;

use super::Report;
use super::subject::Subject;
use crate::picture::page::{begin, end, missing, row as cells, section};
use crate::picture::svg::escaped;
use crate::tables::Row;
use crate::tables::show::{figure, maybe};

/// The whole page.
pub fn html(report: &Report) -> String {
    let mut out = begin("Intelligence per watt");
    body(&mut out, report);
    end(out)
}

/// The page without its frame, for a page of several parts.
pub fn body(out: &mut String, report: &Report) {
    let _ = write!(
        out,
        "<p class=\"lede\">What {} answered right, and at what energy. \
         Figures with an interval are at 95 % and speak of the spread of the questions; what a meter may be wrong by stands beside its basis. \
         Made {} by wattroute {}.</p>",
        if report.subjects.len() == 1 { "one model".to_owned() } else { format!("{} models", report.subjects.len()) },
        escaped(&report.date),
        env!("CARGO_PKG_VERSION"),
    );
    summary(out, &report.subjects);
    for chart in &report.charts {
        section(out, &chart.title, &chart.lede, &chart.scene);
    }
    report.missing.iter().for_each(|why| missing(out, why));
    savings(out, report);
    for subject in &report.subjects {
        details(out, subject);
    }
}

fn summary(out: &mut String, subjects: &[Subject]) {
    out.push_str("<div class=\"wide about\"><table><thead>");
    let head = [
        "model",
        "device",
        "basis",
        "n",
        "coverage",
        "IPJ 1/J",
        "IPW 1/W",
        "J/query",
        "J/correct",
        "W",
        "first token s",
        "tokens/s",
    ];
    cells(out, "th", head.map(str::to_owned));
    out.push_str("</thead><tbody>");
    let mut order: Vec<&Subject> = subjects.iter().collect();
    order.sort_by(|a, b| b.table.overall.ipj.unwrap_or(-1.0).total_cmp(&a.table.overall.ipj.unwrap_or(-1.0)));
    for s in order {
        let (t, r) = (&s.table, &s.table.overall);
        let unsure = t.tokens.relative_uncertainty.map(|u| format!(" ±{:.0} %", u * 100.0)).unwrap_or_default();
        let ends = |x: Option<f64>, e: Option<[f64; 2]>| match (x, e) {
            (None, _) => "–".to_owned(),
            (Some(x), None) => figure(x),
            (Some(x), Some([a, b])) => format!("{} ({}–{})", figure(x), figure(a), figure(b)),
        };
        cells(
            out,
            "td",
            [
                s.name.clone(),
                t.device.clone(),
                format!("{}{unsure}", t.basis.name()),
                r.n.to_string(),
                format!("{:.3} ({:.3}–{:.3})", r.coverage, r.coverage_low, r.coverage_high),
                ends(r.ipj, r.ipj_interval),
                ends(r.ipw, r.ipw_interval),
                ends(r.joules_per_query, r.joules_interval),
                maybe(r.joules_per_correct),
                maybe(r.watts.or(t.tokens.watts)),
                maybe(r.ttft_p50_s.or(t.tokens.ttft_s)),
                maybe(t.tokens.output_tokens_per_s),
            ],
        );
    }
    out.push_str("</tbody></table></div>");
}

/// What a router between the first model and the cloud would save, by the paper's arithmetic and by honest arithmetic.
fn savings(out: &mut String, report: &Report) {
    if report.routers.is_empty() {
        return;
    }
    out.push_str(
        "<section><h2>What a router would save</h2><p>If the questions a model gets right stayed local. The paper's router errs towards the \
         cloud only, for free; the honest one tries locally first, pays for what it throws away, and keeps one wrong answer in ten.</p>\
         <div class=\"wide\"><table><thead>",
    );
    let head = [
        "model",
        "of the solvable kept local",
        "saved, the paper's way",
        "saved, honestly",
        "wasted on thrown attempts",
        "wrong answers kept",
    ];
    cells(out, "th", head.map(str::to_owned));
    out.push_str("</thead><tbody>");
    let percent = |x: f64| format!("{:.1} %", x * 100.0);
    for r in &report.routers {
        cells(
            out,
            "td",
            [
                r.name.clone(),
                percent(r.kept),
                percent(r.paper.saved),
                percent(r.honest.saved),
                percent(r.honest.wasted),
                percent(r.honest.quality_loss),
            ],
        );
    }
    out.push_str("</tbody></table></div></section>");
}

fn details(out: &mut String, s: &Subject) {
    let (t, from) = (&s.table, &s.table.provenance);
    let _ =
        write!(out, "<details><summary>{}: every domain, and where the figures come from</summary>", escaped(&s.name));
    out.push_str("<div class=\"wide\"><table><thead>");
    let head = ["domain", "n", "coverage", "shrunk", "gain", "IPJ 1/J", "J/query", "J/correct", "tokens written"];
    cells(out, "th", head.map(str::to_owned));
    out.push_str("</thead><tbody>");
    for (name, row) in t.domains.iter().map(|(d, r)| (d.name(), r)).chain([("overall", &t.overall)]) {
        domain(out, name, row);
    }
    out.push_str("</tbody></table></div><ul>");
    let setup = &t.setup;
    let mut facts = vec![
        format!("{}; {}; {}; {}", from.source, from.date, from.licence, t.runtime),
        format!("attention {}; questions: {}", t.attention, from.suites.join(", ")),
    ];
    facts.extend(from.command.clone());
    facts.extend(setup.driver.as_ref().map(|d| format!("driver {d}")));
    facts.extend(setup.power_cap_w.map(|w| format!("power cap {} W", figure(w))));
    facts.extend(setup.idle_w.map(|w| format!("{} W at rest", figure(w))));
    facts.extend(t.tokens.refused.as_ref().map(|why| format!("J per token by phases; no regression: {why}")));
    facts.extend(from.notes.iter().cloned());
    for fact in facts {
        let _ = write!(out, "<li>{}</li>", escaped(&fact));
    }
    out.push_str("</ul></details>");
}

fn domain(out: &mut String, name: &str, row: &Row) {
    cells(
        out,
        "td",
        [
            name.to_owned(),
            row.n.to_string(),
            format!("{:.3} ({:.3}–{:.3})", row.coverage, row.coverage_low, row.coverage_high),
            row.shrunk.map_or_else(|| "–".to_owned(), |x| format!("{x:.3}")),
            row.gain.map_or_else(|| "–".to_owned(), |x| format!("{x:+.3}")),
            maybe(row.ipj),
            maybe(row.joules_per_query),
            maybe(row.joules_per_correct),
            maybe(row.output_tokens),
        ],
    );
}
