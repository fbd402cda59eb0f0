//! Logs by address: the same figures as from a file, and errors without secrets.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::journal::journal;
use super::{PAIR, command, made, outcome_of, refused, stripped, text, two, wattroute};
use crate::support::s3::{KEYS, Store, environment, guarded, serve};

fn rows(n: u64) -> Vec<Value> {
    let hash = wattroute::replay::case::mixed;
    let row = |i: u64| {
        json!({ "id": format!("q{i}"), "prompt": format!("{}", hash(i)), "domain": format!("d{}", i % 3),
        "ok": [(hash(i) % 8 / 7) ^ 1, hash(i + 7) % 2], "out_tokens": [50 + i % 9, 40], "in_tokens": 20, "arrival_ms": 40 * i })
    };
    (0..n).map(row).collect()
}

fn asked(store: &Store, args: &[&str]) -> Output {
    command(args).envs(environment(store)).output().unwrap()
}

fn given(store: &Store, args: &[&str]) -> Value {
    let out = asked(store, &[&["replay", "--json"], args].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// What a command says that must fail, with nothing in it that must not be told.
fn failing(out: &Output) -> String {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && out.stdout.is_empty(), "{said}");
    for secret in [KEYS[0], KEYS[1], "Signature", "AWS4-HMAC"] {
        assert!(!said.contains(secret), "{said}");
    }
    said
}

const SIDES: [&str; 4] = ["--weak", "small", "--strong", "big"];

#[test]
fn a_table_in_a_store_is_the_same_log_packed_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let table = made(folder.path(), "t", &two(), &rows(3000));
    let models = fs::read(folder.path().join("t.models.json")).unwrap();
    let plain: String = rows(3000).iter().map(|row| format!("{row}\n")).collect();
    let (gz, zst) = (fs::read(&table).unwrap(), zstd::encode_all(plain.as_bytes(), 3).unwrap());
    // Two packings one after the other are one log too.
    let (first, rest) = plain.split_at(plain.len() / 3);
    let twice =
        [zstd::encode_all(first.as_bytes(), 1).unwrap(), zstd::encode_all(rest.as_bytes(), 1).unwrap()].concat();
    let names = ["t.jsonl.gz", "t.jsonl.zst", "t.jsonl", "u.jsonl.zst"];
    let mut objects: Vec<(String, Vec<u8>)> =
        names.iter().zip([gz, zst, plain.into_bytes(), twice]).map(|(n, o)| (format!("/logs/a b/{n}"), o)).collect();
    objects.extend(["t", "u"].map(|n| (format!("/logs/a b/{n}.models.json"), models.clone())));
    let store = guarded(objects.iter().map(|(key, object)| (key.as_str(), object.clone())).collect());
    let here = stripped(outcome_of(&[&["--outcomes", &text(&table)], &SIDES[..]].concat()));
    for name in names {
        for address in [format!("s3://logs/a%20b/{name}"), format!("{}/logs/a%20b/{name}", store.address)] {
            let there = given(&store, &[&["--outcomes", &address], &SIDES[..]].concat());
            assert_eq!(there["log"]["file"], json!(address));
            assert_eq!(stripped(there), here, "{address}");
        }
    }
    let file = format!("file://{}", text(&table));
    assert_eq!(stripped(outcome_of(&[&["--outcomes", &file], &SIDES[..]].concat())), here);
    // A search and a checkpoint read the same way.
    let tune = |log: &str| {
        let out = asked(
            &store,
            &[&["tune", "balanced", "--json", "--accuracy", "0.5", "--outcomes", log], &SIDES[..]].concat(),
        );
        let told: Value =
            serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&out.stderr)));
        told["found"].clone()
    };
    assert_eq!(tune("s3://logs/a%20b/t.jsonl.gz"), tune(&text(&table)));
    let state = text(&folder.path().join("state"));
    let kept = ["--outcomes", "s3://logs/a%20b/t.jsonl.gz", "--checkpoint", &state];
    assert_eq!(stripped(given(&store, &[&kept, &SIDES[..]].concat())), here);
}

