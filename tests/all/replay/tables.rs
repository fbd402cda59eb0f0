//! Published outcome tables, and tables made here that nobody has seen.

use serde_json::{Value, json};
use wattroute::tables::routing::Router;

use super::{f, made, policy, replayed, routing, two};

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
