//! Parquet, of this program and of others.

use std::path::Path;

use serde_json::{Map, Value, json};
use wattroute::columnar::write::{Kind, Writer};

use super::{PAIR, outcome_of, refused, stripped, text};

/// An outcome table as lines of text and as Parquet: the same figures. What is cut off or lacks columns is named.
#[test]
fn outcome_tables_and_logs_are_read_from_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name);
    let models = json!({ "models": [{ "id": "big", "params_b": 70 }, { "id": "small", "params_b": 1.0 }] }).to_string();
    let rows: Vec<Map<String, Value>> = (0..20_000)
        .map(|i| {
            let row = json!({ "id": format!("q{i}"), "domain": if i % 2 == 0 { "a" } else { "b" }, "prompt": format!("question {i}"),
                "ok": [1.0, f64::from(u8::from(i % 3 == 0))], "out_tokens": [50.0, 60.0], "in_tokens": 7.0, "arrival_ms": 10.0 * i as f64 });
            row.as_object().unwrap().clone()
        })
        .collect();
    let lines: String = rows.iter().map(|r| Value::Object(r.clone()).to_string() + "\n").collect();
    std::fs::write(here("t.jsonl"), lines).unwrap();
    let columns = [
        ("id", Kind::Text),
        ("domain", Kind::Text),
        ("prompt", Kind::Text),
        ("ok", Kind::Reals),
        ("out_tokens", Kind::Reals),
        ("in_tokens", Kind::Real),
        ("arrival_ms", Kind::Real),
    ];
    let write = |path: &Path, columns: &[(&'static str, Kind)]| {
        let mut writer = Writer::new(std::fs::File::create(path).unwrap(), columns).unwrap();
        rows.iter().for_each(|row| writer.push(row).unwrap());
        writer.close().unwrap();
    };
    write(&here("t.parquet"), &columns);
    std::fs::write(here("t.models.json"), &models).unwrap();
    let of = |name: &str| {
        stripped(outcome_of(&[
            "--outcomes",
            &text(&here(name)),
            "--weak",
            "small",
            "--strong",
            "big",
            "--policy",
            "balanced",
        ]))
    };
    assert_eq!(of("t.jsonl"), of("t.parquet"));
    let whole = std::fs::read(here("t.parquet")).unwrap();
    std::fs::write(here("cut.parquet"), &whole[..whole.len() - 100]).unwrap();
    let of = |name: &str| refused(&[&["replay", "--log", &text(&here(name))], &PAIR[..]].concat());
    assert!(of("cut.parquet").contains("is cut off or no Parquet"), "{}", of("cut.parquet"));
    std::fs::write(here("short.parquet"), "PAR1").unwrap();
    assert!(of("short.parquet").contains("is cut off or no Parquet"), "{}", of("short.parquet"));
    write(&here("odd.parquet"), &columns[..2]);
    let e = of("odd.parquet");
    assert!(e.contains("odd.parquet:1: is JSON with the keys ") && e.contains("domain"), "{e}");
    std::fs::create_dir(here("none")).unwrap();
    assert!(of("none").contains("is a folder without Parquet files"), "{}", of("none"));
}

/// Files that pyarrow 26 and Polars 2.1 wrote of the same four conversations, in every packing that they have.
#[test]
fn parquet_of_other_programs_is_read_in_every_usual_packing() {
    let here = |name: &str| text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet").join(name));
    let of = |name: &str| stripped(outcome_of(&[&["--log", &here(name), "--policy", "fast"], &PAIR[..]].concat()));
    let plain = of("pyarrow-none.parquet");
    assert_eq!((&plain["log"]["replayed"], &plain["log"]["format"]), (&json!(4), &json!("wildchat")));
    assert_eq!(plain["policies"][0]["by_domain"][0]["domain"], "Legal services");
    for name in ["pyarrow-snappy", "pyarrow-gzip", "pyarrow-zstd", "pyarrow-lz4", "polars-default"] {
        assert_eq!(of(&format!("{name}.parquet")), plain, "{name}");
    }
    let e = refused(&[&["replay", "--log", &here("pyarrow-brotli.parquet")], &PAIR[..]].concat());
    assert!(e.contains("column `id` is packed with BROTLI; snappy, gzip, zstd, lz4 and none at all are read"), "{e}");
}
