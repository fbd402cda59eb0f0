//! Replay on several machines, as processes: a scheduler, executors, a client. What it gives is what one process gives.
#![allow(clippy::disallowed_methods, reason = "tests own their clock and their tasks")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

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
use serde_json::Value;
use wattroute::cluster::lines::Piece;
use wattroute::cluster::order::Order;
use wattroute::cluster::sums::{Part, Survey};
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
    let mut pieces = [Piece { start: 0, end: 5, first: 1 }, Piece { start: 5, end: 9, first: (1 << 40) + 1 }];
    let mut order = Order::new(u64::MAX, Names::default());
    order.take(survey, &mut pieces);
    assert_eq!(pieces.map(|p| p.first), [1, 4]);
    assert_eq!((order.dropped, order.names.all, order.timed), (vec![4], vec!["a".to_owned()], false));
}
