//! The decision in words: one plain ASCII sentence for header, journal and people.

use super::decimal::Decimal;
use super::eligible::Verdict;
use super::rank::{Bench, Ranked, figure};
use super::rules::{Minimise, Rule};
use super::sticky::{Sticky, stays};
use super::types::{Candidate, Pin, Place, State};

/// Why this choice.
pub fn sentence(bench: &Bench<'_>, chosen: Option<usize>, wish: Option<usize>, explored: bool) -> String {
    let candidates = &bench.signals.candidates;
    let Some(own) = chosen.and_then(|i| candidates.get(i)) else { return nobody(bench) };
    if let Pin::Backend(_) = bench.signals.pin {
        return format!("{} was asked for by name", own.backend);
    }
    if explored {
        let among = if own.chance.mean >= bench.bar { "are good enough" } else { "exploring may take" };
        return format!("{} was drawn among the backends that {among}, to learn", own.backend);
    }
    let missed = wish.filter(|w| Some(*w) != chosen).and_then(|w| Some((candidates.get(w)?, bench.verdicts.get(w)?)));
    match missed {
        Some((wished, Verdict::Waiting(why))) => instead(wished, why, own),
        _ => chose(bench, own),
    }
}

/// Why an eligible backend was not chosen.
pub fn why_not(bench: &Bench<'_>, index: usize, chosen: Option<usize>, order: &[Ranked]) -> String {
    let (policy, candidates) = (bench.policy, &bench.signals.candidates);
    let class = |i: usize| order.iter().find(|r| r.index == i).map_or(u8::MAX, |r| r.class);
    let (Some(this), Some((at, best))) = (candidates.get(index), chosen.and_then(|i| Some((i, candidates.get(i)?))))
    else {
        return "no backend was chosen".to_owned();
    };
    if class(index) > class(at) {
        return match policy.rule {
            Rule::AllLocal | Rule::Objective { .. } => {
                format!("P(correct) {:.2} is below the {:.2} asked for", Decimal(this.chance.mean), Decimal(bench.bar))
            }
            Rule::AllCloud => format!("policy {} sends every query to the cloud", policy.name),
            Rule::CoverageThreshold(t) if this.place == Place::Local => {
                format!("coverage {:.2} is below the threshold {:.2}", Decimal(this.chance.mean), Decimal(t))
            }
            Rule::CoverageThreshold(_) => format!("the coverage of {} reaches the threshold", best.backend),
        };
    }
    if class(at) == 0 && policy.turn(this) > policy.turn(best) {
        return format!("{} comes first in the order of policy {}", best.backend, policy.name);
    }
    let minimise = match policy.rule {
        Rule::Objective { minimise, .. } if class(at) == 0 => minimise,
        Rule::CoverageThreshold(_) if class(at) == 0 => Minimise::Energy,
        _ => Minimise::Errors,
    };
    let (mine, theirs) = (figure(policy, minimise, this), figure(policy, minimise, best));
    if mine.is_nan() || theirs.is_nan() {
        return format!("{} is unknown; policy {} then prefers {}", noun(minimise), policy.name, policy.prefer.name());
    }
    if mine > theirs {
        return format!("{} against {} of {}", amount(minimise, mine), amount(minimise, theirs), best.backend);
    }
    if let Some(cost) = switching(bench, best).filter(|_| mine < theirs) {
        return format!("{}, and switching from {} costs {cost}", amount(minimise, mine), best.backend);
    }
    if mine < theirs {
        return format!("{} was drawn instead, to learn", best.backend);
    }
    format!("as good as {}, which takes fewer joules or comes first", best.backend)
}

fn instead(wished: &Candidate, why: &str, own: &Candidate) -> String {
    let answered = match (wished.place, own.place) {
        (Place::Cloud, Place::Local) => "answered locally".to_owned(),
        _ => format!("answered by {}", own.backend),
    };
    match (&wished.state, wished.place) {
        (State::NotConfigured(missing), Place::Cloud) => {
            format!("cloud preferred ({}) but not configured: {missing}; {answered}", wished.backend)
        }
        _ => format!("{} preferred, but {why}; {answered}", wished.backend),
    }
}

fn nobody(bench: &Bench<'_>) -> String {
    let each = bench.signals.candidates.iter().zip(bench.verdicts);
    let whys: Vec<String> = each.filter_map(|(c, v)| Some(format!("{}: {}", c.backend, v.why()?))).collect();
    match whys.is_empty() {
        true => "no backend is configured".to_owned(),
        false => format!("no backend can answer: {}", whys.join("; ")),
    }
}

