//! A replay as one HTML page that needs nothing else: a headline with its interval and assumptions for whoever decides, every
//! figure and its method for whoever checks. Pure.

mod charts;
mod rewards;
pub mod texts;

use std::fmt::Write;

use super::outcome::{DomainFigures, Outcome, PolicyFigures};
use super::show;
use super::worst::Mistake;
use crate::picture::page::{begin, end, missing, row, section};
use crate::picture::svg::escaped;
use crate::tables::show::{figure, maybe};

/// The whole page. `date` is the day it was made; `text` gives the prompt of a line of the log, where texts may be shown.
pub fn html(outcome: &Outcome, date: &str, text: &dyn Fn(u64) -> Option<String>) -> String {
    let mut out = begin("What the log would have cost");
    body(&mut out, outcome, date, text);
    end(out)
}

/// The page without its frame, for a page of several parts.
pub fn body(out: &mut String, outcome: &Outcome, date: &str, text: &dyn Fn(u64) -> Option<String>) {
    headline(out, outcome, date);
    outcome.warnings.iter().for_each(|why| missing(out, why));
    policies(out, outcome);
    let chosen = main(outcome);
    for (title, lede, scene) in charts::all(outcome, chosen) {
        match scene {
            Ok(scene) => section(out, title, &lede, &scene),
            Err(why) => missing(out, &why),
        }
    }
    if let Some(policy) = chosen {
        domains(out, policy);
        confusion(out, policy);
        let lost = "Kept local, wrong there and right in the cloud";
        mistakes(out, lost, &policy.worst_false_local, text);
        let missed = "Sent to the cloud, though the local model was right";
        mistakes(out, missed, &policy.worst_false_cloud, text);
    }
    rewards::section(out, outcome);
    parting(out, outcome);
    method(out, outcome);
}

/// The policy that the headline is about: the first named one that is no reference.
pub fn main(outcome: &Outcome) -> Option<&PolicyFigures> {
    outcome.policies.iter().find(|p| !p.reference)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn interval(ends: Option<[f64; 2]>, of: impl Fn(f64) -> String) -> String {
    ends.map_or_else(String::new, |[low, high]| format!(" ({} to {})", of(low), of(high)))
}

fn headline(out: &mut String, outcome: &Outcome, date: &str) {
    let log = &outcome.log;
    if let Some(p) = main(outcome) {
        let n = p.energy_n.max(1);
        let all = p.joules.mid.zip(p.saved_joules.mid).map(|(used, saved)| used + saved);
        let saving = match (p.saved_share, all) {
            (Some(share), Some(all)) if all > 0.0 => {
                let word = if share < 0.0 { "more energy" } else { "of the energy saved" };
                let ends = interval(p.ci.saved_joules_mid, |joules| percent(joules / all));
                format!(
                    "<b>{} {word}</b>{ends}, {} J a query",
                    percent(share.abs()),
                    figure(all * (1.0 - share) / count(n))
                )
            }
            _ => "energy unknown".to_owned(),
        };
        let lost = p.accuracy_strong - p.accuracy;
        let ends = interval(p.ci.accuracy_minus_strong, |d| format!("{:+.1}", 100.0 * d));
        let _ = write!(
            out,
            "<p class=\"lede\"><b>{}</b> keeps <b>{}</b>{} of {} queries at {} instead of {}: {saving}; <b>{}</b> right against {} \
             with everything in the cloud, {} {:.1} points{ends}.</p>",
            escaped(&p.name),
            percent(p.local_share),
            interval(p.ci.local_share, percent),
            p.n,
            escaped(&outcome.weak),
            escaped(&outcome.strong),
            percent(p.accuracy),
            percent(p.accuracy_strong),
            if lost > 0.0 { "a loss of" } else { "a gain of" },
            100.0 * lost.abs(),
        );
    }
    let part =
        if outcome.complete { "" } else { " The run was stopped early: these figures are of the part that was read." };
    let _ = write!(
        out,
        "<p>Intervals are at 95 %, from resampling groups of like prompts. Cloud energy is an assumption, shown low, mid and high; what is \
         assumed stands at the end.{part} Log {} ({}), replayed {} by wattroute {}.</p>",
        escaped(&log.file),
        escaped(&log.format),
        escaped(date),
        env!("CARGO_PKG_VERSION"),
    );
}

const HEAD: [&str; 11] = [
    "policy",
    "what it does",
    "local",
    "right (95 %)",
    "minus cloud, points",
    "J a query (low to high)",
    "saved",
    "USD",
    "g CO2e",
    "p95 s",
    "APGR",
];

fn policies(out: &mut String, outcome: &Outcome) {
    let rows: Vec<[String; HEAD.len()]> = outcome.policies.iter().map(cells).collect();
    // A column in which nothing is known only takes room.
    let shown: Vec<bool> = (0..HEAD.len()).map(|i| rows.iter().any(|r| r.get(i).is_some_and(|c| c != "-"))).collect();
    let keep = |i: usize| shown.get(i).copied().unwrap_or(true);
    out.push_str("<h2>Policies</h2><div class=\"wide about\"><table><thead>");
    row(out, "th", HEAD.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, cell)| *cell));
    out.push_str("</thead><tbody>");
    for cells in &rows {
        row(out, "td", cells.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, cell)| cell));
    }
    out.push_str("</tbody></table></div>");
}

