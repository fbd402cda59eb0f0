//! Two tables beside each other: what differs, and whether that is more than noise. Pure.
//!
//! With the answers of both runs questions are paired; with tables alone, intervals come from counts and from the spread that
//! each table states. A difference is one where the 95 % interval leaves "the same" outside.

use std::collections::BTreeMap;

use serde::Serialize;

use super::make::{Asked, once};
use super::sample::{Between, difference, paired, paired_ratio, ratio_of_means};
use super::{Counts, Row, Table};
use crate::classify::domain::Domain;

/// How the second table stands to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Higher coverage, or fewer joules.
    Better,
    /// Lower coverage, or more joules.
    Worse,
    /// The interval holds "the same".
    WithinNoise,
    /// No interval can be had.
    Unknown,
}

impl Verdict {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::WithinNoise => "within noise",
            Self::Unknown => "not known",
        }
    }
}

/// One row of both.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Domain, or `overall`.
    pub name: String,
    /// Scored queries of both.
    pub n: [u32; 2],
    /// Coverage of both.
    pub coverage: [f64; 2],
    /// Second minus first.
    pub difference: Option<Between>,
    /// The same questions, pair by pair.
    pub paired: bool,
    /// Of the coverage.
    pub quality: Verdict,
    /// J per query of both.
    pub joules: [Option<f64>; 2],
    /// Second over first.
    pub ratio: Option<Between>,
    /// Of the joules.
    pub energy: Verdict,
    /// IPJ of both.
    pub ipj: [Option<f64>; 2],
}

/// The whole comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// Model and device of both.
    pub tables: [String; 2],
    /// Settings that differ: name, first, second.
    pub settings: Vec<(String, String, String)>,
    /// What limits the comparison.
    pub notes: Vec<String>,
    /// `overall` first, then domains that both have.
    pub lines: Vec<Line>,
}

/// Compares two tables; `answers` are those of both runs, if they are to be had.
pub fn diff(a: &Table, b: &Table, answers: Option<(&[Asked], &[Asked])>) -> Diff {
    let pairs = answers.map(|(x, y)| pairs(x, y)).unwrap_or_default();
    let settings = settings(a, b);
    let mut lines = vec![line("overall", &a.overall, &b.overall, &pairs.iter().collect::<Vec<_>>())];
    for (domain, row) in &a.domains {
        let Some(other) = b.domains.get(domain) else { continue };
        let own: Vec<&Pair> = pairs.iter().filter(|p| p.domain == *domain).collect();
        lines.push(line(domain.name(), row, other, &own));
    }
    let tables = [a, b].map(|t| format!("{} on {} ({}, {})", t.model, t.device, t.runtime, t.attention));
    Diff { tables, settings, notes: notes(a, b, &pairs), lines }
}

/// Both answers to one question.
struct Pair {
    domain: Domain,
    right: (bool, bool),
    joules: Option<(f64, f64)>,
}

fn pairs(a: &[Asked], b: &[Asked]) -> Vec<Pair> {
    let single = |all: &[Asked]| {
        let fewest = all.iter().map(|x| x.streams).min().unwrap_or(1);
        once(all.iter().filter(move |x| x.streams == fewest))
    };
    let (first, second) = (single(a), single(b));
    let second: BTreeMap<&str, &Asked> = second.iter().filter(|x| x.scored()).map(|x| (x.id.as_str(), x)).collect();
    let both = first.iter().filter(|x| x.scored()).filter_map(|x| Some((x, second.get(x.id.as_str())?)));
    both.map(|(x, y)| Pair { domain: x.domain, right: (x.right(), y.right()), joules: x.gross_j.zip(y.gross_j) })
        .collect()
}