fn chose(bench: &Bench<'_>, own: &Candidate) -> String {
    let (name, chance, domain) = (&own.backend, own.chance.mean, bench.domain);
    let (p, bar) = (Decimal(chance), Decimal(bench.bar));
    let private = bench.signals.private || bench.policy.private;
    match bench.policy.rule {
        _ if private => format!("private: only local backends may answer; {name} with P(correct) {p:.2} in {domain}"),
        Rule::AllLocal => format!("every query stays local: {name} with P(correct) {p:.2} in {domain}"),
        Rule::AllCloud => format!("every query goes to the cloud: {name} with P(correct) {p:.2} in {domain}"),
        Rule::CoverageThreshold(t) if own.place == Place::Local && chance >= t => {
            format!("coverage {p:.2} of {domain} at {name} reaches the threshold {:.2}", Decimal(t))
        }
        Rule::CoverageThreshold(t) => format!("no local coverage of {domain} reaches the threshold {t:.2}: {name}"),
        Rule::Objective { .. } if chance < bench.bar => {
            format!("no backend reaches P(correct) {bar:.2} in {domain}: {name} comes nearest with {p:.2}")
        }
        Rule::Objective { minimise, .. } => least(bench, minimise, own),
    }
}

fn least(bench: &Bench<'_>, minimise: Minimise, own: &Candidate) -> String {
    let (name, domain) = (&own.backend, bench.domain);
    let (p, bar) = (Decimal(own.chance.mean), Decimal(bench.bar));
    let each = bench.signals.candidates.iter().zip(bench.verdicts);
    let good: Vec<&Candidate> = each.filter(|(c, v)| v.ready() && c.chance.mean >= bench.bar).map(|(c, _)| c).collect();
    if good.len() == 1 {
        return format!("only {name} reaches P(correct) {bar:.2} in {domain}: it has {p:.2}");
    }
    let own_turn = bench.policy.turn(own);
    if good.iter().any(|c| bench.policy.turn(c) > own_turn) {
        return format!(
            "{name} comes first in the policy's order and reaches P(correct) {bar:.2} in {domain}: it has {p:.2}"
        );
    }
    let value = figure(bench.policy, minimise, own);
    let blind = good.iter().any(|c| figure(bench.policy, minimise, c).is_nan());
    if blind {
        let (what, prefer) = (noun(minimise), bench.policy.prefer.name());
        return format!(
            "P(correct) {p:.2} of {name} in {domain} is enough; {what} is not known everywhere: {prefer} is preferred"
        );
    }
    if let Some(cost) = switching(bench, own) {
        let value = amount(minimise, value);
        return format!(
            "P(correct) {p:.2} of {name} in {domain} is enough, and its conversation is there: {value}, and switching costs {cost}"
        );
    }
    format!(
        "P(correct) {p:.2} of {name} in {domain} is enough (at least {bar:.2}) with the least {}: {}",
        noun(minimise),
        amount(minimise, value)
    )
}

/// What leaving this backend costs the conversation, if it is there.
fn switching(bench: &Bench<'_>, own: &Candidate) -> Option<String> {
    let sticky: Sticky = bench.policy.sticky.filter(|_| stays(bench.policy.sticky, bench.signals, own))?;
    Some(format!("{:.0} %", Decimal(sticky.switching * 1e2)))
}

fn noun(minimise: Minimise) -> &'static str {
    match minimise {
        Minimise::Energy => "energy",
        Minimise::Cost => "cost",
        Minimise::Carbon => "carbon",
        Minimise::Latency => "time",
        Minimise::Errors => "chance of error",
        Minimise::Sum(_) => "weighted sum",
    }
}

fn amount(minimise: Minimise, x: f64) -> String {
    match minimise {
        Minimise::Energy => format!("{} J", short(x)),
        Minimise::Cost => format!("{:.6} USD", Decimal(x)),
        Minimise::Carbon => format!("{} g CO2e", short(x)),
        Minimise::Latency => format!("{} s", short(x)),
        Minimise::Errors => format!("chance of error {:.2}", Decimal(x)),
        Minimise::Sum(_) => short(x),
    }
}

/// Three digits that matter.
pub fn short(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        a if a >= 100.0 => format!("{:.0}", Decimal(x)),
        a if a >= 1.0 => format!("{:.1}", Decimal(x)),
        a if a >= 0.01 => format!("{:.3}", Decimal(x)),
        _ => format!("{x:.1e}"),
    }
}
