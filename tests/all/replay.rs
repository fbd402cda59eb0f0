//! Replay over the published outcome tables, and over tables made here that nobody has seen.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use wattroute::tables::routing::Router;

fn routing(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("eval/data/routing").join(format!("{name}.jsonl.gz"))
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wattroute")).arg("replay").args(args).output().unwrap()
}

fn replayed(table: &Path, weak: &str, strong: &str, more: &[&str]) -> Value {
    let table = table.display().to_string();
    let mut args = vec!["--outcomes", &table, "--weak", weak, "--strong", strong, "--json"];
    args.extend(more);
    let out = run(&args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn refused(args: &[&str]) -> String {
    let out = run(args);
    assert!(!out.status.success() && out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stdout));
    String::from_utf8(out.stderr).unwrap()
}

fn policy<'a>(outcome: &'a Value, name: &str) -> &'a Value {
    outcome["policies"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()
}

fn f(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

/// A table of this test: rows as given, models as given.
fn made(folder: &Path, name: &str, models: &Value, rows: &[Value]) -> PathBuf {
    std::fs::write(folder.join(format!("{name}.models.json")), models.to_string()).unwrap();
    let path = folder.join(format!("{name}.jsonl.gz"));
    let mut gz = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::fast());
    for row in rows {
        writeln!(gz, "{row}").unwrap();
    }
    gz.finish().unwrap();
    path
}

fn two() -> Value {
    json!({ "dataset": "made here", "models": [{ "id": "big", "params_b": 70 }, { "id": "own/Small-1B", "params_b": 1.0 }] })
}

/// The pairs that the collectors of the tables counted themselves: weak, strong, either.
#[test]
fn accuracies_of_published_pairs_are_those_counted_by_others() {
    let pairs = [
        ("mmlu_pro", "Phi-3-mini-4k-instruct", "gemini-1.5-pro-002", 12020, [0.4149, 0.7025, 0.7478]),
        ("mmlu_pro", "meta-llama/Meta-Llama-3.1-8B-Instruct", "gemini-1.5-pro", 12020, [0.4420, 0.7025, 0.7656]),
        ("mmlu_pro", "meta-llama-3.1-8b-instruct", "META-LLAMA-3.1-70B-INSTRUCT", 12032, [0.4419, 0.6282, 0.6959]),
        ("routellm_gsm8k", "mixtral", "gpt-4", 1319, [0.6384, 0.8567, 0.9287]),
        ("zeroeval_gsm", "gemma-2-2b-it", "gpt-4o-2024-08-06", 1319, [0.5163, 0.9621, 0.9674]),
        ("zeroeval_gsm", "Phi-3.5-mini-instruct", "claude-3-5-sonnet-20241022", 1319, [0.8203, 0.9666, 0.9742]),
        ("zeroeval_crux", "Qwen2.5-3B-Instruct", "gpt-4o-2024-08-06", 800, [0.3312, 0.87, 0.88]),
        ("zeroeval_crux", "Meta-Llama-3.1-8B-Instruct", "o1-mini-2024-09-12", 800, [0.3987, 0.9375, 0.9475]),
    ];
    for (table, weak, strong, n, [w, s, o]) in pairs {
        let outcome = replayed(&routing(table), weak, strong, &["--policy", "balanced"]);
        let p = policy(&outcome, "balanced");
        assert_eq!(p["n"], n, "{table}");
        for (key, want) in [("accuracy_weak", w), ("accuracy_strong", s), ("accuracy_oracle", o)] {
            assert!((f(&p[key]) - want).abs() < 1e-4, "{table} {weak} {strong} {key}: {}", p[key]);
        }
    }
}

