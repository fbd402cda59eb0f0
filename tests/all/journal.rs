//! The journal against bad disks, full queues, many writers, and hand-made sums.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wattroute::classify::domain::Posterior;
use wattroute::config::checked;
use wattroute::energy::{Basis, Joules};
use wattroute::journal::export::{Format, export};
use wattroute::journal::schema::{COLUMNS, STEPS};
use wattroute::journal::stats::{Filter, Stats, stats};
use wattroute::journal::{Journal, JournalError, Outcome, Record, State};
use wattroute::policy::types::{Alternative, Chance, Place, Saved};

fn settings(path: &Path) -> checked::Journal {
    checked::Journal {
        path: path.to_owned(),
        keep: Duration::from_secs(90 * 86_400),
        max_bytes: 1 << 30,
        queue: 8192,
        enabled: true,
    }
}

fn record(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        arrived_ms: wattroute::clock::unix_ms(),
        endpoint: "chat",
        domain: "None",
        ..Record::default()
    }
}

async fn all(path: &Path) -> Stats {
    stats(path, &Filter::default()).await.unwrap()
}

#[tokio::test]
async fn every_offer_of_many_tasks_is_written_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/journal.db");
    let journal = Journal::open(&settings(&path));
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let journal = journal.clone();
            std::thread::spawn(move || {
                for i in 0..250 {
                    journal.offer(record(&format!("{task}-{i}")));
                }
            })
        })
        .collect();
    tasks.into_iter().for_each(|t| t.join().unwrap());
    assert!(journal.flush().await);
    let health = journal.health();
    assert_eq!((health.written, health.dropped, health.errors), (4000, 0, 0));
    let mut lines = Vec::new();
    assert_eq!(export(&path, 0, Format::Jsonl, &mut lines).await.unwrap(), 4000);
    let mut ids: Vec<String> = String::from_utf8(lines)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["request_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4000);
}

#[tokio::test]
async fn the_last_handle_writes_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&settings(&path));
    for i in 0..1000 {
        journal.offer(record(&i.to_string()));
    }
    drop(journal);
    assert_eq!(all(&path).await.entries, 1000);
}

#[tokio::test]
async fn a_full_queue_drops_the_newest_and_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    // The parent of the file is itself a file: nothing can ever be opened there.
    let blocker = folder.path().join("blocker");
    std::fs::write(&blocker, "x").unwrap();
    let journal = Journal::open(&checked::Journal { queue: 64, ..settings(&blocker.join("journal.db")) });
    assert!(!journal.flush().await, "nothing can be written there");
    for i in 0..2000 {
        journal.offer(record(&i.to_string()));
    }
    let health = journal.health();
    assert!(matches!(health.state, State::Failing(_)), "{health:?}");
    assert!(health.errors >= 1 && health.waiting <= 64, "{health:?}");
    // At most one group is in the writer's hands besides the queue.
    assert!(health.dropped >= 2000 - 64 - 512, "{health:?}");
    drop(journal);
}

#[tokio::test]
async fn a_disk_that_comes_back_gets_everything_that_waited() {
    let folder = tempfile::tempdir().unwrap();
    let blocker = folder.path().join("later");
    std::fs::write(&blocker, "x").unwrap();
    let path = blocker.join("journal.db");
    let journal = Journal::open(&settings(&path));
    for i in 0..100 {
        journal.offer(record(&i.to_string()));
    }
    assert!(!journal.flush().await);
    std::fs::remove_file(&blocker).unwrap();
    let mut written = journal.flush().await;
    for _ in 0..20 {
        if written {
            break;
        }
        written = journal.flush().await;
    }
    assert!(written, "{:?}", journal.health());
    assert_eq!(journal.health().state, State::Writing);
    assert_eq!(all(&path).await.entries, 100);
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_only_journal_is_reported_and_left_as_it_was() {
    use std::os::unix::fs::PermissionsExt;
    if nobody_obeys_permissions() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    drop(Journal::open(&settings(&path)));
    for (target, mode) in [(path.as_path(), 0o400), (folder.path(), 0o500)] {
        std::fs::set_permissions(target, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let journal = Journal::open(&settings(&path));
    journal.offer(record("a"));
    assert!(!journal.flush().await);
    assert!(matches!(journal.health().state, State::Failing(_)), "{:?}", journal.health());
    drop(journal);
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// The superuser writes where it likes; the case is covered by the blocked folder above.
#[cfg(unix)]
fn nobody_obeys_permissions() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x");
    std::fs::write(&file, "x").unwrap();
    std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    std::fs::OpenOptions::new().write(true).open(&file).is_ok()
}

#[tokio::test]
async fn a_torn_file_is_moved_aside_and_serving_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&settings(&path));
    (0..2000).for_each(|i| journal.offer(record(&i.to_string())));
    drop(journal);
    let good = std::fs::read(&path).unwrap();
    // Not a database at all, a header of another kind, and a cut in the middle of a page.
    for (name, bytes) in [("garbage", vec![b'z'; 8192]), ("header", [b"SQLite format 9\0", &good[16..]].concat())] {
        std::fs::write(&path, &bytes).unwrap();
        let journal = Journal::open(&settings(&path));
        journal.offer(record("after"));
        let mut done = journal.flush().await;
        for _ in 0..5 {
            done = done || journal.flush().await;
        }
        assert!(done, "{name}: {:?}", journal.health());
        drop(journal);
        assert_eq!(all(&path).await.entries, 1, "{name}");
        let aside: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.display().to_string().contains(".damaged-"))
            .collect();
        assert!(aside.iter().any(|p| std::fs::read(p).unwrap() == bytes), "{name}: the damaged bytes are kept");
    }
}

