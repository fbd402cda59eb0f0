//! Every key of the file with its type, and the walk that finds all unknown and mistyped keys at once: serde stops at the
//! first. What passes here deserialises into [`Raw`](super::raw::Raw) without error (a test fills every key).

use config::{Value, ValueKind};
use serde_json::{Map, Number, Value as Json};

use super::attention;
use super::elsewhere::ELSEWHERE;
use super::problem::{Problems, did_you_mean, shown};

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `true` or `false`
    Bool,
    /// Whole number.
    Int,
    /// Number.
    Float,
    /// String.
    Text,
    /// Duration: number and unit, `"500ms"`, `"10s"`, `"5m"`, `"24h"`, `"30d"`.
    Span,
    /// Bytes: `"32KiB"`, `"10MiB"`, `"1GiB"`, or a whole number of bytes.
    Size,
    /// List of numbers.
    Numbers,
    /// A command: a line as in a shell, or a list of its words.
    Words,
    /// How a model attends: a word or a table, checked by `attention`.
    Attention,
}

/// Patterns of every key: `*` is any name, `[]` any element. In the order in which people should read them.
pub const KEYS: &[(&str, Shape)] = &[
    ("server.listen", Shape::Text),
    ("server.admin", Shape::Text),
    ("server.admin_open", Shape::Bool),
    ("server.plain_http", Shape::Bool),
    ("server.workers", Shape::Int),
    ("server.grace", Shape::Span),
    ("server.tls.cert", Shape::Text),
    ("server.tls.key", Shape::Text),
    ("server.keys[].tenant", Shape::Text),
    ("server.keys[].hash", Shape::Text),
    ("server.keys[].key_env", Shape::Text),
    ("server.keys[].key_file", Shape::Text),
    ("server.keys[].private", Shape::Bool),
    ("limits.first_byte", Shape::Span),
    ("limits.head", Shape::Span),
    ("limits.idle", Shape::Span),
    ("limits.body_gap", Shape::Span),
    ("limits.body_total", Shape::Span),
    ("limits.head_bytes", Shape::Size),
    ("limits.header_fields", Shape::Int),
    ("limits.body_bytes", Shape::Size),
    ("limits.json_depth", Shape::Int),
    ("limits.connections", Shape::Int),
    ("limits.in_flight", Shape::Int),
    ("limits.tenant_in_flight", Shape::Int),
    ("limits.write_stall", Shape::Span),
    ("backends.*.place", Shape::Text),
    ("backends.*.kind", Shape::Text),
    ("backends.*.base_url", Shape::Text),
    ("backends.*.model", Shape::Text),
    ("backends.*.key_env", Shape::Text),
    ("backends.*.key_file", Shape::Text),
    ("backends.*.ca", Shape::Text),
    ("backends.*.sha256", Shape::Text),
    ("backends.*.template", Shape::Text),
    ("backends.*.threads", Shape::Int),
    ("backends.*.queue", Shape::Int),
    ("backends.*.streams", Shape::Int),
    ("backends.*.kv_memory", Shape::Size),
    ("backends.*.stall", Shape::Span),
    ("backends.*.context", Shape::Int),
    ("backends.*.attention", Shape::Attention),
    ("backends.*.tools", Shape::Bool),
    ("backends.*.images", Shape::Bool),
    ("backends.*.audio", Shape::Bool),
    ("backends.*.json", Shape::Bool),
    ("backends.*.many", Shape::Bool),
    ("backends.*.logprobs", Shape::Bool),
    ("backends.*.table", Shape::Text),
    ("backends.*.success", Shape::Text),
    ("backends.*.max_in_flight", Shape::Int),
    ("backends.*.price.input", Shape::Float),
    ("backends.*.price.output", Shape::Float),
    ("backends.*.energy.model", Shape::Text),
    ("backends.*.energy.points", Shape::Text),
    ("backends.*.energy.gpu", Shape::Text),
    ("backends.*.energy.gpus", Shape::Int),
    ("backends.*.energy.precision", Shape::Text),
    ("backends.*.energy.active", Shape::Numbers),
    ("backends.*.energy.total", Shape::Numbers),
    ("backends.*.energy.region", Shape::Text),
    ("backends.*.waits.connect", Shape::Span),
    ("backends.*.waits.first_token", Shape::Span),
    ("backends.*.waits.gap", Shape::Span),
    ("backends.*.waits.total", Shape::Span),
    ("aliases.*", Shape::Text),
    ("policy.default", Shape::Text),
    ("policy.folder", Shape::Text),
    ("policy.classify_pinned", Shape::Bool),
    ("policy.presets.*", Shape::Text),
    ("classify.tier", Shape::Text),
    ("classify.taxonomy", Shape::Text),
    ("classify.budget", Shape::Span),
    ("classify.kept", Shape::Int),
    ("journal.enabled", Shape::Bool),
    ("journal.path", Shape::Text),
    ("journal.keep", Shape::Span),
    ("journal.max_bytes", Shape::Size),
    ("journal.queue", Shape::Int),
    ("cache.enabled", Shape::Bool),
    ("cache.sampled", Shape::Bool),
    ("cache.max_bytes", Shape::Size),
    ("cache.ttl", Shape::Span),
    ("energy.batch", Shape::Numbers),
    ("energy.pue", Shape::Numbers),
    ("energy.cpu_tdp_w", Shape::Float),
    ("energy.region", Shape::Text),
    ("energy.wall_file", Shape::Text),
    ("energy.sysfs", Shape::Text),
    ("energy.read_meters", Shape::Bool),
    ("energy.wall_command", Shape::Words),
    ("learning", Shape::Text),
    ("shadow.share", Shape::Float),
    ("shadow.joules_per_hour", Shape::Float),
    ("shadow.usd_per_hour", Shape::Float),
    ("shadow.judge", Shape::Text),
];

