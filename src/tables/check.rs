//! Every problem of a table file, each with its row and key.
//!
//! Works on the JSON value rather than on [`Table`](super::Table): serde stops at the first mistake, people want all.

use serde_json::{Map, Value};

use super::SCHEMA;
use super::stats::wilson;
use crate::classify::domain::{Domain, NAMES};
use crate::config::problem::{Problem, Problems, did_you_mean, shown};

/// A printed share is rounded to a tenth of a percent at worst; beyond this it is another number.
const COVERAGE_TOLERANCE: f64 = 0.0015;
/// Interval ends may come from a rounded share.
const WILSON_TOLERANCE: f64 = 0.003;
/// Ratios of separately rounded means. Rows of the paper that pass are within 10 %; those that are wrong are off threefold.
const RATIO_TOLERANCE: f64 = 0.2;

const TABLE: &[&str] =
    &["schema", "model", "device", "runtime", "attention", "basis", "provenance", "tokens", "overall", "domains"];
const PROVENANCE: &[&str] = &["source", "date", "command", "suites", "licence", "counts", "notes"];
const TOKENS: &[&str] = &[
    "joules_per_input_token",
    "joules_per_output_token",
    "relative_uncertainty",
    "ttft_s",
    "input_tokens_per_s",
    "output_tokens_per_s",
    "watts",
];
const ROW: &[&str] = &[
    "n",
    "correct",
    "coverage",
    "coverage_low",
    "coverage_high",
    "baseline_coverage",
    "gain",
    "ipw",
    "ipj",
    "joules_per_query",
    "seconds_per_query",
    "output_tokens",
];
const BASES: &[&str] = &["counter", "power", "utilisation", "published", "modelled", "unknown"];

/// Every problem of a table's text. `file` names it in problems.
pub fn check_text(text: &str, file: &str) -> Vec<Problem> {
    let mut problems = Problems::default();
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(root)) => whole(&root, &mut problems),
        Ok(_) => problems.add("", "a table file is one JSON object"),
        Err(e) => {
            let mut p = Problem::new("", format!("is not JSON: {}", category(&e)));
            p.line = Some(e.line());
            problems.0.push(p);
        }
    }
    if problems.0.is_empty()
        && let Err(e) = serde_json::from_str::<super::Table>(text)
    {
        problems.add("", format!("cannot be read: {e}"));
    }
    problems.0.into_iter().map(|p| p.file(file)).collect()
}

/// serde_json's own message may repeat a value of the file.
fn category(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "the file ends too early",
        _ => "a syntax error",
    }
}

fn whole(root: &Map<String, Value>, problems: &mut Problems) {
    keys(root, TABLE, "", problems);
    match root.get("schema").and_then(Value::as_u64) {
        Some(v) if v == u64::from(SCHEMA) => {}
        Some(v) => {
            problems.add("schema", format!("is {v}; this program reads version {SCHEMA}"));
            return;
        }
        None => problems.add("schema", format!("is missing: write {SCHEMA}")),
    }
    for key in ["model", "device", "runtime", "attention"] {
        text(root, key, key, problems);
    }
    let basis = root.get("basis").and_then(Value::as_str);
    match basis {
        Some(b) if BASES.contains(&b) => {}
        Some(b) => {
            let near = did_you_mean(b, BASES.iter().copied());
            problems.add("basis", format!("unknown basis {}{}", shown(b), suggest(near)));
        }
        None => problems.add("basis", format!("is missing: one of {}", BASES.join(", "))),
    }
    if let Some(provenance) = object(root, "provenance", problems) {
        keys(provenance, PROVENANCE, "provenance", problems);
        for key in ["source", "date", "licence"] {
            text(provenance, key, &format!("provenance.{key}"), problems);
        }
    }
    let unknown = basis == Some("unknown");
    let mut watts = None;
    if let Some(tokens) = object(root, "tokens", problems) {
        keys(tokens, TOKENS, "tokens", problems);
        for key in TOKENS {
            positive(tokens, key, "tokens", problems);
        }
        watts = tokens.get("watts").and_then(Value::as_f64);
        no_joules(tokens, &["joules_per_input_token", "joules_per_output_token", "watts"], "tokens", unknown, problems);
    }
    if let Some(overall) = object(root, "overall", problems) {
        row(overall, "overall", watts, unknown, problems);
    }
    if let Some(domains) = object(root, "domains", problems) {
        domain_rows(domains, unknown, problems);
        sums(root, domains, problems);
    }
}

