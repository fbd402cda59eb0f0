//! Sums over shadows: queries that were asked again of another backend, whose answers nobody got.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::packed;
use super::schema::id_floor;
use super::stats::Filter;

/// The shadows of one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Shadows {
    /// Who was asked again.
    pub backend: String,
    /// How often.
    pub asked: u64,
    /// How many answers could be compared.
    pub compared: u64,
    /// Mean agreement with the answers that were given, from 0 to 1; null where none was compared.
    pub agreement: Option<f64>,
    /// Half the width of its 95 % interval, normal approximation; null below two.
    pub agreement_within: Option<f64>,
    /// Of those that a judge read with the same verdict in both orders: better than the answer that was given, as good, worse.
    pub judged: [u64; 3],
    /// Joules that they took, as far as known; null where none is.
    pub joules: Option<f64>,
    /// US dollars, likewise.
    pub usd: Option<f64>,
}

/// Running sums.
#[derive(Default)]
struct Sums {
    asked: u64,
    agreements: Vec<f64>,
    judged: [u64; 3],
    joules: Option<f64>,
    usd: Option<f64>,
}

/// By backend, in order of names. Shadows are few by design, so that their packed parts are read one by one.
pub async fn sums(db: &mut SqliteConnection, filter: &Filter) -> Result<Vec<Shadows>, sqlx::Error> {
    let known = sqlx::query("SELECT 1 FROM sqlite_master WHERE name = 'entry_2'").fetch_optional(&mut *db).await?;
    if known.is_none() {
        return Ok(Vec::new()); // A file of version 1 is older than shadows.
    }
    let rows = sqlx::query(
        "SELECT backend, joules_mid, usd, rest FROM entry_2
         WHERE id >= ?1 AND arrived_ms >= ?2 AND (?3 IS NULL OR tenant = ?3) AND endpoint = 'shadow' AND backend IS NOT NULL",
    )
    .bind(id_floor(filter.since_ms))
    .bind(i64::try_from(filter.since_ms).unwrap_or(i64::MAX))
    .bind(filter.tenant.clone())
    .fetch_all(&mut *db)
    .await?;
    let mut by_backend: BTreeMap<String, Sums> = BTreeMap::new();
    for row in rows {
        let sums = by_backend.entry(row.try_get("backend")?).or_default();
        sums.asked += 1;
        let rest: Vec<u8> = row.try_get("rest")?;
        let fields = packed::unpack(&rest);
        sums.agreements.extend(fields.as_ref().and_then(|f| f.get("confidence")?.as_f64()));
        let [better, same, worse] = &mut sums.judged;
        match fields.as_ref().and_then(|f| f.get("judged")?.as_f64()) {
            Some(score) if score > 0.75 => *better += 1,
            Some(score) if score > 0.25 => *same += 1,
            Some(_) => *worse += 1,
            None => {}
        }
        for (sum, one) in [(&mut sums.joules, row.try_get("joules_mid")?), (&mut sums.usd, row.try_get("usd")?)] {
            *sum = match (*sum, one) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            };
        }
    }
    Ok(by_backend.into_iter().map(|(backend, sums)| told(backend, &sums)).collect())
}

#[expect(clippy::cast_precision_loss, reason = "counts of journal entries stay far below 2^52")]
fn told(backend: String, sums: &Sums) -> Shadows {
    let n = sums.agreements.len() as f64;
    let mean = (n > 0.0).then(|| sums.agreements.iter().sum::<f64>() / n);
    let within = mean.filter(|_| n > 1.0).map(|mean| {
        let squares: f64 = sums.agreements.iter().map(|a| (a - mean).powi(2)).sum();
        1.96 * (squares / (n - 1.0) / n).sqrt()
    });
    Shadows {
        backend,
        asked: sums.asked,
        compared: sums.agreements.len() as u64,
        agreement: mean,
        agreement_within: within,
        judged: sums.judged,
        joules: sums.joules,
        usd: sums.usd,
    }
}
