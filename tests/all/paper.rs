//! Figures of the paper that an implementation must reproduce, each with the honest version beside it.
//! *Intelligence per Watt*, arXiv 2511.07885 v4; rows in `eval/tables/published/paper/`.

use std::collections::HashMap;

use proptest::prelude::*;
use wattroute::energy::attribution::{Rail, Span, Weights, attribute};
use wattroute::energy::cloud::points;
use wattroute::energy::series::{Point, Series};
use wattroute::tables::routing::Router;
use wattroute::tables::stats::{Sample, ipj, ipw, wilson};
use wattroute::tables::{check, check_text};

/// Rows of a CSV with comments, by column name.
fn rows(name: &str) -> Vec<HashMap<String, String>> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("eval/tables/published/paper").join(name);
    let text = std::fs::read_to_string(file).unwrap();
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    let every = reader.deserialize().map(Result::unwrap);
    every.filter(|row: &HashMap<String, String>| row.get("domain").is_none_or(|d| d != "TOTAL")).collect()
}

fn number(row: &HashMap<String, String>, key: &str) -> Option<f64> {
    row.get(key).and_then(|text| text.parse().ok())
}

#[test]
fn one_ipw_and_ipj_are_ratios_of_means() {
    let samples = [(true, 100.0, 2.0), (false, 200.0, 1.0), (true, 300.0, 4.0)]
        .map(|(correct, watts, seconds)| Sample { correct, watts, seconds });
    assert!((ipw(&samples).unwrap() - 3.333e-3).abs() < 1e-6);
    assert!((ipj(&samples).unwrap() - 1.25e-3).abs() < 1e-9);
    let of_ratios = samples.iter().filter(|s| s.correct).map(|s| 1.0 / (s.watts * s.seconds)).sum::<f64>() / 3.0;
    assert!((of_ratios - 1.25e-3).abs() > 5e-4, "a mean of ratios is another number: {of_ratios}");
}

/// Local cost over cloud cost that section 4.3 implies: energy, compute, price.
const RATIOS: [f64; 3] = [0.0037, 0.0421, 0.0855];
const ORACLE: f64 = 0.807;

#[test]
fn two_the_papers_router_saves_what_it_prints() {
    for (kept, printed, tolerance) in
        [(1.0, [80.4, 77.3, 73.8], 0.1), (0.8, [64.3, 61.8, 59.0], 0.1), (0.6, [48.4, 46.7, 44.5], 0.35)]
    {
        for (ratio, printed) in RATIOS.into_iter().zip(printed) {
            let outcome = Router::paper(ORACLE, ratio, kept).outcome();
            assert!((outcome.saved * 100.0 - printed).abs() <= tolerance, "{kept} {ratio}: {outcome:?}");
            assert_eq!((outcome.wasted, outcome.quality_loss), (0.0, 0.0));
        }
    }
}

#[test]
fn three_wasted_attempts_and_false_locals_are_charged() {
    let honest = |ratio: f64| Router { tried_first: 1.0, ..Router::paper(ORACLE, ratio, 0.8) };
    for (ratio, want) in [(RATIOS[1], 61.2), (RATIOS[2], 57.7)] {
        let outcome = honest(ratio).outcome();
        assert!((outcome.saved * 100.0 - want).abs() < 0.05, "{outcome:?}");
        assert!((outcome.wasted - 0.2 * ORACLE * ratio).abs() < 1e-12);
    }
    // Keeping what cannot be solved saves more and is worth less: both are said.
    let careless = Router { false_local: 0.1, ..honest(RATIOS[0]) };
    let (before, after) = (honest(RATIOS[0]).outcome(), careless.outcome());
    assert!((after.quality_loss - 0.1 * (1.0 - ORACLE)).abs() < 1e-12 && after.saved > before.saved);
}

#[test]
fn four_the_local_share_is_weighted_by_queries() {
    let domains = rows("domains.csv");
    let share = |n: &str, solvable: &str| {
        let each: Vec<(f64, f64)> =
            domains.iter().filter_map(|r| Some((number(r, n)?, number(r, solvable)?))).collect();
        each.iter().map(|(n, s)| n * s).sum::<f64>() / each.iter().map(|(n, _)| n).sum::<f64>()
    };
    let (chat, reasoning) = (share("wc_count", "wc_solv"), share("nr_count", "nr_solv"));
    assert!((chat - 98.43).abs() < 0.01 && (reasoning - 62.97).abs() < 0.01, "{chat} {reasoning}");
    assert!((f64::midpoint(chat, reasoning) - 80.70).abs() < 0.01);
    // A plain mean over domains is another number: small domains would count like large ones.
    let plain: Vec<f64> = domains.iter().filter_map(|r| number(r, "nr_solv")).collect();
    assert!((plain.iter().sum::<f64>() / plain.len() as f64 - reasoning).abs() > 1.0);
}

#[test]
fn five_power_times_latency_is_the_energy_of_the_agentic_rows() {
    let agentic: Vec<_> = rows("efficiency.csv").into_iter().filter(|r| r["table"] == "18").collect();
    assert_eq!(agentic.len(), 10);
    for row in agentic {
        let (w, s, j) = (number(&row, "power_w"), number(&row, "latency_s"), number(&row, "energy_j"));
        assert!((w.unwrap() * s.unwrap() / j.unwrap() - 1.0).abs() < 0.01, "{row:?}");
    }
}

