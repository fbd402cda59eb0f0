//! Logged choices of known odds.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{PAIR, f, made, outcome_of, policy, replayed, routing, run, two};

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

/// Logs of other programs that say what was done: the same estimates as from a table, from JSON and from CSV.
#[test]
fn logs_of_other_programs_tell_choices_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(9);
    let (mut chats, mut trace) =
        (String::new(), "timestamp,in_tokens,out_tokens,action,propensity,reward\n".to_owned());
    for i in 0..3000 {
        let local = random.f64() < 0.3;
        let (action, odds) = if local { ("local", 0.3) } else { ("cloud", 0.7) };
        let liked = u8::from(random.f64() < if local { 0.4 } else { 0.8 });
        let said = json!({ "id": i, "timestamp": 1_700_000_000 + i, "messages": [{ "role": "user", "content": format!("Question {i}?") }],
            "metadata": { "action": action, "propensity": odds, "reward": liked } });
        chats += &format!("{said}\n");
        trace += &format!("{i},100,50,{action},{odds},{liked}\n");
    }
    let of = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let policies = ["--policy", "all-local", "--policy", "all-cloud"];
        outcome_of(&[&["--log", &file.display().to_string()], &PAIR[..], &policies[..]].concat())
    };
    for (name, text) in [("chats.jsonl", &chats), ("trace.csv", &trace)] {
        let outcome = of(name, text);
        assert_eq!((&outcome["log"]["replayed"], &outcome["live"]["scored"]), (&json!(3000), &json!(3000)), "{name}");
        for (policy_name, truth) in [("all-local", 0.4), ("all-cloud", 0.8)] {
            let off = &policy(&outcome, policy_name)["off_policy"];
            for kind in ["ips", "snips", "dr"] {
                let (value, error) = (f(&off[kind]["value"]), f(&off[kind]["standard_error"]));
                assert!((value - truth).abs() < 3.5 * error && error < 0.06, "{name} {policy_name} {kind} {off}");
            }
        }
    }
}