fn domain_rows(domains: &Map<String, Value>, unknown: bool, problems: &mut Problems) {
    for (name, value) in domains {
        let at = format!("domains.\"{name}\"");
        if name.parse::<Domain>().map_or(true, |d| d.name() != name) {
            problems.add(&*at, format!("unknown domain{}", suggest(nearest_domain(name))));
        }
        match value.as_object() {
            Some(r) => row(r, &at, None, unknown, problems),
            None => problems.add(at, "must be an object"),
        }
    }
}

fn nearest_domain(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    did_you_mean(name, NAMES)
        .or_else(|| NAMES.into_iter().find(|n| lower.len() >= 4 && n.to_lowercase().starts_with(&lower)))
}

/// With every domain counted, the rows cannot hold more than the whole.
fn sums(root: &Map<String, Value>, domains: &Map<String, Value>, problems: &mut Problems) {
    let exact = root.get("provenance").and_then(|p| p.get("counts")).and_then(Value::as_str) != Some("nominal");
    let overall = root.get("overall").and_then(Value::as_object);
    for key in ["n", "correct"] {
        let Some(total) = overall.and_then(|o| o.get(key)).and_then(Value::as_u64) else { continue };
        let parts: u64 = domains.values().filter_map(|r| r.get(key)?.as_u64()).fold(0, u64::saturating_add);
        if exact && parts > total {
            problems.add(format!("overall.{key}"), format!("is {total}, but the domains add up to {parts}"));
        }
    }
}

fn row(row: &Map<String, Value>, at: &str, watts: Option<f64>, unknown: bool, problems: &mut Problems) {
    keys(row, ROW, at, problems);
    for key in ["ipw", "ipj", "joules_per_query", "seconds_per_query", "output_tokens"] {
        positive(row, key, at, problems);
    }
    no_joules(row, &["ipw", "ipj", "joules_per_query"], at, unknown, problems);
    let n = count(row, "n", at, problems);
    let correct = count(row, "correct", at, problems);
    let share = |key: &str, problems: &mut Problems| share(row, key, at, problems);
    let (coverage, low, high) =
        (share("coverage", problems), share("coverage_low", problems), share("coverage_high", problems));
    if let (Some(n), Some(correct)) = (n, correct) {
        counted(n, correct, coverage, (low, high), at, problems);
    }
    let Some(coverage) = coverage else { return };
    gain(row, coverage, at, problems);
    let number = |key: &str| row.get(key).and_then(Value::as_f64);
    if let (Some(ipj), Some(joules)) = (number("ipj"), number("joules_per_query")) {
        ratio(ipj, coverage / joules, "coverage / joules_per_query", &format!("{at}.ipj"), problems);
    }
    let implied = number("joules_per_query").zip(number("seconds_per_query")).map(|(j, s)| j / s);
    if let (Some(ipw), Some(watts)) = (number("ipw"), watts.or(implied)) {
        ratio(ipw, coverage / watts, "coverage / watts", &format!("{at}.ipw"), problems);
    }
}

fn counted(
    n: u64,
    correct: u64,
    coverage: Option<f64>,
    ends: (Option<f64>, Option<f64>),
    at: &str,
    problems: &mut Problems,
) {
    if n == 0 {
        problems.add(format!("{at}.n"), "must be above 0: leave the row out where nothing was scored");
        return;
    }
    if correct > n {
        problems.add(format!("{at}.correct"), format!("is {correct}, more than n = {n}"));
        return;
    }
    let (Ok(small_n), Ok(small_correct)) = (u32::try_from(n), u32::try_from(correct)) else {
        problems.add(format!("{at}.n"), "is too large");
        return;
    };
    let want = f64::from(small_correct) / f64::from(small_n);
    if let Some(c) = coverage.filter(|c| (c - want).abs() > COVERAGE_TOLERANCE) {
        problems.add(format!("{at}.coverage"), format!("is {c}, but correct / n = {want:.4}"));
    }
    let (low, high) = wilson(small_correct, small_n);
    for (key, got, want) in [("coverage_low", ends.0, low), ("coverage_high", ends.1, high)] {
        if let Some(got) = got.filter(|g| (g - want).abs() > WILSON_TOLERANCE) {
            problems.add(format!("{at}.{key}"), format!("is {got}, but the Wilson interval at 95 % ends at {want:.4}"));
        }
    }
}

