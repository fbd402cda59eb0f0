//! An interrupt: what was read so far is the result, and says so.

use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use wattroute::config::checked::Energy;
use wattroute::replay::cost::Stated;
use wattroute::replay::run::{Ask, Predictor, Request, Watch, run};

use super::kept::long;
use super::{command, text};

fn interrupt(child: &Child) {
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Stopped in the middle: a result of the part that was read, marked as such wherever it is shown; a checkpoint to go on from.
#[test]
fn an_interrupt_gives_the_partial_result_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = long(folder.path(), 400_000);
    let here = |name: &str| folder.path().join(name);
    let (state, html, out) = (here("state"), here("page.html"), here("result.json"));
    let args = ["replay", "--outcomes", &log, "--weak", "small", "--strong", "big", "--checkpoint", &text(&state)];
    let more = ["--checkpoint-every", "1", "--html", &text(&html), "--out", &text(&out)];
    let child = command(&[&args[..], &more[..]].concat()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    while !state.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    interrupt(&child);
    let done = child.wait_with_output().unwrap();
    let (said, shown) = (String::from_utf8_lossy(&done.stderr), String::from_utf8_lossy(&done.stdout));
    assert!(done.status.success(), "{said}");
    assert!(said.contains("stopping: the result will be of what was read so far"), "{said}");
    assert!(said.contains("the rest: the same command with --resume") && state.exists(), "{said}");
    let told: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    let read = told["log"]["replayed"].as_u64().unwrap();
    assert!(told["complete"] == json!(false) && read > 0 && read < 400_000, "{}", told["log"]);
    assert!(told["warnings"].to_string().contains("PARTIAL: stopped after "), "{}", told["warnings"]);
    assert!(shown.contains("PARTIAL: stopped after "), "{shown}");
    assert!(std::fs::read_to_string(&html).unwrap().contains("PARTIAL: stopped after "));
}

/// An interrupt ends the first pass too, which has no result to give: at once, not at its end, which here is another error.
#[test]
fn an_interrupt_in_the_first_pass_does_not_wait_for_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let log = long(folder.path(), 1);
    std::fs::write(&log, "no row\n").unwrap();
    let request = Request {
        file: log.into(),
        ask: Ask::Outcomes,
        weak: "small".to_owned(),
        strong: "big".to_owned(),
        predictor: Predictor::default(),
        policies: Vec::new(),
        diff: None,
        stated: Stated::assumed(Energy::ASSUMED),
        seed: 1,
        strict: false,
        limit: None,
        since_s: None,
        rate: None,
        seats: 1,
        checkpoint: None,
    };
    let watch = Watch::default();
    assert!(run(&request, &watch).unwrap_err().contains("no line of it is a row"));
    watch.stop.store(true, Ordering::Relaxed);
    assert!(run(&request, &watch).unwrap_err().contains("stopped before the first query"));
}
