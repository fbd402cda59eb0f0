//! Replay on several machines, as processes: a scheduler, executors, a client. What it gives is what one process gives.
#![allow(clippy::disallowed_methods, reason = "tests own their clock and their tasks")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

#[path = "../support/s3.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod s3;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use wattroute::classify::domain::DOMAINS;
use wattroute::cluster::lines::Piece;
use wattroute::cluster::order::Order;
use wattroute::cluster::sums::{Part, Survey};
use wattroute::columnar::write::{Kind, Writer};
use wattroute::replay::learned::Names;

const PROGRAM: &str = env!("CARGO_BIN_EXE_wattroute");
/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two ports that follow each other.
fn ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

/// A scheduler and executors, each with its folder.
struct Cluster {
    scheduler: String,
    executors: Vec<(Process, PathBuf)>,
    _scheduler: Process,
}

impl Cluster {
    fn start(folder: &Path, executors: usize, environment: &[(&str, String)]) -> Self {
        let scheduler = format!("127.0.0.1:{}", ports());
        let run = |arguments: &[&str], log: &Path| {
            let log = File::create(log).unwrap();
            let mut command = Command::new(PROGRAM);
            command.args(arguments).envs(environment.iter().map(|(k, v)| (k, v)));
            Process(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
        };
        let head =
            run(&["cluster", "scheduler", "--listen", &scheduler, "--timeout", "10"], &folder.join("scheduler.log"));
        let executors = (0..executors).map(|i| {
            let own = folder.join(format!("executor-{i}"));
            fs::create_dir_all(&own).unwrap();
            let listen = format!("127.0.0.1:{}", ports());
            let arguments = ["cluster", "executor", "--scheduler", &scheduler, "--listen", &listen];
            let more = ["--cores", "1", "--folder", own.to_str().unwrap()];
            (run(&[&arguments[..], &more[..]].concat(), &folder.join(format!("executor-{i}.log"))), own)
        });
        let executors = executors.collect();
        Self { scheduler, executors, _scheduler: head }
    }
}

/// A real table several times over, with what logs have: keys seen before, lines that are cut off, empty ones.
fn table(folder: &Path, times: usize) -> PathBuf {
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("eval/data/routing/mmlu_pro");
    let models = fs::read(real.with_extension("models.json")).unwrap();
    fs::write(folder.join("log.models.json"), models).unwrap();
    let lines = BufReader::new(MultiGzDecoder::new(File::open(real.with_extension("jsonl.gz")).unwrap()));
    let lines: Vec<String> = lines.lines().map(Result::unwrap).collect();
    let file = folder.join("log.jsonl");
    let mut out = std::io::BufWriter::new(File::create(&file).unwrap());
    for time in 0..times {
        for (i, line) in lines.iter().enumerate() {
            let mut row: Value = serde_json::from_str(line).unwrap();
            row["id"] = format!("{time}-{i}").into();
            let text = row.to_string();
            writeln!(out, "{text}").unwrap();
            match i % 1000 {
                7 => writeln!(out, "{text}").unwrap(),
                8 => writeln!(out, "{}", text.split_at(text.len() / 2).0).unwrap(),
                9 => writeln!(out).unwrap(),
                _ => {}
            }
        }
    }
    out.flush().unwrap();
    file
}

fn replay(log: &str, more: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args([
        "replay",
        "--outcomes",
        log,
        "--weak",
        "Llama-3.1-8B-Instruct",
        "--strong",
        "gemini-1.5-pro",
        "--json",
    ]);
    command.args(["--policy", "balanced", "--policy", "quality", "--diff", "balanced", "quality"]);
    command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn outcome(command: Command) -> Value {
    let mut command = command;
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Whole numbers bit for bit, others to 1e-9; how many numbers were compared.
fn same(at: &str, one: &Value, other: &Value) -> usize {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{at}");
            let keys = a.keys().filter(|k| !(at == ".log" && ["seconds", "file"].contains(&k.as_str())));
            keys.map(|key| same(&format!("{at}.{key}"), &a[key], &b[key])).sum()
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{at}");
            a.iter().zip(b).enumerate().map(|(i, (x, y))| same(&format!("{at}[{i}]"), x, y)).sum()
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0), "{at}: {a} and {b}");
            1
        }
        _ => {
            assert_eq!(one, other, "{at}");
            usize::from(one.is_number())
        }
    }
}

