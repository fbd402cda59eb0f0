//! Logs: lower case, short, fields. What may reach them is decided where they are written: no prompt, answer, key or
//! upstream text is ever a field.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::env;

/// Variable that sets the filter, `info` or `wattroute=debug,warn`.
pub const VARIABLE: &str = "WATTROUTE_LOG";
/// Variable that makes each line a JSON object when it is `json`.
pub const FORMAT: &str = "WATTROUTE_LOG_FORMAT";

/// Without the variable: our own events, and warnings of everything else.
const DEFAULT: &str = "warn,wattroute=info";

/// Libraries that would log headers or bodies at their finer levels; the variable cannot open them further than this.
const CAPPED: [&str; 9] = [
    "hyper=info",
    "hyper_util=info",
    "h2=info",
    "reqwest=info",
    "rustls=info",
    "tokio_rustls=info",
    "sqlx=warn",
    "config=warn",
    "notify=info",
];

/// Starts logging to standard error. Later calls do nothing.
pub fn init() {
    let asked = env::var(VARIABLE).unwrap_or_default();
    let json = env::var(FORMAT).is_some_and(|f| f == "json");
    let (filter, bad) = filter(&asked);
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    let started = if json { lines.json().flatten_event(true).try_init() } else { lines.try_init() };
    if started.is_ok() && bad {
        tracing::warn!("{VARIABLE} is not a filter such as `info` or `wattroute=debug,warn`; the default is used");
    }
}

fn filter(asked: &str) -> (EnvFilter, bool) {
    let (text, parsed) = match asked.trim() {
        "" => (DEFAULT, EnvFilter::try_new(DEFAULT)),
        some => (some, EnvFilter::try_new(some)),
    };
    let bad = parsed.is_err();
    let mut filter = parsed.unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    for cap in CAPPED {
        let name = cap.split('=').next().unwrap_or_default();
        let quieter = text.contains(&format!("{name}=off")) || text.contains(&format!("{name}=error"));
        if let (false, Ok(directive)) = (quieter, cap.parse()) {
            filter = filter.add_directive(directive);
        }
    }
    (filter, bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_see_bodies_stay_quiet_at_trace() {
        let (filter, bad) = filter("trace");
        let text = filter.to_string();
        assert!(!bad && text.contains("hyper=info") && text.contains("sqlx=warn"), "{text}");
        assert!(super::filter("=,=").1);
    }
}
