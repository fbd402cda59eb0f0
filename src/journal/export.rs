//! Entries as JSON lines or CSV, in the order of their arrivals, streamed: any size of journal passes through little memory. They lie in the
//! file in the order of their answers' ends; SQLite sorts them, in files of its own where they are many.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use serde_json::{Map, Value};
use sqlx::sqlite::SqliteRow;
use sqlx::{Column, Connection, Row, TypeInfo, ValueRef};

use super::file::{self, JournalError};
use super::packed;
use super::schema::{COLUMNS, SINCE, id_floor};

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// A header and one record a line.
    Csv,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Reading.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Writing; a closed pipe is the reader's choice, not a failure, and is told apart by its kind.
    #[error("cannot write: {}", .0.kind())]
    Output(#[from] io::Error),
    /// Writing columns.
    #[error("cannot write Parquet: {0}")]
    Columns(String),
    /// A day that was exported before.
    #[error("{} holds Parquet files already, and nothing is written over: choose another folder, or a later --since", .0.display())]
    There(PathBuf),
}

/// Writes every entry that arrived at or after `since_ms`, earliest arrival first; returns how many.
///
/// # Errors
/// See [`ExportError`].
pub async fn export(path: &Path, since_ms: u64, format: Format, out: &mut impl Write) -> Result<u64, ExportError> {
    let mut lines = Lines::new(format, out)?;
    let entries = each(path, since_ms, |entry| Ok(lines.write(entry)?)).await?;
    lines.finish()?;
    Ok(entries)
}

/// Gives every entry away that arrived at or after `since_ms`, earliest arrival first; returns how many.
pub(super) async fn each(
    path: &Path,
    since_ms: u64,
    mut take: impl FnMut(&Map<String, Value>) -> Result<(), ExportError>,
) -> Result<u64, ExportError> {
    let mut db = file::open_to_read(path).await?;
    let sql = |e: sqlx::Error| JournalError::of(path, &e);
    let mut entries = 0;
    {
        let mut rows = sqlx::query("SELECT * FROM entries WHERE id >= ? AND arrived_ms >= ? ORDER BY arrived_ms, id")
            .bind(id_floor(since_ms))
            .bind(i64::try_from(since_ms).unwrap_or(i64::MAX))
            .fetch(&mut db);
        while let Some(row) = rows.try_next().await.map_err(sql)? {
            take(&values(&row).map_err(sql)?)?;
            entries += 1;
        }
    }
    db.close().await.map_err(sql)?;
    Ok(entries)
}

enum Lines<'a, W: Write> {
    Jsonl(&'a mut W),
    Csv(Box<csv::Writer<&'a mut W>>),
}

impl<'a, W: Write> Lines<'a, W> {
    fn new(format: Format, out: &'a mut W) -> io::Result<Self> {
        Ok(match format {
            Format::Jsonl => Self::Jsonl(out),
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(COLUMNS.iter().chain(&SINCE)).map_err(io::Error::from)?;
                Self::Csv(Box::new(csv))
            }
        })
    }

    fn write(&mut self, entry: &Map<String, Value>) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => {
                serde_json::to_writer(&mut **out, entry)?;
                out.write_all(b"\n")
            }
            Self::Csv(csv) => {
                let fields = COLUMNS.iter().chain(&SINCE).map(|c| flat(entry.get(*c)));
                csv.write_record(fields).map_err(io::Error::from)
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => out.flush(),
            Self::Csv(csv) => csv.flush(),
        }
    }
}

/// A row with the journal's own encodings undone: the packed column, flags, posterior, alternatives, session.
fn values(row: &SqliteRow) -> Result<Map<String, Value>, sqlx::Error> {
    let mut entry = Map::new();
    for column in row.columns() {
        let (at, name) = (column.ordinal(), column.name());
        let raw = row.try_get_raw(at)?;
        if raw.is_null() {
            if name != "rest" {
                entry.insert(name.to_owned(), Value::Null);
            }
            continue;
        }
        if name == "rest" {
            let packed: Vec<u8> = row.try_get(at)?;
            match packed::unpack(&packed) {
                Some(fields) => entry.extend(fields),
                None => tracing::warn!("an entry's packed part cannot be read: its fields are null"),
            }
            continue;
        }
        let value = match (name, raw.type_info().name()) {
            ("id", _) => Value::from(row.try_get::<i64, _>(at)?.to_string()),
            ("stream", _) => Value::from(row.try_get::<i64, _>(at)? != 0),
            ("session", _) => Value::from(format!("{:016x}", row.try_get::<i64, _>(at)?)),
            ("posterior", _) => posterior(&row.try_get::<Vec<u8>, _>(at)?),
            ("alternatives", _) => parsed(row.try_get::<String, _>(at)?),
            (_, "INTEGER") => Value::from(row.try_get::<i64, _>(at)?),
            (_, "REAL") => Value::from(row.try_get::<f64, _>(at)?),
            _ => Value::from(row.try_get::<String, _>(at)?),
        };
        entry.insert(name.to_owned(), value);
    }
    for name in SINCE {
        entry.entry(name).or_insert(Value::Null);
    }
    Ok(entry)
}

fn posterior(bytes: &[u8]) -> Value {
    let (floats, _) = bytes.as_chunks::<4>();
    Value::from(floats.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>())
}

fn parsed(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn flat(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}
