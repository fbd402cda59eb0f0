//! A policy file: TOML to [`Policy`], all problems at once, each with line and key path.
//!
//! Keys are known by being asked for: what nobody asked for is unknown and gets a suggestion.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::DeTable;

use super::probe::{Probe, StandIn};
use super::rules::{Fallback, Grid, Minimise, Policy, Rule, Weights};
use super::section::{Section, index, line, nearest_line, suggest};
use super::types::Place;
use crate::classify::domain::{DOMAINS, Domain, NAMES};
use crate::config::problem::{Problem, Problems, did_you_mean, shown};

/// Loss allowed where the file does not say.
const QUALITY_LOSS: f64 = 0.05;
/// The average price of a European household's electricity in 2025, rounded; every file may state its own.
const ELECTRICITY_USD_PER_KWH: f64 = 0.30;
/// Carbon intensity of the United States' grid, 2023, g CO2e per kWh (CodeCarbon's table): a stand-in for "unknown place".
const GRID_G_PER_KWH: f64 = 369.0;

/// Reads a policy's text. `file` names it in problems.
///
/// # Errors
/// Every problem found.
pub fn parse(text: &str, file: &str) -> Result<Policy, Problems> {
    let mut problems = Problems::default();
    let (tree, errors) = DeTable::parse_recoverable(text);
    for e in &errors {
        let mut p = Problem::new("", format!("is not TOML: {}", e.message()));
        p.line = e.span().map(|s| line(text, s.start));
        problems.0.push(p);
    }
    let made = match text.parse::<toml::Table>() {
        Ok(root) if errors.is_empty() => policy(&root, text, &mut problems),
        _ => None,
    };
    let mut lines = BTreeMap::new();
    index(text, tree.get_ref(), "", &mut lines);
    for p in &mut problems.0 {
        file.clone_into(&mut p.file);
        p.line = p.line.or_else(|| nearest_line(&lines, &p.key));
    }
    problems.0.sort_by_key(|p| p.line.unwrap_or(usize::MAX));
    problems.finish(made)
}

fn policy(root: &toml::Table, text: &str, problems: &mut Problems) -> Option<Policy> {
    let mut top = Section::new(root, "");
    let name = top.text("name", problems);
    let about = top.text("about", problems);
    let rule = top.table("rule", problems).map(|s| rule(s, problems));
    let floors = top.optional_table("floors", problems).map_or([0.0; DOMAINS], |s| by_domain(s, 0.0, problems));
    let private = top.flag("private", problems).unwrap_or(false);
    let prefer = top.word("prefer", &[("local", Place::Local), ("cloud", Place::Cloud)], problems);
    let fallback = top.word(
        "fallback",
        &[("any", Fallback::Any), ("same-place", Fallback::SamePlace), ("never", Fallback::Never)],
        problems,
    );
    let explore = top.number("explore", 0.0..=0.5, problems).unwrap_or(0.0);
    let electricity = top.number("electricity_usd_per_kwh", 0.0..=10.0, problems);
    let grid = top
        .optional_table("grid_g_per_kwh", problems)
        .map_or(Grid { local: GRID_G_PER_KWH, cloud: GRID_G_PER_KWH }, |s| grid(s, problems));
    let stand_ins: Vec<StandIn> =
        top.tables("stand_ins", problems).into_iter().filter_map(|s| stand_in(s, problems)).collect();
    let names: Vec<Arc<str>> = stand_ins.iter().map(|s| Arc::clone(&s.backend)).collect();
    let probes: Vec<Probe> =
        top.tables("probes", problems).into_iter().filter_map(|s| probe(s, &names, problems)).collect();
    top.finish(problems);
    if let Some(bad) = name.filter(|n| !is_name(n)) {
        problems.add("name", format!("must be 1 to 64 of a-z, 0-9, `-`, `_` (got {})", shown(bad)));
    }
    if !probes.is_empty() && stand_ins.is_empty() {
        problems.add("probes", "need [[stand_ins]]: the backends that they choose among");
    }
    Some(Policy {
        name: Arc::from(name?),
        hash: Arc::from(hash(text.as_bytes())),
        about: about?.to_owned(),
        rule: rule??,
        floors,
        private,
        prefer: prefer.unwrap_or(Place::Local),
        fallback: fallback.unwrap_or(Fallback::Any),
        explore,
        electricity_usd_per_kwh: electricity.unwrap_or(ELECTRICITY_USD_PER_KWH),
        grid_g_per_kwh: grid,
        stand_ins,
        probes,
    })
}

/// What a policy may be called: it becomes part of `auto:NAME` and of a header.
pub fn is_name(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(fine)
}

/// First 16 hex digits of BLAKE3.
fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().chars().take(16).collect()
}

fn rule(mut s: Section<'_>, problems: &mut Problems) -> Option<Rule> {
    let kinds = [("all-local", 0), ("all-cloud", 1), ("coverage-threshold", 2), ("objective", 3)];
    let kind = s.word("kind", &kinds, problems);
    if kind.is_none() && !s.values.contains_key("kind") {
        problems.add("rule.kind", "is missing: all-local, all-cloud, coverage-threshold or objective");
    }
    let made = match kind {
        Some(0) => Some(Rule::AllLocal),
        Some(1) => Some(Rule::AllCloud),
        Some(2) => {
            let threshold = s.number("threshold", 0.0..=1.0, problems);
            if threshold.is_none() && !s.values.contains_key("threshold") {
                problems.add("rule.threshold", "is missing: the least local coverage, from 0 to 1");
            }
            threshold.map(Rule::CoverageThreshold)
        }
        Some(_) => objective(&mut s, problems),
        None => {
            s.known.extend(["threshold", "minimise", "max_quality_loss", "weights"]);
            None
        }
    };
    s.finish(problems);
    made
}