/// What others measured of the order by domain on this pair: .569; of the oracle's: 1.033. A coin gives .5.
#[test]
fn order_by_domain_gain_is_worth_what_others_measured() {
    let outcome = replayed(&routing("mmlu_pro"), "Meta-Llama-3.1-8B-Instruct", "gemini-1.5-pro", &["--rate", "0.5"]);
    assert!((f(&outcome["worth"]["apgr"]) - 0.569).abs() < 0.006, "{}", outcome["worth"]);
    assert!((f(&policy(&outcome, "oracle")["apgr"]) - 1.033).abs() < 0.004);
    assert!((f(&policy(&outcome, "random")["apgr"]) - 0.5).abs() < 1e-9);
    let rule = policy(&outcome, "domain-rule");
    let [low, high] = [0, 1].map(|i| f(&rule["ci"]["accuracy_minus_random"][i]));
    assert!(low > 0.01 && high < 0.05, "{low} {high}");
    // Everything adds up: confusion, domains, references, joules.
    for p in outcome["policies"].as_array().unwrap() {
        let c = p["confusion"].as_object().unwrap();
        let counted: f64 = c.values().map(f).sum();
        assert!((counted - f(&p["n"])).abs() <= 3.0, "{}: {counted}", p["name"]);
        let domains: f64 = p["by_domain"].as_array().unwrap().iter().map(|d| f(&d["n"])).sum();
        assert!((domains - f(&p["n"])).abs() <= 14.0);
        assert!(f(&p["accuracy"]) <= f(&p["accuracy_oracle"]) + 1e-12);
        assert!(f(&p["joules"]["low"]) <= f(&p["joules"]["mid"]) && f(&p["joules"]["mid"]) <= f(&p["joules"]["high"]));
        assert!(f(&p["saved_joules"]["low"]) <= f(&p["saved_joules"]["mid"]));
    }
    let (all, none) = (policy(&outcome, "all-cloud"), policy(&outcome, "all-local"));
    assert!((f(&all["saved_joules"]["mid"])).abs() < 1e-6 && f(&all["local_share"]) == 0.0);
    let saved = f(&all["joules"]["mid"]) - f(&none["joules"]["mid"]);
    assert!((saved - f(&none["saved_joules"]["mid"])).abs() < 1e-3 * saved.abs());
    // Unknown price: null, not 0.
    assert!(all["usd"].is_null() && all["usd_strong"].is_null());
    assert_eq!(all["load"]["overloaded"], false);
    let busy = replayed(
        &routing("mmlu_pro"),
        "Meta-Llama-3.1-8B-Instruct",
        "gemini-1.5-pro",
        &["--rate", "5", "--policy", "all-local"],
    );
    assert_eq!(policy(&busy, "all-local")["load"]["overloaded"], true);
}

/// The paper's arithmetic: an oracle that keeps 80.7 % at 0.4, 4.2 and 8.6 % of a cloud answer; then 80 and 60 % of it.
#[test]
fn the_papers_routers_come_out_and_honest_ones_beside_them() {
    let ratios = [0.0037, 0.0421, 0.0855];
    let rows = [(1.0, [80.4, 77.3, 73.8], 0.1), (0.8, [64.3, 61.8, 59.0], 0.1), (0.6, [48.2, 46.4, 44.3], 0.35)];
    for (kept, saved, within) in rows {
        for (ratio, want) in ratios.into_iter().zip(saved) {
            let got = 100.0 * Router::paper(0.807, ratio, kept).outcome().saved;
            assert!((got - want).abs() <= within, "{kept} {ratio}: {got} {want}");
        }
    }
    let honest = |ratio| Router { tried_first: 1.0, ..Router::paper(0.807, ratio, 0.8) }.outcome();
    assert!((100.0 * honest(0.0421).saved - 61.2).abs() < 0.1 && (100.0 * honest(0.0855).saved - 57.7).abs() < 0.1);
    let loose = Router { false_local: 0.1, ..Router::paper(0.807, 0.0421, 0.8) }.outcome();
    assert!((loose.quality_loss - 0.0193).abs() < 1e-9);
}

/// A replay whose labels are the paper's router: the same share saved, out of the whole machine instead of a formula.
#[test]
fn an_oracle_over_the_papers_shares_saves_what_the_paper_says() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<Value> = (0..1000)
        .map(|i| {
            json!({ "id": i.to_string(), "prompt": format!("{}", wattroute::replay::case::mixed(i)), "domain": "d",
            "ok": [1, i32::from(i < 807)], "out_tokens": [100, 100], "in_tokens": 0 })
        })
        .collect();
    let table = made(folder.path(), "paper", &two(), &rows);
    // 10 J per token in the cloud is about 16 accelerators; the local share of it is what is stated.
    let outcome = replayed(&table, "small", "big", &["--policy", "balanced", "--local-joules-per-token", "0.001"]);
    let (oracle, cloud) = (policy(&outcome, "oracle"), f(&outcome["policies"][0]["joules"]["mid"]));
    assert!((f(&oracle["local_share"]) - 0.807).abs() < 1e-12);
    let ratio = 0.001 * 1000.0 * 100.0 / (f(&oracle["saved_joules"]["mid"]) / 0.807 + 0.001 * 100.0 * 1000.0);
    let want = Router::paper(0.807, ratio, 1.0).outcome().saved;
    assert!((f(&oracle["saved_share"]) - want).abs() < 1e-6, "{} {want} {cloud}", oracle["saved_share"]);
}

