//! Several runs of one model on one machine as one table. Pure.
//!
//! Counts add up, means are weighted by their counts, intervals are made anew; what cannot be joined from means alone
//! (quantiles, regression lines) is left out. Unlike runs are refused, with what differs.

use std::collections::BTreeMap;

use super::diff::settings;
use super::make::shrink;
use super::stats::wilson;
use super::{Counts, Level, Row, Table};

/// Whether tables of the same questions may be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Questions {
    /// No: each question counts once.
    Disjoint,
    /// Yes: the caller knows that they are repeats and that intervals then come out too narrow.
    Pooled,
}

/// Settings in which the parts may differ.
const FREE: [&str; 3] = ["suites", "suite hashes", "questions"];

/// Joins tables; they go in order of their counts, so that the result does not depend on the order given.
///
/// # Errors
/// Fewer than two tables, what differs between them, or the same questions in two of them.
pub fn merge(parts: &[Table], questions: Questions) -> Result<Table, String> {
    let Some((first, rest)) = parts.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err("at least two tables are needed".to_owned());
    };
    let mut unlike = Vec::new();
    for other in rest {
        let differing = settings(first, other).into_iter().filter(|(name, _, _)| !FREE.contains(&name.as_str()));
        unlike.extend(differing.map(|(name, a, b)| format!("{name}: `{a}` and `{b}`")));
    }
    if !unlike.is_empty() {
        return Err(format!("the tables are unlike: {}", unlike.join("; ")));
    }
    if parts.iter().any(|t| t.provenance.counts == Counts::Nominal) {
        return Err("a table's n is stated, not counted: nothing can be added to it".to_owned());
    }
    if questions == Questions::Disjoint {
        disjoint(parts)?;
    }
    Ok(joined(first, parts, questions))
}

fn disjoint(parts: &[Table]) -> Result<(), String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for table in parts {
        let hashes = &table.setup.suite_hashes;
        let names = if hashes.is_empty() { &table.provenance.suites } else { hashes };
        for name in names {
            *seen.entry(name).or_default() += 1;
        }
    }
    let twice: Vec<&str> = seen.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name).collect();
    if twice.is_empty() {
        return Ok(());
    }
    Err(format!("the same questions are in more than one table ({}): a question must count once", twice.join(", ")))
}

fn joined(first: &Table, parts: &[Table], questions: Questions) -> Table {
    let mut all = first.clone();
    let list = |f: &dyn Fn(&Table) -> Vec<String>| {
        let mut out: Vec<String> = Vec::new();
        for text in parts.iter().flat_map(f) {
            if !out.contains(&text) {
                out.push(text);
            }
        }
        out
    };
    all.provenance.suites = list(&|t| t.provenance.suites.clone());
    all.provenance.notes = list(&|t| t.provenance.notes.clone());
    all.setup.suite_hashes = list(&|t| t.setup.suite_hashes.clone());
    all.setup.questions = None;
    all.provenance.date = parts.iter().map(|t| t.provenance.date.clone()).max().unwrap_or_default();
    all.provenance.source = list(&|t| vec![t.provenance.source.clone()]).join(" and ");
    all.provenance.command = None;
    all.provenance.notes.push(format!("{} tables merged; quantiles are not kept", parts.len()));
    if questions == Questions::Pooled {
        all.provenance.notes.push("the parts may hold the same questions: intervals are too narrow".to_owned());
    }
    let rows: Vec<&Row> = parts.iter().map(|t| &t.overall).collect();
    all.overall = row(&rows);
    let mut domains: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for (domain, row) in parts.iter().flat_map(|t| &t.domains) {
        domains.entry(*domain).or_default().push(row);
    }
    all.domains = domains.into_iter().map(|(domain, rows)| (domain, row(&rows))).collect();
    tokens(&mut all, parts);
    let mut levels: BTreeMap<u32, Vec<&Level>> = BTreeMap::new();
    for (streams, level) in parts.iter().flat_map(|t| &t.concurrency) {
        levels.entry(*streams).or_default().push(level);
    }
    all.concurrency = levels.into_iter().map(|(streams, levels)| (streams, level(&levels))).collect();
    if parts.iter().any(|t| t.setup.baseline != all.setup.baseline) {
        all.setup.baseline = None;
        for row in std::iter::once(&mut all.overall).chain(all.domains.values_mut()) {
            (row.baseline_coverage, row.gain) = (None, None);
        }
    }
    shrink(&mut all);
    all
}

/// Mean of a figure by the counts of its rows; none if a row lacks it.
fn weighted(parts: &[(f64, Option<f64>)]) -> Option<f64> {
    let weight: f64 = parts.iter().map(|p| p.0).sum();
    let sum: Option<f64> = parts.iter().map(|(n, x)| Some(n * (*x)?)).sum();
    sum.filter(|_| weight > 0.0).map(|sum| sum / weight)
}

/// How many, their mean, and its interval.
type Part = (f64, Option<f64>, Option<[f64; 2]>);

