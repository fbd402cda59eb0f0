//! Logs that other programs write: told apart by their first line, and reduced to time, tokens and the user's words. Pure.
//!
//! Any of them may tell what was done live, for off-policy estimates: `action` (`local` or `cloud`), its `propensity`, and the
//! `reward` it got, as columns of CSV; in JSON at the top, or inside `metadata` or `properties`, where such programs keep what is not theirs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::case::Logged;
use super::outcomes::CHARS_PER_TOKEN;
use super::own;
use super::programs::{JOURNAL, SHAPES, Shape};
use super::words::words;
use crate::classify::domain::Posterior;

/// What a row says of a live decision: action, propensity, reward.
const LOGGED: [&str; 3] = ["action", "propensity", "reward"];
/// Where in a row of JSON.
const WITHIN: [&str; 3] = ["", "/metadata", "/properties"];

/// Columns of a trace: when, how many tokens in, how many out; perhaps what was done, at which odds, and what it earned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    at: usize,
    input: usize,
    output: usize,
    logged: [Option<usize>; 3],
    /// Columns in all.
    all: usize,
}

/// What a log is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One object a line.
    Json(&'static Shape),
    /// A header, then one query a line.
    Csv(Columns),
}

impl Kind {
    /// A format by its name, unless it is CSV.
    pub fn named(name: &str) -> Option<Self> {
        SHAPES.iter().find(|shape| shape.name == name).map(Self::Json)
    }

    /// The columns of CSV.
    pub fn columns(self) -> Option<Columns> {
        match self {
            Self::Json(_) => None,
            Self::Csv(columns) => Some(columns),
        }
    }

    /// The word in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json(shape) => shape.name,
            Self::Csv(_) => "csv trace",
        }
    }
}

/// One logged query without labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Its key, if it has one.
    pub id: Option<String>,
    /// When, in seconds of some clock.
    pub at: Option<f64>,
    /// Prompt tokens.
    pub input: Option<f64>,
    /// Output tokens.
    pub output: Option<f64>,
    /// What the user wrote; empty where the log has no text.
    pub text: String,
    /// Its domains, where the log knows them.
    pub posterior: Option<Posterior>,
    /// What was decided, where the log knows the odds.
    pub logged: Option<Logged>,
}

/// What a log is, by its first line; `named` is what the user says it is.
///
/// # Errors
/// What it looks like, and what can be read.
pub fn detect(first: &[u8], named: Option<&str>) -> Result<Kind, String> {
    let readable = || SHAPES.iter().map(|s| s.name).chain(["csv"]).collect::<Vec<_>>().join(", ");
    if let Some(name) = named.filter(|n| *n != "csv") {
        return Kind::named(name).ok_or_else(|| format!("no format `{name}`; read are: {}", readable()));
    }
    if let Ok(Value::Object(map)) = serde_json::from_slice::<Value>(first) {
        let found = SHAPES.iter().find(|s| s.needs.iter().all(|key| map.contains_key(*key)));
        let keys: Vec<&str> = map.keys().map(String::as_str).take(12).collect();
        return found.map(Kind::Json).ok_or_else(|| {
            let table = if map.contains_key("ok") || map.contains_key("score") {
                "; an outcome table goes with --outcomes"
            } else {
                ""
            };
            format!("is JSON with the keys {}, which is no format read here: {}{table}", keys.join(", "), readable())
        });
    }
    let head = String::from_utf8_lossy(first).to_lowercase();
    let names: Vec<&str> = head.split(',').map(|n| n.trim().trim_matches('"')).collect();
    let column = |known: &[&str]| names.iter().position(|n| known.contains(n));
    let at = column(&["arrival_ms", "timestamp", "arrived_at", "time"]);
    let input = column(&["in_tokens", "contexttokens", "input_length", "prompt_tokens", "num_prefill_tokens"]);
    let output = column(&["out_tokens", "generatedtokens", "output_length", "completion_tokens", "num_decode_tokens"]);
    match (at, input, output) {
        (Some(at), Some(input), Some(output)) => {
            let logged = LOGGED.map(|name| column(&[name]));
            Ok(Kind::Csv(Columns { at, input, output, logged, all: names.len() }))
        }
        _ if names.len() > 1 => Err(format!(
            "looks like CSV with {} columns, but a time, tokens in and tokens out are not all among their names (arrival_ms or \
             TIMESTAMP, in_tokens or ContextTokens, out_tokens or GeneratedTokens)",
            names.len()
        )),
        _ => Err(format!("is neither JSON lines nor CSV; read are: {}", readable())),
    }
}

/// Reads one line; none where it holds no query.
///
/// # Errors
/// What is wrong with it.
pub fn read(kind: Kind, line: &[u8]) -> Result<Option<Row>, String> {
    match kind {
        Kind::Csv(columns) => trace(columns, line).map(Some),
        Kind::Json(shape) => {
            let value: Value = serde_json::from_slice(line).map_err(|e| format!("is not JSON: {e}"))?;
            if !shape.needs.iter().all(|key| value.get(key).is_some()) {
                return Err(format!("is not a row of a {} log: it lacks {}", shape.name, shape.needs.join(" or ")));
            }
            if shape.name == JOURNAL { own::entry(&value) } else { object(shape, &value).map(Some) }
        }
    }
}