fn gain(row: &Map<String, Value>, coverage: f64, at: &str, problems: &mut Problems) {
    let baseline = optional_share(row, "baseline_coverage", at, problems);
    let gain = row.get("gain").and_then(Value::as_f64);
    match (baseline, gain) {
        (Some(b), Some(g)) if (b - coverage - g).abs() > 2.0 * COVERAGE_TOLERANCE => problems
            .add(format!("{at}.gain"), format!("is {g}, but baseline_coverage - coverage = {:.4}", b - coverage)),
        (None, Some(_)) => problems.add(format!("{at}.gain"), "has no baseline_coverage beside it"),
        _ => {}
    }
}

fn ratio(got: f64, want: f64, formula: &str, key: &str, problems: &mut Problems) {
    if want > 0.0 && (got / want - 1.0).abs() > RATIO_TOLERANCE {
        problems.add(key, format!("is {got:.4e}, but {formula} = {want:.4e}"));
    }
}

fn no_joules(map: &Map<String, Value>, names: &[&str], at: &str, unknown: bool, problems: &mut Problems) {
    for key in names.iter().filter(|k| unknown && map.get(**k).is_some_and(|v| !v.is_null())) {
        problems.add(format!("{at}.{key}"), "must be null: the table's basis is `unknown`");
    }
}

/// A number above 0, or null.
fn positive(map: &Map<String, Value>, key: &str, at: &str, problems: &mut Problems) {
    match map.get(key) {
        None | Some(Value::Null) => {}
        Some(v) => match v.as_f64() {
            Some(0.0) => problems.add(format!("{at}.{key}"), "is 0: an unknown figure is null, never 0"),
            Some(x) if x.is_finite() && x > 0.0 => {}
            _ => problems.add(format!("{at}.{key}"), "must be a number above 0, or null"),
        },
    }
}

fn count(map: &Map<String, Value>, key: &str, at: &str, problems: &mut Problems) -> Option<u64> {
    let found = map.get(key).and_then(Value::as_u64);
    if found.is_none() {
        problems.add(format!("{at}.{key}"), "must be a whole number, 0 or more");
    }
    found
}

fn share(map: &Map<String, Value>, key: &str, at: &str, problems: &mut Problems) -> Option<f64> {
    let found = map.get(key).and_then(Value::as_f64).filter(|x| (0.0..=1.0).contains(x));
    if found.is_none() {
        problems.add(format!("{at}.{key}"), "must be a share from 0 to 1");
    }
    found
}

fn optional_share(map: &Map<String, Value>, key: &str, at: &str, problems: &mut Problems) -> Option<f64> {
    if map.get(key).is_none_or(Value::is_null) { None } else { share(map, key, at, problems) }
}

fn text(map: &Map<String, Value>, key: &str, at: &str, problems: &mut Problems) {
    if map.get(key).and_then(Value::as_str).is_none_or(|t| t.trim().is_empty()) {
        problems.add(at, "is missing or empty");
    }
}

fn object<'a>(root: &'a Map<String, Value>, key: &str, problems: &mut Problems) -> Option<&'a Map<String, Value>> {
    let found = root.get(key).and_then(Value::as_object);
    if found.is_none() {
        problems.add(key, "is missing or no object");
    }
    found
}

fn keys(map: &Map<String, Value>, known: &[&str], at: &str, problems: &mut Problems) {
    for key in map.keys().filter(|k| !known.contains(&k.as_str())) {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        problems.add(path, format!("unknown key{}", suggest(did_you_mean(key, known.iter().copied()))));
    }
}

