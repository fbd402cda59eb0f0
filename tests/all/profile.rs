//! `wattroute profile` as a user runs it, against a scripted server on a machine with a known energy counter.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use wattroute::profile::record::{self, Counted, File, Record};

use crate::support::answers::{CHUNKED, DONE, TO_CLOSE, chunk, delta, finish, json_response, streams, usage};
use crate::support::counter::{Counter, WATTS};
use crate::support::eventually;
use crate::support::gateway::local;
use crate::support::upstream::{Step, Upstream};

/// A folder with a configuration and a suite of `questions` whose right answer is Paris.
fn folder(text: &str, questions: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("wattroute.toml"), text).unwrap();
    std::fs::write(folder.path().join("suite.jsonl"), suite(questions, "short")).unwrap();
    folder
}

fn suite(questions: usize, kind: &str) -> String {
    let row = |i| json!({ "id": format!("q{i}"), "domain": "Legal services", "kind": kind, "prompt": format!("Capital, {i}?"), "accepted": ["Paris"] });
    (0..questions).map(|i| format!("{}\n", row(i))).collect()
}

fn command(folder: &TempDir, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattroute"));
    command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let usual = ["--backend", "local/near", "--out", "t.json", "--settle", "300ms", "--sample", "10"];
    command.arg("profile").args(usual).args(more).kill_on_drop(true);
    command
}

