//! A result as a table for the terminal. Pure.

use std::fmt::Write;

use super::offpolicy::estimate::Estimate;
use super::outcome::{Outcome, PolicyFigures};

/// Domains shown for the first policy.
const DOMAINS: usize = 16;
/// Mistakes shown.
const MISTAKES: usize = 5;

/// The whole of it.
pub fn text(outcome: &Outcome) -> String {
    let mut out = String::new();
    let log = &outcome.log;
    let partial = if outcome.complete { "" } else { "  PARTIAL: stopped before the end" };
    let _ = writeln!(out, "{}  {}{partial}", log.file, log.dataset);
    let rate = log.lines as f64 / log.seconds.max(1e-9);
    let _ = writeln!(
        out,
        "{} queries replayed in {:.2} s ({}/s), {} domains; labels: {}; predictor: {}",
        log.replayed,
        log.seconds,
        short(rate),
        log.domains,
        log.labels,
        outcome.predictor
    );
    let _ = writeln!(out, "local = {}   cloud = {}\n", outcome.weak, outcome.strong);
    table(&mut out, outcome);
    // A policy that sends everything one way has little to tell beyond its line.
    let parts = |p: &&PolicyFigures| p.local_share > 0.0 && p.local_share < 1.0;
    let named = outcome.policies.iter().filter(|p| !p.reference);
    if let Some(p) = named.clone().find(parts).or(named.clone().next()).or(outcome.policies.first()) {
        details(&mut out, p);
    }
    off_policy(&mut out, outcome);
    diff(&mut out, outcome);
    let front: Vec<&str> = outcome.pareto.iter().map(|p| p.name.as_str()).collect();
    let _ = writeln!(out, "\non the front of accuracy and joules, cheapest first: {}", front.join(", "));
    let w = outcome.worth;
    let _ = writeln!(
        out,
        "order by predicted gain: APGR {} (a coin .500), CPT50 {}, CPT80 {}",
        three(w.apgr),
        three(w.cpt50),
        three(w.cpt80)
    );
    for line in &outcome.assumptions {
        let _ = writeln!(out, "- {line}");
    }
    for bad in &log.first_bad {
        let _ = writeln!(out, "bad line {}:{}: {}", log.file, bad.line, bad.why);
    }
    for line in &outcome.warnings {
        let _ = writeln!(out, "! {line}");
    }
    out
}

fn table(out: &mut String, outcome: &Outcome) {
    let Some(first) = outcome.policies.first() else { return };
    let _ = writeln!(
        out,
        "always local {}   always cloud {}   oracle {}",
        percent(first.accuracy_weak),
        percent(first.accuracy_strong),
        percent(first.accuracy_oracle)
    );
    let _ = writeln!(
        out,
        "{:<20} {:>6} {:>7} {:>15} {:>7} {:>9} {:>24} {:>10} {:>6} {:>6} {:>6}",
        "policy", "local", "right", "95 %", "coin", "joules", "saved low / mid / high", "US$", "APGR", "CPT50", "CPT80"
    );
    for p in &outcome.policies {
        let mark = if p.reference { "(" } else { "" };
        let end = if p.reference { ")" } else { "" };
        let ci = p.ci.accuracy.map_or_else(|| "-".to_owned(), |[l, h]| format!("{}-{}", percent(l), percent(h)));
        let saved = [p.saved_joules.low, p.saved_joules.mid, p.saved_joules.high].map(joules);
        let _ = writeln!(
            out,
            "{:<20} {:>6} {:>7} {:>15} {:>7} {:>9} {:>24} {:>10} {:>6} {:>6} {:>6}",
            format!("{mark}{}{end}", p.name),
            percent(p.local_share),
            percent(p.accuracy),
            ci,
            percent(p.accuracy_random),
            joules(p.joules.mid),
            saved.join(" / "),
            p.usd.map_or_else(|| "-".to_owned(), |u| format!("{u:.4}")),
            three(p.apgr),
            three(p.cpt50),
            three(p.cpt80),
        );
    }
}

fn details(out: &mut String, p: &PolicyFigures) {
    let c = p.confusion;
    let _ = writeln!(out, "\n{}: {}", p.name, p.about);
    let _ = writeln!(
        out,
        "  kept local: {} rightly, {} that only the cloud had right, {} that neither had; sent: {} rightly, {} that local had right, {} in vain",
        c.true_local, c.false_local, c.vain_local, c.true_cloud, c.false_cloud, c.vain_cloud
    );
    let some = p.local_share > 0.0 && p.local_share < 1.0;
    if let Some([low, high]) = p.ci.accuracy_minus_random.filter(|_| some) {
        let word = if low > 0.0 {
            "better than a coin"
        } else if high < 0.0 {
            "worse than a coin"
        } else {
            "no better than a coin, as far as this log tells"
        };
        let _ = writeln!(
            out,
            "  against a coin of the same share: {:+.1} points ({:+.1} to {:+.1}): {word}; regret to the oracle {:.1} points",
            100.0 * (p.accuracy - p.accuracy_random),
            100.0 * low,
            100.0 * high,
            100.0 * p.regret
        );
    }
    if !p.savings_by_batch.is_empty() {
        let pue = p.savings_by_batch.get(7).map_or(0.0, |s| s.pue);
        let each = p.savings_by_batch.iter().filter(|s| s.pue.total_cmp(&pue).is_eq());
        let each: Vec<String> = each.map(|s| format!("{} {:.0} %", s.batch, 100.0 * s.saved_share)).collect();
        let _ = writeln!(out, "  joules saved by the cloud's batch (PUE {pue}): {}", each.join(", "));
    }
    device(out, p);
    domains(out, p);
}

