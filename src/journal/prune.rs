//! Keeping the journal's file small: what is over age goes, then the oldest while the file is over its size.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use super::schema::{HOUR_MS, TABLES, id_floor};
use crate::config::checked;

/// Entries removed in one transaction: small, so that writing is never held up for long.
pub const PRUNE_ROWS: i64 = 2000;

/// Removes entries over age, then the oldest while the file is over its size; at most [`PRUNE_ROWS`] a call.
pub async fn prune(db: &mut SqliteConnection, config: &checked::Journal, now_ms: u64) -> Result<u64, sqlx::Error> {
    let keep_ms = u64::try_from(config.keep.as_millis()).unwrap_or(u64::MAX);
    let mut bound = id_floor(now_ms.saturating_sub(keep_ms));
    if size(db).await? > config.max_bytes {
        bound = i64::MAX;
    }
    let mut removed = 0;
    for table in TABLES {
        let text = format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE id < ? ORDER BY id LIMIT ?)");
        let rest = PRUNE_ROWS.saturating_sub_unsigned(removed);
        removed += sqlx::query(AssertSqlSafe(text)).bind(bound).bind(rest).execute(&mut *db).await?.rows_affected();
    }
    if removed > 0 {
        sqlx::query("DELETE FROM feedback WHERE entry < (SELECT coalesce(min(id), ?) FROM entry_2)")
            .bind(i64::MAX)
            .execute(&mut *db)
            .await?;
    }
    let hour = i64::try_from(now_ms.saturating_sub(keep_ms) / HOUR_MS).unwrap_or(i64::MAX);
    sqlx::query("DELETE FROM refusal WHERE hour < ?").bind(hour).execute(&mut *db).await?;
    if removed > 0 {
        tracing::info!(entries = removed, "journal entries over age or size removed");
        sqlx::raw_sql("PRAGMA incremental_vacuum(4096)").execute(&mut *db).await?;
    }
    Ok(removed)
}

/// Bytes in use, free pages left out.
async fn size(db: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let row = sqlx::query(
        "SELECT (SELECT page_count FROM pragma_page_count) AS pages,
                (SELECT freelist_count FROM pragma_freelist_count) AS free,
                (SELECT page_size FROM pragma_page_size) AS bytes",
    )
    .fetch_one(db)
    .await?;
    let (pages, free, bytes): (i64, i64, i64) = (row.try_get("pages")?, row.try_get("free")?, row.try_get("bytes")?);
    Ok(u64::try_from((pages - free).max(0).saturating_mul(bytes)).unwrap_or(0))
}
