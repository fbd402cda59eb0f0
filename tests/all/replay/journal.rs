//! wattroute's own journal and its exports.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::ConnectOptions;
use wattroute::classify::domain::{DOMAINS, Posterior};
use wattroute::config::checked;
use wattroute::energy::{Basis, Joules};
use wattroute::journal::{Journal, Outcome, Record};
use wattroute::policy::types::{Alternative, Chance, Place, Saved};

use super::{PAIR, outcome_of, refused, stripped, text, wattroute};

fn settings(path: &Path) -> checked::Journal {
    checked::Journal {
        path: path.to_owned(),
        keep: Duration::from_secs(90 * 86_400),
        max_bytes: 1 << 30,
        queue: 8192,
        enabled: true,
    }
}

fn alternative(place: Place) -> Alternative {
    Alternative {
        gco2e: None,
        backend: Arc::from(if place == Place::Local { "local/a" } else { "cloud/b" }),
        place,
        p_correct: 0.5,
        chance: Chance { mean: 0.5, low: 0.25, high: 0.75, n: 12, source: "table" },
        prior: None,
        joules: Joules::range(1.0, 2.0, 4.0, Basis::Modelled),
        usd: None,
        seconds: Some(1.5),
        eligible: true,
        why_not: None,
    }
}

/// Entry `i` of `n`: it arrived so many tenths of a second before now; every third answered in the cloud, by exploration.
fn entry(i: u64, n: u64) -> Record {
    let place = if i.is_multiple_of(3) { Place::Cloud } else { Place::Local };
    let mut masses = [0.0; DOMAINS];
    masses[if i.is_multiple_of(2) { 0 } else { 8 }] = 1.0;
    Record {
        id: format!("r{i}"),
        decision_id: format!("d{i}"),
        arrived_ms: wattroute::clock::unix_ms() - 100 * (n - i) - 5000,
        endpoint: "chat",
        domain: if i.is_multiple_of(2) { "Computer and mathematical" } else { "Legal services" },
        posterior: Some(Posterior(masses)),
        propensity: if i.is_multiple_of(3) { 0.1 } else { 0.9 },
        alternatives: [Place::Local, Place::Cloud].map(alternative).to_vec().into(),
        backend: Some(alternative(place).backend),
        place: Some(place),
        attempts: 1,
        outcome: Outcome::Ok,
        input_tokens: Some(100 + (i % 50) as u32),
        output_tokens: Some(20 + (i % 30) as u32),
        joules: Some(Joules::range(1.0, 2.0, 4.0, Basis::Modelled)),
        saved: Saved { low: Some(1.0), mid: Some(3.0), high: Some(5.0) },
        ..Record::default()
    }
}

/// A journal whose entries end in another order than they arrived, with some that no backend was asked about.
pub fn journal(folder: &Path, n: u64) -> PathBuf {
    let path = folder.join("journal.db");
    let journal = Journal::open(&settings(&path));
    for i in 0..n {
        // Pairs end the other way round.
        journal.offer(entry((i ^ 1).min(n - 1), n));
    }
    journal.offer(Record { endpoint: "route", ..entry(1, n) });
    journal.offer(Record { outcome: Outcome::Refused, input_tokens: None, ..entry(2, n) });
    journal.offer(Record { outcome: Outcome::Cached, ..entry(3, n) });
    drop(journal);
    path
}

#[test]
fn a_journal_is_replayed_in_the_order_of_arrival_and_as_its_exports_are() {
    let folder = tempfile::tempdir().unwrap();
    let db = text(&journal(folder.path(), 400));
    let before = std::fs::read(&db).unwrap();
    let own = outcome_of(&[&["--journal", &db], &PAIR[..]].concat());
    assert_eq!(std::fs::read(&db).unwrap(), before, "reading writes nothing");
    let log = &own["log"];
    assert_eq!((&log["format"], &log["replayed"], &log["passed_over"]), (&json!("journal"), &json!(400), &json!(3)));
    assert_eq!((&log["clock_backwards"], &log["bad"], &log["duplicates"]), (&json!(0), &json!(0), &json!(0)));
    let domains: Vec<&Value> = own["policies"][0]["by_domain"].as_array().unwrap().iter().map(|d| &d["n"]).collect();
    assert_eq!(domains, [200, 200], "the classifier's domains of the time");
    // Found by its first bytes as well.
    assert_eq!(stripped(outcome_of(&[&["--log", &db], &PAIR[..]].concat())), stripped(own.clone()));
    let lines = text(&folder.path().join("journal.jsonl"));
    assert!(wattroute(&["journal", "export", "--file", &db, "--output", &lines]).status.success());
    let days = text(&folder.path().join("days"));
    let out = wattroute(&["journal", "export", "--file", &db, "--to", "parquet", "--out", &days, "--json"]);
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(told["entries"], 403);
    for file in told["files"].as_array().unwrap() {
        let file = file.as_str().unwrap();
        assert!(file.contains("days/day=20") && file.ends_with("/part-0.parquet"), "{file}");
    }
    for other in [&lines, &days] {
        // An export is in the order of the arrivals too: the same log, whatever it lies in.
        assert_eq!(
            stripped(outcome_of(&[&["--journal", other], &PAIR[..]].concat())),
            stripped(own.clone()),
            "{other}"
        );
    }
    // A day that is there is not written over, and nothing else is left behind.
    let e = refused(&["journal", "export", "--file", &db, "--to", "parquet", "--out", &days]);
    assert!(e.contains("nothing is written over"), "{e}");
    let left: Vec<_> = std::fs::read_dir(&days).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with("day=")), "{left:?}");
}