#[tokio::test]
async fn a_log_cut_at_any_byte_loses_its_tail_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&settings(&path));
    for i in 0..40 {
        journal.offer(record(&i.to_string()));
        assert!(journal.flush().await);
    }
    // Copied while open: this is what a killed process leaves.
    let base = std::fs::read(&path).unwrap();
    let log = std::fs::read(folder.path().join("journal.db-wal")).unwrap();
    drop(journal);
    assert!(log.len() > 100_000, "the log holds the entries: {}", log.len());
    let mut last = 0;
    for cut in (0..=log.len()).step_by(4099).chain([log.len()]) {
        let copy = tempfile::tempdir().unwrap();
        let at = copy.path().join("journal.db");
        std::fs::write(&at, &base).unwrap();
        std::fs::write(copy.path().join("journal.db-wal"), &log[..cut]).unwrap();
        let journal = Journal::open(&settings(&at));
        journal.offer(record("after the cut"));
        assert!(journal.flush().await, "cut at {cut}: {:?}", journal.health());
        drop(journal);
        let entries = all(&at).await.entries;
        assert!(entries >= last, "cut at {cut}: {entries} entries after {last}");
        last = entries;
    }
    assert_eq!(last, 41, "the whole log holds all");
}

#[tokio::test]
async fn files_of_others_and_of_later_versions_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    drop(Journal::open(&settings(&path)));
    let mut bytes = std::fs::read(&path).unwrap();
    // user_version, bytes 60..64 of the header.
    bytes[63] = 99;
    std::fs::write(&path, &bytes).unwrap();
    let error = stats(&path, &Filter::default()).await.unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 99, known: 2, .. }), "{error:?}");
    let journal = Journal::open(&settings(&path));
    journal.offer(record("a"));
    assert!(!journal.flush().await);
    let State::Failing(why) = journal.health().state else { panic!("must fail") };
    assert!(why.contains("version 99") && why.contains("use a newer wattroute"), "{why}");
    drop(journal);
    assert_eq!(std::fs::read(&path).unwrap()[63], 99, "left as it was");
    // application_id, bytes 68..72.
    bytes[63] = 2;
    bytes[68] = 0;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(stats(&path, &Filter::default()).await, Err(JournalError::Foreign(_))));
    assert!(matches!(stats(&folder.path().join("none.db"), &Filter::default()).await, Err(JournalError::Missing(_))));
}

#[tokio::test]
async fn old_entries_leave_and_the_size_stays_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&settings(&path));
    let filler: Arc<str> = "x".repeat(900).into();
    for i in 0..6000 {
        journal.offer(Record { reason: filler.clone(), ..record(&i.to_string()) });
        if i % 2000 == 0 {
            assert!(journal.flush().await);
        }
    }
    drop(journal);
    let before = std::fs::metadata(&path).unwrap().len();
    let small = checked::Journal { max_bytes: 2 << 20, ..settings(&path) };
    let journal = Journal::open(&small);
    for _ in 0..6 {
        journal.offer(record("last"));
        assert!(journal.flush().await);
    }
    drop(journal);
    let after = std::fs::metadata(&path).unwrap().len();
    assert!(before > 5 << 20 && after < 3 << 20, "{before} -> {after}");
    let kept = all(&path).await;
    assert!(kept.entries > 500 && kept.entries < 6000, "{}", kept.entries);
    // Age: everything is older than nothing.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let journal = Journal::open(&checked::Journal { keep: Duration::from_millis(5), ..settings(&path) });
    for _ in 0..4 {
        journal.flush().await;
    }
    drop(journal);
    assert_eq!(all(&path).await.entries, 0);
}