#[test]
fn tables_never_seen_before_work_with_whatever_they_lack() {
    let folder = tempfile::tempdir().unwrap();
    // No domain, no prompt, no lengths, some nulls, grades without a scale.
    let bare: Vec<Value> = (0..100)
        .map(|i| json!({ "id": i, "score": [if i % 10 == 0 { Value::Null } else { json!(4) }, json!(i % 5)] }))
        .collect();
    let table = made(folder.path(), "bare", &two(), &bare);
    let outcome = replayed(&table, "small", "big", &[]);
    assert_eq!((&outcome["log"]["replayed"], &outcome["log"]["unlabelled"]), (&json!(90), &json!(10)));
    assert_eq!(outcome["log"]["labels"], "grades");
    let p = policy(&outcome, "all-cloud");
    assert!((f(&p["accuracy"]) - 1.0).abs() < 1e-12 && p["joules"]["mid"].is_null() && p["usd"].is_null());
    assert!(outcome["assumptions"].as_array().unwrap().iter().any(|a| a.as_str().unwrap().contains("divided by 4")));
    // A stated scale, plain text, dollars and latencies of the log.
    let models = json!({ "score_max": 8, "models": [{ "id": "a" }, { "id": "b" }, { "id": "c" }] });
    std::fs::write(folder.path().join("plain.models.json"), models.to_string()).unwrap();
    let rows: Vec<String> = (0..50)
        .map(|i| {
            json!({ "id": format!("q{i}"), "domain": if i % 2 == 0 { "x" } else { "y" }, "score": [4, 6, 8], "cost_usd": [0.1, 0.2, 0.3],
                "latency_ms": [1000, 2000, 3000], "arrival_ms": 10_000 + 2000 * i })
            .to_string()
        })
        .collect();
    std::fs::write(folder.path().join("plain.jsonl"), rows.join("\n")).unwrap();
    let outcome =
        replayed(&folder.path().join("plain.jsonl"), "a", "c", &["--policy", "all-local", "--policy", "all-cloud"]);
    let (local, cloud) = (policy(&outcome, "all-local"), policy(&outcome, "all-cloud"));
    assert!((f(&local["accuracy"]) - 0.5).abs() < 1e-12 && (f(&cloud["usd"]) - 15.0).abs() < 1e-9);
    assert!((f(&local["usd"]) - 5.0).abs() < 1e-9 && (f(&local["usd_strong"]) - 15.0).abs() < 1e-9);
    assert!((f(&local["load"]["utilisation"]) - 50.0 / 98.0).abs() < 1e-9 && f(&local["load"]["wait"]["p95"]) < 1e-3);
    assert_eq!(local["by_domain"].as_array().unwrap().len(), 2);
}

#[test]
fn the_same_seed_gives_the_same_result_and_a_difference_is_paired() {
    let table = routing("mmlu_pro");
    let ask = || {
        let mut out = replayed(&table, "Phi-3-mini", "gemini-1.5-pro", &["--diff", "fast", "quality", "--rate", "1"]);
        out["log"]["seconds"] = Value::Null;
        out
    };
    let (a, b) = (ask(), ask());
    assert_eq!(a, b);
    let d = &a["diff"];
    let n: f64 = [&d["both_local"], &d["both_cloud"], &d["a_local"]["n"], &d["b_local"]["n"]].into_iter().map(f).sum();
    assert!((n - 12020.0).abs() < 1e-9, "{d}");
    let change = f(&policy(&a, "fast")["accuracy"]) - f(&policy(&a, "quality")["accuracy"]);
    assert!((f(&d["accuracy"]) - change).abs() < 1e-12);
    assert!(f(&d["accuracy_ci"][0]) <= change && change <= f(&d["accuracy_ci"][1]));
}

