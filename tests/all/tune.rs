//! `wattroute tune` as a person runs it: from a log to a policy file, or to a plain refusal.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// A log of two domains. In the first the weak model is nearly as good, in the second it is far worse.
fn log(folder: &Path, rows: u32) {
    let mut text = String::new();
    for i in 0..rows {
        let easy = i % 2 == 0;
        let weak = if easy { i % 20 != 0 } else { i % 5 == 0 };
        let strong = i % 19 != 0;
        let row = json!({"id": format!("q{i}"), "domain": if easy { "computer science" } else { "law" },
            "prompt": format!("question {} of {}", ["a", "b", "c"][i as usize % 3].repeat(i as usize % 97 + 1), i),
            "ok": [u8::from(weak), u8::from(strong)], "out_chars": [600, 700], "latency_ms": [null, 2000]});
        let _ = writeln!(text, "{row}");
    }
    std::fs::write(folder.join("log.jsonl"), text).unwrap();
    let models = json!({"models": [{"id": "small", "params_b": 3}, {"id": "large", "params_b": 200}]});
    std::fs::write(folder.join("log.models.json"), models.to_string()).unwrap();
}

fn tune(folder: &Path, more: &[&str]) -> Output {
    let fixed = ["tune", "balanced", "--outcomes", "log.jsonl", "--weak", "small", "--strong", "large"];
    Command::new(env!("CARGO_BIN_EXE_wattroute")).current_dir(folder).args(fixed).args(more).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_log_becomes_a_policy_that_says_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 3000);
    let out = tune(folder.path(), &["--accuracy", "0.93", "--out", "mine.toml", "--json"]);
    assert!(out.status.success(), "{}", said(&out));
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    let (old, new) = (&told["found"]["held_out"]["old"], &told["found"]["held_out"]["new"]);
    assert_eq!(told["found"]["verdict"], "better");
    assert!(told["found"]["saved"]["low"].as_f64().unwrap() > 0.0, "{told:#}");
    assert!(new["local_share"].as_f64() > old["local_share"].as_f64(), "the easy half can stay: {told:#}");
    let kept = new["accuracy"].as_f64().unwrap() / new["accuracy_strong"].as_f64().unwrap();
    assert!(kept > 0.90, "{told:#}");
    let text = std::fs::read_to_string(folder.path().join("mine.toml")).unwrap();
    assert!(
        text.starts_with("# Tuned from balanced (") && text.contains("wattroute tune balanced --outcomes log.jsonl"),
        "{text}"
    );
    let policy = wattroute::policy::parse(&text, "mine.toml").unwrap();
    assert_eq!(&*policy.name, "mine");
    assert!(text.contains("# Fewest joules") || text.contains("# What `auto` means"), "comments stay");

    let again = tune(folder.path(), &["--accuracy", "0.93", "--out", "mine.toml"]);
    assert!(!again.status.success() && said(&again).contains("is there already"), "{}", said(&again));
    assert_eq!(std::fs::read_to_string(folder.path().join("mine.toml")).unwrap(), text);
}

#[test]
fn a_gain_within_noise_and_a_limit_nobody_can_keep_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 600);
    let out = tune(folder.path(), &["--accuracy", "1.2", "--out", "mine.toml"]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("refused: "), "{}", said(&out));
    assert!(!folder.path().join("mine.toml").exists());
}

#[test]
fn what_is_wrong_with_the_command_is_said_before_anything_is_searched() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 50);
    for (more, want) in [
        (vec!["--accuracy", "95"], "--accuracy: must be a share"),
        (vec!["--held-out", "1"], "--held-out: must be from"),
        (vec!["--split", "time"], "split it with `--split stem`"),
        (vec!["--out", "My Policy.toml"], "cannot be a policy's name"),
    ] {
        let out = tune(folder.path(), &more);
        assert!(!out.status.success() && said(&out).contains(want), "{more:?}: {}", said(&out));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattroute"));
    let unknown = ["tune", "balanced", "--outcomes", "log.jsonl", "--weak", "smal", "--strong", "large"];
    let out = command.current_dir(folder.path()).args(unknown).output().unwrap();
    assert!(!out.status.success() && said(&out).contains("small"), "{}", said(&out));
}

/// A policy that takes the most likely to be right sends everything away; the order of its backends is one of the keys that may change that.
#[test]
fn the_order_of_backends_is_searched_beside_a_number() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 2000);
    let own = "name = \"mine\" # kept\nabout = \"Most likely to be right.\"\n\n[rule]\nkind = \"objective\"\nminimise = \"errors\"\n\
        max_quality_loss = 0.05\n\n[tune]\n\"rule.max_quality_loss\" = [0.0, 0.6]\norder = [\"local\", \"cloud\"]\n";
    std::fs::write(folder.path().join("mine.toml"), own).unwrap();
    let sides = ["tune", "mine.toml", "--outcomes", "log.jsonl", "--weak", "small", "--strong", "large", "--json"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattroute"));
    let out = command
        .current_dir(folder.path())
        .args(sides)
        .args(["--accuracy", "0.9", "--out", "found.toml"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", said(&out));
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(told["keys"], json!(["rule.max_quality_loss", "order"]));
    let order = told["found"]["changes"].as_array().unwrap().iter().find(|c| c["key"] == "order").unwrap();
    assert_eq!((&order["old"], &order["new"]), (&Value::Null, &json!(["local", "cloud"])));
    assert!(told["found"]["held_out"]["new"]["local_share"].as_f64() > Some(0.3), "{told:#}");
    let text = std::fs::read_to_string(folder.path().join("found.toml")).unwrap();
    assert!(text.contains("#   order: none -> local > cloud\n") && text.contains("name = \"found\" # kept"), "{text}");
    let policy = wattroute::policy::parse(&text, "found.toml").unwrap();
    assert_eq!(policy.order.iter().map(|name| &**name).collect::<Vec<_>>(), ["local", "cloud"]);
}

/// A local device that all the easy half would overload: with a limit on latency less is kept, and the limit holds with waits counted.
#[test]
fn a_device_that_would_be_overloaded_is_seen_by_the_search() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), 3000);
    // An answer of 150 tokens takes 7.5 s; at 0.2 a second the easy half asks for three quarters of the device, at 0.4 for one and a half.
    let found = |more: &[&str]| {
        let common = ["--accuracy", "0.93", "--local-tokens-per-s", "20", "--json"];
        let out = tune(folder.path(), &[&common, more].concat());
        let told: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&out)));
        told["found"].clone()
    };
    let (free, eased, crowded) = (found(&[]), found(&["--rate", "0.2"]), found(&["--rate", "0.4"]));
    let p95 = |found: &Value| found["held_out"]["new"]["p95_seconds"].as_f64();
    assert_eq!((&free["waits"], &eased["waits"], &crowded["waits"]), (&json!(false), &json!(true), &json!(true)));
    assert!(p95(&eased) > Some(10.0) && p95(&crowded) > Some(300.0), "{:?} {:?}", p95(&eased), p95(&crowded));
    let limited = found(&["--rate", "0.4", "--p95", "60"]);
    let share = |found: &Value| found["training"]["new"]["local_share"].as_f64().unwrap();
    assert!(share(&limited) < 0.8 * share(&crowded), "{limited:#}");
    let two = found(&["--rate", "0.4", "--seats", "2", "--p95", "60"]);
    assert!(share(&two) > share(&limited) && p95(&two) < Some(60.0), "{two:#}");
}