fn line(name: &str, a: &Row, b: &Row, pairs: &[&Pair]) -> Line {
    // Pairs stand for the rows only if they are all of both.
    let all = usize::try_from(a.n).is_ok_and(|n| n == pairs.len() && a.n == b.n) && !pairs.is_empty();
    let found = if all {
        paired(&pairs.iter().map(|p| p.right).collect::<Vec<_>>())
    } else {
        difference((a.correct, a.n), (b.correct, b.n))
    };
    let costs: Option<Vec<(f64, f64)>> = pairs.iter().map(|p| p.joules).collect();
    let spread = |r: &Row| r.joules_per_query.zip(r.joules_interval);
    let ratio = match costs.filter(|_| all) {
        Some(costs) => paired_ratio(&costs),
        None => spread(a).zip(spread(b)).and_then(|(x, y)| ratio_of_means(x, y)),
    };
    Line {
        name: name.to_owned(),
        n: [a.n, b.n],
        coverage: [a.coverage, b.coverage],
        difference: found,
        paired: all,
        quality: verdict(found, 0.0, true),
        joules: [a.joules_per_query, b.joules_per_query],
        ratio,
        energy: verdict(ratio, 1.0, false),
        ipj: [a.ipj, b.ipj],
    }
}

fn verdict(found: Option<Between>, same: f64, more_is_better: bool) -> Verdict {
    match found {
        None => Verdict::Unknown,
        Some(found) if !found.excludes(same) => Verdict::WithinNoise,
        Some(found) if (found.value > same) == more_is_better => Verdict::Better,
        Some(_) => Verdict::Worse,
    }
}

/// Settings that differ.
pub fn settings(a: &Table, b: &Table) -> Vec<(String, String, String)> {
    let facts = |t: &Table| {
        let watts = |w: Option<f64>| w.map_or_else(|| "not stated".to_owned(), |w| format!("{w} W"));
        let word = |w: &Option<String>| w.clone().unwrap_or_else(|| "not stated".to_owned());
        [
            ("model", t.model.clone()),
            ("device", t.device.clone()),
            ("runtime", t.runtime.clone()),
            ("runtime version", word(&t.setup.runtime_version)),
            ("attention", t.attention.clone()),
            ("basis", t.basis.name().to_owned()),
            ("driver", word(&t.setup.driver)),
            ("power cap", watts(t.setup.power_cap_w)),
            ("suites", t.provenance.suites.join(", ")),
            ("suite hashes", t.setup.suite_hashes.join(", ")),
            ("questions", word(&t.setup.questions)),
        ]
    };
    let both = facts(a).into_iter().zip(facts(b));
    both.filter(|((_, x), (_, y))| x != y).map(|((name, x), (_, y))| (name.to_owned(), x, y)).collect()
}

/// Whether two tables are of the same questions, as far as they tell. Tables from before ids were hashed name their suites, with
/// how many questions of each; these and the domains must then be alike.
pub fn same_questions(a: &Table, b: &Table) -> bool {
    let hashes = (&a.setup.suite_hashes, &b.setup.suite_hashes);
    if !hashes.0.is_empty() && !hashes.1.is_empty() && hashes.0 != hashes.1 {
        return false;
    }
    match (&a.setup.questions, &b.setup.questions) {
        (Some(first), Some(second)) => first == second,
        _ => a.provenance.suites == b.provenance.suites,
    }
}

fn notes(a: &Table, b: &Table, pairs: &[Pair]) -> Vec<String> {
    let mut notes = Vec::new();
    if !same_questions(a, b) {
        notes.push("measured on other questions: a difference may be that of the questions".to_owned());
    } else if pairs.is_empty() {
        notes.push(
            "answers of both runs were not given: questions are not paired, and small differences stay unseen"
                .to_owned(),
        );
    }
    if a.basis != b.basis {
        notes.push(format!("joules of basis {} beside joules of basis {}", a.basis.name(), b.basis.name()));
    }
    if [a, b].iter().any(|t| t.provenance.counts == Counts::Nominal) {
        notes.push("a table's n is stated, not counted: its intervals are a guess".to_owned());
    }
    let unsure = [a, b].map(|t| t.tokens.relative_uncertainty);
    if let [Some(x), Some(y)] = unsure {
        notes.push(format!(
            "intervals are the spread of queries; the meters may be wrong by {:.0} % and {:.0} % beside that",
            x * 100.0,
            y * 100.0
        ));
    }
    notes
}
