//! Sums over the journal: what was used, what was saved, where it went. Unknown figures are counted, never taken as 0.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::file::{self, JournalError};
use super::schema::{HOUR_MS, id_floor};
use super::shadow::{self, Shadows};

/// Which entries to sum.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Arrived at or after this Unix millisecond; 0 is all.
    pub since_ms: u64,
    /// Of this tenant only.
    pub tenant: Option<String>,
}

/// A sum over entries that have the figure, and how many have not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sum {
    /// Cheapest assumption; null when no entry has it.
    pub low: Option<f64>,
    /// Central assumption.
    pub mid: Option<f64>,
    /// Dearest assumption.
    pub high: Option<f64>,
    /// Entries in the sums.
    pub known: u64,
    /// Entries for which a backend was asked and the figure is not known.
    pub unknown: u64,
}

/// One domain or one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Group {
    /// Domain or backend name.
    pub name: String,
    /// Entries.
    pub entries: u64,
    /// Answered by a local backend.
    pub local: u64,
    /// Answered by a cloud backend.
    pub cloud: u64,
    /// Joules used.
    pub joules: Sum,
    /// Joules saved against the baseline.
    pub saved: Sum,
    /// Entries that somebody scored.
    pub scored: u64,
    /// Mean of their scores, from 0 to 1.
    pub score: Option<f64>,
}

/// One hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Hour {
    /// Its start, Unix milliseconds.
    pub start_ms: u64,
    /// Entries that arrived.
    pub entries: u64,
    /// Answered by a local backend.
    pub local: u64,
    /// Answered by a cloud backend.
    pub cloud: u64,
    /// Joules used, middle; none where no entry knows them.
    pub joules_mid: Option<f64>,
    /// Joules saved, middle.
    pub saved_mid: Option<f64>,
}

/// What `journal stats` prints.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Entries.
    pub entries: u64,
    /// First arrival, Unix milliseconds.
    pub first_ms: Option<u64>,
    /// Last arrival.
    pub last_ms: Option<u64>,
    /// Entries with outcome `ok` or `cached`.
    pub answered: u64,
    /// Of these, by a local backend.
    pub local: u64,
    /// Of these, by a cloud backend.
    pub cloud: u64,
    /// `local / (local + cloud)`; null without answers.
    pub local_share: Option<f64>,
    /// Joules used, thrown away attempts included.
    pub joules: Sum,
    /// Joules saved against the baseline; may be negative.
    pub saved: Sum,
    /// Of the joules used, those of thrown away attempts; null when no entry has any.
    pub wasted_joules: Option<f64>,
    /// US dollars, entries with a price, entries without.
    pub usd: Option<f64>,
    /// Entries without a price.
    pub usd_unknown: u64,
    /// Prompt tokens.
    pub input_tokens: u64,
    /// Generated tokens.
    pub output_tokens: u64,
    /// Mean of P(correct) of the chosen backend minus the baseline's; null without predictions.
    pub quality_change: Option<f64>,
    /// Entries that somebody scored through `/v1/feedback`.
    pub scored: u64,
    /// Mean of their scores, from 0, bad, to 1, good.
    pub score: Option<f64>,
    /// Entries by basis of their joules.
    pub bases: BTreeMap<String, u64>,
    /// Entries by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Entries by fault code.
    pub faults: BTreeMap<String, u64>,
    /// Refused before they were queries, by fault code: heads that are no request, unknown paths and methods, a wrong key
    /// on a path beside inference. They have no entry and no tenant; counted by the hour. Empty when one tenant is asked for.
    pub refused_early: BTreeMap<String, u64>,
    /// By domain, most entries first.
    pub domains: Vec<Group>,
    /// By backend, most entries first.
    pub backends: Vec<Group>,
    /// Queries asked again for comparison, by backend; in none of the sums above.
    pub shadows: Vec<Shadows>,
}

/// `?1` is the smallest id, `?2` the earliest arrival, `?3` the tenant or null.
/// `/v1/route` asks for a decision only: its entries answer nothing and would pull every share down. Shadows answer nobody.
const CHOSEN: &str = "FROM entries WHERE id >= ?1 AND arrived_ms >= ?2 AND (?3 IS NULL OR tenant = ?3) AND endpoint NOT IN ('route','shadow')";

/// The sums shared by all groupings.
const SUMS: &str = "count(*) AS entries,
         sum(place = 'local' AND outcome IN ('ok','cached')) AS local,
         sum(place = 'cloud' AND outcome IN ('ok','cached')) AS cloud,
         sum(joules_low) AS joules_low, sum(joules_mid) AS joules_mid, sum(joules_high) AS joules_high,
         count(feedback) AS scored, avg(feedback) AS score,
         count(joules_mid) AS joules_known,
         sum(backend IS NOT NULL AND joules_mid IS NULL) AS joules_unknown,
         sum(saved_low) AS saved_low, sum(saved_mid) AS saved_mid, sum(saved_high) AS saved_high,
         count(saved_mid) AS saved_known,
         sum(backend IS NOT NULL AND saved_mid IS NULL) AS saved_unknown";

/// Sums the journal in a file.
///
/// # Errors
/// No such file, not a journal, a later version, or SQLite's own.
pub async fn stats(path: &Path, filter: &Filter) -> Result<Stats, JournalError> {
    let mut db = file::open_to_read(path).await?;
    let sql = |e: sqlx::Error| JournalError::of(path, &e);
    let stats = collect(&mut db, filter).await.map_err(sql)?;
    db.close().await.map_err(sql)?;
    Ok(stats)
}

