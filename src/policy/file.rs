//! A policy file: TOML to [`Policy`], all problems at once, each with line and key path.
//!
//! Keys are known by being asked for: what nobody asked for is unknown and gets a suggestion.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::DeTable;

use super::bandit;
use super::cascade;
use super::explore;
use super::probe::{Probe, StandIn};
use super::rules::{Fallback, Grid, Minimise, Policy, Rule, Weights};
use super::section::{Section, index, line, nearest_line, suggest};
use super::sticky;
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
    let order = order(&mut top, problems);
    let fallback = top.word(
        "fallback",
        &[("any", Fallback::Any), ("same-place", Fallback::SamePlace), ("never", Fallback::Never)],
        problems,
    );
    let explore = explore::read(&mut top, problems);
    let bandit = bandit::read(&mut top, &explore, problems);
    let electricity = top.number("electricity_usd_per_kwh", 0.0..=10.0, problems);
    let grid = top
        .optional_table("grid_g_per_kwh", problems)
        .map_or(Grid { local: GRID_G_PER_KWH, cloud: GRID_G_PER_KWH }, |s| grid(s, problems));
    let sticky = top.optional_table("sticky", problems).map(|s| sticky::section(s, problems));
    let verify = top.optional_table("verify", problems).map(|s| Arc::new(cascade::section(s, problems)));
    if let (Some(_), Some(Some(rule))) = (&verify, rule) {
        cascade::contradictions(rule, private, explore.draws(), problems);
    }
    let stand_ins: Vec<StandIn> =
        top.tables("stand_ins", problems).into_iter().filter_map(|s| stand_in(s, problems)).collect();
    let names: Vec<Arc<str>> = stand_ins.iter().map(|s| Arc::clone(&s.backend)).collect();
    let probes: Vec<Probe> =
        top.tables("probes", problems).into_iter().filter_map(|s| probe(s, &names, problems)).collect();
    tunable(&mut top, problems);
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
        order,
        fallback: fallback.unwrap_or(Fallback::Any),
        explore,
        bandit,
        electricity_usd_per_kwh: electricity.unwrap_or(ELECTRICITY_USD_PER_KWH),
        grid_g_per_kwh: grid,
        verify,
        sticky,
        stand_ins,
        probes,
    })
}

/// What tuning may change; `tune::space` reads and checks it.
fn tunable(top: &mut Section<'_>, problems: &mut Problems) {
    if top.ask("tune").is_some_and(|tune| !tune.is_table()) {
        problems.add("tune", "must be a table of keys with ranges: \"rule.max_quality_loss\" = [0.0, 0.4]");
    }
}

