//! Entries as lines of JSON for a replay: what a policy could see, what was decided, what came of it. Any size of journal passes
//! through a few megabytes of memory.
//!
//! Entries lie in the file in the order of their answers' ends; a replay needs that of their arrivals, or its device would be asked
//! out of turn. They wait in a heap until nothing earlier can come any more. Invariant: the file is never written.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

use futures_util::TryStreamExt;
use serde::Serialize;
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::file::{self, JournalError};
use super::packed;
use super::schema::ID_BITS;

/// An entry is written at its answer's end: so long after its arrival at most, unless a clock was set.
const LATE_MS: i64 = 35 * 60 * 1000;
/// Entries that may wait for earlier ones.
const WAITING: usize = 1 << 16;
/// Lines given away at once, bytes.
const BLOCK: usize = 256 << 10;

/// Both versions of entries have all of these in the view, null where they have not got them.
const QUERY: &str =
    "SELECT id, arrived_ms, endpoint, domain, place, outcome, input_tokens, output_tokens, feedback, rest,
    decision_id, posterior, propensity, attempts, alternatives FROM entries ORDER BY id";

/// One line. Names are those of an export.
#[derive(Serialize)]
struct Line<'a> {
    decision_id: &'a str,
    arrived_ms: i64,
    endpoint: &'a str,
    domain: &'a str,
    place: Option<&'a str>,
    outcome: &'a str,
    posterior: &'a [f32],
    propensity: f64,
    /// In place of the alternatives: how many local and how many cloud backends could be chosen.
    eligible: [u32; 2],
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'a str>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feedback: Option<f64>,
}

/// Gives every entry away as lines, earliest arrival first, and with each block the share of the journal that was read; `give` says
/// whether it wants more. Blocks the thread, which must not be one of a runtime.
///
/// # Errors
/// No such file, not a journal, damaged, locked, of a later version.
pub fn stream(path: &Path, give: &mut dyn FnMut(Vec<u8>, f64) -> bool) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(read(path, give)).map_err(|e| match e {
        // Only the writer moves files aside.
        JournalError::Damaged(_) => "is a damaged or cut off SQLite file".to_owned(),
        JournalError::Foreign(_) => "is a database of another program, not a journal".to_owned(),
        other => other.to_string(),
    })
}

async fn read(path: &Path, give: &mut dyn FnMut(Vec<u8>, f64) -> bool) -> Result<(), JournalError> {
    let mut db = file::open_to_read(path).await?;
    let sql = |e: sqlx::Error| JournalError::of(path, &e);
    // The views are made: from here on this connection refuses to write.
    sqlx::raw_sql("PRAGMA query_only = 1").execute(&mut db).await.map_err(sql)?;
    let (first, last) = ends(&mut db).await.map_err(sql)?;
    let share = |id: i64| (id - first) as f64 / (last - first).max(1) as f64;
    let mut waiting: BinaryHeap<Reverse<(i64, i64, Vec<u8>)>> = BinaryHeap::new();
    let mut block = Vec::with_capacity(BLOCK + 4096);
    let mut rows = sqlx::query(QUERY).fetch(&mut db);
    while let Some(row) = rows.try_next().await.map_err(sql)? {
        let (id, arrived): (i64, i64) = (row.try_get("id").map_err(sql)?, row.try_get("arrived_ms").map_err(sql)?);
        waiting.push(Reverse((arrived, id, line(&row).map_err(sql)?)));
        let settled = (id >> ID_BITS) - LATE_MS;
        while waiting.len() > WAITING || waiting.peek().is_some_and(|Reverse((at, ..))| *at < settled) {
            if let Some(Reverse((.., line))) = waiting.pop() {
                block.extend_from_slice(&line);
            }
            if block.len() >= BLOCK && !give(std::mem::take(&mut block), share(id)) {
                return Ok(());
            }
        }
    }
    while let Some(Reverse((.., line))) = waiting.pop() {
        block.extend_from_slice(&line);
        if block.len() >= BLOCK && !give(std::mem::take(&mut block), 1.0) {
            return Ok(());
        }
    }
    give(block, 1.0);
    Ok(())
}

async fn ends(db: &mut SqliteConnection) -> Result<(i64, i64), sqlx::Error> {
    let row = sqlx::query("SELECT min(id) AS first, max(id) AS last FROM entries").fetch_one(db).await?;
    Ok((row.try_get::<Option<i64>, _>("first")?.unwrap_or(0), row.try_get::<Option<i64>, _>("last")?.unwrap_or(0)))
}

fn line(row: &SqliteRow) -> Result<Vec<u8>, sqlx::Error> {
    let text = |name: &str| row.try_get::<Option<&str>, _>(name);
    let mut line = Line {
        decision_id: "",
        arrived_ms: row.try_get("arrived_ms")?,
        endpoint: text("endpoint")?.unwrap_or_default(),
        domain: text("domain")?.unwrap_or_default(),
        place: text("place")?,
        outcome: text("outcome")?.unwrap_or_default(),
        posterior: &[],
        propensity: 0.0,
        eligible: [0; 2],
        attempts: 0,
        verdict: None,
        input_tokens: row.try_get("input_tokens")?,
        output_tokens: row.try_get("output_tokens")?,
        feedback: row.try_get("feedback")?,
    };
    let posterior;
    if let Some(packed) = row.try_get::<Option<&[u8]>, _>("rest")? {
        if let Some(seen) = packed::glance(packed) {
            posterior = seen.posterior;
            (line.decision_id, line.posterior, line.propensity) = (seen.decision_id, &posterior, seen.propensity);
            (line.eligible, line.attempts, line.verdict) = (seen.eligible, seen.attempts, seen.verdict);
        }
    } else {
        let (floats, _) = row.try_get::<Option<&[u8]>, _>("posterior")?.unwrap_or_default().as_chunks::<4>();
        posterior = floats.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>();
        line.decision_id = text("decision_id")?.unwrap_or_default();
        line.posterior = &posterior;
        line.propensity = row.try_get::<Option<f64>, _>("propensity")?.unwrap_or(0.0);
        line.attempts = row.try_get::<Option<i64>, _>("attempts")?.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        line.eligible = eligible(text("alternatives")?.unwrap_or_default());
    }
    let mut out = serde_json::to_vec(&line).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    out.push(b'\n');
    Ok(out)
}

/// Local and cloud backends that could be chosen, of alternatives as text.
fn eligible(alternatives: &str) -> [u32; 2] {
    let mut out = [0; 2];
    let [local, cloud] = &mut out;
    let all: Vec<Value> = serde_json::from_str(alternatives).unwrap_or_default();
    for one in all.iter().filter(|a| a.get("eligible").and_then(Value::as_bool) == Some(true)) {
        *if one.get("place").and_then(Value::as_str) == Some("local") { &mut *local } else { &mut *cloud } += 1;
    }
    out
}
