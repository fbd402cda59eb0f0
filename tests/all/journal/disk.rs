//! The journal on bad disks: read-only, torn, locked, full, and killed in the middle.

use std::path::Path;

use wattroute::config::checked;
use wattroute::journal::stats::{Filter, stats};
use wattroute::journal::{Journal, JournalError, Record, State};

use super::{all, record, settings};

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
    assert!(matches!(error, JournalError::Newer { found: 99, known: 3, .. }), "{error:?}");
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
    let line = format!("{before} exec \"$0\" --exact --nocapture journal::disk::{test}");
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