fn order(top: &mut Section<'_>, problems: &mut Problems) -> Vec<Arc<str>> {
    let Some(value) = top.ask("order") else { return Vec::new() };
    let names: Option<Vec<&str>> = value.as_array().and_then(|all| all.iter().map(toml::Value::as_str).collect());
    let names = names.unwrap_or_default();
    let twice = names.iter().enumerate().find(|(i, name)| names.iter().take(*i).any(|other| other == *name));
    if names.is_empty() || names.iter().any(|name| name.trim().is_empty()) {
        problems
            .add("order", "must be a list of backends or places, the first one first: [\"local\", \"cloud/large\"]");
    } else if let Some((_, name)) = twice {
        problems.add("order", format!("names {} twice", shown(name)));
    }
    names.into_iter().map(Arc::from).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"mine\"\nabout = \"Mine.\"\n[rule]\nkind = \"objective\"\nminimise = \"energy\"\n";

    #[test]
    fn a_short_file_is_enough_and_its_hash_is_that_of_its_bytes() {
        let p = parse(GOOD, "mine.toml").unwrap();
        assert_eq!(p.rule, Rule::Objective { minimise: Minimise::Energy, max_quality_loss: 0.05 });
        assert_eq!((p.prefer, p.fallback, p.private, p.explore.draws()), (Place::Local, Fallback::Any, false, false));
        assert_eq!(*p.hash, *blake3::hash(GOOD.as_bytes()).to_hex().as_str().get(..16).unwrap());
        assert_ne!(p.hash, parse(&format!("{GOOD}# changed\n"), "mine.toml").unwrap().hash);
    }

    #[test]
    fn bad_files_name_the_key_and_the_line() {
        let head = "name = \"x\"\nabout = \"y\"\n";
        let rule = "[rule]\nkind = \"all-local\"\n";
        let cases: Vec<(String, &str)> = vec![
            ("name = ".into(), "x.toml:1: is not TOML"),
            (format!("name = \"X Y\"\nabout = \"y\"\n{rule}"), "x.toml:1: name: must be 1 to 64 of a-z"),
            (format!("name = \"x\"\n{rule}"), "about: is missing"),
            (head.into(), "rule: is missing: write [rule]"),
            (format!("{head}[rule]\n"), "rule.kind: is missing: all-local"),
            (
                format!("{head}[rule]\nkind = \"all-locl\"\n"),
                "x.toml:4: rule.kind: must be one of all-local, all-cloud, coverage-threshold, objective (got `all-locl`); did you mean `all-local`?",
            ),
            (format!("{head}{rule}treshold = 1\n"), "x.toml:5: rule.treshold: unknown key"),
            (format!("{head}privat = true\n{rule}"), "x.toml:3: privat: unknown key; did you mean `private`?"),
            (format!("{head}private = \"yes\"\n{rule}"), "private: must be true or false (got `yes`)"),
            (format!("{head}order = \"local\"\n{rule}"), "x.toml:3: order: must be a list of backends or places"),
            (format!("{head}order = [\"local\", \"a\", \"local\"]\n{rule}"), "order: names `local` twice"),
            (format!("{head}explore = 0.9\n{rule}"), "explore: must be a number from 0 to 0.1 (got 0.9)"),
            (format!("{head}[rule]\nkind = \"coverage-threshold\"\n"), "rule.threshold: is missing"),
            (
                format!("{head}[rule]\nkind = \"coverage-threshold\"\nthreshold = 70\n"),
                "rule.threshold: must be a number from 0 to 1 (got 70)",
            ),
            (format!("{head}[rule]\nkind = \"objective\"\n"), "rule.minimise: is missing"),
            (
                format!("{head}[rule]\nkind = \"objective\"\nminimise = \"joules\"\n"),
                "rule.minimise: must be one of energy",
            ),
            (format!("{head}[rule]\nkind = \"objective\"\nminimise = \"sum\"\n"), "rule.weights: is missing"),
            (
                format!("{head}[rule]\nkind = \"objective\"\nminimise = \"sum\"\nweights = {{ enrgy = 1 }}\n"),
                "rule.weights.enrgy: unknown key; did you mean `energy`?",
            ),
            (
                format!("{head}[rule]\nkind = \"objective\"\nminimise = \"energy\"\nweights = {{ energy = 1 }}\n"),
                "rule.weights: has no meaning",
            ),
            (
                format!("{head}{rule}[floors]\n\"Legal service\" = 0.5\n"),
                "x.toml:6: floors.\"Legal service\": unknown key; did you mean `Legal services`?",
            ),
            (
                format!("{head}{rule}[floors]\n\"Legal services\" = 60\n"),
                "floors.\"Legal services\": must be a number from 0 to 1",
            ),
            (format!("{head}{rule}[[probes]]\nprompt = \"p\"\nplace = \"local\"\n"), "probes: need [[stand_ins]]"),
            (
                format!("{head}{rule}[[stand_ins]]\nbackend = \"a\"\ncoverage = 0.5\n"),
                "stand_ins[0].backend: must be local/NAME or cloud/NAME",
            ),
            (
                format!(
                    "{head}{rule}[[stand_ins]]\nbackend = \"local/a\"\ncoverage = 0.5\n[[probes]]\nprompt = \"p\"\nplace = \"lokal\"\nbackend = \"local/b\"\n"
                ),
                "probes[0].place: must be one of local, cloud (got `lokal`); did you mean `local`?",
            ),
            (
                format!("{head}{rule}[grid_g_per_kwh]\nlocal = -1\n"),
                "grid_g_per_kwh.local: must be a number from 0 to 2000 (got -1)",
            ),
        ];
        for (text, want) in cases {
            let got = parse(&text, "x.toml").unwrap_err().to_string();
            assert!(got.contains(want), "want {want}\ngot  {got}\nof\n{text}");
        }
    }

    #[test]
    fn all_problems_come_at_once() {
        let text =
            "nam = \"x\"\nexplore = 2\n[rule]\nkind = \"objective\"\nminimise = \"energi\"\nmax_quality_loss = -1\n";
        assert_eq!(parse(text, "x.toml").unwrap_err().0.len(), 6);
    }
}