fn answered(place: Place, domain: &'static str, joules: Option<[f64; 3]>, saved: Option<[f64; 3]>) -> Record {
    let backend = if place == Place::Local { "local/a" } else { "cloud/b" };
    Record {
        backend: Some(Arc::from(backend)),
        place: Some(place),
        outcome: Outcome::Ok,
        domain,
        input_tokens: Some(10),
        output_tokens: Some(20),
        joules: Some(joules.map_or(Joules::UNKNOWN, |[l, m, h]| Joules::range(l, m, h, Basis::Modelled))),
        saved: saved.map_or(Saved::default(), |[l, m, h]| Saved { low: Some(l), mid: Some(m), high: Some(h) }),
        ..record("r")
    }
}

#[tokio::test]
async fn sums_are_those_of_a_hand_made_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&settings(&path));
    let law = "Legal services";
    journal.offer(Record {
        wasted_joules: Some(0.5),
        usd: Some(0.0),
        ..answered(Place::Local, law, Some([1.0, 2.0, 4.0]), Some([-1.0, 3.0, 9.0]))
    });
    journal.offer(Record {
        tenant: Arc::from("t"),
        quality_change: Some(-0.02),
        ..answered(Place::Local, "None", Some([1.5, 2.5, 4.5]), Some([2.0, 4.0, 8.0]))
    });
    journal.offer(Record { usd: Some(0.25), quality_change: Some(0.0), ..answered(Place::Cloud, law, None, None) });
    journal.offer(Record {
        outcome: Outcome::Fault,
        fault: Some("upstream_cut"),
        ..answered(Place::Cloud, law, Some([10.0, 20.0, 40.0]), Some([0.0, 0.0, 0.0]))
    });
    journal.offer(Record { outcome: Outcome::Refused, fault: Some("bad_request"), ..record("refused") });
    journal.offer(Record { arrived_ms: 1000, ..record("old") });
    assert!(journal.flush().await);
    drop(journal);
    let s = all(&path).await;
    assert_eq!((s.entries, s.answered, s.local, s.cloud), (6, 3, 2, 1));
    assert_eq!(s.local_share, Some(2.0 / 3.0));
    assert_eq!((s.joules.low, s.joules.mid, s.joules.high), (Some(12.5), Some(24.5), Some(48.5)));
    assert_eq!((s.joules.known, s.joules.unknown), (3, 1));
    assert_eq!((s.saved.low, s.saved.mid, s.saved.high), (Some(1.0), Some(7.0), Some(17.0)));
    assert_eq!((s.saved.known, s.saved.unknown), (3, 1));
    assert_eq!((s.wasted_joules, s.usd, s.usd_unknown), (Some(0.5), Some(0.25), 2));
    assert_eq!((s.input_tokens, s.output_tokens), (40, 80));
    assert_eq!(s.quality_change, Some(-0.01));
    assert_eq!(s.outcomes["ok"], 3);
    assert_eq!(s.outcomes["hangup"], 1);
    assert_eq!((s.faults["upstream_cut"], s.faults["bad_request"]), (1, 1));
    assert_eq!((s.bases["modelled"], s.bases["unknown"]), (3, 1));
    assert_eq!((s.domains[0].name.as_str(), s.domains[0].entries, s.domains[0].joules.mid), (law, 3, Some(22.0)));
    assert_eq!((s.backends[0].name.as_str(), s.backends[0].entries), ("cloud/b", 2));
    let recent = stats(&path, &Filter { since_ms: 2000, tenant: None }).await.unwrap();
    assert_eq!(recent.entries, 5);
    let one = stats(&path, &Filter { since_ms: 0, tenant: Some("t".to_owned()) }).await.unwrap();
    assert_eq!((one.entries, one.joules.mid, one.usd), (1, Some(2.5), None));
    let nobody = stats(&path, &Filter { since_ms: 0, tenant: Some("nobody".to_owned()) }).await.unwrap();
    assert_eq!((nobody.entries, nobody.joules.mid, nobody.local_share), (0, None, None));
}

