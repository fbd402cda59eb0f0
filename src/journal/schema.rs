//! The journal's tables, by version. A step is never edited once released: changes are new steps.

/// `PRAGMA application_id` of a journal: "wrjl" in ASCII.
pub const APPLICATION: i64 = 0x7772_6a6c;

/// Statements that lead from version n to n + 1, n being the index.
pub const STEPS: &[&str] = &[
    "CREATE TABLE entry (
    id INTEGER PRIMARY KEY,
    arrived_ms INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    decision_id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    model_asked TEXT NOT NULL,
    stream INTEGER NOT NULL,
    domain TEXT NOT NULL,
    domain_p REAL NOT NULL,
    posterior BLOB NOT NULL,
    policy TEXT NOT NULL,
    policy_hash TEXT NOT NULL,
    propensity REAL NOT NULL,
    reason TEXT NOT NULL,
    alternatives TEXT NOT NULL,
    backend TEXT,
    place TEXT,
    attempts INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    fault TEXT,
    status INTEGER,
    input_tokens INTEGER,
    output_tokens INTEGER,
    token_source TEXT,
    joules_low REAL,
    joules_mid REAL,
    joules_high REAL,
    joules_basis TEXT,
    wasted_joules REAL,
    saved_low REAL,
    saved_mid REAL,
    saved_high REAL,
    quality_change REAL,
    usd REAL,
    ttft_ms REAL,
    total_ms REAL NOT NULL,
    overhead_us REAL NOT NULL,
    session INTEGER
) STRICT",
    // Entries of version 1 stay where they are until they are over age: moving them would hold up the writer for as long
    // as the file is large. Readers see both tables as one, see `view`.
    "CREATE TABLE entry_2 (
    id INTEGER PRIMARY KEY,
    arrived_ms INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    domain TEXT NOT NULL,
    backend TEXT,
    place TEXT,
    outcome TEXT NOT NULL,
    fault TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    joules_low REAL,
    joules_mid REAL,
    joules_high REAL,
    joules_basis TEXT,
    wasted_joules REAL,
    saved_low REAL,
    saved_mid REAL,
    saved_high REAL,
    quality_change REAL,
    usd REAL,
    rest BLOB NOT NULL
) STRICT;
CREATE TABLE refusal (
    hour INTEGER NOT NULL,
    code TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (hour, code)
) STRICT, WITHOUT ROWID",
    // One score for an entry, the last one given.
    "CREATE TABLE feedback (
    entry INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    score REAL NOT NULL
) STRICT",
];

/// Milliseconds of the hours that `refusal` counts by.
pub const HOUR_MS: u64 = 3_600_000;

/// Tables that hold entries, oldest first: by version.
pub const TABLES: [&str; 2] = ["entry", "entry_2"];

/// Columns of `entry_2`: what sums are made of, and [`super::packed`] the rest.
pub const KEPT: [&str; 22] = [
    "id",
    "arrived_ms",
    "tenant",
    "endpoint",
    "domain",
    "backend",
    "place",
    "outcome",
    "fault",
    "input_tokens",
    "output_tokens",
    "joules_low",
    "joules_mid",
    "joules_high",
    "joules_basis",
    "wasted_joules",
    "saved_low",
    "saved_mid",
    "saved_high",
    "quality_change",
    "usd",
    "rest",
];

/// Makes the views of a connection to a journal of this version: `entries`, all of them with all of [`COLUMNS`], `feedback` and
/// `rest`, null where an entry's table has not got them; and `refusals`.
pub fn view(version: usize) -> String {
    let old = format!("SELECT {}, NULL AS feedback, NULL AS rest FROM entry", COLUMNS.join(", "));
    let all = COLUMNS.map(|c| if KEPT.contains(&c) { c.to_owned() } else { format!("NULL AS {c}") });
    let score = if version >= 3 { "(SELECT score FROM feedback WHERE entry = id)" } else { "NULL" };
    let new = format!("SELECT {}, {score} AS feedback, rest FROM entry_2", all.join(", "));
    match version {
        1 => format!(
            "CREATE TEMP VIEW entries AS {old}; CREATE TEMP VIEW refusals AS SELECT 0 AS hour, '' AS code, 0 AS n WHERE 0"
        ),
        _ => format!(
            "CREATE TEMP VIEW entries AS {old} UNION ALL {new}; CREATE TEMP VIEW refusals AS SELECT * FROM refusal"
        ),
    }
}

/// Fields of an entry, in the order of an export; `id` is a 41-bit Unix millisecond and 22 bits that tell entries of that millisecond apart.
pub const COLUMNS: [&str; 39] = [
    "id",
    "arrived_ms",
    "request_id",
    "decision_id",
    "tenant",
    "endpoint",
    "model_asked",
    "stream",
    "domain",
    "domain_p",
    "posterior",
    "policy",
    "policy_hash",
    "propensity",
    "reason",
    "alternatives",
    "backend",
    "place",
    "attempts",
    "outcome",
    "fault",
    "status",
    "input_tokens",
    "output_tokens",
    "token_source",
    "joules_low",
    "joules_mid",
    "joules_high",
    "joules_basis",
    "wasted_joules",
    "saved_low",
    "saved_mid",
    "saved_high",
    "quality_change",
    "usd",
    "ttft_ms",
    "total_ms",
    "overhead_us",
    "session",
];

/// Fields that an export has beside [`COLUMNS`]: what came of a check, what people thought of the answer, and
/// who classified the query at what cost.
pub const SINCE: [&str; 8] =
    ["verdict", "confidence", "wasted_usd", "wasted_seconds", "feedback", "tier", "router_joules", "judged"];

/// Bits of an id below its millisecond.
pub const ID_BITS: u32 = 22;

/// The smallest id of a millisecond.
pub fn id_floor(unix_ms: u64) -> i64 {
    i64::try_from(unix_ms).unwrap_or(i64::MAX >> ID_BITS).min(i64::MAX >> ID_BITS) << ID_BITS
}
