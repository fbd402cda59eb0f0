//! Asked questions to a table: every figure that `schema` names. Pure.
//!
//! Invariants: ratios of means, never means of ratios; a question that failed or that nobody could grade is in no figure and is
//! counted; where more than one question in ten has no joules, its row has none.

use std::collections::BTreeMap;

use super::costs::{levels, tokens};
use super::sample::{count, mean, mean_interval, quantile, share_over_cost};
use super::stats::{Shrunk, wilson};
use super::{Provenance, Quantiles, Row, SCHEMA, Setup, Table};
use crate::classify::domain::Domain;
use crate::energy::Basis;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answered and right.
    Right,
    /// Answered and wrong.
    Wrong,
    /// Answered, and nobody could say.
    Unscored,
    /// No answer.
    Failed,
}

/// One asked question. Times in seconds, energy in joules; unknown is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The question's id: repeats of one question share it.
    pub id: String,
    /// Its domain.
    pub domain: Domain,
    /// What became of it.
    pub verdict: Verdict,
    /// Queries that ran at a time.
    pub streams: u32,
    /// Prompt tokens.
    pub input: Option<f64>,
    /// Generated tokens.
    pub output: Option<f64>,
    /// From asking to the first token; none if the answer came in one piece.
    pub first_s: Option<f64>,
    /// From asking to the end.
    pub seconds: f64,
    /// Gross joules.
    pub gross_j: Option<f64>,
    /// The same without the idle machine's.
    pub net_j: Option<f64>,
    /// Gross joules before the first token.
    pub prefill_j: Option<f64>,
    /// Gross joules after it.
    pub decode_j: Option<f64>,
    /// Median seconds between two tokens.
    pub gap_p50_s: Option<f64>,
    /// Its 99th percentile.
    pub gap_p99_s: Option<f64>,
}

impl Asked {
    /// Mean watts of this query.
    pub fn watts(&self) -> Option<f64> {
        self.gross_j.map(|j| j / self.seconds).filter(|w| w.is_finite())
    }

    /// From the first token to the last.
    pub fn rest_s(&self) -> Option<f64> {
        self.first_s.map(|first| (self.seconds - first).max(0.0))
    }

    /// Graded right.
    pub fn right(&self) -> bool {
        self.verdict == Verdict::Right
    }

    /// Graded.
    pub fn scored(&self) -> bool {
        matches!(self.verdict, Verdict::Right | Verdict::Wrong)
    }
}

/// What the table says of itself.
pub struct About {
    /// Model name as people write it.
    pub model: String,
    /// What it ran on.
    pub device: String,
    /// What ran it.
    pub runtime: String,
    /// Attention settings.
    pub attention: String,
    /// Where the joules come from.
    pub basis: Basis,
    /// Relative uncertainty of the joules.
    pub relative_uncertainty: Option<f64>,
    /// How it came to be.
    pub provenance: Provenance,
    /// The machine's and the run's settings.
    pub setup: Setup,
}

/// The table of these questions. Figures are of the fewest queries at a time; the other levels have their own rows.
pub fn table(all: &[Asked], about: About) -> Table {
    let fewest = all.iter().map(|a| a.streams).min().unwrap_or(1);
    let single: Vec<Asked> = once(all.iter().filter(|a| a.streams == fewest));
    let scored: Vec<&Asked> = single.iter().filter(|a| a.scored()).collect();
    let known = metered(&scored).is_some();
    let mut domains: BTreeMap<Domain, Vec<&Asked>> = BTreeMap::new();
    for asked in &single {
        domains.entry(asked.domain).or_default().push(asked);
    }
    let rows = domains.iter().filter_map(|(d, asked)| Some((*d, row(asked)?))).collect();
    let mut table = Table {
        schema: SCHEMA,
        model: about.model,
        device: about.device,
        runtime: about.runtime,
        attention: about.attention,
        basis: if known { about.basis } else { Basis::Unknown },
        provenance: about.provenance,
        setup: about.setup,
        tokens: tokens(&scored, about.relative_uncertainty.filter(|_| known)),
        overall: row(&single.iter().collect::<Vec<_>>()).unwrap_or_default(),
        domains: rows,
        concurrency: levels(all),
    };
    table.setup.questions = asked_hash(&single);
    if !known {
        table.setup.idle_w = None;
    }
    shrink(&mut table);
    table
}