#[test]
fn bad_input_is_named_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name).display().to_string();
    let row = |i: usize| json!({ "id": format!("q{i}"), "prompt": format!("p{}", wattroute::replay::case::mixed(i as u64)), "ok": [1, 0] });
    let rows: Vec<Value> = (0..2000).map(row).collect();
    let table = made(folder.path(), "t", &two(), &rows);
    let pair = |file: &str, more: &[&str]| {
        let mut args = vec!["--outcomes", file, "--weak", "small", "--strong", "big"];
        args.extend(more);
        refused(&args)
    };
    // Cut off in the middle.
    let whole = std::fs::read(&table).unwrap();
    std::fs::write(here("cut.jsonl.gz"), &whole[..whole.len() / 2]).unwrap();
    std::fs::copy(here("t.models.json"), here("cut.models.json")).unwrap();
    let e = pair(&here("cut.jsonl.gz"), &["--out", &here("result.json")]);
    assert!(e.contains("cut.jsonl.gz:") && e.contains("gzip data ends early"), "{e}");
    assert!(!folder.path().join("result.json").exists());
    // Models that are not there, or not told apart.
    let name = table.display().to_string();
    let e = refused(&["--outcomes", &name, "--weak", "smal-1b", "--strong", "big"]);
    assert!(e.contains("did you mean `small-1b`?") && e.contains("models in it: big, own/Small-1B"), "{e}");
    assert!(refused(&["--outcomes", &name, "--weak", "big", "--strong", "big"]).contains("same model"));
    let e = refused(&[
        "--outcomes",
        &routing("zeroeval_gsm").display().to_string(),
        "--weak",
        "llama",
        "--strong",
        "gpt-4o-mini",
    ]);
    assert!(e.contains("`llama` is ambiguous: "), "{e}");
    // No models file, no rows, no such file, no such policy.
    std::fs::write(here("alone.jsonl"), row(1).to_string()).unwrap();
    assert!(pair(&here("alone.jsonl"), &[]).contains("alone.models.json: "));
    std::fs::write(here("empty.jsonl"), "\n").unwrap();
    std::fs::copy(here("t.models.json"), here("empty.models.json")).unwrap();
    assert!(pair(&here("empty.jsonl"), &[]).contains("empty.jsonl: holds no queries"));
    assert!(pair(&here("none.jsonl"), &[]).contains("none.models.json"));
    assert!(pair(&name, &["--policy", "balansed"]).contains("did you mean `balanced`?"));
    // Mixed lines: counted and shown, and an error when strict.
    let mixed = [
        row(1).to_string(),
        "{\"id\":\"x\"".into(),
        row(2).to_string(),
        row(1).to_string(),
        "a,b,c".into(),
        json!({ "id": "y", "ok": [1] }).to_string(),
        json!({ "id": "z", "ok": [1, 7] }).to_string(),
        json!({ "ok": [1, 1] }).to_string(),
    ];
    std::fs::write(here("mixed.jsonl"), mixed.join("\n")).unwrap();
    std::fs::copy(here("t.models.json"), here("mixed.models.json")).unwrap();
    let outcome = replayed(&folder.path().join("mixed.jsonl"), "small", "big", &[]);
    let log = &outcome["log"];
    assert_eq!(
        (&log["replayed"], &log["bad"], &log["duplicates"], &log["lines"]),
        (&json!(2), &json!(6), &json!(1), &json!(8))
    );
    let lines: Vec<u64> = log["first_bad"].as_array().unwrap().iter().map(|b| b["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 4, 5, 6, 7, 8]);
    assert!(pair(&here("mixed.jsonl"), &["--strict"]).contains("mixed.jsonl:2: is not a row of an outcome table"));
    // Two kinds of labels.
    std::fs::write(here("kinds.jsonl"), format!("{}\n{}\n", row(1), json!({ "id": "s", "score": [1, 2] }))).unwrap();
    std::fs::copy(here("t.models.json"), here("kinds.models.json")).unwrap();
    assert!(pair(&here("kinds.jsonl"), &[]).contains("one kind of label"));
    // A clock that goes backwards.
    let late =
        |i: usize, ms: i64| json!({ "id": i, "ok": [1, 0], "arrival_ms": ms, "latency_ms": [10, 10] }).to_string();
    std::fs::write(here("clock.jsonl"), [late(1, 5000), late(2, 9000), late(3, 7000)].join("\n")).unwrap();
    std::fs::copy(here("t.models.json"), here("clock.models.json")).unwrap();
    assert_eq!(replayed(&folder.path().join("clock.jsonl"), "small", "big", &[])["log"]["clock_backwards"], 1);
    assert!(
        pair(&here("clock.jsonl"), &["--strict"]).contains("clock.jsonl:3: it arrived 2.000 s before an earlier line")
    );
}

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
    let e = refused(&["--log", &here("wild.jsonl"), "--weak", "lama-3.1-8b-instruct", "--strong", "gpt-4o"]);
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
    let why = refused(&["--log", "x.jsonl", "--weak", "a", "--strong", "b", "--predictor", "query"]);
    assert!(why.contains("--predictor"), "{why}");
}