async fn profile(folder: &TempDir, more: &[&str]) -> Output {
    let more = [&["--suite", "suite.jsonl"], more].concat();
    tokio::time::timeout(Duration::from_secs(60), command(folder, &more).output()).await.unwrap().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn records(folder: &TempDir) -> File {
    record::read(&folder.path().join("t.records.jsonl")).unwrap()
}

fn table(folder: &TempDir) -> Value {
    serde_json::from_slice(&std::fs::read(folder.path().join("t.json")).unwrap()).unwrap()
}

/// An answer of about a tenth of a second in five pieces, with the connection kept.
fn steady(more: &str) -> Vec<Step> {
    let events = ["Par", "is", ".", " ", "Yes"].map(delta).concat() + &finish("stop") + more + DONE;
    let body: Vec<u8> = [CHUNKED, &chunk(&events), "0\r\n\r\n"].concat().into_bytes();
    let piece = body.len() / 5;
    vec![Step::Request, Step::Drip(body, piece, Duration::from_millis(20)), Step::Again]
}

fn brief(text: &str) -> Vec<Step> {
    let events = delta(text) + &finish("stop") + &usage() + DONE;
    let body = [CHUNKED, &chunk(&events), "0\r\n\r\n"].concat().into_bytes();
    vec![Step::Request, Step::Send(body), Step::Again]
}

#[tokio::test]
async fn what_answers_are_charged_and_what_is_nobodys_add_up_to_the_counter() {
    let upstream = Upstream::always(steady(&usage())).await;
    let counter = Counter::start();
    let folder = folder(&(local("near", &upstream.base()) + &counter.config()), 8);
    let output = profile(&folder, &["--streams", "1,4", "--repeats", "2"]).await;
    assert!(output.status.success(), "{}", said(&output));
    let file = records(&folder);
    assert_eq!((file.answers.len(), file.windows.len(), file.replaced.len()), (2 * 8 * 2, 2, 0));
    for window in &file.windows {
        let balance = window.rails["rapl/package-0"];
        let of_level = file.answers.iter().filter(|r| r.streams == window.streams);
        let charged: f64 = of_level.filter_map(|r| r.joules.rails.get("rapl/package-0")).sum();
        let sum = charged + balance.unattributed + balance.withheld;
        assert!((sum - balance.delta).abs() < 1e-6 * (1.0 + balance.delta), "{sum} {balance:?}");
        let counted = WATTS * window.seconds;
        assert!((balance.delta - counted).abs() < 0.1 * counted + 3.0, "{balance:?}, counter {counted}");
        assert!(charged > 0.5 * balance.delta, "somebody ran most of the time: {charged} of {balance:?}");
    }
    let mean = |streams: u32| {
        let all: Vec<f64> =
            file.answers.iter().filter(|r| r.streams == streams).filter_map(|r| r.joules.gross).collect();
        assert!(all.len() >= 14 && all.iter().all(|j| *j > 0.0), "{all:?}");
        all.iter().sum::<f64>() / all.len() as f64
    };
    // Four at a time share the same watts.
    assert!(mean(4) < 0.5 * mean(1), "{} {}", mean(4), mean(1));
    let one: &Record = &file.answers[0];
    assert_eq!((one.correct, one.tokens_in, one.tokens_out), (Some(true), Some(11), Some(2)));
    assert_eq!(one.tokens_from, Some(Counted::Usage));
    assert!(one.ttft_s.unwrap() > 0.0 && one.ttft_s.unwrap() < one.seconds && one.gap_p99_s >= one.gap_p50_s);
    // The idle machine draws the same: nothing is left net of it.
    assert!(one.joules.net.unwrap() < 0.3 * one.joules.gross.unwrap(), "{:?}", one.joules);
    assert_eq!(table(&folder)["basis"], "counter");
    assert!(upstream.requests().len() >= 32 + 4, "warm-up is asked and not counted");
}

#[tokio::test]
async fn every_tokens_log_probability_is_kept_where_that_is_asked_for() {
    let piece = |text: &str, p: f64| {
        let choice = json!({ "index": 0, "delta": { "content": text }, "logprobs": { "content": [{ "token": text, "logprob": p }] } });
        format!("data: {}\n\n", json!({ "object": "chat.completion.chunk", "choices": [choice] }))
    };
    let events = piece("Par", -0.5) + &piece("is", -1.5) + &finish("stop") + &usage() + DONE;
    let body = [CHUNKED, &chunk(&events), "0\r\n\r\n"].concat().into_bytes();
    let upstream = Upstream::always(vec![Step::Request, Step::Send(body), Step::Again]).await;
    for (more, kept) in [(&["--keep-logprobs"][..], Some(vec![-0.5, -1.5])), (&[], None)] {
        let folder = folder(&local("near", &upstream.base()), 2);
        let output = profile(&folder, more).await;
        assert!(output.status.success(), "{}", said(&output));
        let file = records(&folder);
        let one = file.answers[0].logprobs.as_ref().unwrap();
        assert_eq!((one.mean, one.min, one.tokens, &one.values), (-1.0, -1.5, 2, &kept));
    }
}

#[tokio::test]
async fn without_usage_the_answers_tokens_are_a_lower_bound_and_the_prompts_are_unknown() {
    let upstream = Upstream::always(steady("")).await;
    let folder = folder(&local("near", &upstream.base()), 2);
    let output = profile(&folder, &[]).await;
    assert!(output.status.success(), "{}", said(&output));
    for record in records(&folder).answers {
        assert_eq!((record.tokens_in, record.tokens_out, record.tokens_from), (None, Some(5), Some(Counted::Deltas)));
    }
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_asked_for_answers_in_one_piece() {
    let message = json!({ "role": "assistant", "content": "Paris" });
    let whole = json!({ "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8 } });
    let answer = json_response(200, &[], &whole);
    let upstream = Upstream::always(vec![Step::Request, Step::Send(answer), Step::Again]).await;
    let folder = folder(&local("near", &upstream.base()), 2);
    let output = profile(&folder, &["--warm-up", "0"]).await;
    assert!(output.status.success(), "{}", said(&output));
    for record in records(&folder).answers {
        let told = (record.correct, record.tokens_in, record.tokens_out, record.ttft_s);
        assert_eq!(told, (Some(true), Some(7), Some(1), None));
    }
    let streams: Vec<bool> =
        upstream.requests().iter().map(|r| String::from_utf8_lossy(&r.body).contains("\"stream\":true")).collect();
    assert_eq!(streams, [true, false, false]);
}

#[tokio::test]
async fn a_server_that_dies_half_way_loses_nothing_and_the_next_run_goes_on() {
    let whole = streams(&(delta("Paris") + &finish("stop") + &usage() + DONE));
    let cut = vec![Step::Request, Step::Send(format!("{TO_CLOSE}{}", delta("Par")).into_bytes()), Step::Reset];
    // Two of warm-up and three answers; then each attempt is cut.
    let upstream = Upstream::by(move |n| if n < 5 { whole.clone() } else { cut.clone() }).await;
    let folder = folder(&local("near", &upstream.base()), 6);
    let output = profile(&folder, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("does not answer any more") && said(&output).contains("3 answers are in"),
        "{}",
        said(&output)
    );
    let file = records(&folder);
    let failed: Vec<&Record> = file.answers.iter().filter(|r| r.correct.is_none()).collect();
    // One question that fails may be its own fault; a second one in a row is the server's.
    assert_eq!((file.answers.len(), failed.len()), (5, 2));
    assert!(failed[0].unscored.as_deref() == Some("failed") && failed[0].error.is_some());
    assert!(file.replaced.iter().any(|r| r.error.as_ref().unwrap().contains("cut")), "attempts are kept");
    assert!(!folder.path().join("t.json").exists(), "half a run makes no table");
    let before = upstream.requests().len();
    // A crash tore the last line, too.
    let path = folder.path().join("t.records.jsonl");
    let text = std::fs::read_to_string(&path).unwrap() + "{\"line\":\"answer\",\"id\":\"q9";
    std::fs::write(&path, text).unwrap();
    upstream.now(brief("Paris"));
    let output = profile(&folder, &["--resume"]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(upstream.requests().len() - before, 2 + 3, "only what was not answered is asked again");
    let file = records(&folder);
    assert!(file.answers.len() == 6 && file.answers.iter().all(|r| r.correct == Some(true)));
    assert_eq!(table(&folder)["overall"]["n"], 6);
}

#[tokio::test]
async fn what_a_server_refuses_leaves_accuracy_and_energy_alike_and_is_counted() {
    let refusal = json!({ "error": { "message": "this one is too long", "type": "invalid_request_error" } });
    let refuse = json_response(400, &[], &refusal);
    let upstream = Upstream::always(vec![Step::Request, Step::Send(refuse), Step::Again]).await;
    let folder = folder(&local("near", &upstream.base()), 3);
    let output = profile(&folder, &["--warm-up", "0"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("nothing was scored (3 refused), so there is no table"), "{}", said(&output));
    let file = records(&folder);
    for record in &file.answers {
        assert_eq!((record.correct, record.unscored.as_deref()), (None, Some("refused")));
        assert!(record.error.as_ref().unwrap().contains("too long"));
    }
    assert!(file.answers.len() == 3 && !folder.path().join("t.json").exists());
    // The fields that a server may not know were left out one after another.
    let bodies: Vec<Value> = upstream.requests().iter().map(|r| serde_json::from_slice(&r.body).unwrap()).collect();
    assert!(bodies[0]["logprobs"] == true && bodies[1].get("logprobs").is_none() && bodies[1]["temperature"] == 0);
    assert!(bodies[2].get("temperature").is_none() && bodies[2]["max_completion_tokens"] == 32);
}

#[tokio::test]
async fn a_question_that_always_fails_is_left_and_the_others_are_answered() {
    let wrong =
        json_response(500, &[("connection", "close")], &json!({ "error": { "message": "this one breaks me" } }));
    // Warm-up is off, so that the first four requests are the four attempts of one question.
    let upstream = Upstream::by(move |n| match n {
        0..4 => vec![Step::Request, Step::Send(wrong.clone())],
        _ => brief("Paris"),
    })
    .await;
    let folder = folder(&local("near", &upstream.base()), 6);
    let output = profile(&folder, &["--warm-up", "0"]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("1 questions have no answer"), "{}", said(&output));
    assert_eq!((&table(&folder)["overall"]["n"], &table(&folder)["overall"]["failed"]), (&json!(5), &json!(1)));
    let output = profile(&folder, &["--warm-up", "0"]).await;
    assert!(output.status.success() && upstream.requests().len() == 4 + 5 + 1, "{}", said(&output));
    assert_eq!(table(&folder)["overall"]["n"], 6);
    // Everything is answered: the table is made again and nobody is asked.
    let output = profile(&folder, &["--warm-up", "0", "--baseline", "t.records.jsonl"]).await;
    assert!(output.status.success() && upstream.requests().len() == 10, "{}", said(&output));
    let told = table(&folder)["provenance"]["command"].as_str().unwrap().to_owned();
    assert!(told.contains("--settle 300ms --warm-up 0 --sample 10 --baseline t.records.jsonl --out t.json"), "{told}");
}

#[tokio::test]
async fn two_runs_on_one_record_file_are_one_too_many() {
    let upstream = Upstream::always(steady(&usage())).await;
    let folder = folder(&local("near", &upstream.base()), 12);
    let first = command(&folder, &["--suite", "suite.jsonl"]).spawn().unwrap();
    let path = folder.path().join("t.records.jsonl");
    eventually("the first run has the file", || path.exists()).await;
    let second = profile(&folder, &[]).await;
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains("t.records.jsonl is being written by another run"), "{}", said(&second));
    let output = tokio::time::timeout(Duration::from_secs(30), first.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success() && records(&folder).answers.len() == 12, "{}", said(&output));
}

#[tokio::test]
async fn what_is_said_twice_is_asked_once() {
    let upstream = Upstream::always(brief("Paris")).await;
    let folder = folder(&local("near", &upstream.base()), 3);
    std::fs::write(folder.path().join("copy.jsonl"), suite(3, "short")).unwrap();
    let twice = ["--suite", "suite.jsonl", "--suite", "copy.jsonl", "--streams", "1,1", "--warm-up", "0"];
    let output = profile(&folder, &[&twice[..], &["--domains", "legal"]].concat()).await;
    assert!(output.status.success() && upstream.requests().len() == 3, "{}", said(&output));
    let file = records(&folder);
    assert_eq!((file.answers.len(), file.replaced.len(), &file.runs[0].streams[..]), (3, 0, &[1][..]));
}

#[tokio::test]
async fn budgets_that_mean_nothing_are_refused() {
    let upstream = Upstream::always(brief("Paris")).await;
    let folder = folder(&local("near", &upstream.base()), 2);
    for budget in ["minutes=inf", "minutes=1e18", "minutes=-3", "joules=nan", "joules=0"] {
        let output = profile(&folder, &[&format!("--budget-{budget}")]).await;
        assert!(output.status.code() == Some(2) && said(&output).contains("must be above 0"), "{budget}: {output:?}");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_budget_of_minutes_ends_a_run() {
    let upstream = Upstream::always(steady(&usage())).await;
    let folder = folder(&local("near", &upstream.base()), 300);
    let output = profile(&folder, &["--budget-minutes", "0.01"]).await;
    assert!(output.status.success() && said(&output).contains("the budget of minutes is used up"), "{}", said(&output));
    assert!(records(&folder).answers.len() < 100);
}

#[tokio::test]
async fn a_record_file_of_another_suite_or_model_is_refused_and_kept() {
    let upstream = Upstream::always(brief("Paris")).await;
    let folder = folder(&local("near", &upstream.base()), 2);
    assert!(profile(&folder, &[]).await.status.success());
    let path = folder.path().join("t.records.jsonl");
    let before = std::fs::read(&path).unwrap();
    std::fs::write(folder.path().join("suite.jsonl"), suite(3, "short")).unwrap();
    let changed = profile(&folder, &[]).await;
    assert!(
        !changed.status.success() && said(&changed).contains("the suite suite.jsonl has changed"),
        "{}",
        said(&changed)
    );
    std::fs::write(folder.path().join("suite.jsonl"), suite(2, "short")).unwrap();
    let renamed = profile(&folder, &["--model-name", "another"]).await;
    assert!(said(&renamed).contains("its model is `near-model`, not `another`"), "{}", said(&renamed));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let fresh = profile(&folder, &["--model-name", "another", "--fresh"]).await;
    assert!(fresh.status.success(), "{}", said(&fresh));
    assert_eq!(std::fs::read(folder.path().join("t.records.1.jsonl")).unwrap(), before);
}

#[tokio::test]
async fn ctrl_c_leaves_whole_records_and_says_how_to_go_on() {
    let upstream = Upstream::always(steady(&usage())).await;
    let folder = folder(&local("near", &upstream.base()), 500);
    let child = command(&folder, &["--suite", "suite.jsonl"]).spawn().unwrap();
    let path = folder.path().join("t.records.jsonl");
    let answers = || record::read(&path).map(|f| f.answers.len()).unwrap_or(0);
    eventually("an answer on disk", || answers() >= 2).await;
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    let told = said(&output);
    assert!(told.contains("profile --backend local/near --suite suite.jsonl"), "{told}");
    let file = records(&folder);
    assert_eq!((file.windows.len(), std::fs::metadata(&path).unwrap().len()), (1, file.whole_bytes));
    assert!(told.contains(&format!("{} answers are in", file.answers.len())), "{told}");
}

#[tokio::test]
async fn budgets_end_a_run_with_a_table_of_what_there_is() {
    let upstream = Upstream::always(steady(&usage())).await;
    let counter = Counter::start();
    let folder = folder(&(local("near", &upstream.base()) + &counter.config()), 200);
    let output = profile(&folder, &["--budget-joules", "60"]).await;
    assert!(output.status.success() && said(&output).contains("the budget of joules is used up"), "{}", said(&output));
    let joules: f64 = records(&folder).answers.iter().filter_map(|r| r.joules.gross).sum();
    assert!((60.0..160.0).contains(&joules), "{joules}");
    let n = table(&folder)["overall"]["n"].as_u64().unwrap();
    assert!(n > 0 && n < 200, "{n}");
}

#[tokio::test]
async fn a_meter_that_goes_away_is_said_and_its_answers_are_asked_for_again() {
    let upstream = Upstream::always(steady(&usage())).await;
    let counter = Counter::start();
    let folder = folder(&(local("near", &upstream.base()) + &counter.config()), 60);
    let child = command(&folder, &["--suite", "suite.jsonl"]).spawn().unwrap();
    let path = folder.path().join("t.records.jsonl");
    let answers = || record::read(&path).map(|f| f.answers.len()).unwrap_or(0);
    eventually("some answers", || answers() >= 5).await;
    counter.away(true);
    eventually("answers without a meter", || answers() >= 25).await;
    counter.away(false);
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("rapl/package-0 cannot be read any more") && told.contains("every meter is read again"),
        "{told}"
    );
    // On a busy machine the last answers may also be too short for the meter; those are not asked for again.
    let unseen = |r: &record::Record| r.joules.note == Some(record::Note::Gap);
    let blind = records(&folder).answers.iter().filter(|r| unseen(r)).count();
    let note = format!("{blind} answers have no joules: the meter was away");
    let notes = |table: &Value| table["provenance"]["notes"].to_string();
    assert!(blind >= 10 && notes(&table(&folder)).contains(&note), "{blind} {}", notes(&table(&folder)));
    let output = profile(&folder, &["--resume"]).await;
    assert!(output.status.success(), "{}", said(&output));
    let file = records(&folder);
    assert_eq!((file.answers.len(), file.replaced.len()), (60, blind));
    let lost: Vec<_> = file.answers.iter().filter(|r| unseen(r)).map(|r| (&r.at, r.seconds, &r.joules)).collect();
    assert!(lost.is_empty(), "{lost:?} {:?}", file.windows);
    let known = file.answers.iter().filter(|r| r.joules.gross.is_some()).count();
    assert!(known >= 40, "{known} {:?}", file.windows);
    assert!(notes(&table(&folder)).contains(&format!("{blind} answers that were asked for again")));
}

#[tokio::test]
async fn a_disk_that_is_full_is_said_and_all_before_it_is_kept() {
    let upstream = Upstream::always(brief(&"Paris ".repeat(400))).await;
    let folder = folder(&local("near", &upstream.base()), 40);
    // Files of this process may have 16 blocks of 1024 bytes.
    let program = env!("CARGO_BIN_EXE_wattroute");
    let script = format!(
        "trap '' XFSZ; ulimit -f 16; exec {program} profile --backend local/near --suite suite.jsonl --out t.json --settle 300ms"
    );
    let output = Command::new("bash").arg("-c").arg(script).current_dir(folder.path()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("t.records.jsonl: ") && said(&output).contains("are kept"), "{}", said(&output));
    let file = records(&folder);
    let bytes = std::fs::metadata(folder.path().join("t.records.jsonl")).unwrap().len();
    assert!(file.answers.len() >= 2 && file.whole_bytes == bytes, "{} {bytes}", file.answers.len());
    let output = profile(&folder, &[]).await;
    assert!(output.status.success() && records(&folder).answers.len() == 40, "{}", said(&output));
}

/// What the judge says of every pair.
async fn judged(verdict: &str) -> (TempDir, Output) {
    let upstream = Upstream::always(brief("a poem")).await;
    let judge = Upstream::always(brief(verdict)).await;
    let folder = folder(&(local("near", &upstream.base()) + &local("wise", &judge.base())), 1);
    let row =
        json!({ "id": "p", "domain": "None", "kind": "pair", "prompt": "A poem, please.", "answer": "another poem" });
    std::fs::write(folder.path().join("suite.jsonl"), format!("{row}\n")).unwrap();
    let output = profile(&folder, &["--judge", "local/wise"]).await;
    let asked = judge.requests();
    let prompts: Vec<String> = asked.iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
    assert!(prompts.len() == 2 && prompts[0] != prompts[1], "both orders are asked");
    (folder, output)
}

#[tokio::test]
async fn a_judge_that_is_gone_leaves_a_table_of_what_is_graded() {
    let upstream = Upstream::always(brief("Paris")).await;
    let folder = folder(&(local("near", &upstream.base()) + &local("wise", "http://127.0.0.1:9/v1")), 2);
    let row =
        json!({ "id": "p", "domain": "None", "kind": "pair", "prompt": "A poem, please.", "answer": "another poem" });
    let text = suite(2, "short") + &format!("{row}\n");
    std::fs::write(folder.path().join("suite.jsonl"), text).unwrap();
    let output = profile(&folder, &["--judge", "local/wise"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the judge: ") && said(&output).contains("of what is graded"), "{}", said(&output));
    assert_eq!((&table(&folder)["overall"]["n"], &table(&folder)["overall"]["unscored"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn a_judge_that_likes_what_it_reads_first_scores_nothing() {
    let (folder, output) = judged("The first is better. [[A]]").await;
    assert!(said(&output).contains("0 scored, 1 disagreed"), "{}", said(&output));
    assert!(said(&output).contains("nothing was scored (1 judge disagrees)"), "{}", said(&output));
    let record = records(&folder).answers.remove(0);
    assert_eq!((record.correct, record.unscored.as_deref()), (None, Some("judge disagrees")));
    let (folder, _) = judged("Equal. [[C]]").await;
    let record = records(&folder).answers.remove(0);
    assert_eq!((record.correct, record.judged, record.unscored), (Some(true), Some(0.5), None));
    assert_eq!(table(&folder)["overall"]["correct"], 1);
}

#[tokio::test]
async fn a_bad_row_is_named_with_file_line_and_field_before_anything_is_asked() {
    let folder = folder(&local("near", "http://127.0.0.1:9/v1"), 2);
    let path = folder.path().join("suite.jsonl");
    let text = std::fs::read_to_string(&path).unwrap()
        + "{\"id\":\"x\",\"domain\":\"None\",\"kind\":\"short\",\"prompt\":\"p\"}\n";
    std::fs::write(&path, text).unwrap();
    let output = profile(&folder, &[]).await;
    assert!(said(&output).contains("suite.jsonl:3: accepted: needs at least one wording"), "{}", said(&output));
    assert!(!folder.path().join("t.records.jsonl").exists());
}
