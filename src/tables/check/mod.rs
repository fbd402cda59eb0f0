//! Every problem of a table file, each with its row and key.
//!
//! Works on the JSON value rather than on [`Table`](super::Table): serde stops at the first mistake, people want all.

mod rows;
mod values;

use serde_json::{Map, Value};

use self::values::{At, object, suggest};
use super::SCHEMA;
use crate::classify::domain::{Domain, NAMES};
use crate::config::problem::{Problem, Problems, did_you_mean, shown};

const TABLE: &[&str] = &[
    "schema",
    "model",
    "device",
    "runtime",
    "attention",
    "basis",
    "provenance",
    "setup",
    "tokens",
    "overall",
    "domains",
    "concurrency",
];
const PROVENANCE: &[&str] = &["source", "date", "command", "suites", "licence", "counts", "notes"];
const SETUP: &[&str] =
    &["driver", "power_cap_w", "runtime_version", "suite_hashes", "questions", "idle_w", "repeats", "baseline"];
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
    let at = At { map: root, path: "" };
    at.keys(TABLE, problems);
    match root.get("schema").and_then(Value::as_u64) {
        Some(v) if v == u64::from(SCHEMA) => {}
        Some(v) => return problems.add("schema", format!("is {v}; this program reads version {SCHEMA}")),
        None => problems.add("schema", format!("is missing: write {SCHEMA}")),
    }
    for key in ["model", "device", "runtime", "attention"] {
        at.text(key, problems);
    }
    let unknown = basis(root, problems) == Some("unknown");
    origin(root, problems);
    let mut watts = None;
    if let Some(tokens) = object(root, "tokens", problems) {
        rows::tokens(At { map: tokens, path: "tokens" }, unknown, problems);
        watts = tokens.get("watts").and_then(Value::as_f64);
    }
    if let Some(overall) = object(root, "overall", problems) {
        rows::row(At { map: overall, path: "overall" }, watts, unknown, problems);
    }
    if let Some(domains) = object(root, "domains", problems) {
        domain_rows(domains, unknown, problems);
        sums(root, domains, problems);
    }
    levels(root, unknown, problems);
}

fn basis<'a>(root: &'a Map<String, Value>, problems: &mut Problems) -> Option<&'a str> {
    let basis = root.get("basis").and_then(Value::as_str);
    match basis {
        Some(b) if BASES.contains(&b) => {}
        Some(b) => {
            let near = did_you_mean(b, BASES.iter().copied());
            problems.add("basis", format!("unknown basis {}{}", shown(b), suggest(near)));
        }
        None => problems.add("basis", format!("is missing: one of {}", BASES.join(", "))),
    }
    basis
}

/// Provenance and set-up.
fn origin(root: &Map<String, Value>, problems: &mut Problems) {
    if let Some(provenance) = object(root, "provenance", problems) {
        let at = At { map: provenance, path: "provenance" };
        at.keys(PROVENANCE, problems);
        for key in ["source", "date", "licence"] {
            at.text(key, problems);
        }
        let date = provenance.get("date").and_then(Value::as_str).filter(|date| !date.trim().is_empty());
        if date.is_some_and(|date| date.len() != 10 || date.parse::<jiff::civil::Date>().is_err()) {
            problems.add("provenance.date", "must be a date, YYYY-MM-DD");
        }
    }
    let Some(setup) = root.get("setup") else { return };
    let Some(setup) = setup.as_object() else { return problems.add("setup", "must be an object") };
    let at = At { map: setup, path: "setup" };
    at.keys(SETUP, problems);
    for key in ["driver", "runtime_version", "questions", "baseline"] {
        at.optional_text(key, problems);
    }
    for key in ["power_cap_w", "idle_w", "repeats"] {
        at.positive(key, problems);
    }
    at.texts("suite_hashes", problems);
}

fn levels(root: &Map<String, Value>, unknown: bool, problems: &mut Problems) {
    let Some(levels) = root.get("concurrency") else { return };
    let Some(levels) = levels.as_object() else { return problems.add("concurrency", "must be an object") };
    for (name, value) in levels {
        let path = format!("concurrency.\"{name}\"");
        match value.as_object() {
            Some(map) => rows::level(At { map, path: &path }, name, unknown, problems),
            None => problems.add(path, "must be an object"),
        }
    }
}

fn domain_rows(domains: &Map<String, Value>, unknown: bool, problems: &mut Problems) {
    for (name, value) in domains {
        let at = format!("domains.\"{name}\"");
        if name.parse::<Domain>().map_or(true, |d| d.name() != name) {
            problems.add(&*at, format!("unknown domain{}", suggest(nearest_domain(name))));
        }
        match value.as_object() {
            Some(map) => rows::row(At { map, path: &at }, None, unknown, problems),
            None => problems.add(at, "must be an object"),
        }
    }
}

fn nearest_domain(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    did_you_mean(name, NAMES)
        .or_else(|| NAMES.into_iter().find(|n| lower.len() >= 4 && n.to_lowercase().starts_with(&lower)))
}

