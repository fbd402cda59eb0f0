//! What is wrong with a log is named with file and line, and nothing is half-written.

use serde_json::{Value, json};

use super::{made, refused_replay, replayed, routing, two};

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
        refused_replay(&args)
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
    let e = refused_replay(&["--outcomes", &name, "--weak", "smal-1b", "--strong", "big"]);
    assert!(e.contains("did you mean `small-1b`?") && e.contains("models in it: big, own/Small-1B"), "{e}");
    assert!(refused_replay(&["--outcomes", &name, "--weak", "big", "--strong", "big"]).contains("same model"));
    let e = refused_replay(&[
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