fn device(out: &mut String, p: &PolicyFigures) {
    match &p.load {
        Some(load) => {
            let wait =
                load.wait.map_or_else(|| "none".to_owned(), |w| format!("p50 {:.2} s, p95 {:.2} s", w.p50, w.p95));
            let word = if load.overloaded { ", OVERLOADED" } else { "" };
            let _ = writeln!(
                out,
                "  local device, {} seats: {:.0} % used{word}; wait {wait}; backlog at the end {:.1} s",
                load.seats,
                100.0 * load.utilisation,
                load.backlog_s
            );
        }
        None => {
            if let Some(rate) = p.capacity_per_s {
                let _ = writeln!(out, "  the local device can take about {rate:.2} such queries/s");
            }
        }
    }
}

fn domains(out: &mut String, p: &PolicyFigures) {
    let _ = writeln!(
        out,
        "  {:<34} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "domain", "n", "local", "right", "local", "cloud", "oracle"
    );
    for d in p.by_domain.iter().take(DOMAINS) {
        let _ = writeln!(
            out,
            "  {:<34} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
            d.domain,
            d.n,
            percent(d.local_share),
            percent(d.accuracy),
            percent(d.accuracy_weak),
            percent(d.accuracy_strong),
            percent(d.accuracy_oracle)
        );
    }
    for (what, rows) in [("kept local, wrongly", &p.worst_false_local), ("sent, needlessly", &p.worst_false_cloud)] {
        let ids: Vec<&str> = rows.iter().take(MISTAKES).map(|m| &*m.id).collect();
        if !ids.is_empty() {
            let _ = writeln!(out, "  worst {what}: {}", ids.join(", "));
        }
    }
}

fn diff(out: &mut String, outcome: &Outcome) {
    let Some(d) = &outcome.diff else { return };
    let _ = writeln!(out, "\n{} against {}: both local {}, both cloud {}", d.a, d.b, d.both_local, d.both_cloud);
    for (name, side) in [(&d.a, d.a_local), (&d.b, d.b_local)] {
        let _ = writeln!(
            out,
            "  only {name} keeps {}: there {} has {:.0} right, {} {:.0}",
            side.n, d.a, side.right_a, d.b, side.right_b
        );
    }
    let ci = d.accuracy_ci.map_or_else(String::new, |[l, h]| format!(" ({:+.2} to {:+.2})", 100.0 * l, 100.0 * h));
    let _ = writeln!(out, "  accuracy {:+.2} points{ci}, joules {}", 100.0 * d.accuracy, joules(d.joules));
    let ids: Vec<&str> = d.examples.iter().take(MISTAKES).map(|e| e.id.as_str()).collect();
    if !ids.is_empty() {
        let _ = writeln!(out, "  for example {}", ids.join(", "));
    }
}

fn off_policy(out: &mut String, outcome: &Outcome) {
    let Some(live) = &outcome.live else { return };
    let r = live.reward;
    let _ = writeln!(
        out,
        "\nrewards: {} scored choices ({} without a score), {} of them drawn; the live policy earned {:.4} ({:.4} to {:.4}) a query",
        live.scored,
        live.unscored,
        percent(live.drawn),
        r.value,
        r.low,
        r.high
    );
    let _ = writeln!(
        out,
        "{:<20} {:>8} {:>9} {:>24} {:>24} {:>24}",
        "policy", "support", "eff. n", "IPS (95 %)", "SNIPS", "doubly robust"
    );
    for p in &outcome.policies {
        let Some(off) = &p.off_policy else { continue };
        let each = [off.ips, off.snips, off.dr];
        let cell = |e: Option<Estimate>| {
            e.map_or_else(|| "-".to_owned(), |e| format!("{:.4} ({:.3} to {:.3})", e.value, e.low, e.high))
        };
        let [ips, snips, dr] = each.map(cell);
        let (support, n) = (percent(off.support), off.effective_n);
        let _ = writeln!(out, "{:<20} {support:>8} {n:>9.1} {ips:>24} {snips:>24} {dr:>24}", p.name);
        if let Some(why) = &off.why_not {
            let _ = writeln!(out, "  {why}");
        }
    }
}

fn percent(x: f64) -> String {
    format!("{:.1}%", 100.0 * x)
}

fn three(x: Option<f64>) -> String {
    x.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"))
}

/// Joules with a unit.
pub fn joules(x: Option<f64>) -> String {
    let Some(x) = x else { return "-".to_owned() };
    match x.abs() {
        a if a >= 1e9 => format!("{:.1}GJ", x / 1e9),
        a if a >= 1e6 => format!("{:.1}MJ", x / 1e6),
        a if a >= 1e3 => format!("{:.1}kJ", x / 1e3),
        _ => format!("{x:.0}J"),
    }
}

fn short(x: f64) -> String {
    if x >= 1e6 {
        format!("{:.1} M", x / 1e6)
    } else if x >= 1e3 {
        format!("{:.0} k", x / 1e3)
    } else {
        format!("{x:.0}")
    }
}
