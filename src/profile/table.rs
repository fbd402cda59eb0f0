//! Records to a table: pure statistics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::classify::domain::Domain;
use crate::energy::Basis;
use crate::tables::stats::wilson;
use crate::tables::{Provenance, Row, Table, TokenCosts};

/// One answered question, as the record file keeps it. Times in seconds, energy in joules.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The question's id.
    pub id: String,
    /// Its domain.
    pub domain: Domain,
    /// Graded right.
    pub correct: bool,
    /// Prompt tokens, template included.
    pub input_tokens: u32,
    /// Generated tokens.
    pub output_tokens: u32,
    /// Reading the prompt.
    pub prefill_s: f64,
    /// Writing the answer.
    pub decode_s: f64,
    /// From asking to the last token.
    pub seconds: f64,
    /// Energy of reading the prompt; null if no figure can be had.
    pub prefill_j: Option<f64>,
    /// Energy of writing the answer.
    pub decode_j: Option<f64>,
}

/// What the table says of itself.
pub struct About {
    /// Model name as people write it.
    pub model: String,
    /// What it ran on.
    pub device: String,
    /// Attention settings.
    pub attention: String,
    /// Where the joules come from.
    pub basis: Basis,
    /// Relative uncertainty of the joules.
    pub relative_uncertainty: Option<f64>,
    /// How it came to be.
    pub provenance: Provenance,
}

/// The table of a set of records.
pub fn of(records: &[Record], about: About) -> Table {
    let mut by_domain: BTreeMap<Domain, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_domain.entry(record.domain).or_default().push(record);
    }
    let all: Vec<&Record> = records.iter().collect();
    let known = records.iter().all(|r| r.prefill_j.is_some() && r.decode_j.is_some()) && !records.is_empty();
    let sum = |f: &dyn Fn(&Record) -> f64| records.iter().map(f).sum::<f64>();
    let ratio = |a: f64, b: f64| (b > 0.0).then_some(a / b);
    let (input, output) = (sum(&|r| f64::from(r.input_tokens)), sum(&|r| f64::from(r.output_tokens)));
    let (prefill_s, decode_s) = (sum(&|r| r.prefill_s), sum(&|r| r.decode_s));
    let prefill_j = sum(&|r| r.prefill_j.unwrap_or(0.0));
    let decode_j = sum(&|r| r.decode_j.unwrap_or(0.0));
    let tokens = TokenCosts {
        joules_per_input_token: ratio(prefill_j, input).filter(|_| known),
        joules_per_output_token: ratio(decode_j, output).filter(|_| known),
        relative_uncertainty: about.relative_uncertainty.filter(|_| known),
        ttft_s: ratio(prefill_s, f64::from(u32::try_from(records.len()).unwrap_or(u32::MAX))),
        input_tokens_per_s: ratio(input, prefill_s),
        output_tokens_per_s: ratio(output, decode_s),
        watts: ratio(prefill_j + decode_j, prefill_s + decode_s).filter(|_| known),
    };
    Table {
        schema: 1,
        model: about.model,
        device: about.device,
        runtime: "wattroute embedded".to_owned(),
        attention: about.attention,
        basis: if known { about.basis } else { Basis::Unknown },
        provenance: about.provenance,
        tokens,
        overall: row(&all),
        domains: by_domain.iter().map(|(domain, rows)| (*domain, row(rows))).collect(),
    }
}

/// Figures of one set of records. IPW and IPJ are ratios of means: E\[acc\] / E\[W\], E\[acc\] / E\[J\].
fn row(records: &[&Record]) -> Row {
    let n = u32::try_from(records.len()).unwrap_or(u32::MAX);
    let correct = u32::try_from(records.iter().filter(|r| r.correct).count()).unwrap_or(u32::MAX);
    let (coverage_low, coverage_high) = wilson(correct, n);
    let count = f64::from(n.max(1));
    let coverage = f64::from(correct) / count;
    let joules: Option<f64> = records.iter().map(|r| Some(r.prefill_j? + r.decode_j?)).sum();
    let watts: Option<f64> = records
        .iter()
        .map(|r| Some((r.prefill_j? + r.decode_j?) / (r.prefill_s + r.decode_s)).filter(|w: &f64| w.is_finite()))
        .sum();
    Row {
        n,
        correct,
        coverage,
        coverage_low,
        coverage_high,
        baseline_coverage: None,
        gain: None,
        ipw: watts.filter(|w| *w > 0.0).map(|w| coverage / (w / count)),
        ipj: joules.filter(|j| *j > 0.0).map(|j| coverage / (j / count)),
        joules_per_query: joules.map(|j| j / count),
        seconds_per_query: Some(records.iter().map(|r| r.seconds).sum::<f64>() / count),
        output_tokens: Some(records.iter().map(|r| f64::from(r.output_tokens)).sum::<f64>() / count),
    }
}
