//! Cascades over logs whose rows tell how sure the weak model was of its answers.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Trusts an answer whose mean log-probability is above -0.7.
const CHECKED: &str = "name = \"checked\"\nabout = \"Checks local answers.\"\n[rule]\nkind = \"objective\"\nminimise = \"energy\"\n\
    max_quality_loss = 0.6\n[verify]\nclose = 1.0\nescalate_below = 0.5\n[verify.model]\nbias = 7.0\nprior = 0.0\nmean_logprob = 10.0\n\
    min_logprob = 0.0\nunknown_logprob = 0.0\nlength = 0.0\nprompt = 0.0\n";

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wattroute")).current_dir(folder).args(args).output().unwrap()
}

fn replayed(folder: &Path, table: &str) -> Value {
    let out = run(
        folder,
        &[
            "replay",
            "--outcomes",
            table,
            "--weak",
            "small",
            "--strong",
            "big",
            "--policy",
            "checked.toml",
            "--policy",
            "all-local",
            "--json",
        ],
    );
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Three of five weak answers are right, and are surer than the others; the strong ones are all right.
fn table(folder: &Path, name: &str, evidence: bool) {
    let models = json!({ "models": [{ "id": "Small-1B", "params_b": 1.0 }, { "id": "big", "params_b": 70 }] });
    std::fs::write(folder.join(format!("{name}.models.json")), models.to_string()).unwrap();
    let rows: Vec<String> = (0..1000)
        .map(|i| {
            let right = i % 5 < 3;
            let mut row = json!({ "id": i, "ok": [i32::from(right), 1], "in_tokens": 50, "out_tokens": [100, 100],
                "latency_ms": [1000, 2000], "arrival_ms": 10_000 * i });
            if evidence {
                let mean = if right { -0.1 } else { -1.5 };
                row["mean_logprob"] = json!([mean, null]);
                row["min_logprob"] = json!([2.0 * mean, null]);
            }
            row.to_string() + "\n"
        })
        .collect();
    std::fs::write(folder.join(format!("{name}.jsonl")), rows.concat()).unwrap();
}

fn policy<'a>(outcome: &'a Value, name: &str) -> &'a Value {
    outcome["policies"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()
}

fn f(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn answers_that_are_not_trusted_are_asked_again_and_paid_twice() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("checked.toml"), CHECKED).unwrap();
    table(folder.path(), "sure", true);
    let outcome = replayed(folder.path(), "sure.jsonl");
    let (checked, local) = (policy(&outcome, "checked"), policy(&outcome, "all-local"));
    assert_eq!((f(&checked["accuracy"]), f(&local["accuracy"])), (1.0, 0.6));
    assert_eq!((f(&checked["local_share"]), &checked["wasted"]["attempts"]), (0.6, &json!(400)));
    // All local answers are paid, and the cloud's for four in ten.
    let (all_local, all_cloud) =
        (f(&local["joules"]["mid"]), f(&local["joules"]["mid"]) + f(&local["saved_joules"]["mid"]));
    let want = all_local + 0.4 * all_cloud;
    assert!((f(&checked["joules"]["mid"]) / want - 1.0).abs() < 1e-9, "{} {want}", checked["joules"]);
    assert!((f(&checked["wasted"]["attempt_joules"]) / (0.4 * all_local) - 1.0).abs() < 1e-9, "{}", checked["wasted"]);
    assert_eq!(checked["confusion"]["true_cloud"], 400);
    // A second for a local answer, three where the cloud is asked after it.
    assert!((f(&checked["load"]["total"]["mean"]) - 1.8).abs() < 0.05, "{}", checked["load"]["total"]);
    assert!(!outcome["warnings"].to_string().contains("log-probabilities"), "{}", outcome["warnings"]);

    table(folder.path(), "bare", false);
    let outcome = replayed(folder.path(), "bare.jsonl");
    assert_eq!(policy(&outcome, "checked")["wasted"]["attempts"], 0);
    assert!(outcome["warnings"].to_string().contains("mean_logprob"), "{}", outcome["warnings"]);
}

#[test]
fn the_cut_of_a_check_is_tuned_where_the_log_has_its_evidence_and_refused_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "{}[tune]\n\"verify.escalate_below\" = [0.0, 1.0]\n",
        CHECKED.replace("escalate_below = 0.5", "escalate_below = 1.0")
    );
    std::fs::write(folder.path().join("checked.toml"), text).unwrap();
    table(folder.path(), "sure", true);
    table(folder.path(), "bare", false);
    let tune = |table: &str| {
        run(
            folder.path(),
            &[
                "tune",
                "checked.toml",
                "--outcomes",
                table,
                "--weak",
                "small",
                "--strong",
                "big",
                "--accuracy",
                "0.98",
                "--json",
            ],
        )
    };
    let out = tune("sure.jsonl");
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(found["keys"], json!(["verify.escalate_below"]));
    let held = &found["found"]["held_out"];
    assert_eq!((f(&held["old"]["local_share"]), f(&held["new"]["accuracy"])), (0.0, 1.0), "{held}");
    assert!((f(&held["new"]["local_share"]) - 0.6).abs() < 0.06 && f(&found["found"]["saved"]["low"]) > 0.3, "{found}");
    let out = tune("bare.jsonl");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("verify.escalate_below") && said.contains("mean_logprob"), "{said}");
}

#[test]
fn records_of_two_models_become_a_table_that_replays_a_cascade() {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("eval/verify");
    let records =
        ["0.5b", "1.5b"].map(|size| root.join(format!("qwen2.5-coder-{size}.records.jsonl")).display().to_string());
    let make =
        |out: &str| run(folder.path(), &["tables", "outcomes", "--records", &records[0], &records[1], "--out", out]);
    let out = make("mine.jsonl");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("300 questions, 300 answered by all of"), "{out:?}");
    let policy_file = CHECKED.replace("mean_logprob = 10.0", "mean_logprob = 12.0");
    std::fs::write(folder.path().join("checked.toml"), policy_file).unwrap();
    let out = run(
        folder.path(),
        &[
            "replay",
            "--outcomes",
            "mine.jsonl",
            "--weak",
            "Coder-0.5B",
            "--strong",
            "Coder-1.5B",
            "--policy",
            "checked.toml",
            "--json",
            "--local-joules-per-token",
            "0.1",
            "--cloud-params",
            "1.5",
        ],
    );
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let outcome: Value = serde_json::from_slice(&out.stdout).unwrap();
    let checked = policy(&outcome, "checked");
    assert_eq!(checked["n"], 300);
    for (key, file) in [("accuracy_weak", &records[0]), ("accuracy_strong", &records[1])] {
        let (told, want) = (f(&checked[key]), right(file) / 300.0);
        assert!((told - want).abs() < 1e-9, "{key}: {told} {want}");
    }
    assert!((10..290).contains(&checked["wasted"]["attempts"].as_u64().unwrap()), "{}", checked["wasted"]);
    assert!(!make("mine.txt").status.success());
    let twice = run(folder.path(), &["tables", "outcomes", "--records", &records[0], &records[0], "--out", "x.jsonl"]);
    assert!(String::from_utf8_lossy(&twice.stderr).contains("is in another file already"), "{twice:?}");
}

/// Answers of a record file that were graded right.
fn right(file: &str) -> f64 {
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let right = lines.filter(|line| line["line"] == "answer" && line["correct"] == true);
    f64::from(u32::try_from(right.count()).unwrap())
}
