//! What people are told of predictions: how joules come about, and what limits a comparison.

use std::collections::{BTreeMap, BTreeSet};

use super::Outlook;
use crate::config::checked::EnergyModel;
use crate::energy::Basis;

impl Outlook {
    /// How the joules come about, for people.
    pub fn derivation(&self) -> String {
        let table = self.table.as_deref().filter(|t| t.basis != Basis::Unknown);
        if let Some((t, j)) = table.and_then(|t| Some((t, t.tokens.joules_per_output_token?))) {
            let input = t
                .tokens
                .joules_per_input_token
                .map_or_else(|| "unknown, taken as part of the output".to_owned(), |x| format!("{x:.4}"));
            return format!(
                "table of {} on {}: {j:.4} J per output token, {input} J per input token, basis {} ({})",
                t.model,
                t.device,
                t.basis.name(),
                t.provenance.source
            );
        }
        if let Some(model) = &self.cloud {
            return model.derivation().to_owned();
        }
        match table.and_then(|t| Some((t, t.overall.joules_per_query?))) {
            Some((t, j)) => {
                format!("table of {} on {}: {j:.0} J per query, basis {}", t.model, t.device, t.basis.name())
            }
            None => "joules unknown: no table with joules and no energy model".to_owned(),
        }
    }
}

/// A sentence if the tables of these backends were measured on different questions: then their P(correct) compare only
/// roughly, and a difference may be that of the questions.
pub fn question_sets<'a>(outlooks: impl IntoIterator<Item = &'a Outlook>) -> Option<String> {
    let mut sets: BTreeMap<BTreeSet<&str>, Vec<&str>> = BTreeMap::new();
    for outlook in outlooks {
        let Some(table) = outlook.table.as_deref() else { continue };
        let suites = table.provenance.suites.iter().map(String::as_str).collect();
        sets.entry(suites).or_default().push(&outlook.backend);
    }
    if sets.len() < 2 {
        return None;
    }
    let told = |(suites, backends): (BTreeSet<&str>, Vec<&str>)| {
        let suites = suites.into_iter().collect::<Vec<_>>().join(", ");
        format!("{} on {}", backends.join(" and "), if suites.is_empty() { "questions not named" } else { &suites })
    };
    let each: Vec<String> = sets.into_iter().map(told).collect();
    Some(format!("P(correct) was measured on different questions and compares only roughly: {}", each.join("; ")))
}

/// Whether a backend's configuration names an energy model at all; for what `check` warns about.
pub fn has_energy(outlook: &Outlook, stated: &EnergyModel) -> bool {
    let table = outlook.table.as_deref();
    let measured = table.is_some_and(|t| {
        t.basis != Basis::Unknown
            && (t.tokens.joules_per_output_token.is_some() || t.overall.joules_per_query.is_some())
    });
    measured || !matches!(stated, EnergyModel::Table | EnergyModel::Unknown)
}