/// A row of table 17 as a table file.
fn as_table(row: &HashMap<String, String>) -> String {
    let get = |key: &str| number(row, key).unwrap();
    let (correct, n) = ((get("acc") * 10.0).round() as u32, 1000);
    let (low, high) = wilson(correct, n);
    serde_json::json!({
        "schema": 1, "model": row["model"], "device": row["hardware"], "runtime": "as printed", "attention": "softmax",
        "basis": "published",
        "provenance": {"source": "arXiv 2511.07885 v4, table 17", "date": "2026-05-21", "command": null, "suites": [],
            "licence": "CC BY 4.0", "counts": "nominal"},
        "tokens": {"watts": get("power_w")},
        "overall": {"n": n, "correct": correct, "coverage": f64::from(correct) / f64::from(n), "coverage_low": low,
            "coverage_high": high, "ipw": get("ipw"), "ipj": get("ipj"), "joules_per_query": get("power_w") * get("latency_s"),
            "seconds_per_query": get("latency_s")},
        "domains": {}
    })
    .to_string()
}

#[test]
fn five_the_phone_rows_are_refused_with_file_row_and_key_and_the_others_pass() {
    let printed: Vec<_> = rows("efficiency.csv").into_iter().filter(|r| r["table"] == "17").collect();
    let (phone, others): (Vec<_>, Vec<_>) = printed.iter().partition(|r| r["hardware"] == "A18 Pro");
    assert_eq!((phone.len(), others.len()), (5, 2));
    let folder = tempfile::tempdir().unwrap();
    for row in phone {
        let file = folder.path().join("phone.json");
        std::fs::write(&file, as_table(row)).unwrap();
        let problems = check(&file);
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("phone.json: overall.ipw: is ") && said[0].contains("coverage / watts"), "{said:?}");
    }
    for row in others {
        assert!(check_text(&as_table(row), "t.json").is_empty(), "{row:?}");
    }
}

#[test]
fn six_the_batch_sweep_is_accuracy_over_joules() {
    let sweep: Vec<_> =
        rows("efficiency.csv").into_iter().filter(|r| r["table"] == "15" && !r["energy_j"].is_empty()).collect();
    assert_eq!(sweep.len(), 2);
    for row in sweep {
        let (joules, printed) = (number(&row, "energy_j").unwrap(), number(&row, "ipj").unwrap());
        let answer = |i| Sample { correct: i < 575, watts: joules, seconds: 1.0 };
        let all: Vec<Sample> = (0..1000).map(answer).collect();
        assert!((ipj(&all).unwrap() / printed - 1.0).abs() < 0.001, "{row:?}");
    }
}

/// A counter that ticks every 50 ms at a varying power.
fn counter(seconds: u32) -> Series {
    let mut series = Series::new(100_000);
    let mut joules = 0.0;
    for tick in 0..=seconds * 20 {
        assert!(series.push(Point { at_s: f64::from(tick) * 0.05, joules }));
        joules += 0.05 * (60.0 + 40.0 * f64::from(tick % 7));
    }
    series
}

#[test]
fn seven_energy_is_conserved_for_one_two_and_eight_at_a_time_and_past_thirty_seconds() {
    let series = counter(60);
    let rail = Rail { series: &series, idle_w: 30.0, renewed_s: 0.05 };
    for streams in [1_u32, 2, 8] {
        let span = |i: u32| {
            let start_s = 2.0 + f64::from(i) * 0.7;
            // The first one runs for 45 s: longer than a buffer of 30 s would hold.
            let end_s = if i == 0 { start_s + 45.0 } else { start_s + 9.0 };
            Span {
                start_s,
                first_s: Some(start_s + 0.5),
                end_s,
                input_tokens: 90.0,
                output_tokens: 40.0 + f64::from(i),
            }
        };
        let spans: Vec<Span> = (0..streams).map(span).collect();
        let account = attribute(rail, &spans, (0.0, 60.0), Weights::default());
        let shared: f64 = account.shares.iter().map(|s| s.gross).sum();
        let counted = series.between(0.0, 60.0).unwrap();
        assert!((shared + account.unattributed - counted).abs() < 1e-6 * counted, "{streams}");
        assert!((account.delta - counted).abs() < 1e-6 * counted);
        if streams == 1 {
            let whole = series.between(2.0, 47.0).unwrap();
            assert!((account.shares[0].gross - whole).abs() < 1e-6 * whole && whole > 45.0 * 100.0);
        }
    }
}

#[test]
fn eight_a_local_kilojoule_wins_or_loses_with_the_clouds_batch() {
    let curves = points::curves("Qwen3-235B-A22B-Instruct-2507").unwrap();
    let curve = curves.iter().find(|c| c.gpu == "H100" && c.gpus == 8.0).unwrap();
    let answer = |batch: f64, tokens: f64| curve.at(batch) * tokens;
    let (few, many) = (answer(16.0, 865.0), answer(256.0, 874.0));
    assert!((few / 4480.0 - 1.0).abs() < 0.005 && (many / 955.0 - 1.0).abs() < 0.005, "{few} {many}");
    assert!((1.0 - 1000.0 / few - 0.78).abs() < 0.005, "saves 78 % at batch 16");
    assert!((1000.0 / many - 1.0 - 0.05).abs() < 0.005, "costs 5 % more at batch 256");
    // With the host and a data centre around the accelerators the same kilojoule wins at both.
    assert!(1000.0 < curve.with_host(256.0) * 1.2 * 874.0);
}

proptest! {
    #[test]
    fn an_honest_router_never_saves_more_than_the_papers_without_losing_quality(
        solvable in 0.0_f64..1.0, ratio in 0.0_f64..1.0, kept in 0.0_f64..1.0, tried in 0.0_f64..1.0,
    ) {
        let paper = Router::paper(solvable, ratio, kept);
        let honest = Router { tried_first: tried, ..paper };
        prop_assert!(honest.outcome().saved <= paper.outcome().saved + 1e-12);
        prop_assert!(paper.outcome().saved <= Router::paper(solvable, ratio, 1.0).outcome().saved + 1e-12);
    }
}
