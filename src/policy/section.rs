//! Reading a TOML table key by key, and where each key stands.

use std::collections::BTreeMap;

use toml::Value;
use toml::de::{DeTable, DeValue};

use crate::config::problem::{Problems, did_you_mean, shown};

/// One table of the file, and the keys that were asked for.
pub struct Section<'a> {
    pub values: &'a toml::Table,
    path: String,
    pub known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub fn new(values: &'a toml::Table, path: impl Into<String>) -> Self {
        Self { values, path: path.into(), known: Vec::new() }
    }

    pub fn at(&self, key: &str) -> String {
        let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if bare { key.to_owned() } else { format!("\"{key}\"") };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    pub fn ask(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.values.get(key)
    }

    pub fn wrong(&self, key: &str, want: &str, got: &Value, problems: &mut Problems) {
        problems.add(self.at(key), format!("must be {want} (got {})", kind(got)));
    }

    pub fn text(&mut self, key: &'static str, problems: &mut Problems) -> Option<&'a str> {
        let found = self.optional_text(key, problems);
        if !self.values.contains_key(key) {
            problems.add(self.at(key), "is missing");
        }
        found
    }

    pub fn optional_text(&mut self, key: &'static str, problems: &mut Problems) -> Option<&'a str> {
        let value = self.ask(key)?;
        let text = value.as_str().filter(|t| !t.trim().is_empty());
        if text.is_none() {
            self.wrong(key, "text in quotes", value, problems);
        }
        text
    }

    pub fn number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<f64>,
        problems: &mut Problems,
    ) -> Option<f64> {
        let value = self.ask(key)?;
        #[expect(clippy::cast_precision_loss, reason = "out of range long before it matters")]
        let number = value.as_float().or_else(|| value.as_integer().map(|i| i as f64));
        let fine = number.filter(|x| range.contains(x));
        if fine.is_none() {
            self.wrong(key, &format!("a number from {} to {}", range.start(), range.end()), value, problems);
        }
        fine
    }

    pub fn flag(&mut self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        let value = self.ask(key)?;
        if value.as_bool().is_none() {
            self.wrong(key, "true or false", value, problems);
        }
        value.as_bool()
    }

    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
        let value = self.ask(key)?;
        let text = value.as_str().unwrap_or_default();
        let found = words.iter().find(|(w, _)| *w == text).map(|(_, t)| *t);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
            let near = did_you_mean(text, known.iter().copied());
            problems.add(
                self.at(key),
                format!("must be one of {} (got {}){}", known.join(", "), kind(value), suggest(near)),
            );
        }
        found
    }

    pub fn table(&mut self, key: &'static str, problems: &mut Problems) -> Option<Section<'a>> {
        if !self.values.contains_key(key) {
            problems.add(self.at(key), format!("is missing: write [{key}]"));
        }
        self.optional_table(key, problems)
    }

    pub fn optional_table(&mut self, key: &'static str, problems: &mut Problems) -> Option<Section<'a>> {
        let value = self.ask(key)?;
        if value.as_table().is_none() {
            self.wrong(key, &format!("a table: [{}]", self.at(key)), value, problems);
        }
        value.as_table().map(|t| Section::new(t, self.at(key)))
    }

    pub fn tables(&mut self, key: &'static str, problems: &mut Problems) -> Vec<Section<'a>> {
        let Some(value) = self.ask(key) else { return Vec::new() };
        let items = value.as_array().filter(|a| a.iter().all(Value::is_table));
        if items.is_none() {
            self.wrong(key, &format!("a list of tables: [[{}]]", self.at(key)), value, problems);
        }
        let each = items.into_iter().flatten().filter_map(Value::as_table).enumerate();
        each.map(|(i, t)| Section::new(t, format!("{key}[{i}]"))).collect()
    }

    pub fn finish(self, problems: &mut Problems) {
        for key in self.values.keys().filter(|k| !self.known.contains(&k.as_str())) {
            let near = did_you_mean(key, self.known.iter().copied());
            problems.add(self.at(key), format!("unknown key{}", suggest(near)));
        }
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::String(s) => shown(s),
        Value::Integer(i) => i.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        Value::Datetime(_) => "a date".to_owned(),
    }
}

/// Line of an offset, from 1.
pub fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// Lines of all key paths of a table.
pub fn index(text: &str, table: &DeTable<'_>, path: &str, lines: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let empty = toml::Table::new();
        let here = Section::new(&empty, path).at(name.get_ref());
        lines.insert(here.clone(), line(text, name.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => index(text, inner, &here, lines),
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    let each = format!("{here}[{i}]");
                    lines.insert(each.clone(), line(text, item.span().start));
                    if let DeValue::Table(inner) = item.get_ref() {
                        index(text, inner, &each, lines);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The line of a key, or of the nearest table around it.
pub fn nearest_line(lines: &BTreeMap<String, usize>, key: &str) -> Option<usize> {
    let mut at = key;
    loop {
        if let Some(line) = lines.get(at) {
            return Some(*line);
        }
        at = at.rsplit_once('.')?.0;
    }
}

/// The end of a sentence that names the nearest known word.
pub fn suggest(near: Option<&str>) -> String {
    near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()
}