/// The same by hours of arrival, without those in which nothing arrived.
///
/// # Errors
/// As [`stats`].
pub async fn hours(path: &Path, filter: &Filter) -> Result<Vec<Hour>, JournalError> {
    let mut db = file::open_to_read(path).await?;
    let sql = |e: sqlx::Error| JournalError::of(path, &e);
    let text = format!("SELECT arrived_ms / {HOUR_MS} AS hour, {SUMS} {CHOSEN} GROUP BY 1 ORDER BY 1");
    let rows = all(&mut db, filter, text).await.map_err(sql)?;
    let read = |row: &SqliteRow| {
        let sums = group(row, String::new())?;
        Ok(Hour {
            start_ms: count(row, "hour")? * HOUR_MS,
            entries: sums.entries,
            local: sums.local,
            cloud: sums.cloud,
            joules_mid: sums.joules.mid,
            saved_mid: sums.saved.mid,
        })
    };
    let hours = rows.iter().map(read).collect::<Result<Vec<Hour>, sqlx::Error>>().map_err(sql)?;
    db.close().await.map_err(sql)?;
    Ok(hours)
}

async fn collect(db: &mut SqliteConnection, filter: &Filter) -> Result<Stats, sqlx::Error> {
    let overall = format!(
        "SELECT {SUMS}, min(arrived_ms) AS first_ms, max(arrived_ms) AS last_ms,
         sum(outcome IN ('ok','cached')) AS answered, sum(wasted_joules) AS wasted, sum(usd) AS usd,
         sum(backend IS NOT NULL AND usd IS NULL) AS usd_unknown,
         sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
         avg(quality_change) AS quality_change {CHOSEN}"
    );
    let rows = all(db, filter, overall).await?;
    let Some(row) = rows.first() else { return Ok(Stats::default()) };
    let whole = group(row, String::new())?;
    let (local, cloud) = (whole.local, whole.cloud);
    Ok(Stats {
        entries: whole.entries,
        first_ms: row.try_get::<Option<i64>, _>("first_ms")?.map(i64::cast_unsigned),
        last_ms: row.try_get::<Option<i64>, _>("last_ms")?.map(i64::cast_unsigned),
        answered: count(row, "answered")?,
        local,
        cloud,
        local_share: share(local, local + cloud),
        joules: whole.joules,
        saved: whole.saved,
        wasted_joules: row.try_get("wasted")?,
        usd: row.try_get("usd")?,
        usd_unknown: count(row, "usd_unknown")?,
        input_tokens: count(row, "input_tokens")?,
        output_tokens: count(row, "output_tokens")?,
        quality_change: row.try_get("quality_change")?,
        scored: whole.scored,
        score: whole.score,
        bases: counts(db, filter, "joules_basis").await?,
        outcomes: counts(db, filter, "outcome").await?,
        faults: counts(db, filter, "fault").await?,
        refused_early: refused(db, filter).await?,
        domains: groups(db, filter, "domain").await?,
        backends: groups(db, filter, "backend").await?,
        shadows: shadow::sums(db, filter).await?,
    })
}

/// `text` is made of this file's own words only; what users choose is bound.
async fn all(db: &mut SqliteConnection, filter: &Filter, text: String) -> Result<Vec<SqliteRow>, sqlx::Error> {
    sqlx::query(AssertSqlSafe(text))
        .bind(id_floor(filter.since_ms))
        .bind(i64::try_from(filter.since_ms).unwrap_or(i64::MAX))
        .bind(filter.tenant.clone())
        .fetch_all(db)
        .await
}

async fn counts(
    db: &mut SqliteConnection,
    filter: &Filter,
    column: &'static str,
) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let text = format!("SELECT {column} AS name, count(*) AS entries {CHOSEN} AND {column} IS NOT NULL GROUP BY 1");
    all(db, filter, text).await?.iter().map(|row| Ok((row.try_get("name")?, count(row, "entries")?))).collect()
}

async fn refused(db: &mut SqliteConnection, filter: &Filter) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    if filter.tenant.is_some() {
        return Ok(BTreeMap::new());
    }
    let hour = i64::try_from(filter.since_ms / HOUR_MS).unwrap_or(i64::MAX);
    let rows = sqlx::query("SELECT code AS name, sum(n) AS entries FROM refusals WHERE hour >= ? GROUP BY 1")
        .bind(hour)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("name")?, count(row, "entries")?))).collect()
}

async fn groups(db: &mut SqliteConnection, filter: &Filter, column: &'static str) -> Result<Vec<Group>, sqlx::Error> {
    let text = format!(
        "SELECT {column} AS name, {SUMS} {CHOSEN} AND {column} IS NOT NULL GROUP BY 1 ORDER BY entries DESC, name"
    );
    all(db, filter, text).await?.iter().map(|row| group(row, row.try_get("name")?)).collect()
}

fn group(row: &SqliteRow, name: String) -> Result<Group, sqlx::Error> {
    let sum = |low: &str, mid: &str, high: &str, known: &str, unknown: &str| {
        Ok::<_, sqlx::Error>(Sum {
            low: row.try_get(low)?,
            mid: row.try_get(mid)?,
            high: row.try_get(high)?,
            known: count(row, known)?,
            unknown: count(row, unknown)?,
        })
    };
    Ok(Group {
        name,
        entries: count(row, "entries")?,
        local: count(row, "local")?,
        cloud: count(row, "cloud")?,
        joules: sum("joules_low", "joules_mid", "joules_high", "joules_known", "joules_unknown")?,
        saved: sum("saved_low", "saved_mid", "saved_high", "saved_known", "saved_unknown")?,
        scored: count(row, "scored")?,
        score: row.try_get("score")?,
    })
}

/// A sum over no rows is null.
fn count(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<Option<i64>, _>(column)?.unwrap_or(0)).unwrap_or(0))
}

#[expect(clippy::cast_precision_loss, reason = "counts of journal entries stay far below 2^52")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
