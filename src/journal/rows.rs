//! Records to rows: one prepared statement for a full block, one for a single row.

use std::sync::LazyLock;

use sqlx::AssertSqlSafe;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection};

use super::record::{Outcome, Record};
use super::schema::COLUMNS;

/// Rows of the large statement: one round trip to SQLite's thread for this many entries.
const BLOCK: usize = 32;

/// `OR IGNORE` makes a second attempt harmless when the first had been committed without our hearing of it.
static ONE: LazyLock<String> = LazyLock::new(|| statement(1));
static MANY: LazyLock<String> = LazyLock::new(|| statement(BLOCK));

fn statement(rows: usize) -> String {
    let row = format!("({})", vec!["?"; COLUMNS.len()].join(","));
    format!("INSERT OR IGNORE INTO entry ({}) VALUES {}", COLUMNS.join(","), vec![row.as_str(); rows].join(","))
}

/// Inserts entries with their ids; returns how many were new.
pub async fn insert(db: &mut SqliteConnection, entries: &[(i64, Box<Record>)]) -> Result<u64, sqlx::Error> {
    let mut new = 0;
    let (blocks, rest) = entries.as_chunks::<BLOCK>();
    for block in blocks {
        let mut query = sqlx::query(AssertSqlSafe(MANY.as_str()));
        for (id, record) in block {
            query = bind(query, *id, record);
        }
        new += query.execute(&mut *db).await?.rows_affected();
    }
    for (id, record) in rest {
        let query = bind(sqlx::query(AssertSqlSafe(ONE.as_str())), *id, record);
        new += query.execute(&mut *db).await?.rows_affected();
    }
    Ok(new)
}

type Insert = Query<'static, Sqlite, SqliteArguments>;

fn bind(query: Insert, id: i64, r: &Record) -> Insert {
    let joules = r.joules.filter(|j| j.mid.is_some());
    let posterior: Vec<u8> = r.posterior.iter().flat_map(|p| p.to_le_bytes()).collect();
    query
        .bind(id)
        .bind(i64::try_from(r.arrived_ms).unwrap_or(i64::MAX))
        .bind(r.id.clone())
        .bind(r.decision_id.clone())
        .bind(r.tenant.to_string())
        .bind(r.endpoint)
        .bind(r.model_asked.clone())
        .bind(r.stream)
        .bind(r.domain)
        .bind(f64::from(r.domain_p))
        .bind(posterior)
        .bind(r.policy.to_string())
        .bind(r.policy_hash.to_string())
        .bind(finite(Some(r.propensity)).unwrap_or(0.0))
        .bind(r.reason.clone())
        .bind(r.alternatives.clone())
        .bind(r.backend.as_ref().map(ToString::to_string))
        .bind(r.place.map(|p| p.name()))
        .bind(i64::from(r.attempts))
        .bind(outcome(r.outcome))
        .bind(r.fault)
        .bind(r.status.map(i64::from))
        .bind(r.input_tokens.map(i64::from))
        .bind(r.output_tokens.map(i64::from))
        .bind(r.token_source)
        .bind(joules.and_then(|j| finite(j.low)))
        .bind(joules.and_then(|j| finite(j.mid)))
        .bind(joules.and_then(|j| finite(j.high)))
        .bind(r.joules.map(|j| j.basis.name()))
        .bind(finite(r.wasted_joules))
        .bind(finite(r.saved.low))
        .bind(finite(r.saved.mid))
        .bind(finite(r.saved.high))
        .bind(finite(r.quality_change))
        .bind(finite(r.usd))
        .bind(finite(r.ttft_ms))
        .bind(finite(Some(r.total_ms)).unwrap_or(0.0))
        .bind(finite(Some(r.overhead_us)).unwrap_or(0.0))
        .bind(r.session.map(u64::cast_signed))
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
