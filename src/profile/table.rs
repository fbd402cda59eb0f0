//! Records to a table: pure statistics.

use std::collections::BTreeMap;

use super::record::Record;
use crate::classify::domain::Domain;
use crate::energy::Basis;
use crate::tables::stats::wilson;
use crate::tables::{Provenance, Row, Table, TokenCosts};

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

/// The table of a set of records. Those that were not scored leave accuracy and energy alike.
pub fn of(all_records: &[Record], about: About) -> Table {
    let records: Vec<&Record> = all_records.iter().filter(|r| r.correct.is_some()).collect();
    let mut by_domain: BTreeMap<Domain, Vec<&Record>> = BTreeMap::new();
    for record in &records {
        by_domain.entry(record.domain).or_default().push(record);
    }
    let known = records.iter().all(|r| r.joules.prefill.is_some() && r.joules.decode.is_some()) && !records.is_empty();
    let sum = |f: &dyn Fn(&Record) -> f64| records.iter().map(|r| f(r)).sum::<f64>();
    let ratio = |a: f64, b: f64| (b > 0.0).then_some(a / b);
    let (input, output) =
        (sum(&|r| f64::from(r.tokens_in.unwrap_or(0))), sum(&|r| f64::from(r.tokens_out.unwrap_or(0))));
    let (prefill_s, decode_s) = (sum(&|r| r.ttft_s.unwrap_or(0.0)), sum(&Record::decode_s));
    let prefill_j = sum(&|r| r.joules.prefill.unwrap_or(0.0));
    let decode_j = sum(&|r| r.joules.decode.unwrap_or(0.0));
    let tokens = TokenCosts {
        joules_per_input_token: ratio(prefill_j, input).filter(|_| known),
        joules_per_output_token: ratio(decode_j, output).filter(|_| known),
        relative_uncertainty: about.relative_uncertainty.filter(|_| known),
        ttft_s: ratio(prefill_s, f64::from(u32::try_from(records.len()).unwrap_or(u32::MAX))),
        input_tokens_per_s: ratio(input, prefill_s),
        output_tokens_per_s: ratio(output, decode_s),
        watts: mean_watts(&records),
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
        overall: row(&records),
        domains: by_domain.iter().map(|(domain, rows)| (*domain, row(rows))).collect(),
    }
}

/// Figures of one set of records. IPW and IPJ are ratios of means: E\[acc\] / E\[W\], E\[acc\] / E\[J\].
fn row(records: &[&Record]) -> Row {
    let n = u32::try_from(records.len()).unwrap_or(u32::MAX);
    let correct = u32::try_from(records.iter().filter(|r| r.correct == Some(true)).count()).unwrap_or(u32::MAX);
    let (coverage_low, coverage_high) = wilson(correct, n);
    let count = f64::from(n.max(1));
    let coverage = f64::from(correct) / count;
    let joules: Option<f64> = records.iter().map(|r| r.joules.gross).sum();
    let watts = mean_watts(records);
    Row {
        n,
        correct,
        coverage,
        coverage_low,
        coverage_high,
        baseline_coverage: None,
        gain: None,
        ipw: watts.filter(|w| *w > 0.0).map(|w| coverage / w),
        ipj: joules.filter(|j| *j > 0.0).map(|j| coverage / (j / count)),
        joules_per_query: joules.map(|j| j / count),
        seconds_per_query: Some(records.iter().map(|r| r.seconds).sum::<f64>() / count),
        output_tokens: Some(records.iter().map(|r| f64::from(r.tokens_out.unwrap_or(0))).sum::<f64>() / count),
    }
}

/// E\[W\]: the mean over queries of each query's mean power, as the paper's IPW takes it. None if one is not known.
fn mean_watts(records: &[&Record]) -> Option<f64> {
    let sum: Option<f64> = records.iter().map(|r| r.watts()).sum();
    sum.filter(|_| !records.is_empty()).map(|sum| sum / f64::from(u32::try_from(records.len()).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::record::Joules;
    use crate::tables::check_text;

    fn record(id: u32, correct: bool, watts: f64, seconds: f64) -> Record {
        Record {
            id: id.to_string(),
            domain: "Legal services".parse().unwrap(),
            correct: Some(correct),
            tokens_in: Some(10),
            tokens_out: Some(5),
            seconds,
            ttft_s: Some(seconds / 4.0),
            joules: Joules {
                gross: Some(watts * seconds),
                prefill: Some(watts * seconds / 4.0),
                decode: Some(watts * seconds * 3.0 / 4.0),
                ..Joules::default()
            },
            ..Record::default()
        }
    }

    fn about() -> About {
        About {
            model: "m".to_owned(),
            device: "d".to_owned(),
            attention: "softmax".to_owned(),
            basis: Basis::Utilisation,
            relative_uncertainty: Some(0.5),
            provenance: Provenance {
                source: "test".to_owned(),
                date: "2026-01-01".to_owned(),
                licence: "none".to_owned(),
                ..Provenance::default()
            },
        }
    }

    #[test]
    fn ipw_and_ipj_are_ratios_of_means() {
        let records = [record(1, true, 100.0, 2.0), record(2, false, 200.0, 1.0), record(3, true, 300.0, 4.0)];
        let table = of(&records, about());
        assert!((table.overall.ipw.unwrap() - (2.0 / 3.0) / 200.0).abs() < 1e-12);
        assert!((table.overall.ipj.unwrap() - (2.0 / 3.0) / (1600.0 / 3.0)).abs() < 1e-12);
        assert!((table.tokens.joules_per_output_token.unwrap() - 1200.0 / 15.0).abs() < 1e-9);
    }

    #[test]
    fn what_nobody_scored_is_in_no_figure() {
        let scored = [record(1, true, 100.0, 2.0), record(2, false, 200.0, 1.0)];
        let mut all = scored.to_vec();
        all.push(Record { correct: None, ..record(3, true, 900.0, 9.0) });
        let text = |records: &[Record]| serde_json::to_string(&of(records, about())).unwrap();
        assert_eq!(text(&all), text(&scored));
    }

    #[test]
    fn one_query_without_joules_makes_them_unknown_and_never_zero() {
        let mut records = [record(1, true, 100.0, 2.0), record(2, false, 200.0, 1.0)];
        records[1].joules = Joules::default();
        let table = of(&records, about());
        assert_eq!(table.basis, Basis::Unknown);
        assert_eq!((table.overall.ipw, table.overall.ipj, table.tokens.joules_per_input_token), (None, None, None));
        assert_eq!((table.overall.n, table.overall.correct), (2, 1));
    }

    #[test]
    fn a_written_table_passes_the_check() {
        let records: Vec<Record> = (0..40).map(|i| record(i, i % 3 == 0, 50.0 + f64::from(i), 1.0)).collect();
        let text = serde_json::to_string(&of(&records, about())).unwrap();
        let problems = check_text(&text, "made.json");
        assert!(problems.is_empty(), "{problems:?}");
    }
}
