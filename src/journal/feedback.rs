//! What people thought of answers: one score for an entry, the last one given.
//!
//! Kept by the writer, which alone knows what is on disk. Invariants: a score is kept only for an entry of the tenant who
//! gives it; giving the same twice changes nothing; scores are as many as entries, and go with them; what waits is bounded
//! by [`WAITING`], and one more is refused.

use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::packed;
use super::schema::id_floor;

/// Scores that may wait for the writer.
pub const WAITING: usize = 256;
/// An entry is written at its answer's end: so long after its decision at most, the longest answer and the meters included.
const LONGEST: Duration = Duration::from_secs(35 * 60);
/// Entries that are looked at in detail: more than one holds a decision's id only if a client put it into its request ids.
const LOOKS: i64 = 8;

/// A score on its way to the writer.
#[derive(Debug)]
pub struct Given {
    /// Of which decision; its time tells where to look.
    pub decision: Uuid,
    /// Who gives it.
    pub tenant: String,
    /// From 0, bad, to 1, good.
    pub score: f64,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Told once.
    pub tell: oneshot::Sender<Fate>,
}

/// What became of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On disk.
    Kept,
    /// No entry of this tenant has this decision, or none yet.
    Unknown,
    /// Too many wait, the journal is off or cannot be written.
    Refused,
}

/// Looks a decision up and keeps its score.
pub async fn keep(db: &mut SqliteConnection, given: &Given) -> Result<Fate, sqlx::Error> {
    let Some(entry) = find(db, given).await? else { return Ok(Fate::Unknown) };
    sqlx::query(
        "INSERT INTO feedback (entry, at_ms, score) VALUES (?, ?, ?)
         ON CONFLICT (entry) DO UPDATE SET at_ms = excluded.at_ms, score = excluded.score WHERE score <> excluded.score",
    )
    .bind(entry)
    .bind(i64::try_from(given.at_ms).unwrap_or(i64::MAX))
    .bind(given.score)
    .execute(db)
    .await?;
    Ok(Fate::Kept)
}

/// The entry of a decision, among this tenant's that were written since.
async fn find(db: &mut SqliteConnection, given: &Given) -> Result<Option<i64>, sqlx::Error> {
    let Some(decided_ms) = unix_ms(given.decision) else { return Ok(None) };
    let text = given.decision.to_string();
    let last = decided_ms.saturating_add(u64::try_from(LONGEST.as_millis()).unwrap_or(u64::MAX));
    let rows = sqlx::query(
        "SELECT id, rest FROM entry_2
         WHERE id >= ? AND id < ? AND tenant = ? AND endpoint NOT IN ('route','shadow') AND instr(rest, CAST(? AS BLOB)) > 0 LIMIT ?",
    )
    .bind(id_floor(decided_ms))
    .bind(id_floor(last))
    .bind(&given.tenant)
    .bind(&text)
    .bind(LOOKS)
    .fetch_all(db)
    .await?;
    for row in rows {
        let rest: Vec<u8> = row.try_get("rest")?;
        if packed::unpack(&rest).is_some_and(|fields| fields.get("decision_id").is_some_and(|id| *id == *text)) {
            return Ok(Some(row.try_get("id")?));
        }
    }
    Ok(None)
}

/// When a version 7 id was made.
pub fn unix_ms(id: Uuid) -> Option<u64> {
    (id.get_version_num() == 7).then(|| id.as_u64_pair().0 >> 16)
}