fn holds_a_file(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.path()).any(|path| if path.is_dir() { holds_a_file(&path) } else { true })
}

#[test]
fn a_cluster_gives_what_one_process_gives_and_an_executor_may_die() {
    let folder = tempfile::tempdir().unwrap();
    let log = table(folder.path(), 2);
    let log = log.to_str().unwrap();
    let alone = outcome(replay(log, &[]));
    assert!(alone["log"]["duplicates"].as_u64().unwrap() >= 20 && alone["log"]["bad"].as_u64().unwrap() >= 40);

    let mut cluster = Cluster::start(folder.path(), 2, &[]);
    let address = cluster.scheduler.clone();
    let on = |log: &str, more: &[&str]| replay(log, &[&["--cluster", &address, "--piece", "1048576"], more].concat());
    assert!(same("", &alone, &outcome(on(log, &[]))) > 500);

    // Arrivals that are made up, and the queue at the local device that comes of them.
    let rate = ["--rate", "0.5", "--seats", "2", "--local-tokens-per-s", "40"];
    let queued = outcome(replay(log, &rate));
    let oracle = queued["policies"].as_array().unwrap().iter().find(|p| p["name"] == "oracle").unwrap();
    let load = &oracle["load"];
    assert!(load["wait"]["mean"].as_f64().unwrap() > 0.0 && load["seats"] == 2, "{load}");
    assert!(same("", &queued, &outcome(on(log, &rate))) > 500);

    // What is foreseen query by query, from the words.
    let query = ["--predictor", "query", "--limit", "6000"];
    let foreseen = outcome(replay(log, &query));
    assert_eq!(foreseen["predictor"], "query");
    same("", &foreseen, &outcome(on(log, &query)));

    // A limit in the middle of a piece.
    let limit = ["--limit", "7777"];
    same("", &outcome(replay(log, &limit)), &outcome(on(log, &limit)));

    // A bad line is an error with its place.
    let strict = on(log, &["--strict"]).output().unwrap();
    let said = String::from_utf8_lossy(&strict.stderr).into_owned();
    assert!(!strict.status.success() && said.contains("log.jsonl:9: "), "{said}");

    // One of the two dies while it works.
    let (mut lost, own) = cluster.executors.pop().unwrap();
    for entry in fs::read_dir(&own).unwrap().flatten() {
        let _ = fs::remove_dir_all(entry.path());
    }
    let mut client = on(log, &[]).spawn().unwrap();
    let began = Instant::now();
    while !holds_a_file(&own) {
        assert!(began.elapsed() < PATIENCE, "the second executor never worked");
        std::thread::sleep(Duration::from_millis(5));
    }
    lost.0.kill().unwrap();
    lost.0.wait().unwrap();
    assert!(client.try_wait().unwrap().is_none(), "the replay was over before the executor died");
    let done = client.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    same("", &alone, &serde_json::from_slice(&done.stdout).unwrap());
}

#[test]
fn logs_are_read_from_a_store_and_packed() {
    let folder = tempfile::tempdir().unwrap();
    let log = table(folder.path(), 1);
    let alone = outcome(replay(log.to_str().unwrap(), &[]));
    let plain = fs::read(&log).unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&plain).unwrap();
    let models = fs::read(folder.path().join("log.models.json")).unwrap();
    let store = s3::serve(vec![
        ("/logs/june/log.jsonl", plain),
        ("/logs/june/log.models.json", models.clone()),
        ("/logs/packed.jsonl.gz", gzip.finish().unwrap()),
        ("/logs/packed.models.json", models),
    ]);
    let environment = s3::environment(&store);
    let cluster = Cluster::start(folder.path(), 1, &environment);
    for name in ["s3://logs/june/log.jsonl", "s3://logs/packed.jsonl.gz"] {
        let mut command = replay(name, &["--cluster", &cluster.scheduler, "--piece", "1048576"]);
        command.envs(environment.iter().map(|(k, v)| (k, v)));
        same("", &alone, &outcome(command));
    }
    let mut missing = replay("s3://logs/none.jsonl", &["--cluster", &cluster.scheduler]);
    let said = missing.envs(environment.iter().map(|(k, v)| (k, v))).output().unwrap();
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains("s3://logs/none.jsonl"));
}

