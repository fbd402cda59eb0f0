//! A record file to a table: who was asked and how it was measured from its runs, the figures from its answers.

use std::path::Path;

use super::record::{self, File, Note, Record, Run};
use crate::energy::Basis;
use crate::tables::make::{self, About, Asked, Verdict};
use crate::tables::{Counts, Provenance, Setup, Table};

/// The table of a record file. `model` is the name people know it by; none takes the configured one.
///
/// # Errors
/// The file has no run: nothing says what was measured.
pub fn of_file(file: &File, model: Option<&str>) -> Result<Table, String> {
    let Some(run) = file.runs.last() else { return Err("the record file says of no run what was asked".to_owned()) };
    let about = About {
        model: model.unwrap_or(&run.model).to_owned(),
        device: run.device.clone(),
        runtime: run.runtime.clone(),
        attention: run.attention.clone(),
        basis: basis(file, run),
        relative_uncertainty: uncertainty(&file.answers),
        provenance: provenance(file, run),
        setup: setup(run),
    };
    Ok(of(&file.answers, about))
}

/// The table of these answers.
pub fn of(records: &[Record], about: About) -> Table {
    let asked: Vec<Asked> = records.iter().map(asked).collect();
    make::table(&asked, about)
}

/// The answers of a record file, as statistics take them.
///
/// # Errors
/// The file cannot be read, or a line is no record.
pub fn answers(path: &Path) -> Result<Vec<Asked>, String> {
    Ok(record::read(path)?.answers.iter().map(asked).collect())
}

/// A record as statistics take it.
pub fn asked(record: &Record) -> Asked {
    let verdict = match (record.correct, &record.error) {
        (Some(true), _) => Verdict::Right,
        (Some(false), _) => Verdict::Wrong,
        (None, Some(_)) => Verdict::Failed,
        (None, None) => Verdict::Unscored,
    };
    Asked {
        id: format!("{}/{}", record.suite, record.id),
        domain: record.domain,
        verdict,
        streams: record.streams.max(1),
        input: record.tokens_in.map(f64::from),
        output: record.tokens_out.map(f64::from),
        first_s: record.ttft_s,
        seconds: record.seconds,
        gross_j: record.joules.gross,
        net_j: record.joules.net,
        prefill_j: record.joules.prefill,
        decode_j: record.joules.decode,
        gap_p50_s: record.gap_p50_s,
        gap_p99_s: record.gap_p99_s,
    }
}

/// The weakest of all answers'.
fn basis(file: &File, run: &Run) -> Basis {
    let each = file.answers.iter().filter(|r| r.joules.gross.is_some()).filter_map(|r| r.joules.basis);
    each.max().or(run.basis).unwrap_or(Basis::Unknown)
}

/// Mean relative uncertainty by joules; none where an answer states none.
fn uncertainty(answers: &[Record]) -> Option<f64> {
    let (mut weight, mut sum) = (0.0, 0.0);
    for joules in answers.iter().map(|r| &r.joules) {
        let Some(gross) = joules.gross else { continue };
        let range = joules.low.zip(joules.high).map(|(low, high)| (high - low) / 2.0 / gross);
        sum += gross * joules.uncertainty.or(range)?;
        weight += gross;
    }
    Some(sum / weight).filter(|u| u.is_finite() && *u > 0.0)
}

fn setup(run: &Run) -> Setup {
    let total: Vec<_> = run.rails.iter().filter(|r| r.total).collect();
    let caps: Vec<f64> = total.iter().filter_map(|r| r.cap_w).collect();
    let idle: Option<f64> = total.iter().map(|r| r.idle_w).sum();
    let ours = run.runtime == "wattroute embedded";
    Setup {
        driver: run.driver.clone(),
        power_cap_w: (!caps.is_empty()).then(|| caps.iter().sum()).filter(|w| *w > 0.0),
        runtime_version: (ours && !run.version.is_empty()).then(|| run.version.clone()),
        suite_hashes: run.suites.iter().map(|s| s.hash.clone()).filter(|h| !h.is_empty()).collect(),
        idle_w: idle.filter(|w| *w > 0.0),
        repeats: (run.repeats > 1).then_some(run.repeats),
        baseline: None,
        // Those that the answers are of, which the table counts itself.
        questions: None,
    }
}

