//! Prompts of a few lines of a log, for a page whose reader may see them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::replay::outcome::Outcome;
use crate::replay::source::Lines;

/// Lines read at a time.
const LINES: usize = 4096;
/// Letters shown of a prompt.
const SHOWN: usize = 240;

#[derive(Deserialize)]
struct Row {
    prompt: Option<String>,
}

/// The beginnings of the prompts of every mistake that an outcome names, by line.
///
/// # Errors
/// The log cannot be read any more.
pub fn of(outcome: &Outcome, file: &Path) -> Result<BTreeMap<u64, String>, String> {
    let mistakes = outcome.policies.iter().flat_map(|p| p.worst_false_local.iter().chain(&p.worst_false_cloud));
    let wanted: BTreeSet<u64> = mistakes.map(|m| m.line).collect();
    let Some(last) = wanted.last().copied() else { return Ok(BTreeMap::new()) };
    let mut lines = Lines::open(file)?;
    let mut found = BTreeMap::new();
    while let Some(chunk) = lines.chunk(LINES)? {
        let mut beyond = false;
        for (number, line) in chunk.lines() {
            beyond |= number > last;
            if wanted.contains(&number)
                && let Some(prompt) = serde_json::from_slice::<Row>(line).ok().and_then(|row| row.prompt)
            {
                let cut = prompt.char_indices().nth(SHOWN).map_or(prompt.len(), |(at, _)| at);
                let more = if cut < prompt.len() { "..." } else { "" };
                found.insert(number, format!("{}{more}", prompt.get(..cut).unwrap_or_default()));
            }
        }
        if beyond {
            break;
        }
    }
    Ok(found)
}