/// With every domain counted, the rows cannot hold more than the whole; where unscored questions are counted too, a profiler made
/// the table, and every scored question is in a domain.
fn sums(root: &Map<String, Value>, domains: &Map<String, Value>, problems: &mut Problems) {
    let exact = root.get("provenance").and_then(|p| p.get("counts")).and_then(Value::as_str) != Some("nominal");
    let overall = root.get("overall").and_then(Value::as_object);
    for key in ["n", "correct", "unscored", "failed"] {
        let Some(total) = overall.and_then(|o| o.get(key)).and_then(Value::as_u64) else { continue };
        let parts: u64 = domains.values().filter_map(|r| r.get(key)?.as_u64()).fold(0, u64::saturating_add);
        let whole =
            ["n", "correct"].contains(&key) && overall.is_some_and(|o| o.get("unscored").is_some_and(Value::is_u64));
        if exact && (parts > total || (whole && parts < total)) {
            problems.add(format!("overall.{key}"), format!("is {total}, but the domains add up to {parts}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::stats::wilson;
    use super::super::{Level, Provenance, Quantiles, Row, Setup, Table, TokenCosts};
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

    /// The names serde knows, from what it says of a name that it does not.
    fn known<T: serde::de::DeserializeOwned>() -> Vec<String> {
        let said = serde_json::from_value::<T>(json!({"no such key": 1})).map(drop).unwrap_err().to_string();
        let names = said.split_once("expected").unwrap().1;
        names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_key_of_the_schema_is_checked() {
        assert_eq!(known::<Table>(), TABLE);
        assert_eq!(known::<Provenance>(), PROVENANCE);
        assert_eq!(known::<Setup>(), SETUP);
        assert_eq!(known::<TokenCosts>(), rows::TOKENS);
        assert_eq!(known::<Row>(), rows::ROW);
        assert_eq!(known::<Quantiles>(), rows::QUANTILES);
        assert_eq!(known::<Level>(), rows::LEVEL);
    }

    #[test]
    fn what_the_newer_keys_say_must_fit_together() {
        let cases = [
            (
                "/overall/ipj_interval",
                json!([9e-4, 10e-4]),
                "overall.ipj_interval: goes from 0.0009 to 0.001, but ipj is 0.000809",
            ),
            ("/overall/joules_interval", json!([1]), "overall.joules_interval: must be two numbers"),
            ("/overall/gain_interval", json!([0.1, 0.2]), "overall.gain_interval: has no gain beside it"),
            (
                "/overall/joules_per_correct",
                json!(550.0),
                "overall.joules_per_correct: is 5.5000e2, but joules_per_query / coverage",
            ),
            (
                "/overall/net_joules_per_query",
                json!(551.0),
                "overall.net_joules_per_query: is more than joules_per_query",
            ),
            ("/overall/gap_p50_s", json!(0), "overall.gap_p50_s: is 0: an unknown figure is null"),
            ("/overall/shrunk", json!(1.5), "overall.shrunk: must be a share"),
            ("/overall/failed", json!(-1), "overall.failed: must be a whole number"),
            ("/overall/watts", json!(22.0), "overall.ipw: is 2.0200e-3, but coverage / watts"),
            (
                "/overall/output_quantiles",
                json!({"p5": 9.0, "p25": 2.0, "p50": 3.0, "p75": 4.0, "p95": 5.0}),
                "overall.output_quantiles.p25: is 2, less than p5 = 9",
            ),
            ("/tokens/method", json!("guess"), "tokens.method: must be regression or phases"),
            ("/tokens/r2", json!(1.1), "tokens.r2: must be at most 1"),
            (
                "/overall/seconds_per_query",
                json!(500.0),
                "overall.joules_per_query: is 5.5000e2, but watts x seconds_per_query = 1.1",
            ),
            ("/overall/metered", json!(1001), "overall.metered: is more than n = 1000"),
            ("/overall/metered", json!(1000), ""),
            ("/overall/unscored", json!(3), ""),
            ("/provenance/date", json!("yesterday"), "provenance.date: must be a date, YYYY-MM-DD"),
            ("/provenance/date", json!("2026-02-30"), "provenance.date: must be a date"),
            ("/setup", json!({"idle": 3}), "setup.idle: unknown key; did you mean `idle_w`?"),
            ("/setup", json!({"suite_hashes": [1]}), "setup.suite_hashes: must be a list of texts"),
            ("/concurrency", json!({"0": {"n": 1}}), r#"concurrency."0": must be a whole number of queries at a time"#),
            (
                "/concurrency",
                json!({"4": {"n": 1, "joules_per_query": 0}}),
                r#"concurrency."4".joules_per_query: is 0"#,
            ),
        ];
        for (pointer, value, want) in cases {
            let mut table = good();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            table.pointer_mut(parent).unwrap()[key] = value;
            let text = problems(&table);
            assert!(text.contains(want) && text.is_empty() == want.is_empty(), "{pointer}\nwant {want}\ngot  {text}");
        }
    }

    #[test]
    fn a_domain_that_was_taken_away_is_missed_where_all_were_counted() {
        let mut table = good();
        (table["overall"]["unscored"], table["overall"]["failed"]) = (json!(0), json!(0));
        assert_eq!(problems(&table), "");
        table["domains"] = json!({});
        let text = problems(&table);
        assert!(text.contains("overall.n: is 1000, but the domains add up to 0"), "{text}");
    }
}