fn alternative() -> Alternative {
    Alternative {
        backend: Arc::from("local/a"),
        place: Place::Local,
        p_correct: 0.5,
        chance: Chance { mean: 0.5, low: 0.25, high: 0.75, n: 12, source: "table" },
        joules: Joules::range(1.0, 2.0, 4.0, Basis::Modelled),
        usd: None,
        seconds: Some(1.5),
        eligible: true,
        why_not: Some("too dear".to_owned()),
    }
}

#[tokio::test]
async fn exports_keep_every_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&settings(&path));
    let full = Record {
        posterior: Some(Posterior::none()),
        alternatives: vec![alternative()].into(),
        reason: "cheapest, \"quoted\"\nwith a line".into(),
        session: Some(u64::MAX),
        stream: true,
        ..answered(Place::Local, "None", Some([1.0, 2.0, 4.0]), None)
    };
    journal.offer(full);
    assert!(journal.flush().await);
    drop(journal);
    let mut lines = Vec::new();
    export(&path, 0, Format::Jsonl, &mut lines).await.unwrap();
    let entry: serde_json::Value = serde_json::from_slice(&lines).unwrap();
    assert_eq!(entry["posterior"].as_array().unwrap().len(), 23);
    assert_eq!(entry["posterior"][22], 1.0);
    assert_eq!(entry["alternatives"], serde_json::json!([alternative()]));
    let names: BTreeSet<&str> = entry.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, COLUMNS.into_iter().collect());
    assert_eq!(entry["session"], "ffffffffffffffff");
    assert_eq!(entry["stream"], true);
    assert_eq!(entry["joules_basis"], "modelled");
    assert!(entry["usd"].is_null());
    let mut table = Vec::new();
    export(&path, 0, Format::Csv, &mut table).await.unwrap();
    let mut csv = csv::Reader::from_reader(table.as_slice());
    let at = csv.headers().unwrap().iter().position(|h| h == "reason").unwrap();
    let row = csv.records().next().unwrap().unwrap();
    assert_eq!(&row[at], "cheapest, \"quoted\"\nwith a line");
    assert_eq!(entry.as_object().unwrap().len(), row.len());
}

/// A journal as version 1 left it: one entry, half an hour old.
async fn version_1(path: &Path) {
    use sqlx::ConnectOptions;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut db = options.connect().await.unwrap();
    sqlx::raw_sql(STEPS[0]).execute(&mut db).await.unwrap();
    sqlx::raw_sql("PRAGMA application_id = 2003987052; PRAGMA user_version = 1").execute(&mut db).await.unwrap();
    let arrived = i64::try_from(wattroute::clock::unix_ms()).unwrap() - 1_800_000;
    sqlx::query(
        "INSERT INTO entry VALUES (?1, ?2, 'r-old', 'd-old', 't', 'chat', 'auto', 1, 'Legal services', 0.5,
         x'0000003f', 'balanced', '00ff', 1.0, 'because', '[{\"backend\":\"local/a\"}]', 'local/a', 'local', 1, 'ok', NULL,
         200, 10, 20, 'engine', 1.0, 2.0, 4.0, 'modelled', 0.0, 3.0, 5.0, 7.0, NULL, NULL, 8.0, 16.0, 30.0, -1)",
    )
    .bind(arrived << 22)
    .bind(arrived)
    .execute(&mut db)
    .await
    .unwrap();
}

#[tokio::test]
async fn entries_of_version_1_are_read_before_and_after_the_file_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    version_1(&path).await;
    let check = async |entries: u64| {
        let s = all(&path).await;
        assert_eq!((s.entries, s.local, s.saved.mid), (entries, 1, Some(5.0)));
        let mut lines = Vec::new();
        assert_eq!(export(&path, 0, Format::Jsonl, &mut lines).await.unwrap(), entries);
        let text = String::from_utf8(lines).unwrap();
        let rows: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let names: BTreeSet<&str> = rows[0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, COLUMNS.into_iter().collect());
        assert_eq!((&rows[0]["request_id"], &rows[0]["reason"]), (&"r-old".into(), &"because".into()));
        assert_eq!(
            (&rows[0]["alternatives"][0]["backend"], &rows[0]["posterior"][0]),
            (&"local/a".into(), &0.5.into())
        );
        rows
    };
    // Reading alone changes nothing.
    check(1).await;
    check(1).await;
    let journal = Journal::open(&settings(&path));
    journal.offer(record("new"));
    assert!(journal.flush().await, "{:?}", journal.health());
    drop(journal);
    let rows = check(2).await;
    assert_eq!(rows[1]["request_id"], "new");
    // Age takes the old table's entries first, then the new one's.
    let journal = Journal::open(&checked::Journal { keep: Duration::from_secs(60), ..settings(&path) });
    assert!(journal.flush().await && journal.flush().await);
    drop(journal);
    assert_eq!(all(&path).await.entries, 1);
}