#[test]
fn a_large_object_is_read_in_ranges_and_one_that_changes_is_an_error() {
    let wide = "x".repeat(2000);
    let rows: Vec<Value> =
        (0..6000).map(|i| json!({ "id": i, "prompt": format!("{i} {wide}"), "ok": [1, i % 2] })).collect();
    let plain: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let size = plain.len();
    let store = serve(vec![("/b/l.jsonl", plain.into_bytes()), ("/b/l.models.json", two().to_string().into_bytes())]);
    let log = format!("{}/b/l.jsonl", store.address);
    let outcome = outcome_of(&[&["--outcomes", &log, "--policy", "fast"], &SIDES[..]].concat());
    assert_eq!(outcome["log"]["replayed"], 6000);
    let ranges: Vec<(usize, usize)> = (store.asked.lock().unwrap().iter())
        .filter_map(|(_, path, range)| {
            (path == "/b/l.jsonl")
                .then_some(range)?
                .strip_prefix("bytes=")?
                .split_once('-')
                .map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()))
        })
        .collect();
    assert!(size > 8 << 20 && ranges.iter().all(|(a, b)| b - a < 8 << 20), "{ranges:?}");
    assert_eq!(ranges.iter().map(|(_, b)| b + 1).max(), Some(size));
    // Another object in its place, once the first pass is over: neither the old nor the new figures.
    let object = wattroute::store::find(Path::new(&log)).unwrap();
    let wattroute::store::Found::There(object) = object else { panic!("{object:?}") };
    store.put("/b/l.jsonl", vec![b'x'; size]);
    let said = object.read(&mut |_| true).unwrap_err();
    assert_eq!(said, format!("{log}: changed while it was read"));
}

#[test]
fn journals_folders_of_parquet_and_reports_come_from_a_store_too() {
    let folder = tempfile::tempdir().unwrap();
    let db = journal(folder.path(), 300);
    let days = folder.path().join("days");
    let out = wattroute(&["journal", "export", "--file", &text(&db), "--to", "parquet", "--out", &text(&days)]);
    assert!(out.status.success());
    let mut objects = vec![
        ("/j/journal.db".to_owned(), fs::read(&db).unwrap()),
        ("/j/days/_tmp/x.parquet".to_owned(), b"unfinished".to_vec()),
    ];
    for day in fs::read_dir(&days).unwrap().map(|d| d.unwrap()) {
        let name = format!("/j/days/{}/part-0.parquet", day.file_name().to_string_lossy());
        objects.push((name, fs::read(day.path().join("part-0.parquet")).unwrap()));
    }
    let store = serve(objects.iter().map(|(key, object)| (key.as_str(), object.clone())).collect());
    let here = stripped(outcome_of(&[&["--journal", &text(&db)], &PAIR[..]].concat()));
    for name in ["s3://j/journal.db", "s3://j/days"] {
        assert_eq!(stripped(given(&store, &[&["--journal", name], &PAIR[..]].concat())), here, "{name}");
    }
    let page = text(&folder.path().join("page"));
    let report = ["report", "--journal", "s3://j/journal.db", "--out", &page];
    let out = asked(&store, &[&report[..], &PAIR[..]].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let told: Value = serde_json::from_slice(&fs::read(folder.path().join("page/report.json")).unwrap()).unwrap();
    assert_eq!(
        (&told["replay"]["log"]["replayed"], &told["replay"]["log"]["file"]),
        (&json!(300), &json!("s3://j/journal.db"))
    );
    let none = asked(&store, &[&["replay", "--log", "s3://j/nothing"], &PAIR[..]].concat());
    assert!(failing(&none).contains("s3://j/nothing: is not there"));
}

#[test]
fn what_a_store_refuses_is_said_without_a_secret() {
    let store = guarded(vec![("/b/t.jsonl", b"{}\n".to_vec())]);
    let log = |name: &str, environment: &[(&str, &str)]| {
        let mut command = command(&[&["replay", "--log", name], &PAIR[..]].concat());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        failing(&command.envs(environment.iter().copied()).output().unwrap())
    };
    let open = format!("{}/b/t.jsonl", store.address);
    assert!(
        log(&open, &[])
            .contains("does not give it to these keys (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set)")
    );
    let wrong = [("AWS_ACCESS_KEY_ID", "other-id"), ("AWS_SECRET_ACCESS_KEY", KEYS[1])];
    let said = log(&open, &wrong);
    assert!(said.contains("the store does not give it to these keys\n") && !said.contains("other-id"), "{said}");
    let plain = [("AWS_ENDPOINT_URL", store.address.as_str()), wrong[0], wrong[1]];
    assert!(log("s3://b/t.jsonl", &plain).contains("is without TLS; AWS_ALLOW_HTTP=true allows that"));
    let half = [("AWS_ACCESS_KEY_ID", KEYS[0])];
    assert!(log("s3://b/t.jsonl", &half).contains("s3://b/t.jsonl: the store cannot be asked"));
    for address in [
        open.replace("http://", &format!("http://{}:{}@", KEYS[0], KEYS[1])),
        format!("{open}?X-Amz-Signature={}", KEYS[1]),
    ] {
        assert!(log(&address, &[]).contains("is not read: keys are taken from the environment"));
    }
    assert!(log("gs://b/t.jsonl", &[]).contains("gs://b/t.jsonl: cannot be read; file://, s3://"));
    let e = refused(&[&["replay", "--log", "http://127.0.0.1:9/b/t.jsonl"], &PAIR[..]].concat());
    assert!(e.contains("http://127.0.0.1:9/b/t.jsonl: the store cannot be read: "), "{e}");
}