/// Entries of a journal as their exports have them: two in the cloud of three, a tenth drawn, some scored, some of no use.
fn entries(n: usize) -> Vec<Map<String, Value>> {
    let entry = |i: usize| {
        let cloud = !i.is_multiple_of(3);
        let mut posterior = vec![0.0; DOMAINS];
        posterior[i % DOMAINS] = 1.0;
        let able = |place: &str| json!({ "place": place, "eligible": true });
        let alternatives = json!([able("local"), able("cloud")]).to_string();
        let mut row = json!({ "decision_id": format!("d{i}"), "arrived_ms": 1_700_000_000_000_u64 + 40 * i as u64, "endpoint": "chat",
            "outcome": "ok", "place": if cloud { "cloud" } else { "local" }, "attempts": 1, "alternatives": alternatives,
            "propensity": if i.is_multiple_of(10) { 0.1 } else { 0.9 }, "posterior": posterior, "input_tokens": 50 + i % 90,
            "output_tokens": 20 + i % 70, "feedback": f64::from(u8::from(!i.is_multiple_of(4))) });
        match i % 1000 {
            // Asked for a decision only; seen before; damaged; before those around it.
            5 => row["endpoint"] = "route".into(),
            6 => row["decision_id"] = format!("d{}", i - 3).into(),
            7 => row["decision_id"] = Value::Null,
            8 => row["arrived_ms"] = (1_700_000_000_000_u64 + 40 * (i as u64 - 6)).into(),
            _ => {}
        }
        row.as_object().unwrap().clone()
    };
    (0..n).map(entry).collect()
}

fn lines_of(rows: &[Map<String, Value>]) -> String {
    rows.iter().map(|row| Value::Object(row.clone()).to_string() + "\n").collect()
}

fn parquet(path: &Path, rows: &[Map<String, Value>]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = ["decision_id", "endpoint", "outcome", "place", "alternatives"].map(|name| (name, Kind::Text));
    let whole = ["arrived_ms", "attempts", "input_tokens", "output_tokens"].map(|name| (name, Kind::Whole));
    let other = [("propensity", Kind::Real), ("feedback", Kind::Real), ("posterior", Kind::Reals)];
    let columns = [&text[..], &whole[..], &other[..]].concat();
    let mut writer = Writer::new(File::create(path).unwrap(), &columns).unwrap();
    rows.iter().for_each(|row| writer.push(row).unwrap());
    writer.close().unwrap();
}

/// A log without labels, in one process or more.
fn unlabelled(log: &Path, more: &[&str]) -> Value {
    let pair = [
        "--weak",
        "llama-3.1-8b-instruct",
        "--strong",
        "gemini-1.5-pro-002",
        "--policy",
        "balanced",
        "--policy",
        "fast",
    ];
    let mut command = Command::new(PROGRAM);
    command.args(["replay", "--json", "--log"]).arg(log).args(pair).args(more);
    outcome(command)
}

