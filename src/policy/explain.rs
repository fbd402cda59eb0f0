//! A decision as JSON (`explain --json`, `/v1/route`) and as a table for people.

use std::fmt::Write;

use serde_json::{Value, json};

use super::reason::short;
use super::types::{Alternative, Decision};
use crate::energy::Joules;

/// The decision as JSON. `backend` and `place` are null when nobody can answer; `caution` is what limits a comparison of
/// the alternatives, such as tables that were measured on different questions.
pub fn to_json(decision: &Decision, caution: Option<&str>) -> Value {
    let chosen = chosen(decision);
    let name = |index: &usize| decision.alternatives.get(*index).map(|a| &*a.backend);
    let ranked: Vec<&str> = decision.ranked.iter().filter_map(name).collect();
    json!({
        "domain": decision.domain.name(),
        "p": round(f64::from(decision.domain_p)),
        "decision": {
            "backend": chosen.map(|c| &*c.backend),
            "place": chosen.map(|c| c.place.name()),
            "reason": &*decision.reason,
            "policy": &*decision.policy,
            "policy_hash": &*decision.policy_hash,
            "propensity": decision.propensity,
            "draw": decision.draw.map(|seed| seed.to_string()),
            "saved_joules": decision.saved,
            "router_joules": decision.router_joules,
            "tier": decision.tier,
            "ranked": ranked,
            "caution": caution,
            "verify": decision.cascade.as_ref().map(|c| json!({
                "escalates_to": name(&c.strong),
                "escalate_below": c.verify.escalate_below,
                "hold_tokens": c.verify.hold_tokens,
                "hold_ms": c.verify.hold.as_secs_f64() * 1e3,
            })),
            "alternatives": &*decision.alternatives,
        }
    })
}

/// The decision as text: what, why, a line for every backend, and what limits their comparison.
pub fn to_text(decision: &Decision, caution: Option<&str>) -> String {
    let mut out = String::new();
    let name = chosen(decision).map_or("nobody", |c| &*c.backend);
    let by = decision.tier.map(|tier| format!(", by the {tier} tier")).unwrap_or_default();
    let _ = writeln!(out, "{name}  ({} p {:.2}{by})", decision.domain, decision.domain_p);
    let _ = writeln!(out, "{}", decision.reason);
    let _ = writeln!(out, "policy {} {}", decision.policy, decision.policy_hash);
    if let Some(c) = &decision.cascade {
        let strong = decision.alternatives.get(c.strong).map_or("", |a| &*a.backend);
        let _ = writeln!(
            out,
            "the answer is checked before it is sent (a stream after {} tokens or {:.1} s): below confidence {:.2} {strong} is asked",
            c.verify.hold_tokens,
            c.verify.hold.as_secs_f64(),
            c.verify.escalate_below
        );
    }
    let (s, base) = (
        decision.saved,
        decision.baseline.filter(|b| decision.chosen != Some(*b)).and_then(|i| decision.alternatives.get(i)),
    );
    if let (Some(base), Some(low), Some(mid), Some(high)) = (base, s.low, s.mid, s.high) {
        let _ = writeln!(
            out,
            "saves {} J against {} (from {} to {} with the cloud's assumptions)",
            short(mid),
            base.backend,
            short(low),
            short(high)
        );
    }
    let widest = decision.alternatives.iter().map(|a| a.backend.len()).max().unwrap_or(0).max(7);
    let _ = writeln!(
        out,
        "\n  {:<widest$} {:>10} {:>13} {:>24} {:>11} {:>8} {:>10}  why not",
        "backend", "P(correct)", "interval", "J (low to high)", "basis", "s", "USD"
    );
    for (i, a) in decision.alternatives.iter().enumerate() {
        line(&mut out, a, decision.chosen == Some(i), widest);
    }
    for a in decision.alternatives.iter() {
        if let Some(g) = a.gco2e {
            let _ = writeln!(out, "  {}: {} g CO2e ({} to {})", a.backend, short(g.mid), short(g.low), short(g.high));
        }
    }
    if let Some(caution) = caution {
        let _ = writeln!(out, "\n{caution}");
    }
    out
}

fn line(out: &mut String, a: &Alternative, chosen: bool, widest: usize) {
    let mark = if chosen { '>' } else { ' ' };
    let _ = writeln!(
        out,
        "{mark} {:<widest$} {:>10.2} {:>13} {:>24} {:>11} {:>8} {:>10}  {}",
        a.backend,
        a.p_correct,
        format!("{:.2} to {:.2}", a.chance.low, a.chance.high),
        range(a.joules),
        a.joules.basis.name(),
        a.seconds.map_or_else(|| "-".to_owned(), short),
        a.usd.map_or_else(|| "-".to_owned(), |u| format!("{u:.6}")),
        a.why_not.as_deref().unwrap_or(if chosen { "chosen" } else { "" }),
    );
}

fn range(j: Joules) -> String {
    match (j.low, j.mid, j.high) {
        (Some(l), Some(m), Some(h)) => format!("{} ({} to {})", short(m), short(l), short(h)),
        _ => "unknown".to_owned(),
    }
}

fn chosen(decision: &Decision) -> Option<&Alternative> {
    decision.chosen.and_then(|i| decision.alternatives.get(i))
}

/// Six digits: an f32 printed as an f64 shows digits that it does not have.
fn round(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}
