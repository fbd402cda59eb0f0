//! Every metric: its name, what it counts, its labels. Label values come from configuration and from our own words,
//! never from a client.

/// What kind a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down, or a sum of fractions since start.
    Gauge,
    /// Distribution over fixed buckets.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// As scraped.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What it says, with its labels.
    pub help: &'static str,
    /// Upper bounds of a histogram's buckets.
    pub buckets: &'static [f64],
}

const SECONDS: &[f64] = &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST: &[f64] = &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const TOKENS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0];
const OVERHEAD: &[f64] = &[1e-5, 2e-5, 4e-5, 6e-5, 8e-5, 1e-4, 1.5e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 5e-3, 2e-2];

const fn counter(name: &'static str, help: &'static str) -> Name {
    Name { name, kind: Kind::Counter, help, buckets: &[] }
}

const fn gauge(name: &'static str, help: &'static str) -> Name {
    Name { name, kind: Kind::Gauge, help, buckets: &[] }
}

const fn histogram(name: &'static str, help: &'static str, buckets: &'static [f64]) -> Name {
    Name { name, kind: Kind::Histogram, help, buckets }
}

/// Requests by endpoint, outcome and place.
pub const REQUESTS: Name = counter(
    "wattroute_requests_total",
    "Requests, by endpoint, outcome (ok, cached, refused, upstream, fault, hangup) and place (local, cloud, none).",
);
/// Faults by code.
pub const FAULTS: Name = counter("wattroute_faults_total", "Requests that ended in a fault, by its code.");
/// Duration, semantic convention `gen_ai.server.request.duration`.
pub const DURATION: Name = histogram(
    "gen_ai_server_request_duration_seconds",
    "From arrival to the last byte, by gen_ai_operation_name and place.",
    SECONDS,
);
/// First token, semantic convention `gen_ai.server.time_to_first_token`.
pub const FIRST_TOKEN: Name = histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "From arrival to the first byte of the answer, by gen_ai_operation_name and place.",
    FIRST,
);
/// Tokens of one request, semantic convention `gen_ai.client.token.usage`.
pub const TOKEN_USAGE: Name = histogram(
    "gen_ai_client_token_usage",
    "Tokens of one request, by gen_ai_token_type (input, output) and backend.",
    TOKENS,
);
/// Tokens in all.
pub const TOKENS_TOTAL: Name =
    counter("wattroute_tokens_total", "Tokens, by backend and gen_ai_token_type (input, output).");
/// Joules by basis.
pub const JOULES: Name =
    gauge("wattroute_joules", "Joules used since start (central figure), by backend and basis of the figure.");
/// Requests without a figure.
pub const JOULES_UNKNOWN: Name =
    counter("wattroute_joules_unknown_total", "Requests whose joules are not known, by backend.");
/// Joules of thrown away attempts.
pub const WASTED: Name = gauge("wattroute_wasted_joules", "Joules since start of attempts that were thrown away.");
/// Joules saved.
pub const SAVED: Name = gauge(
    "wattroute_saved_joules",
    "Joules saved against the cloud baseline since start, by assumption (low, mid, high); may fall.",
);
/// Money.
pub const USD: Name = gauge("wattroute_usd", "US dollars spent since start, by backend.");
/// Checks of local answers.
pub const CHECKS: Name = counter(
    "wattroute_checks_total",
    "Local answers that a cascade checked, by verdict (kept, escalated, given because the cloud could not answer).",
);
/// Our own time.
pub const OVERHEAD_TIME: Name =
    histogram("wattroute_overhead_seconds", "Our own time before the backend is asked.", OVERHEAD);
/// Breaker.
pub const BREAKER: Name = gauge(
    "wattroute_breaker_state",
    "Breaker, by backend: 0 closed, 1 open: given a rest after failures, 2 half-open: one probe may pass.",
);
/// Engine queue.
pub const QUEUE: Name = gauge("wattroute_queue_depth", "Jobs that wait for a backend, by backend.");
/// Keys and values.
pub const KV: Name = gauge(
    "wattroute_kv_bytes",
    "Keys and values of an embedded model in bytes, by backend and use (bound, promised to running queries, kept beginnings).",
);
/// Cached prompt tokens.
pub const REUSED: Name = counter(
    "wattroute_reused_tokens_total",
    "Prompt tokens whose keys and values an embedded model had kept, by backend.",
);
/// Learned factors.
pub const LEARNED: Name = gauge(
    "wattroute_learned_factor",
    "What a backend's own traffic taught, as a factor on its table, by backend and figure (joules, first_token, per_output_token).",
);
/// In flight.
pub const IN_FLIGHT: Name = gauge("wattroute_in_flight", "Requests in flight.");
/// Connections.
pub const CONNECTIONS: Name = gauge("wattroute_connections", "Open client connections.");
/// Cache.
pub const CACHE: Name = counter("wattroute_cache_total", "Looks into the exact-answer cache, by result (hit, miss).");
/// Looks for posteriors.
pub const POSTERIORS: Name =
    counter("wattroute_posteriors_total", "Looks for what a text was sorted into before, by result (kept, made).");
/// The second tier of the classifier.
pub const ENCODER: Name = counter(
    "wattroute_encoder_total",
    "Texts that the sentence encoder was asked for, by result (answered, late: over its budget, busy: not taken, failed).",
);
/// Reloads.
pub const RELOADS: Name =
    counter("wattroute_config_reloads_total", "Reloads of the configuration, by result (ok, refused).");
/// Journal entries.
pub const JOURNAL_WRITTEN: Name = counter("wattroute_journal_written_total", "Journal entries on disk.");
/// Journal drops.
pub const JOURNAL_DROPPED: Name =
    counter("wattroute_journal_dropped_total", "Journal entries dropped because the queue was full.");
/// Journal errors.
pub const JOURNAL_ERRORS: Name =
    counter("wattroute_journal_errors_total", "Failed attempts to open or write the journal.");
/// Journal queue.
pub const JOURNAL_WAITING: Name = gauge("wattroute_journal_waiting", "Journal entries that wait for the writer.");
/// Journal state.
pub const JOURNAL_UP: Name =
    gauge("wattroute_journal_up", "1 while the journal is off or its last write worked, 0 while it fails.");

/// All of them, in the order of the documentation.
pub const ALL: &[Name] = &[
    REQUESTS,
    FAULTS,
    DURATION,
    FIRST_TOKEN,
    TOKEN_USAGE,
    TOKENS_TOTAL,
    JOULES,
    JOULES_UNKNOWN,
    WASTED,
    SAVED,
    USD,
    CHECKS,
    OVERHEAD_TIME,
    BREAKER,
    QUEUE,
    KV,
    REUSED,
    LEARNED,
    IN_FLIGHT,
    CONNECTIONS,
    CACHE,
    POSTERIORS,
    ENCODER,
    RELOADS,
    JOURNAL_WRITTEN,
    JOURNAL_DROPPED,
    JOURNAL_ERRORS,
    JOURNAL_WAITING,
    JOURNAL_UP,
];