#[test]
fn logs_without_labels_are_replayed_as_text_and_as_columns() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name);
    let rows = entries(40_000);
    fs::write(here("journal.jsonl"), lines_of(&rows)).unwrap();
    // Days of several row groups, and one that is unfinished.
    parquet(&here("days/day=2026-11-22/part-0.parquet"), &rows[..25_000]);
    parquet(&here("days/day=2026-11-23/part-0.parquet"), &rows[25_000..]);
    fs::write(here("days/.unfinished"), "").unwrap();
    let trace: String = (0..9000).map(|i| format!("{},{},{}\n", 70 * i, 300 + i % 40, 80)).collect();
    fs::write(here("trace.csv"), format!("arrival_ms,in_tokens,out_tokens\n{trace}bad\n")).unwrap();
    let ask = |i: usize| {
        let text =
            ["Is an oral contract for the sale of land enforceable?", "Write a Python function that sorts a list."]
                [i % 2];
        json!({ "timestamp": 1_700_000_000 + i, "conversation": [{ "role": "user", "content": format!("{text} ({i})") }] })
    };
    fs::write(here("chats.jsonl"), (0..3000).map(|i| format!("{}\n", ask(i))).collect::<String>()).unwrap();
    let cluster = Cluster::start(folder.path(), 1, &[]);
    let on = ["--cluster", cluster.scheduler.as_str(), "--piece", "262144"];
    for name in ["journal.jsonl", "days", "trace.csv", "chats.jsonl"] {
        let alone = unlabelled(&here(name), &[]);
        assert!(alone["log"]["replayed"].as_u64().unwrap() >= 3000, "{name} {}", alone["log"]);
        assert!(same("", &alone, &unlabelled(&here(name), &on)) > 300, "{name}");
    }
    let both = ["journal.jsonl", "days"].map(|name| unlabelled(&here(name), &on));
    assert_eq!((&both[0]["log"]["bad"], &both[0]["log"]["duplicates"]), (&json!(80), &json!(40)));
    assert_eq!(
        (&both[0]["log"]["passed_over"], both[0]["log"]["clock_backwards"].as_u64() > Some(30)),
        (&json!(40), true)
    );
    assert!(same("", &both[0]["policies"], &both[1]["policies"]) > 300, "the same log as text and as columns");
    // A journal's own file is no log that can be cut, and what to do instead is said.
    fs::write(here("journal.db"), "SQLite format 3\0 and so on").unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["replay", "--log"]).arg(here("journal.db")).args(["--weak", "smollm2-135m", "--strong", "gpt-4o"]);
    let said = command.args(on).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("journal export --to parquet"), "{said:?}");
}

/// An interrupt after the first wave of pieces: what was read so far, marked as partial.
#[test]
fn an_interrupt_gives_the_partial_result_of_a_cluster_too() {
    let folder = tempfile::tempdir().unwrap();
    let log = table(folder.path(), 2);
    let cluster = Cluster::start(folder.path(), 1, &[]);
    let own = cluster.executors[0].1.clone();
    let client = replay(log.to_str().unwrap(), &["--cluster", &cluster.scheduler, "--piece", "32768"]).spawn().unwrap();
    let began = Instant::now();
    // A wave is surveyed, then simulated while the next is surveyed: with the fourth job the first wave is through.
    let jobs = || {
        fs::read_dir(&own).unwrap().flatten().filter(|e| !e.file_name().to_string_lossy().starts_with("datafusion-"))
    };
    while jobs().count() < 4 {
        assert!(began.elapsed() < PATIENCE, "the executor never worked");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-INT", &client.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let done = client.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(
        told["complete"] == json!(false) && told["warnings"].to_string().contains("PARTIAL: stopped after "),
        "{}",
        told["log"]
    );
    let replayed = told["log"]["replayed"].as_u64().unwrap();
    assert!(replayed > 0 && replayed < 24_000, "{replayed}");
}

#[test]
fn pieces_are_numbered_through_and_a_key_counts_once() {
    let part = |first, lines, queries| Part { first, lines, queries, domains: vec![(0, "a".to_owned())] };
    let survey = Survey {
        parts: vec![
            part((1 << 40) + 1, 2, vec![(0, 7, None), (1, 9, None)]),
            part(3, 1, vec![(0, 8, None)]),
            part(1, 2, vec![(0, 7, None)]),
        ],
    };
    let mut pieces = [
        Piece { end: 5, first: 1, ..Piece::default() },
        Piece { start: 5, end: 9, first: (1 << 40) + 1, ..Piece::default() },
    ];
    let mut order = Order::new(u64::MAX, Names::default(), None);
    order.take(survey, &mut pieces);
    assert_eq!(pieces.map(|p| p.first), [1, 4]);
    assert_eq!((order.dropped, order.names.all, order.timed), (vec![4], vec!["a".to_owned()], false));
}