fn trace(columns: Columns, line: &[u8]) -> Result<Row, String> {
    let text = std::str::from_utf8(line).map_err(|_| "is not text".to_owned())?;
    let cells: Vec<&str> = text.split(',').map(|c| c.trim().trim_matches('"')).collect();
    if cells.len() != columns.all {
        return Err(format!("has {} columns, the header {}", cells.len(), columns.all));
    }
    let cell = |i: usize| cells.get(i).copied().unwrap_or_default();
    let tokens = |i: usize| cell(i).parse::<f64>().ok().filter(|x| x.is_finite() && *x >= 0.0);
    let at = cell(columns.at).parse::<f64>().map(|ms| ms / 1e3).ok().or_else(|| civil(cell(columns.at)));
    let [action, propensity, reward] = columns.logged.map(|i| i.map(cell).filter(|text| !text.is_empty()));
    let number = |name: &str, text: Option<&str>| {
        text.map(|t| t.parse::<f64>().map_err(|_| format!("`{name}` is `{t}`, not a number"))).transpose()
    };
    let logged = Logged::read(action, number("propensity", propensity)?, number("reward", reward)?)?;
    match (at, tokens(columns.input), tokens(columns.output)) {
        (Some(at), Some(input), Some(output)) => {
            Ok(Row { at: Some(at), input: Some(input), output: Some(output), logged, ..Row::default() })
        }
        _ => Err("has no time or no token counts".to_owned()),
    }
}

/// What a row of JSON says of a live decision. Programs have keys of the same names that mean something else: only where all that
/// is needed is in one place does it count.
fn logged(value: &Value) -> Result<Option<Logged>, String> {
    let of = |within: &str| {
        let inner = if within.is_empty() { Some(value) } else { value.pointer(within) };
        let [action, propensity, reward] = LOGGED.map(|key| inner.and_then(|inner| inner.get(key)));
        let known = |v: Option<&Value>| v.and_then(|v| v.as_f64().or_else(|| v.as_str()?.parse().ok()));
        let (action, propensity) = action.and_then(Value::as_str).zip(known(propensity))?;
        Some((action.to_owned(), propensity, known(reward)))
    };
    let found = WITHIN.into_iter().find_map(of);
    found.map_or(Ok(None), |(action, propensity, reward)| Logged::read(Some(&action), Some(propensity), reward))
}

fn object(shape: &Shape, value: &Value) -> Result<Row, String> {
    let first = |paths: &[&str]| paths.iter().find_map(|p| value.pointer(p)).filter(|v| !v.is_null());
    let number = |paths: &[&str]| first(paths).and_then(Value::as_f64).filter(|x| *x >= 0.0);
    let words = first(shape.text).map(words).unwrap_or_default();
    let id = first(shape.id).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    Ok(Row {
        id,
        at: first(shape.at).and_then(|v| seconds(v, shape.name == "mooncake")),
        input: number(shape.input).or_else(|| (words.asked > 0).then(|| words.asked as f64 / CHARS_PER_TOKEN)),
        output: number(shape.output).or_else(|| (words.answered > 0).then(|| words.answered as f64 / CHARS_PER_TOKEN)),
        text: words.user,
        posterior: None,
        logged: logged(value)?,
    })
}

/// Seconds of a number (a date in milliseconds, microseconds or nanoseconds is too large for seconds; some formats count
/// milliseconds from their start) or of a date.
fn seconds(value: &Value, milliseconds: bool) -> Option<f64> {
    let scaled = |x: f64| match x {
        _ if milliseconds => x / 1e3,
        x if x >= 1e17 => x / 1e9,
        x if x >= 1e14 => x / 1e6,
        x if x >= 1e11 => x / 1e3,
        x => x,
    };
    match value {
        Value::Number(n) => n.as_f64().map(scaled),
        Value::String(s) => civil(s),
        _ => None,
    }
}