/// Interval of a weighted mean of independent parts.
fn interval(parts: &[Part]) -> Option<[f64; 2]> {
    let middle = weighted(&parts.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>())?;
    let weight: f64 = parts.iter().map(|p| p.0).sum();
    let half: Option<f64> =
        parts.iter().map(|(n, _, ends)| ends.map(|[l, h]| (n / weight * (h - l) / 2.0).powi(2))).sum();
    half.map(|half| [middle - half.sqrt(), middle + half.sqrt()])
}

fn row(rows: &[&Row]) -> Row {
    let (n, correct) = (rows.iter().map(|r| r.n).sum(), rows.iter().map(|r| r.correct).sum());
    let (coverage_low, coverage_high) = wilson(correct, n);
    let mean =
        |f: &dyn Fn(&Row) -> Option<f64>| weighted(&rows.iter().map(|r| (f64::from(r.n), f(r))).collect::<Vec<_>>());
    let coverage = if n == 0 { 0.0 } else { f64::from(correct) / f64::from(n) };
    let (joules, watts) = (mean(&|r| r.joules_per_query), mean(&|r| r.watts));
    let spread: Vec<_> = rows.iter().map(|r| (f64::from(r.n), r.joules_per_query, r.joules_interval)).collect();
    let baseline = mean(&|r| r.baseline_coverage);
    let above = |x: f64| (x > 0.0 && x.is_finite()).then_some(x);
    let total = |f: &dyn Fn(&Row) -> Option<u32>| rows.iter().map(|r| f(r)).sum::<Option<u32>>();
    Row {
        n,
        correct,
        coverage,
        coverage_low,
        coverage_high,
        baseline_coverage: baseline,
        gain: baseline.map(|b| b - coverage),
        ipw: watts.and_then(|w| above(coverage / w)),
        ipj: joules.and_then(|j| above(coverage / j)),
        joules_per_query: joules,
        joules_interval: interval(&spread),
        joules_per_correct: joules.and_then(|j| above(j / coverage)),
        net_joules_per_query: mean(&|r| r.net_joules_per_query),
        prefill_joules: mean(&|r| r.prefill_joules),
        decode_joules: mean(&|r| r.decode_joules),
        seconds_per_query: mean(&|r| r.seconds_per_query),
        prefill_s: mean(&|r| r.prefill_s),
        decode_s: mean(&|r| r.decode_s),
        watts,
        input_tokens: mean(&|r| r.input_tokens),
        output_tokens: mean(&|r| r.output_tokens),
        unscored: total(&|r| r.unscored),
        failed: total(&|r| r.failed),
        ..Row::default()
    }
}

/// Costs per token by the tokens that each part saw, as far as they are known; else by its queries.
fn tokens(all: &mut Table, parts: &[Table]) {
    let by = |f: &dyn Fn(&Table) -> Option<f64>, g: &dyn Fn(&Row) -> Option<f64>| {
        let weight = |t: &Table| f64::from(t.overall.n) * g(&t.overall).unwrap_or(1.0);
        weighted(&parts.iter().map(|t| (weight(t), f(t))).collect::<Vec<_>>())
    };
    let (input, output) = (|r: &Row| r.input_tokens, |r: &Row| r.output_tokens);
    all.tokens.joules_per_input_token = by(&|t| t.tokens.joules_per_input_token, &input);
    all.tokens.joules_per_output_token = by(&|t| t.tokens.joules_per_output_token, &output);
    all.tokens.ttft_s = by(&|t| t.tokens.ttft_s, &|_| None);
    all.tokens.watts = by(&|t| t.tokens.watts, &|_| None);
    // Rates go by time: seconds per token, averaged by tokens.
    all.tokens.input_tokens_per_s = by(&|t| t.tokens.input_tokens_per_s.map(f64::recip), &input).map(f64::recip);
    all.tokens.output_tokens_per_s = by(&|t| t.tokens.output_tokens_per_s.map(f64::recip), &output).map(f64::recip);
    let unsure = parts.iter().filter_map(|t| t.tokens.relative_uncertainty);
    all.tokens.relative_uncertainty = unsure.max_by(f64::total_cmp);
    (all.tokens.input_interval, all.tokens.output_interval) = (None, None);
    (all.tokens.refused, all.tokens.r2) = (None, None);
    if parts.iter().any(|t| t.tokens.method != all.tokens.method) {
        all.tokens.method = None;
    }
}

fn level(levels: &[&Level]) -> Level {
    let mean = |f: &dyn Fn(&Level) -> Option<f64>| {
        weighted(&levels.iter().map(|l| (f64::from(l.n), f(l))).collect::<Vec<_>>())
    };
    let spread: Vec<_> = levels.iter().map(|l| (f64::from(l.n), l.joules_per_query, l.joules_interval)).collect();
    Level {
        n: levels.iter().map(|l| l.n).sum(),
        joules_per_query: mean(&|l| l.joules_per_query),
        joules_interval: interval(&spread),
        joules_per_output_token: mean(&|l| l.joules_per_output_token),
        seconds_per_query: mean(&|l| l.seconds_per_query),
        output_tokens_per_s: mean(&|l| l.output_tokens_per_s),
        ttft_p50_s: None,
    }
}
