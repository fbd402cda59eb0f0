//! The journal with full queues and many writers; what it keeps and for how long.

mod disk;
mod reading;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wattroute::config::checked;
use wattroute::journal::export::{Format, export};
use wattroute::journal::stats::{Filter, Stats, stats};
use wattroute::journal::{Journal, Record, State};

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
    let small = checked::Journal { max_bytes: 9 << 18, ..settings(&path) };
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
