//! What a long replay leaves on the disk while it runs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::{outcome_of, refused, stripped, text};

/// A log long enough to be stopped in the middle.
pub fn long(folder: &Path, rows: u64) -> String {
    let path = folder.join("long.jsonl");
    let row = |i: u64| {
        let h = wattroute::replay::case::mixed(i);
        format!(
            "{{\"id\":\"{i}\",\"prompt\":\"{h}\",\"domain\":\"d{}\",\"ok\":[{},{}],\"out_tokens\":[{},{}],\"arrival_ms\":{}}}\n",
            h % 7,
            (h >> 8) % 5 / 2,
            (h >> 16) % 7 / 3 % 2,
            50 + h % 100,
            40 + h % 90,
            i * 37
        )
        .replace("[2,", "[1,")
    };
    std::fs::write(&path, (0..rows).map(row).collect::<String>()).unwrap();
    let models = json!({ "models": [{ "id": "big", "params_b": 70 }, { "id": "small", "params_b": 1.0 }] }).to_string();
    std::fs::write(folder.join("long.models.json"), models).unwrap();
    text(&path)
}

/// Killed in the middle, gone on: every bit as if nothing had happened. Another seed, policy or log is refused.
#[test]
fn a_replay_that_was_killed_goes_on_and_gives_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let log = long(folder.path(), 150_000);
    let state = folder.path().join("state");
    let plain = ["--outcomes", &log, "--weak", "small", "--strong", "big", "--seats", "3", "--diff", "fast", "quality"];
    let kept = text(&state);
    let keeping = [&plain[..], &["--checkpoint", &kept, "--checkpoint-every", "1"]].concat();
    let want = stripped(outcome_of(&plain));
    let mut child = Command::new(env!("CARGO_BIN_EXE_wattroute"))
        .args([&["replay"], &keeping[..]].concat())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while !state.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success() && state.exists(), "killed in the middle");
    let e = refused(&[&["replay"], &keeping[..]].concat());
    assert!(e.contains("is there already: go on from it with --resume"), "{e}");
    let with = |more: &[&str]| refused(&[&["replay"], &keeping[..], &["--resume"], more].concat());
    assert!(with(&["--seed", "7"]).contains("is of another replay: --seed was 1 and is 7"));
    assert!(with(&["--policy", "green"]).contains("is of another replay: policies was fast ("));
    assert!(with(&["--strict"]).contains("--strict was false and is true"));
    let saved = std::fs::read(&state).unwrap();
    std::fs::write(&state, &saved[..saved.len() - 1]).unwrap();
    assert!(with(&[]).contains("is no checkpoint of a replay, or is damaged"));
    std::fs::write(&state, &saved).unwrap();
    let own = std::fs::read(&log).unwrap();
    std::fs::write(&log, [&own[..], b"\n"].concat()).unwrap();
    assert!(with(&[]).contains("the log was "), "{}", with(&[]));
    std::fs::write(&log, &own).unwrap();
    let got = stripped(outcome_of(&[&keeping[..], &["--resume"]].concat()));
    assert_eq!(got, want);
    assert!(!state.exists(), "a replay that has ended leaves nothing behind");
}