/// The origin that the `config` crate gives to values from the environment.
const ENVIRONMENT: &str = "the environment";

/// Checks a whole file. What is known and well typed comes back; everything else is a problem.
pub fn walk(root: &Value, problems: &mut Problems) -> Json {
    table(root, "", "", problems).unwrap_or_else(|| Json::Object(Map::new()))
}

fn any(value: &Value, pattern: &str, path: &str, problems: &mut Problems) -> Option<Json> {
    if let Some((_, shape)) = KEYS.iter().find(|(p, _)| *p == pattern) {
        return leaf(value, *shape, path, problems);
    }
    if KEYS.iter().any(|(p, _)| p.strip_prefix(pattern).is_some_and(|rest| rest.starts_with("[]"))) {
        return list(value, pattern, path, problems);
    }
    table(value, pattern, path, problems)
}

fn table(value: &Value, pattern: &str, path: &str, problems: &mut Problems) -> Option<Json> {
    let ValueKind::Table(entries) = &value.kind else {
        problems.add(path, format!("must be a table (got {}); write it as `[{path}]`", kind(value)));
        return None;
    };
    let mut names: Vec<&String> = entries.keys().collect();
    names.sort();
    let mut out = Map::new();
    for name in names {
        let Some(entry) = entries.get(name) else { continue };
        let here = join(path, &quoted(name));
        let Some(next) = child(pattern, name) else {
            problems.add(here, unknown(pattern, name));
            continue;
        };
        if let Some(json) = any(entry, &next, &here, problems) {
            out.insert(name.clone(), json);
        }
    }
    Some(Json::Object(out))
}

fn list(value: &Value, pattern: &str, path: &str, problems: &mut Problems) -> Option<Json> {
    let ValueKind::Array(items) = &value.kind else {
        problems.add(path, format!("must be a list of tables (got {}); write each as `[[{path}]]`", kind(value)));
        return None;
    };
    let next = format!("{pattern}[]");
    let each = items.iter().enumerate().filter_map(|(i, v)| any(v, &next, &format!("{path}[{i}]"), problems));
    Some(Json::Array(each.collect()))
}

fn leaf(value: &Value, shape: Shape, path: &str, problems: &mut Problems) -> Option<Json> {
    let from_env = value.origin() == Some(ENVIRONMENT);
    let json = match (&value.kind, shape) {
        (_, Shape::Attention) => Some(attention::as_json(&value.kind)),
        (ValueKind::String(s), Shape::Text | Shape::Span | Shape::Size | Shape::Words) => Some(Json::String(s.clone())),
        (ValueKind::String(s), _) if from_env => from_text(s, shape),
        (ValueKind::Boolean(b), Shape::Bool) => Some(Json::Bool(*b)),
        (ValueKind::I64(i), Shape::Int | Shape::Float) => Some(Json::from(*i)),
        (ValueKind::I64(i), Shape::Size) => Some(Json::String(i.to_string())),
        (ValueKind::Float(x), Shape::Float) => Number::from_f64(*x).map(Json::Number),
        (ValueKind::Array(items), Shape::Numbers) => {
            items.iter().map(|v| leaf_number(&v.kind)).collect::<Option<Vec<_>>>().map(Json::Array)
        }
        (ValueKind::Array(items), Shape::Words) => {
            let word = |v: &Value| if let ValueKind::String(s) = &v.kind { Some(Json::from(s.as_str())) } else { None };
            items.iter().map(word).collect::<Option<Vec<_>>>().map(Json::Array)
        }
        _ => None,
    };
    if json.is_none() {
        problems.add(path, format!("must be {} (got {})", wanted(shape), kind(value)));
    }
    json
}

fn leaf_number(kind: &ValueKind) -> Option<Json> {
    match kind {
        ValueKind::I64(i) => Some(Json::from(*i)),
        ValueKind::Float(x) => Number::from_f64(*x).map(Json::Number),
        _ => None,
    }
}