/// A live policy that keeps law local and sends the rest, and draws the other side for a fifth.
fn drawn(folder: &Path, explore: f64) -> PathBuf {
    let mut random = fastrand::Rng::with_seed(4);
    let rows: Vec<Value> = (0..4000)
        .map(|i| {
            let law = random.bool();
            let other = random.f64() < explore;
            let local = law != other;
            // Truth: local is liked at .8 in law and at .3 elsewhere, the cloud at .6 everywhere.
            let liked = random.f64() < match (local, law) { (true, true) => 0.8, (true, false) => 0.3, _ => 0.6 };
            json!({ "id": i, "domain": if law { "law" } else { "math" }, "ok": [1, 1], "action": if local { "local" } else { "cloud" },
                    "propensity": if other { explore } else { 1.0 - explore }, "reward": f64::from(u8::from(liked)) })
        })
        .collect();
    made(folder, "drawn", &two(), &rows)
}

#[test]
fn logged_choices_tell_what_policies_that_were_never_live_would_have_earned() {
    let folder = tempfile::tempdir().unwrap();
    let table = drawn(folder.path(), 0.2);
    let page = folder.path().join("page.html");
    let html = page.display().to_string();
    let outcome =
        replayed(&table, "small", "big", &["--policy", "all-local", "--policy", "all-cloud", "--html", &html]);
    for (name, truth) in [("all-local", 0.55), ("all-cloud", 0.6)] {
        let off = &policy(&outcome, name)["off_policy"];
        assert_eq!(f(&off["support"]), 1.0);
        for kind in ["ips", "snips", "dr"] {
            let (value, error) = (f(&off[kind]["value"]), f(&off[kind]["standard_error"]));
            assert!((value - truth).abs() < 3.5 * error && error < 0.03, "{name} {kind} {value} {error}");
            assert!(f(&off[kind]["low"]) < value && value < f(&off[kind]["high"]));
        }
        assert!(f(&off["dr"]["standard_error"]) < f(&off["ips"]["standard_error"]), "{off}");
        assert!((100.0..3000.0).contains(&f(&off["effective_n"])), "{off}");
    }
    assert_eq!(outcome["live"]["scored"], 4000);
    assert!(
        (f(&outcome["live"]["reward"]["value"]) - 0.5 * (0.8 * 0.8 + 0.2 * 0.6) - 0.5 * (0.8 * 0.6 + 0.2 * 0.3)).abs()
            < 0.03
    );
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("own choices and rewards") && page.contains("doubly robust"));
}

#[test]
fn a_live_policy_that_never_draws_is_told_to_support_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let table = drawn(folder.path(), 0.0).display().to_string();
    let outcome = replayed(Path::new(&table), "small", "big", &["--policy", "all-local"]);
    let off = &policy(&outcome, "all-local")["off_policy"];
    assert!(off["ips"].is_null() && off["snips"].is_null() && off["dr"].is_null(), "{off}");
    assert!(
        (f(&off["support"]) - 0.5).abs() < 0.05 && off["why_not"].as_str().unwrap().contains("no support"),
        "{off}"
    );
    let text = run(&["--outcomes", &table, "--weak", "small", "--strong", "big", "--policy", "all-local"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("not estimable: no support") && text.contains("4000 scored choices"), "{text}");
    let plain =
        replayed(&routing("zeroeval_crux"), "Qwen2.5-3B-Instruct", "gpt-4o-2024-08-06", &["--policy", "all-local"]);
    assert!(plain["live"].is_null() && policy(&plain, "all-local")["off_policy"].is_null());
}