fn objective(s: &mut Section<'_>, problems: &mut Problems) -> Option<Rule> {
    let goals = [
        ("energy", Minimise::Energy),
        ("cost", Minimise::Cost),
        ("carbon", Minimise::Carbon),
        ("latency", Minimise::Latency),
        ("errors", Minimise::Errors),
        ("sum", Minimise::Sum(Weights::default())),
    ];
    let goal = s.word("minimise", &goals, problems);
    if goal.is_none() && !s.values.contains_key("minimise") {
        problems.add("rule.minimise", "is missing: energy, cost, carbon, latency, errors or sum");
    }
    let max_quality_loss = s.number("max_quality_loss", 0.0..=1.0, problems).unwrap_or(QUALITY_LOSS);
    let weights = s.optional_table("weights", problems).map(|w| weights(w, problems));
    let minimise = match (goal?, weights) {
        (Minimise::Sum(_), Some(w)) => Minimise::Sum(w),
        (Minimise::Sum(_), None) => {
            problems.add("rule.weights", "is missing: minimise = \"sum\" needs [rule.weights]");
            return None;
        }
        (_, Some(_)) => {
            problems.add("rule.weights", "has no meaning unless minimise = \"sum\"");
            return None;
        }
        (other, None) => other,
    };
    Some(Rule::Objective { minimise, max_quality_loss })
}

fn weights(mut s: Section<'_>, problems: &mut Problems) -> Weights {
    let mut one = |key| s.number(key, 0.0..=1e9, problems).unwrap_or(0.0);
    let made = Weights {
        energy: one("energy"),
        cost: one("cost"),
        carbon: one("carbon"),
        latency: one("latency"),
        errors: one("errors"),
    };
    s.finish(problems);
    if made == Weights::default() {
        problems.add("rule.weights", "at least one weight must be above 0: energy, cost, carbon, latency, errors");
    }
    made
}

fn grid(mut s: Section<'_>, problems: &mut Problems) -> Grid {
    let mut one = |key| s.number(key, 0.0..=2000.0, problems).unwrap_or(GRID_G_PER_KWH);
    let made = Grid { local: one("local"), cloud: one("cloud") };
    s.finish(problems);
    made
}

fn stand_in(mut s: Section<'_>, problems: &mut Problems) -> Option<StandIn> {
    let backend = s.text("backend", problems);
    let coverage = s.number("coverage", 0.0..=1.0, problems);
    if coverage.is_none() && !s.values.contains_key("coverage") {
        problems.add(s.at("coverage"), "is missing: P(correct) from 0 to 1");
    }
    let everywhere = coverage.unwrap_or(0.0);
    let coverage_of =
        s.optional_table("domains", problems).map_or([everywhere; DOMAINS], |d| by_domain(d, everywhere, problems));
    let joules = s.number("joules", 0.0..=1e12, problems);
    let usd = s.number("usd", 0.0..=1e6, problems);
    let seconds = s.number("seconds", 0.0..=1e6, problems);
    let ready = s.flag("ready", problems).unwrap_or(true);
    let place = match backend.map(|b| (b, b.split_once('/'))) {
        Some((_, Some(("local", _)))) => Some(Place::Local),
        Some((_, Some(("cloud", _)))) => Some(Place::Cloud),
        Some((b, _)) => {
            problems.add(s.at("backend"), format!("must be local/NAME or cloud/NAME (got {})", shown(b)));
            None
        }
        None => None,
    };
    s.finish(problems);
    coverage?;
    Some(StandIn { backend: Arc::from(backend?), place: place?, coverage: coverage_of, joules, usd, seconds, ready })
}

fn probe(mut s: Section<'_>, names: &[Arc<str>], problems: &mut Problems) -> Option<Probe> {
    let prompt = s.text("prompt", problems);
    let place = s.word("place", &[("local", Place::Local), ("cloud", Place::Cloud)], problems);
    if place.is_none() && !s.values.contains_key("place") {
        problems.add(s.at("place"), "is missing: local or cloud");
    }
    let backend = s.optional_text("backend", problems);
    if let Some(unknown) = backend.filter(|b| !names.iter().any(|n| **n == **b)) {
        let near = did_you_mean(unknown, names.iter().map(|n| &**n));
        problems.add(s.at("backend"), format!("is none of the stand_ins{}", suggest(near)));
    }
    let private = s.flag("private", problems).unwrap_or(false);
    s.finish(problems);
    Some(Probe { prompt: prompt?.to_owned(), place: place?, backend: backend.map(Arc::from), private })
}

fn by_domain(mut s: Section<'_>, elsewhere: f64, problems: &mut Problems) -> [f64; DOMAINS] {
    let mut out = [elsewhere; DOMAINS];
    for (domain, cell) in Domain::all().zip(out.iter_mut()) {
        if let Some(share) = s.number(domain.name(), 0.0..=1.0, problems) {
            *cell = share;
        }
    }
    debug_assert_eq!(s.known.len(), NAMES.len());
    s.finish(problems);
    out
}