fn cells(p: &PolicyFigures) -> [String; HEAD.len()] {
    let each = |x: Option<f64>| x.map(|x| x / count(p.energy_n.max(1)));
    let range = match (each(p.joules.low), each(p.joules.mid), each(p.joules.high)) {
        (Some(low), Some(mid), Some(high)) => format!("{} ({} to {})", figure(mid), figure(low), figure(high)),
        _ => "-".to_owned(),
    };
    let late = p.load.as_ref().and_then(|l| l.total.as_ref()).or(p.service_s.as_ref()).map(|s| s.p95);
    let full = p.load.as_ref().is_some_and(|l| l.overloaded);
    [
        p.name.clone(),
        p.about.clone(),
        percent(p.local_share),
        percent(p.accuracy) + &interval(p.ci.accuracy, |x| format!("{:.1}", 100.0 * x)),
        format!("{:+.1}", 100.0 * (p.accuracy - p.accuracy_strong))
            + &interval(p.ci.accuracy_minus_strong, |x| format!("{:+.1}", 100.0 * x)),
        range,
        p.saved_share.map_or_else(|| "-".to_owned(), percent),
        maybe(p.usd),
        maybe(p.gco2e.mid),
        maybe(late) + if full { " (overloaded)" } else { "" },
        maybe(p.apgr),
    ]
}

fn domains(out: &mut String, policy: &PolicyFigures) {
    let _ = write!(
        out,
        "<details><summary>{} by domain, in figures</summary><div class=\"wide\"><table><thead>",
        escaped(&policy.name)
    );
    row(
        out,
        "th",
        ["domain", "n", "local", "right", "cloud alone", "local alone", "best of both", "J a query", "J saved a query"],
    );
    out.push_str("</thead><tbody>");
    for d in &policy.by_domain {
        let each = |x: Option<f64>| maybe(x.map(|x| x / count(d.n.max(1))));
        let DomainFigures { accuracy, accuracy_strong, accuracy_weak, accuracy_oracle, .. } = d;
        let shares = [d.local_share, *accuracy, *accuracy_strong, *accuracy_weak, *accuracy_oracle].map(percent);
        let cells = [d.domain.clone(), d.n.to_string()].into_iter().chain(shares);
        row(out, "td", cells.chain([each(d.joules_mid), each(d.saved_joules_mid)]));
    }
    out.push_str("</tbody></table></div></details>");
}

fn confusion(out: &mut String, policy: &PolicyFigures) {
    let c = policy.confusion;
    let _ = write!(
        out,
        "<h2>Right and wrong decisions of {}</h2><p>A false local loses quality, a false cloud misses a saving; where both models are wrong the \
         cheaper one would do.</p><div class=\"wide\"><table><thead>",
        escaped(&policy.name)
    );
    row(out, "th", ["", "local was as good and right", "only the cloud was right, or better", "both wrong"]);
    out.push_str("</thead><tbody>");
    let cells = |name: &str, each: [u64; 3]| [name.to_owned()].into_iter().chain(each.map(|n| n.to_string()));
    row(out, "td", cells("kept local", [c.true_local, c.false_local, c.vain_local]));
    row(out, "td", cells("sent to the cloud", [c.false_cloud, c.true_cloud, c.vain_cloud]));
    out.push_str("</tbody></table></div>");
}

fn mistakes(out: &mut String, title: &str, each: &[Mistake], text: &dyn Fn(u64) -> Option<String>) {
    if each.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<details><summary>{}: the worst {}</summary><div class=\"wide\"><table><thead>",
        escaped(title),
        each.len()
    );
    row(out, "th", ["id", "line", "domain", "P(right) local", "P(right) cloud", ""]);
    out.push_str("</thead><tbody>");
    for m in each {
        let (id, domain) = (m.id.to_string(), m.domain.to_string());
        let said = text(m.line).unwrap_or_default();
        row(out, "td", [id, m.line.to_string(), domain, figure(m.p_weak), figure(m.p_strong), said]);
    }
    out.push_str("</tbody></table></div></details>");
}

fn parting(out: &mut String, outcome: &Outcome) {
    let Some(diff) = &outcome.diff else { return };
    let _ = write!(
        out,
        "<h2>{0} and {1}</h2><p>Both keep {2} queries local and send {3}. {0} alone keeps {4}, {1} alone {5}. Accuracy of {0} minus {1}: {6:+.2} \
         points{7}; energy {8}.</p>",
        escaped(&diff.a),
        escaped(&diff.b),
        diff.both_local,
        diff.both_cloud,
        diff.a_local.n,
        diff.b_local.n,
        100.0 * diff.accuracy,
        interval(diff.accuracy_ci, |x| format!("{:+.2}", 100.0 * x)),
        show::joules(diff.joules),
    );
}

fn method(out: &mut String, outcome: &Outcome) {
    let log = &outcome.log;
    let _ = write!(
        out,
        "<h2>Method</h2><p>Every query went through the same decision as a live one, for all policies at once. What a policy saw of a query was \
         predicted by {} from other queries only. Labels are {}; {} lines read, {} replayed, {} without a label of both models, {} unusable, {} \
         duplicate. Licence of the log: {}. Seed {}.</p><ul>",
        escaped(outcome.predictor),
        escaped(&log.labels),
        log.lines,
        log.replayed,
        log.unlabelled,
        log.bad,
        log.duplicates,
        escaped(if log.licence.is_empty() { "not stated" } else { &log.licence }),
        outcome.seed,
    );
    for assumption in &outcome.assumptions {
        let _ = write!(out, "<li>{}</li>", escaped(assumption));
    }
    out.push_str("</ul>");
}

#[expect(clippy::cast_precision_loss, reason = "counts of queries")]
fn count(n: u64) -> f64 {
    n as f64
}