fn suggest(near: Option<&str>) -> String {
    near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A good table; watts and figures as in the paper's row of Qwen3-4B at FP4 on an RTX 6000 Ada.
    fn good() -> Value {
        let (low, high) = wilson(445, 1000);
        let row = json!({"n": 1000, "correct": 445, "coverage": 0.445, "coverage_low": low, "coverage_high": high,
            "ipw": 2.02e-3, "ipj": 80.9e-5, "joules_per_query": 550.0, "seconds_per_query": 2.5});
        json!({"schema": 1, "model": "m", "device": "d", "runtime": "r", "attention": "softmax", "basis": "published",
            "provenance": {"source": "s", "date": "2026-05-21", "command": null, "suites": [], "licence": "CC BY 4.0"},
            "tokens": {"watts": 220.0}, "overall": row.clone(), "domains": {"Legal services": row}})
    }

    fn problems(table: &Value) -> String {
        Problems(check_text(&table.to_string(), "t.json")).to_string()
    }

    #[test]
    fn a_good_table_has_no_problem() {
        assert_eq!(problems(&good()), "");
    }

    #[test]
    fn the_papers_phone_rows_are_refused() {
        // Accuracy, W, s, IPW, IPJ of table 17: accuracy / W is three times the printed IPW.
        let phone = [
            (425, 12.0, 92.5, 11.8e-3, 38.3e-5),
            (405, 11.0, 55.2, 12.4e-3, 66.7e-5),
            (380, 9.5, 36.8, 13.3e-3, 108.7e-5),
            (320, 8.8, 33.5, 11.6e-3, 108.5e-5),
            (285, 8.5, 29.2, 11.2e-3, 114.7e-5),
        ];
        for (correct, watts, seconds, ipw, ipj) in phone {
            let mut table = good();
            let (low, high) = wilson(correct, 1000);
            let coverage = f64::from(correct) / 1000.0;
            table["tokens"]["watts"] = json!(watts);
            table["overall"] = json!({"n": 1000, "correct": correct, "coverage": coverage, "coverage_low": low,
                "coverage_high": high, "ipw": ipw, "ipj": ipj, "joules_per_query": watts * seconds, "seconds_per_query": seconds});
            let text = problems(&table);
            assert!(text.starts_with("t.json: overall.ipw: is ") && text.contains("coverage / watts"), "{text}");
            assert!(!text.contains("overall.ipj"), "{text}");
        }
    }

    #[test]
    fn every_kind_of_mistake_is_found_with_its_row_and_key() {
        let legal = r#"domains."Legal services""#;
        let cases: Vec<(&str, Value, String)> = vec![
            ("/schema", json!(2), "t.json: schema: is 2; this program reads version 1".into()),
            ("/overall/n", json!(0), "t.json: overall.n: must be above 0".into()),
            ("/overall/n", json!(-3), "t.json: overall.n: must be a whole number".into()),
            ("/overall/correct", json!(1001), "t.json: overall.correct: is 1001, more than n = 1000".into()),
            ("/overall/coverage", json!(0.5), "t.json: overall.coverage: is 0.5, but correct / n = 0.4450".into()),
            ("/overall/coverage", json!(44.5), "t.json: overall.coverage: must be a share".into()),
            ("/overall/coverage_low", json!(0.1), "t.json: overall.coverage_low: is 0.1, but the Wilson".into()),
            ("/overall/ipj", json!(0.0), "t.json: overall.ipj: is 0: an unknown figure is null".into()),
            ("/overall/ipj", json!(-1.0), "t.json: overall.ipj: must be a number above 0, or null".into()),
            ("/overall/ipj", json!(3e-4), "t.json: overall.ipj: is 3.0000e-4, but coverage / joules".into()),
            ("/tokens/watts", json!("many"), "t.json: tokens.watts: must be a number above 0, or null".into()),
            ("/basis", json!("counted"), "t.json: basis: unknown basis `counted`; did you mean `counter`?".into()),
            ("/basis", json!("unknown"), "t.json: tokens.watts: must be null: the table's basis is `unknown`".into()),
            ("/provenance/source", json!(" "), "t.json: provenance.source: is missing or empty".into()),
            ("/domains/Legal services/correct", json!(2000), format!("t.json: {legal}.correct: is 2000, more than")),
        ];
        for (pointer, value, want) in cases {
            let mut table = good();
            *table.pointer_mut(pointer).unwrap() = value;
            let text = problems(&table);
            assert!(text.contains(&want), "{pointer}\nwant {want}\ngot  {text}");
        }
    }

    #[test]
    fn unknown_names_get_suggestions() {
        let mut table = good();
        let row = table["overall"].clone();
        table["domains"] = json!({"Legal service": row.clone(), "Computer": row});
        table["overall"]["covrage"] = json!(1);
        table["overall"]["gain"] = json!(0.1);
        let text = problems(&table);
        for want in [
            r#"t.json: domains."Legal service": unknown domain; did you mean `Legal services`?"#,
            r#"t.json: domains."Computer": unknown domain; did you mean `Computer and mathematical`?"#,
            "t.json: overall.covrage: unknown key; did you mean `coverage`?",
            "t.json: overall.gain: has no baseline_coverage beside it",
        ] {
            assert!(text.contains(want), "{want}\nnot in\n{text}");
        }
    }

    #[test]
    fn text_that_is_no_json_names_the_line() {
        assert_eq!(
            check_text("{\n \"schema\": 1,\n oops", "t.json")[0].to_string(),
            "t.json:3: is not JSON: a syntax error"
        );
        assert_eq!(check_text("{", "t.json")[0].to_string(), "t.json:1: is not JSON: the file ends too early");
        assert!(check_text("[]", "t.json")[0].to_string().contains("one JSON object"));
    }
}