#[tokio::test]
async fn both_versions_of_entries_are_one_log_and_damaged_parts_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let connect = || sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut db = connect().connect().await.unwrap();
    sqlx::raw_sql(wattroute::journal::schema::STEPS[0]).execute(&mut db).await.unwrap();
    sqlx::raw_sql("PRAGMA application_id = 2003987052; PRAGMA user_version = 1").execute(&mut db).await.unwrap();
    let arrived = i64::try_from(wattroute::clock::unix_ms()).unwrap() - 1_800_000;
    for i in 0..5_i64 {
        sqlx::query(
            "INSERT INTO entry VALUES (?1, ?2, 'r', ?3, 't', 'chat', 'auto', 1, 'Legal services', 0.5,
             x'0000003f', 'balanced', '00ff', 1.0, 'because', '[{\"backend\":\"local/a\",\"place\":\"local\",\"eligible\":true}]',
             'local/a', 'local', 1, 'ok', NULL, 200, 10, 20, 'engine', 1.0, 2.0, 4.0, 'modelled', 0.0, 3.0, 5.0, 7.0, NULL, NULL,
             8.0, 16.0, 30.0, -1)",
        )
        .bind((arrived + i) << 22)
        .bind(arrived + i)
        .bind(format!("old-{i}"))
        .execute(&mut db)
        .await
        .unwrap();
    }
    drop(db);
    assert_eq!(outcome_of(&[&["--journal", &text(&path)], &PAIR[..]].concat())["log"]["replayed"], 5);
    let journal = Journal::open(&settings(&path));
    (0..7).for_each(|i| journal.offer(entry(i, 7)));
    assert!(journal.flush().await);
    drop(journal);
    let mut db = connect().connect().await.unwrap();
    sqlx::raw_sql("UPDATE entry_2 SET rest = x'09' WHERE id = (SELECT max(id) FROM entry_2)")
        .execute(&mut db)
        .await
        .unwrap();
    drop(db);
    let log = outcome_of(&[&["--journal", &text(&path)], &PAIR[..]].concat())["log"].clone();
    assert_eq!((&log["replayed"], &log["bad"]), (&json!(11), &json!(1)));
    assert!(log["first_bad"][0]["why"].as_str().unwrap().contains("packed part"), "{log}");
    let e = refused(&[&["replay", "--journal", &text(&path), "--strict"], &PAIR[..]].concat());
    assert!(e.contains("journal.db:12: has no decision"), "{e}");
}

#[tokio::test]
async fn what_is_no_journal_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| text(&folder.path().join(name));
    let of = |file: &str| refused(&[&["replay", "--journal", file], &PAIR[..]].concat());
    assert!(of(&here("none.db")).contains("No such file"));
    std::fs::write(here("empty.db"), "").unwrap();
    assert!(of(&here("empty.db")).contains("empty.db: holds no queries"));
    std::fs::write(here("text.jsonl"), "{\"messages\":[]}\n").unwrap();
    assert!(of(&here("text.jsonl")).contains("is neither a journal of wattroute nor an export of one"));
    drop(Journal::open(&settings(&folder.path().join("new.db"))));
    assert!(of(&here("new.db")).contains("new.db: holds no queries"));
    let connect = |name: &str| {
        sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join(name)).create_if_missing(true)
    };
    let mut other = connect("other.db").connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE t (x)").execute(&mut other).await.unwrap();
    drop(other);
    assert!(of(&here("other.db")).contains("is a database of another program, not a journal"));
    let good = journal(folder.path(), 2000);
    let whole = std::fs::read(&good).unwrap();
    std::fs::write(here("cut.db"), &whole[..whole.len() / 2]).unwrap();
    assert!(of(&here("cut.db")).contains("damaged or cut off"), "{}", of(&here("cut.db")));
    let mut holder = connect("journal.db").connect().await.unwrap();
    sqlx::raw_sql("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").execute(&mut holder).await.unwrap();
    assert!(of(&here("journal.db")).contains("locked by another process"), "{}", of(&here("journal.db")));
    sqlx::raw_sql("ROLLBACK; PRAGMA user_version = 99").execute(&mut holder).await.unwrap();
    drop(holder);
    assert!(of(&here("journal.db")).contains("has journal version 99"), "{}", of(&here("journal.db")));
}