fn civil(text: &str) -> Option<f64> {
    let stamp = text.parse::<jiff::Timestamp>().ok();
    let local =
        || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp());
    stamp.or_else(local).map(|t| t.as_microsecond() as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_told_apart_and_read() {
        let chat = r#"[{"role":"user","content":"What is a tort?"},{"role":"assistant","content":"A civil wrong."}]"#;
        let cases = [
            ("journal", r#"{"decision_id":"d","arrived_ms":1700000000000,"input_tokens":10,"output_tokens":20}"#.to_owned()),
            ("openai-batch", format!(r#"{{"custom_id":"c","method":"POST","body":{{"model":"m","messages":{chat}}}}}"#)),
            ("litellm", format!(r#"{{"request_id":"r","spend":0.1,"startTime":"2026-01-02T03:04:05Z","prompt_tokens":5,"completion_tokens":7,"messages":{chat}}}"#)),
            ("helicone", r#"{"request_id":"h","request_created_at":"2026-01-02T03:04:05Z","prompt_tokens":5,"completion_tokens":7}"#.to_owned()),
            ("langfuse", format!(r#"{{"id":"l","startTime":"2026-01-02T03:04:05.5Z","input":{chat},"usage":{{"input":3,"output":4}}}}"#)),
            ("mooncake", r#"{"timestamp":27482,"input_length":6955,"output_length":52,"hash_ids":[1]}"#.to_owned()),
            ("wildchat", format!(r#"{{"conversation_hash":"w","timestamp":"2023-04-09T00:02:53","conversation":{chat}}}"#)),
            ("sharegpt", r#"{"id":"s","conversations":[{"from":"human","value":"Hi"},{"from":"gpt","value":"Hello!!!"}]}"#.to_owned()),
            ("chat", format!(r#"{{"messages":{chat}}}"#)),
        ];
        for (name, line) in &cases {
            let kind = detect(line.as_bytes(), None).unwrap();
            assert_eq!(kind.name(), *name);
            let logged = read(kind, line.as_bytes()).unwrap().unwrap();
            assert!(logged.input.is_some(), "{name}: {logged:?}");
            assert!(logged.at.is_some() || ["sharegpt", "chat", "openai-batch"].contains(name), "{name}");
        }
        let mooncake = read(Kind::Json(&SHAPES[5]), cases[5].1.as_bytes()).unwrap().unwrap();
        assert_eq!((mooncake.at, mooncake.output), (Some(27.482), Some(52.0)));
        let wild = read(Kind::Json(&SHAPES[6]), cases[6].1.as_bytes()).unwrap().unwrap();
        assert_eq!((wild.text.as_str(), wild.output), ("What is a tort?\n", Some(3.5)));
    }

    #[test]
    fn any_log_may_tell_what_was_done_at_which_odds() {
        let told = |line: &str| read(detect(line.as_bytes(), None)?, line.as_bytes()).map(|row| row.unwrap().logged);
        let local = Some(Logged { local: true, propensity: 0.8, reward: Some(1.0) });
        let chat = |more: &str| format!(r#"{{"messages":[{{"role":"user","content":"Hi"}}]{more}}}"#);
        assert_eq!(told(&chat(r#","action":"local","propensity":0.8,"reward":1"#)), Ok(local));
        assert_eq!(told(&chat(r#","metadata":{"action":"weak","propensity":"0.8","reward":"1"}"#)), Ok(local));
        assert_eq!(
            told(&chat(r#","action":"chat.completion","properties":{"action":"local","propensity":0.8,"reward":1}"#)),
            Ok(local)
        );
        assert_eq!(told(&chat(r#","action":"chat.completion""#)), Ok(None));
        assert!(told(&chat(r#","action":"left","propensity":0.8"#)).unwrap_err().contains("not local (weak) or cloud"));
        assert!(
            told(&chat(r#","action":"cloud","propensity":1.5"#)).unwrap_err().contains("not above 0 and at most 1")
        );
        let csv = detect(b"timestamp,in_tokens,out_tokens,action,propensity,reward", None).unwrap();
        let row = |line: &str| read(csv, line.as_bytes()).map(|row| row.unwrap().logged);
        assert_eq!(row("5,1,2,local,0.8,1"), Ok(local));
        assert_eq!(row("5,1,2,cloud,0.2,"), Ok(Some(Logged { local: false, propensity: 0.2, reward: None })));
        assert_eq!(row("5,1,2,,,"), Ok(None));
        assert!(row("5,1,2,cloud,often,").unwrap_err().contains("`propensity` is `often`"));
    }

    #[test]
    fn traces_with_and_without_dates_are_read_and_others_are_named() {
        let azure = detect(b"TIMESTAMP,ContextTokens,GeneratedTokens", None).unwrap();
        let a = read(azure, b"2023-11-16 18:15:46.6805900,374,44").unwrap().unwrap();
        let b = read(azure, b"2023-11-16 18:15:50.9951690,396,109").unwrap().unwrap();
        assert!((b.at.unwrap() - a.at.unwrap() - 4.314_579).abs() < 1e-5 && b.output == Some(109.0));
        let ours = detect(b"arrival_ms,in_tokens,out_tokens", None).unwrap();
        assert_eq!(read(ours, b"4315,396,109").unwrap().unwrap().at, Some(4.315));
        assert!(read(ours, b"4315,396").unwrap_err().contains("has 2 columns, the header 3"));
        assert!(detect(b"a,b,c", None).unwrap_err().contains("looks like CSV with 3 columns"));
        assert!(detect(b"{\"foo\":1}", None).unwrap_err().contains("with the keys foo"));
        assert!(detect(b"{\"ok\":[1]}", None).unwrap_err().contains("--outcomes"));
        assert!(detect(b"hello", None).unwrap_err().contains("read are: journal"));
        assert!(detect(b"{}", Some("langfus")).unwrap_err().contains("no format"));
    }
}
