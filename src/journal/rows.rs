//! Records to rows: one prepared statement for a full block, one for a single row.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, Type};

use super::record::{Outcome, Record};
use super::schema::{HOUR_MS, KEPT};
use super::{Refusals, packed};

/// Rows of the large statement: one round trip to SQLite's thread for this many entries.
const BLOCK: usize = 64;

/// `OR IGNORE` makes a second attempt harmless when the first had been committed without our hearing of it.
static ONE: LazyLock<String> = LazyLock::new(|| statement(1));
static MANY: LazyLock<String> = LazyLock::new(|| statement(BLOCK));

fn statement(rows: usize) -> String {
    let row = format!("({})", vec!["?"; KEPT.len()].join(","));
    format!("INSERT OR IGNORE INTO entry_2 ({}) VALUES {}", KEPT.join(","), vec![row.as_str(); rows].join(","))
}

/// Our own words as the driver takes them without a copy: every entry has half a dozen of the same few dozen.
#[derive(Default)]
pub struct Words(HashMap<&'static str, Arc<str>>);

impl Words {
    fn of(&mut self, word: &'static str) -> Arc<str> {
        Arc::clone(self.0.entry(word).or_insert_with(|| Arc::from(word)))
    }
}

/// Inserts entries with their ids; returns how many were new.
pub async fn insert(
    db: &mut SqliteConnection,
    entries: &[(i64, Box<Record>)],
    words: &mut Words,
) -> Result<u64, sqlx::Error> {
    let mut new = 0;
    let (blocks, rest) = entries.as_chunks::<BLOCK>();
    let blocks = blocks.iter().map(|block| (MANY.as_str(), block.as_slice()));
    for (text, block) in blocks.chain(rest.chunks(1).map(|one| (ONE.as_str(), one))) {
        let mut row = Values(SqliteArguments::default());
        row.0.reserve(block.len() * KEPT.len(), 0);
        for (id, record) in block {
            bind(&mut row, *id, record, words).map_err(sqlx::Error::Encode)?;
        }
        new += sqlx::query_with(AssertSqlSafe(text), row.0).execute(&mut *db).await?.rows_affected();
    }
    Ok(new)
}

/// Adds refusals to those of the hour.
pub async fn count(db: &mut SqliteConnection, refusals: &Refusals, now_ms: u64) -> Result<(), sqlx::Error> {
    for (code, n) in refusals {
        sqlx::query("INSERT INTO refusal VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n")
            .bind(i64::try_from(now_ms / HOUR_MS).unwrap_or(i64::MAX))
            .bind(*code)
            .bind(i64::try_from(*n).unwrap_or(i64::MAX))
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

struct Values(SqliteArguments);

type Bound = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Values {
    fn add<'q>(&mut self, value: impl Encode<'q, Sqlite> + Type<Sqlite>) -> Bound {
        self.0.add(value)
    }

    fn floats(&mut self, values: impl IntoIterator<Item = Option<f64>>) -> Bound {
        values.into_iter().try_for_each(|x| self.add(finite(x)))
    }
}

/// One row, in the order of [`KEPT`].
fn bind(row: &mut Values, id: i64, r: &Record, words: &mut Words) -> Bound {
    let joules = r.joules.filter(|j| j.mid.is_some());
    row.add(id)?;
    row.add(i64::try_from(r.arrived_ms).unwrap_or(i64::MAX))?;
    row.add(Arc::clone(&r.tenant))?;
    row.add(words.of(r.endpoint))?;
    row.add(words.of(r.domain))?;
    row.add(r.backend.clone())?;
    row.add(r.place.map(|p| words.of(p.name())))?;
    row.add(words.of(outcome(r.outcome)))?;
    row.add(r.fault.map(|f| words.of(f)))?;
    row.add(r.input_tokens.map(i64::from))?;
    row.add(r.output_tokens.map(i64::from))?;
    row.floats([joules.and_then(|j| j.low), joules.and_then(|j| j.mid), joules.and_then(|j| j.high)])?;
    row.add(r.joules.map(|j| words.of(j.basis.name())))?;
    row.floats([r.wasted_joules, r.saved.low, r.saved.mid, r.saved.high, r.quality_change, r.usd])?;
    row.add(packed::pack(r))
}

/// SQLite turns NaN into null; infinities would poison every sum.
fn finite(x: Option<f64>) -> Option<f64> {
    x.filter(|x| x.is_finite())
}

/// The word of an outcome in the journal, in stats and in metrics.
pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Cached => "cached",
        Outcome::Refused => "refused",
        Outcome::Upstream => "upstream",
        Outcome::Fault => "fault",
        Outcome::Hangup => "hangup",
    }
}