/// First 16 hex digits of the BLAKE3 of the ids, which come in order.
fn asked_hash(single: &[Asked]) -> Option<String> {
    let mut hash = blake3::Hasher::new();
    single.iter().for_each(|a| {
        hash.update(a.id.as_bytes()).update(b"\n");
    });
    (!single.is_empty()).then(|| hash.finalize().to_hex().chars().take(16).collect())
}

/// Repeats of one question become one: means of the figures, right if more than half of the graded ones are.
pub fn once<'a>(all: impl Iterator<Item = &'a Asked>) -> Vec<Asked> {
    let mut by_id: BTreeMap<&str, Vec<&Asked>> = BTreeMap::new();
    for asked in all {
        by_id.entry(&asked.id).or_default().push(asked);
    }
    by_id.into_values().filter_map(|repeats| together(&repeats)).collect()
}

fn together(repeats: &[&Asked]) -> Option<Asked> {
    let graded: Vec<&Asked> = repeats.iter().copied().filter(|a| a.scored()).collect();
    let Some(first) = graded.first() else { return repeats.first().map(|a| (*a).clone()) };
    let right = graded.iter().filter(|a| a.right()).count();
    let maybe = |f: &dyn Fn(&Asked) -> Option<f64>| {
        let all: Option<Vec<f64>> = graded.iter().map(|a| f(a)).collect();
        all.and_then(|all| mean(&all))
    };
    Some(Asked {
        id: first.id.clone(),
        domain: first.domain,
        verdict: if 2 * right > graded.len() { Verdict::Right } else { Verdict::Wrong },
        streams: first.streams,
        input: maybe(&|a| a.input),
        output: maybe(&|a| a.output),
        first_s: maybe(&|a| a.first_s),
        seconds: graded.iter().map(|a| a.seconds).sum::<f64>() / count(graded.len()),
        gross_j: maybe(&|a| a.gross_j),
        net_j: maybe(&|a| a.net_j),
        prefill_j: maybe(&|a| a.prefill_j),
        decode_j: maybe(&|a| a.decode_j),
        gap_p50_s: maybe(&|a| a.gap_p50_s),
        gap_p99_s: maybe(&|a| a.gap_p99_s),
    })
}

/// One row; none if nothing in it was scored.
fn row(asked: &[&Asked]) -> Option<Row> {
    let scored: Vec<&Asked> = asked.iter().copied().filter(|a| a.scored()).collect();
    if scored.is_empty() {
        return None;
    }
    let of = |verdict: Verdict| whole(asked.iter().filter(|a| a.verdict == verdict).count());
    let (n, correct) = (whole(scored.len()), of(Verdict::Right));
    let (coverage_low, coverage_high) = wilson(correct, n);
    let middle = |f: &dyn Fn(&Asked) -> Option<f64>| {
        let known: Vec<f64> = scored.iter().filter_map(|a| f(a)).collect();
        mean(&known).filter(|x| *x > 0.0)
    };
    let mut row = Row {
        n,
        correct,
        coverage: f64::from(correct) / f64::from(n),
        coverage_low,
        coverage_high,
        seconds_per_query: middle(&|a| Some(a.seconds)),
        output_tokens: middle(&|a| a.output),
        input_tokens: middle(&|a| a.input),
        prefill_s: middle(&|a| a.first_s),
        decode_s: middle(&|a| a.rest_s()),
        unscored: Some(of(Verdict::Unscored)),
        failed: Some(of(Verdict::Failed)),
        ..Row::default()
    };
    spreads(&mut row, &scored);
    joules(&mut row, &scored);
    Some(row)
}