fn provenance(file: &File, run: &Run) -> Provenance {
    let mut notes = vec!["greedy; intervals are the spread of the questions".to_owned()];
    notes.extend((!run.scope.is_empty()).then(|| run.scope.clone()));
    if file.runs.len() > 1 {
        notes.push(format!("{} runs of one record file", file.runs.len()));
    }
    for (failed, what) in
        [(true, "attempts that failed and were repeated"), (false, "answers that were asked for again")]
    {
        let replaced: Vec<&Record> = file.replaced.iter().filter(|r| r.error.is_some() == failed).collect();
        let thrown: f64 = replaced.iter().filter_map(|r| r.joules.gross).sum();
        if !replaced.is_empty() {
            notes.push(format!("{} {what} took {thrown:.1} J beside this", replaced.len()));
        }
    }
    for (note, why) in [(Note::Gap, "the meter was away for part of them"), (Note::Short, "too short for the meter")] {
        let n = file.answers.iter().filter(|r| r.joules.note == Some(note)).count();
        if n > 0 {
            notes.push(format!("{n} answers have no joules: {why}"));
        }
    }
    Provenance {
        source: "wattroute profile".to_owned(),
        date: run.at.get(..10).unwrap_or("unknown").to_owned(),
        command: Some(run.command.clone()).filter(|c| !c.is_empty()),
        suites: run.suites.iter().map(|s| format!("{} ({} questions)", s.name, s.questions)).collect(),
        licence: "Apache-2.0".to_owned(),
        counts: Counts::Exact,
        notes,
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Joules, RailAbout, Source};
    use super::*;
    use crate::tables::check_text;

    fn record(id: u32, correct: Option<bool>, watts: f64, seconds: f64) -> Record {
        let part = |share: f64| Some(watts * seconds * share);
        Record {
            id: id.to_string(),
            domain: "Legal services".parse().unwrap(),
            streams: 1,
            correct,
            tokens_in: Some(10 + id % 7),
            tokens_out: Some(5 + id % 3),
            seconds,
            ttft_s: Some(seconds / 4.0),
            joules: Joules {
                gross: part(1.0),
                prefill: part(0.25),
                decode: part(0.75),
                basis: Some(Basis::Counter),
                uncertainty: Some(0.1),
                ..Joules::default()
            },
            ..Record::default()
        }
    }

    fn file(answers: Vec<Record>) -> File {
        let rail = RailAbout { total: true, cap_w: Some(350.0), idle_w: Some(9.0), ..RailAbout::default() };
        let run = Run {
            at: "2026-11-22T10:00:00Z".to_owned(),
            model: "m".to_owned(),
            device: "d".to_owned(),
            runtime: "wattroute embedded".to_owned(),
            attention: "softmax".to_owned(),
            driver: Some("570".to_owned()),
            suites: vec![Source { name: "s".to_owned(), hash: "ab".to_owned(), questions: 3 }],
            rails: vec![rail],
            ..Run::default()
        };
        File { runs: vec![run], answers, ..File::default() }
    }

    #[test]
    fn a_record_file_tells_the_whole_table() {
        let answers = (0..40).map(|i| record(i, Some(i % 3 == 0), 50.0 + f64::from(i), 1.0)).collect();
        let mut file = file(answers);
        file.answers.push(Record { error: Some("cut".to_owned()), ..record(90, None, 1.0, 1.0) });
        let table = of_file(&file, Some("Model")).unwrap();
        let text = serde_json::to_string(&table).unwrap();
        assert!(check_text(&text, "made.json").is_empty(), "{:?}", check_text(&text, "made.json"));
        assert_eq!(
            (table.model.as_str(), table.basis, table.provenance.date.as_str()),
            ("Model", Basis::Counter, "2026-11-22")
        );
        assert_eq!(
            (table.setup.power_cap_w, table.setup.idle_w, table.setup.driver.as_deref()),
            (Some(350.0), Some(9.0), Some("570"))
        );
        assert_eq!(
            (table.overall.n, table.overall.failed, table.setup.suite_hashes),
            (40, Some(1), vec!["ab".to_owned()])
        );
        assert!((table.tokens.relative_uncertainty.unwrap() - 0.1).abs() < 1e-9);
        assert!(of_file(&File::default(), None).is_err());
    }

    #[test]
    fn what_nobody_scored_is_in_no_figure_and_is_counted() {
        let scored = vec![record(1, Some(true), 100.0, 2.0), record(2, Some(false), 200.0, 1.0)];
        let mut all = scored.clone();
        all.push(record(3, None, 900.0, 9.0));
        let (with, without) = (of_file(&file(all), None).unwrap(), of_file(&file(scored), None).unwrap());
        assert_eq!((with.overall.unscored, without.overall.unscored), (Some(1), Some(0)));
        assert_eq!(with.overall.ipj, without.overall.ipj);
        assert_eq!(with.overall.joules_per_query, without.overall.joules_per_query);
    }

    #[test]
    fn missing_joules_make_them_unknown_and_never_zero() {
        let mut answers = vec![record(1, Some(true), 100.0, 2.0), record(2, Some(false), 200.0, 1.0)];
        answers[1].joules = Joules::default();
        let table = of_file(&file(answers), None).unwrap();
        assert_eq!(table.basis, Basis::Unknown);
        assert_eq!((table.overall.ipw, table.overall.ipj, table.tokens.joules_per_input_token), (None, None, None));
        assert_eq!((table.overall.n, table.overall.correct), (2, 1));
    }
}