#[tokio::test]
async fn a_lock_held_by_another_process_is_waited_out() {
    use sqlx::ConnectOptions;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&settings(&path));
    assert!(journal.flush().await);
    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    journal.offer(record("a"));
    assert!(!journal.flush().await);
    let State::Failing(why) = journal.health().state else { panic!("must fail") };
    assert!(why.contains("locked by another process"), "{why}");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert!(journal.flush().await, "{:?}", journal.health());
    drop(journal);
    assert_eq!(all(&path).await.entries, 1);
}

/// Names the folder in which a child of these tests works.
const CHILD: &str = "WATTROUTE_TEST_JOURNAL_CHILD";

/// This test binary again, running one test in a process of its own.
#[cfg(unix)]
fn child(test: &str, before: &str, folder: &Path) -> std::process::Child {
    let line = format!("{before} exec \"$0\" --exact --nocapture journal::{test}");
    std::process::Command::new("bash")
        .args(["-c", &line])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, folder)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[cfg(unix)]
#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_flushed() {
    use std::io::BufRead;
    if let Some(folder) = std::env::var_os(CHILD) {
        let journal = Journal::open(&settings(&Path::new(&folder).join("journal.db")));
        for i in 0.. {
            journal.offer(record(&i.to_string()));
            assert!(journal.flush().await);
            println!("flushed {}", i + 1);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut flushed = 0;
    for round in 1..=8 {
        let mut process = child("a_killed_process_loses_nothing_that_was_flushed", "", folder.path());
        let lines = std::io::BufReader::new(process.stdout.take().unwrap()).lines();
        let mut counts = lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("flushed ")?.parse::<u64>().ok());
        let this_round = counts.by_ref().nth(round * 17).expect("the child flushes");
        process.kill().unwrap();
        process.wait().unwrap();
        // What it said before it died, read after.
        flushed += counts.last().unwrap_or(this_round).max(this_round);
        let entries = all(&folder.path().join("journal.db")).await.entries;
        assert!(entries >= flushed, "round {round}: {entries} entries, {flushed} flushed");
        // At most the one entry that was on its way.
        assert!(entries <= flushed + 1, "round {round}: {entries} entries, {flushed} flushed");
        flushed = entries;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_disk_without_room_is_counted_and_serving_goes_on() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let journal =
            Journal::open(&checked::Journal { queue: 256, ..settings(&Path::new(&folder).join("journal.db")) });
        let mut flushed = 0;
        for i in 0..3000 {
            journal.offer(Record { reason: "x".repeat(900).into(), ..record(&i.to_string()) });
            if i % 100 == 99 && journal.health().errors == 0 && journal.flush().await {
                flushed = i + 1;
            }
        }
        println!("full {} {}", flushed, serde_json::to_string(&journal.health()).unwrap());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Files may not grow beyond 512 KiB: the write fails as it does on a full disk.
    let before = "trap '' XFSZ; ulimit -f 512;";
    let process = child("a_disk_without_room_is_counted_and_serving_goes_on", before, folder.path());
    let output = process.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (flushed, health) =
        text.lines().find_map(|l| l.strip_prefix("full ")?.split_once(' ')).expect("the child ends");
    let health: serde_json::Value = serde_json::from_str(health).unwrap();
    assert!(health["errors"].as_u64().unwrap() >= 1 && health["dropped"].as_u64().unwrap() > 0, "{health}");
    assert!(health["state"]["failing"].is_string(), "{health}");
    let entries = all(&folder.path().join("journal.db")).await.entries;
    assert!(entries >= flushed.parse().unwrap() && entries > 0, "{entries} entries, {flushed} flushed");
}
