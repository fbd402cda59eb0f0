//! Logs without labels, and predictors.

use serde_json::{Value, json};

use super::{f, made, policy, refused_replay, replayed, routing, run, two};

/// A log without labels: expectations of shipped tables, marked as predicted; text moves decisions, a trace has none.
#[test]
fn logs_without_labels_are_replayed_against_tables_and_marked() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name).display().to_string();
    let run_log = |file: &str, more: &[&str]| {
        let mut args =
            vec!["--log", file, "--weak", "llama-3.1-8b-instruct", "--strong", "gemini-1.5-pro-002", "--json"];
        args.extend(more);
        run(&args)
    };
    let trace: String = (0..500).map(|i| format!("{},{},{}\n", 700 * i, 300 + i, 80)).collect();
    std::fs::write(here("trace.csv"), format!("arrival_ms,in_tokens,out_tokens\n{trace}bad\n")).unwrap();
    let out = run_log(&here("trace.csv"), &[]);
    let outcome: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&out.stderr)));
    assert_eq!(
        (&outcome["log"]["labels"], &outcome["log"]["replayed"], &outcome["log"]["bad"]),
        (&json!("predicted"), &json!(500), &json!(1))
    );
    assert_eq!((&outcome["predictor"], &outcome["log"]["format"]), (&json!("tables"), &json!("csv trace")));
    assert!(outcome["assumptions"][0].as_str().unwrap().starts_with("PREDICTED"));
    let local = policy(&outcome, "all-local");
    assert!(f(&local["load"]["utilisation"]) > 0.1 && f(&local["accuracy"]) < f(&local["accuracy_strong"]));
    let ask = |i: i32, text: &str| {
        json!({ "conversation_hash": format!("c{i}"), "timestamp": 1_700_000_000 + i,
        "conversation": [{ "role": "user", "content": text }, { "role": "assistant", "content": "x".repeat(400) }] })
        .to_string()
    };
    let texts = [
        "Is an oral contract for the sale of land enforceable under the statute of frauds?",
        "Write a Python function that sorts a list with quicksort.",
    ];
    let rows: Vec<String> = (0..40).map(|i| ask(i, texts[i as usize % 2])).collect();
    std::fs::write(here("wild.jsonl"), rows.join("\n")).unwrap();
    let out = run_log(&here("wild.jsonl"), &["--policy", "fast"]);
    let outcome: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&out.stderr)));
    let domains: Vec<&str> =
        outcome["policies"][0]["by_domain"].as_array().unwrap().iter().map(|d| d["domain"].as_str().unwrap()).collect();
    assert_eq!(domains, ["Computer and mathematical", "Legal services"]);
    // What cannot be read is named.
    std::fs::write(here("odd.jsonl"), "{\"foo\":1,\"bar\":2}\n").unwrap();
    let e = String::from_utf8(run_log(&here("odd.jsonl"), &[]).stderr).unwrap();
    assert!(e.contains("odd.jsonl:1: is JSON with the keys ") && e.contains("langfuse"), "{e}");
    let e = refused_replay(&["--log", &here("wild.jsonl"), "--weak", "lama-3.1-8b-instruct", "--strong", "gpt-4o"]);
    assert!(e.contains("did you mean `llama-3.1-8b-instruct`?"), "{e}");
}

/// On tables of one domain the order by domain is a coin's; words tell queries apart.
#[test]
fn a_predictor_per_query_orders_what_one_domain_cannot() {
    let table = routing("zeroeval_gsm");
    let pair = ["Meta-Llama-3.1-8B-Instruct", "gpt-4o-mini"];
    let domain = replayed(&table, pair[0], pair[1], &["--policy", "balanced"]);
    let query = replayed(&table, pair[0], pair[1], &["--policy", "balanced", "--predictor", "query"]);
    assert_eq!((domain["predictor"].as_str(), query["predictor"].as_str()), (Some("domain"), Some("query")));
    let apgr = |outcome: &Value| f(&outcome["worth"]["apgr"]);
    assert!((apgr(&domain) - 0.5).abs() < 0.03, "{}", apgr(&domain));
    assert!(apgr(&query) > apgr(&domain) + 0.04, "{} {}", apgr(&query), apgr(&domain));
    let told = query["assumptions"].to_string();
    assert!(
        told.contains("per query")
            && told.contains("1319 labelled queries")
            && told.contains("no query sees its own label"),
        "{told}"
    );
    // The same labels, the same references.
    assert_eq!(policy(&domain, "oracle")["accuracy"], policy(&query, "oracle")["accuracy"]);
    assert_eq!(policy(&domain, "domain-rule")["local_share"], policy(&query, "domain-rule")["local_share"]);
}

#[test]
fn a_log_without_prompts_says_that_the_predictor_knows_domains_alone() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<Value> = (0..200)
        .map(
            |i| json!({ "id": i, "domain": if i % 2 == 0 { "law" } else { "math" }, "ok": [1, i32::from(i % 2 == 0)] }),
        )
        .collect();
    let table = made(folder.path(), "t", &two(), &rows);
    let outcome = replayed(&table, "small", "big", &["--policy", "balanced", "--predictor", "query"]);
    assert!(outcome["assumptions"].to_string().contains("has no prompts"), "{}", outcome["assumptions"]);
    assert!(f(&outcome["worth"]["apgr"]) > 0.7, "{}", outcome["worth"]);
    let why = refused_replay(&["--log", "x.jsonl", "--weak", "a", "--strong", "b", "--predictor", "query"]);
    assert!(why.contains("--predictor"), "{why}");
}