/// Variables are text; the key's type says how to read them.
fn from_text(s: &str, shape: Shape) -> Option<Json> {
    let number = |s: &str| s.trim().parse::<f64>().ok().and_then(Number::from_f64).map(Json::Number);
    match shape {
        Shape::Bool => s.trim().to_lowercase().parse().ok().map(Json::Bool),
        Shape::Int => s.trim().parse::<i64>().ok().map(Json::from),
        Shape::Float => number(s),
        Shape::Numbers => s.split(',').map(number).collect::<Option<Vec<_>>>().map(Json::Array),
        Shape::Text | Shape::Span | Shape::Size | Shape::Words | Shape::Attention => Some(Json::String(s.to_owned())),
    }
}

fn wanted(shape: Shape) -> &'static str {
    match shape {
        Shape::Bool => "true or false",
        Shape::Int => "a whole number",
        Shape::Float => "a number",
        Shape::Text | Shape::Attention => "a string in quotes",
        Shape::Span => "a duration in quotes with its unit, such as \"10s\"",
        Shape::Size => "a size, such as \"10MiB\"",
        Shape::Numbers => "a list of numbers, such as [1, 8, 64]",
        Shape::Words => "a command in quotes, or a list of its words",
    }
}

fn kind(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(b) => format!("`{b}`"),
        ValueKind::I64(i) => format!("the number {i}"),
        ValueKind::Float(x) => format!("the number {x}"),
        ValueKind::String(s) => format!("the string {}", shown(s)),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        _ => "a number out of range".to_owned(),
    }
}

fn unknown(pattern: &str, name: &str) -> String {
    let known = children(pattern);
    let lower = name.to_lowercase();
    let elsewhere = ELSEWHERE.iter().find(|(theirs, ours)| *theirs == lower && known.contains(ours)).map(|(_, o)| *o);
    if elsewhere == Some("key_env") {
        return "keys are not written into the file; put the key into a variable and name it: \
                key_env = \"OPENAI_API_KEY\", or into a file: key_file = \"/run/secrets/openai\""
            .to_owned();
    }
    match elsewhere.or_else(|| did_you_mean(name, known.iter().copied())) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// Names that may follow a pattern, in file order, without repeats.
fn children(pattern: &str) -> Vec<&'static str> {
    let mut out: Vec<&'static str> = Vec::new();
    for (key, _) in KEYS {
        let rest =
            if pattern.is_empty() { Some(*key) } else { key.strip_prefix(pattern).and_then(|r| r.strip_prefix('.')) };
        let Some(name) = rest.and_then(|r| r.split(['.', '[']).next()) else { continue };
        if !out.contains(&name) {
            out.push(name);
        }
    }
    out
}

fn child(pattern: &str, name: &str) -> Option<String> {
    let known = children(pattern);
    let next = if known.contains(&name) { name } else { known.iter().find(|k| **k == "*").copied()? };
    Some(join(pattern, next))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A name as TOML wants it in a key path.
pub fn quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { format!("\"{name}\"") }
}

#[cfg(test)]
mod tests {
    use super::super::raw::Raw;
    use super::*;

    fn sample(shape: Shape) -> Json {
        match shape {
            Shape::Bool => Json::Bool(true),
            Shape::Int => Json::from(1),
            Shape::Float => Json::from(1.5),
            Shape::Text | Shape::Words | Shape::Attention => Json::from("x"),
            Shape::Span => Json::from("1s"),
            Shape::Size => Json::from("1KiB"),
            Shape::Numbers => Json::from(vec![1.0, 2.0]),
        }
    }

    fn put(root: &mut Json, pattern: &str, value: Json) {
        let mut at = root;
        for part in pattern.split('.') {
            let (name, listed) = part.strip_suffix("[]").map_or((part, false), |n| (n, true));
            at = &mut at[name];
            if listed {
                at = match at {
                    Json::Array(items) => &mut items[0],
                    other => {
                        *other = Json::Array(vec![Json::Object(Map::new())]);
                        &mut other[0]
                    }
                };
            }
        }
        *at = value;
    }

    fn paths(json: &Json, path: &str, out: &mut Vec<String>) {
        match json {
            Json::Object(map) => map.iter().for_each(|(k, v)| paths(v, &join(path, k), out)),
            Json::Array(items) if items.iter().any(Json::is_object) => {
                items.iter().for_each(|v| paths(v, &format!("{path}[]"), out));
            }
            _ => out.push(path.to_owned()),
        }
    }

    #[test]
    fn the_list_of_keys_and_the_raw_types_are_the_same() {
        let mut doc = Json::Object(Map::new());
        KEYS.iter().for_each(|(pattern, shape)| put(&mut doc, pattern, sample(*shape)));
        let raw: Raw = serde_json::from_value(doc).unwrap();
        let (mut seen, mut known) = (Vec::new(), KEYS.iter().map(|(p, _)| (*p).to_owned()).collect::<Vec<_>>());
        paths(&serde_json::to_value(&raw).unwrap(), "", &mut seen);
        seen.sort();
        known.sort();
        assert_eq!(seen, known);
    }
}
