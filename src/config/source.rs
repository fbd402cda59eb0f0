//! Text and environment to [`Raw`]: the `config` crate layers them, `schema` checks every key, serde fills the struct.

use std::collections::BTreeMap;
use std::ops::Range;

use config::builder::DefaultState;
use config::{ConfigBuilder, Environment, File, FileFormat};
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems};
use super::raw::Raw;
use super::schema;

/// A read file: what it says, where each key stands, and what is wrong with it so far.
pub struct Source {
    /// Known and well typed keys.
    pub raw: Raw,
    /// Line of each key path.
    pub lines: BTreeMap<String, usize>,
    /// Backend names in file order; those of the environment follow in name order.
    pub order: Vec<String>,
    /// Unknown and mistyped keys.
    pub problems: Problems,
}

/// Reads the file's text and the overrides.
///
/// # Errors
/// Text that is not TOML, with every syntax error: nothing can be checked then.
pub fn read(text: &str, overrides: &[(String, String)]) -> Result<Source, Problems> {
    let (parsed, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(Problems(errors.iter().map(|e| syntax(text, e)).collect()));
    }
    let mut lines = BTreeMap::new();
    index(text, parsed.get_ref(), "", &mut lines);
    let layered = layer(text, overrides)
        .map_err(|e| Problem::new("", format!("cannot be layered with the environment: {}", kind_only(&e))))?;
    let mut problems = Problems::default();
    let known = schema::walk(&layered.cache, &mut problems);
    let raw: Raw = serde_json::from_value(known).map_err(|e| Problem::new("", format!("cannot be read: {e}")))?;
    let order = in_order(parsed.get_ref(), &raw);
    Ok(Source { raw, lines, order, problems })
}

fn layer(text: &str, overrides: &[(String, String)]) -> Result<config::Config, config::ConfigError> {
    let builder: ConfigBuilder<DefaultState> = config::Config::builder();
    let env = Environment::with_prefix("WATTROUTE")
        .prefix_separator("__")
        .separator("__")
        .source(Some(overrides.iter().cloned().collect()));
    builder.add_source(File::from_str(text, FileFormat::Toml)).add_source(env).build()
}

/// The crate's messages may repeat values; only their kind is shown.
fn kind_only(error: &config::ConfigError) -> &'static str {
    match error {
        config::ConfigError::PathParse { .. } => "a WATTROUTE__ variable has a name that is not a key path",
        config::ConfigError::Type { .. } => "a WATTROUTE__ variable goes below a key that is not a table",
        _ => "a WATTROUTE__ variable cannot be used",
    }
}

/// The message without the excerpt that `Display` adds: an excerpt could show a key.
fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let mut problem = Problem::new("", format!("is not TOML: {}", error.message()));
    problem.line = error.span().map(|span| line_of(text, &span));
    problem
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1
}

fn index(text: &str, table: &DeTable<'_>, path: &str, lines: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let name_text = schema::quoted(name.get_ref());
        let here = if path.is_empty() { name_text } else { format!("{path}.{name_text}") };
        lines.insert(here.clone(), line_of(text, &name.span()));
        match value.get_ref() {
            DeValue::Table(inner) => index(text, inner, &here, lines),
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    let each = format!("{here}[{i}]");
                    lines.insert(each.clone(), line_of(text, &item.span()));
                    if let DeValue::Table(inner) = item.get_ref() {
                        index(text, inner, &each, lines);
                    }
                }
            }
            _ => {}
        }
    }
}

fn in_order(file: &DeTable<'_>, raw: &Raw) -> Vec<String> {
    let listed = file.get("backends").and_then(|v| v.get_ref().as_table());
    let mut placed: Vec<(usize, String)> =
        listed.map(|t| t.keys().map(|k| (k.span().start, k.get_ref().to_string())).collect()).unwrap_or_default();
    placed.sort();
    let mut order: Vec<String> =
        placed.into_iter().map(|(_, name)| name).filter(|n| raw.backends.contains_key(n)).collect();
    for name in raw.backends.keys() {
        if !order.contains(name) {
            order.push(name.clone());
        }
    }
    order
}