/// Duplicate decisions and a clock that was set back: counted, and errors when strict.
#[test]
fn duplicates_and_a_clock_set_back_are_counted_in_a_journal_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&settings(&path));
    for i in [0, 1, 2, 2, 3] {
        journal.offer(entry(i, 4));
    }
    drop(journal);
    let log = outcome_of(&[&["--journal", &text(&path)], &PAIR[..]].concat())["log"].clone();
    assert_eq!((&log["replayed"], &log["duplicates"], &log["clock_backwards"]), (&json!(4), &json!(1), &json!(0)));
    let back = folder.path().join("back.jsonl");
    let line = |id: &str, at: u64| json!({ "decision_id": id, "arrived_ms": at, "input_tokens": 5, "output_tokens": 5, "place": "local", "outcome": "ok" });
    std::fs::write(&back, format!("{}\n{}\n", line("a", 9000), line("b", 4000))).unwrap();
    assert_eq!(outcome_of(&[&["--journal", &text(&back)], &PAIR[..]].concat())["log"]["clock_backwards"], 1);
    let e = refused(&[&["replay", "--journal", &text(&back), "--strict"], &PAIR[..]].concat());
    assert!(e.contains("back.jsonl:2: it arrived 5.000 s before an earlier line"), "{e}");
}

/// The journal, the tables of both sides and a replay on one page that asks nobody for anything.
#[test]
fn a_report_joins_journal_tables_and_replay() {
    let folder = tempfile::tempdir().unwrap();
    let db = text(&journal(folder.path(), 300));
    let out = text(&folder.path().join("page"));
    let tables = ["--weak", "llama-3.1-8b-instruct", "--strong", "gemini-1.5-pro-002"];
    let done = wattroute(&[&["report", "--journal", &db, "--out", &out, "--json"], &tables[..]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&done.stdout).unwrap()["missing"], json!([]));
    let html = std::fs::read_to_string(folder.path().join("page/report.html")).unwrap();
    let ours = html.replace("http://www.w3.org/2000/svg", "");
    for foreign in ["http:", "https:", "<script", "<img", "<link", "url(", "@import"] {
        assert!(!ours.contains(foreign), "{foreign}");
    }
    for part in ["id=\"traffic\"", "id=\"replay\"", "id=\"tables\"", ">Queries over time<", ">Accuracy against energy<"]
    {
        assert_eq!(html.matches(part).count(), 1, "{part}");
    }
    let told: Value = serde_json::from_slice(&std::fs::read(folder.path().join("page/report.json")).unwrap()).unwrap();
    let (stats, hours) = (&told["journal"], told["hours"].as_array().unwrap());
    // The cached one counts as answered; the question for a decision only is no query.
    assert_eq!((&stats["entries"], &stats["answered"]), (&json!(302), &json!(301)));
    let sum = |key: &str| hours.iter().map(|h| h[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("entries"), sum("local") + sum("cloud")), (302, 301));
    assert_eq!(
        (&told["replay"]["log"]["replayed"], told["tables"]["subjects"].as_array().unwrap().len()),
        (&json!(300), 2)
    );
    // What is not to be had is said, and the rest is there.
    let none = folder.path().join("none.toml");
    std::fs::write(&none, "[backends.a]\nplace = \"local\"\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"nobody-knows-it\"\n").unwrap();
    let done = wattroute(&["report", "--journal", &db, "--out", &out, "--config", &text(&none)]);
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(
        said.contains("no replay: no table of a local and of a cloud backend"),
        "{said} {}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(refused(&["report", "--journal", &text(&none), "--out", &out]).contains("none.toml"));
}

/// The last of entries that arrived a tenth of a second apart, up to five seconds ago: in a replay and in a report.
#[test]
fn a_time_limits_replays_and_reports_alike() {
    let folder = tempfile::tempdir().unwrap();
    // A hundred seconds of entries.
    let db = text(&journal(folder.path(), 1000));
    let all = outcome_of(&[&["--journal", &db], &PAIR[..]].concat());
    let some = outcome_of(&[&["--journal", &db, "--since", "60s"], &PAIR[..]].concat());
    let replayed = |outcome: &Value| outcome["log"]["replayed"].as_u64().unwrap();
    assert_eq!(replayed(&all), 1000);
    // Fifty-five seconds of them, less what this test took.
    assert!((150..=551).contains(&replayed(&some)), "{}", some["log"]);
    let skipped = some["log"]["passed_over"].as_u64().unwrap();
    assert_eq!(skipped + replayed(&some), 1003, "{}", some["log"]);
    let out = text(&folder.path().join("page"));
    let report = ["report", "--journal", &db, "--since", "60s", "--out", &out];
    let done = wattroute(&[&report[..], &PAIR[..]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told: Value = serde_json::from_slice(&std::fs::read(folder.path().join("page/report.json")).unwrap()).unwrap();
    let (entries, again) = (told["journal"]["entries"].as_u64().unwrap(), replayed(&told["replay"]));
    assert!(entries.abs_diff(again) <= 3 && again < 560, "{entries} {again}");
    assert!(refused(&[&["replay", "--outcomes", &db, "--since", "1h"], &PAIR[..]].concat()).contains("--since"));
}