/// Quantiles of waits and lengths.
fn spreads(row: &mut Row, scored: &[&Asked]) {
    let sorted = |f: &dyn Fn(&Asked) -> Option<f64>| {
        let mut values: Vec<f64> = scored.iter().filter_map(|a| f(a)).filter(|x| *x > 0.0).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    };
    let first = sorted(&|a| a.first_s);
    (row.ttft_p50_s, row.ttft_p95_s) = (quantile(&first, 0.5), quantile(&first, 0.95));
    // Queries count alike: the middle of their medians, and of the worst one in a hundred of each.
    row.gap_p50_s = quantile(&sorted(&|a| a.gap_p50_s), 0.5);
    row.gap_p99_s = quantile(&sorted(&|a| a.gap_p99_s), 0.5).map(|x| x.max(row.gap_p50_s.unwrap_or(x)));
    let lengths = sorted(&|a| a.output);
    let at = |p: f64| quantile(&lengths, p).unwrap_or_default();
    row.output_quantiles = (!lengths.is_empty()).then(|| Quantiles {
        p5: at(0.05),
        p25: at(0.25),
        p50: at(0.5),
        p75: at(0.75),
        p95: at(0.95),
    });
}

/// Share of the questions whose joules must be known for a row to speak of joules.
const METERED: f64 = 0.9;

/// The questions whose joules are known, if they are nearly all: then figures with joules are of these alone.
pub fn metered<'a>(scored: &[&'a Asked]) -> Option<Vec<&'a Asked>> {
    let known: Vec<&Asked> = scored.iter().copied().filter(|a| a.gross_j.is_some()).collect();
    (!known.is_empty() && count(known.len()) >= METERED * count(scored.len())).then_some(known)
}

/// Everything with joules, or nothing of it.
fn joules(row: &mut Row, scored: &[&Asked]) {
    let Some(known) = metered(scored) else { return };
    row.metered = (known.len() < scored.len()).then(|| whole(known.len()));
    let above = |x: Option<f64>| x.filter(|x| *x > 0.0 && x.is_finite());
    let all = |f: &dyn Fn(&Asked) -> Option<f64>| known.iter().map(|a| f(a)).collect::<Option<Vec<f64>>>();
    let average = |f: &dyn Fn(&Asked) -> Option<f64>| above(all(f).and_then(|v| mean(&v)));
    let share = count(known.iter().filter(|a| a.right()).count()) / count(known.len());
    let paired = |costs: &[f64]| {
        let pairs: Vec<(bool, f64)> = known.iter().zip(costs).map(|(a, x)| (a.right(), *x)).collect();
        share_over_cost(&pairs)
    };
    row.joules_per_query = average(&|a| a.gross_j);
    let (Some(joules), Some(spent)) = (row.joules_per_query, all(&|a| a.gross_j)) else { return };
    row.joules_interval = mean_interval(&spent);
    row.ipj = above(Some(share / joules));
    row.joules_per_correct = above(Some(joules / share));
    row.ipj_interval = paired(&spent).filter(|_| row.ipj.is_some());
    (row.prefill_joules, row.decode_joules) = (average(&|a| a.prefill_j), average(&|a| a.decode_j));
    row.net_joules_per_query = average(&|a| a.net_j);
    row.watts = average(&|a| a.watts());
    let (Some(mean_w), Some(watts)) = (row.watts, all(&|a| a.watts())) else { return };
    row.ipw = above(Some(share / mean_w));
    row.ipw_interval = paired(&watts).filter(|_| row.ipw.is_some());
}

/// Writes every domain's shrunk coverage beside its own.
pub fn shrink(table: &mut Table) {
    let shrunk: Shrunk = table.shrunk();
    for (domain, row) in &mut table.domains {
        let cell = shrunk.of_domain(*domain);
        row.shrunk = Some(cell.mean);
        row.shrunk_interval = Some([cell.low.min(cell.mean), cell.high.max(cell.mean)]);
    }
}

/// A count that a table can hold.
pub fn whole(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
