//! What a switch to the baseline would gain, domain by domain: the baseline's coverage minus this model's. Pure.

use std::collections::BTreeMap;

use super::diff::same_questions;
use super::make::{Asked, once};
use super::sample::{Between, difference, paired};
use super::{Row, Table};

/// Writes the gain from the baseline's own answers to the same questions: paired, so that only questions on which the two
/// differ tell.
///
/// # Errors
/// The baseline did not answer every scored question of this table.
pub fn from_answers(table: &mut Table, own: &[Asked], baseline: &[Asked], label: &str) -> Result<(), String> {
    let fewest = own.iter().map(|a| a.streams).min().unwrap_or(1);
    let own = once(own.iter().filter(|a| a.streams == fewest));
    let theirs = once(baseline.iter());
    let theirs: BTreeMap<&str, &Asked> = theirs.iter().filter(|a| a.scored()).map(|a| (a.id.as_str(), a)).collect();
    let scored: Vec<&Asked> = own.iter().filter(|a| a.scored()).collect();
    let missing = scored.iter().filter(|a| !theirs.contains_key(a.id.as_str())).count();
    if missing > 0 {
        return Err(format!("{label} did not answer {missing} of the {} scored questions", scored.len()));
    }
    let pairs = |wanted: &dyn Fn(&Asked) -> bool| -> Vec<(bool, bool)> {
        let asked = scored.iter().filter(|a| wanted(a));
        asked.filter_map(|a| Some((a.right(), theirs.get(a.id.as_str())?.right()))).collect()
    };
    let write = |row: &mut Row, pairs: &[(bool, bool)]| {
        if let Some(found) = paired(pairs) {
            set(row, found);
        }
    };
    write(&mut table.overall, &pairs(&|_| true));
    for (domain, row) in &mut table.domains {
        write(row, &pairs(&|a| a.domain == *domain));
    }
    table.setup.baseline = Some(label.to_owned());
    Ok(())
}

/// Writes the gain from a table of the same questions.
///
/// # Errors
/// The two tables were measured on other questions, or do not say on which.
pub fn from_table(table: &mut Table, baseline: &Table) -> Result<(), String> {
    let label = format!("{} on {}", baseline.model, baseline.device);
    let (own, theirs) = (&table.setup.suite_hashes, &baseline.setup.suite_hashes);
    if own.is_empty() || own != theirs {
        return Err(format!("{label} was not measured on the same questions (suite hashes {own:?} and {theirs:?})"));
    }
    // Tables that do not tell which questions they asked must at least have them in the same domains.
    if !same_questions(table, baseline) || !table.domains.keys().eq(baseline.domains.keys()) {
        return Err(format!(
            "{label} was not measured on the same questions of these suites; give the record file of a run on them"
        ));
    }
    let write = |row: &mut Row, base: &Row| {
        if let Some(found) = difference((row.correct, row.n), (base.correct, base.n)) {
            set(row, found);
        }
    };
    write(&mut table.overall, &baseline.overall);
    for (domain, row) in &mut table.domains {
        if let Some(base) = baseline.domains.get(domain) {
            write(row, base);
        }
    }
    table.setup.baseline = Some(label);
    Ok(())
}

fn set(row: &mut Row, found: Between) {
    row.baseline_coverage = Some(row.coverage + found.value);
    row.gain = Some(found.value);
    row.gain_interval = Some([found.low, found.high]);
}
