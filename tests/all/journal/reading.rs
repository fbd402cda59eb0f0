//! What is read from a journal: sums, exports, entries of an earlier version.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wattroute::classify::domain::Posterior;
use wattroute::config::checked;
use wattroute::energy::{Basis, Joules};
use wattroute::journal::export::{Format, export};
use wattroute::journal::schema::{COLUMNS, SINCE, STEPS};
use wattroute::journal::stats::{Filter, stats};
use wattroute::journal::{Journal, Outcome, Record};
use wattroute::policy::types::{Alternative, Chance, Place, Saved};

use super::{all, record, settings};

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
        gco2e: None,
        backend: Arc::from("local/a"),
        place: Place::Local,
        p_correct: 0.5,
        chance: Chance { mean: 0.5, low: 0.25, high: 0.75, n: 12, source: "table" },
        prior: None,
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
    assert_eq!(names, COLUMNS.into_iter().chain(SINCE).collect());
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
        assert_eq!(names, COLUMNS.into_iter().chain(SINCE).collect());
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
