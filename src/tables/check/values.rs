//! One value of a table file: what it must be, and the words when it is not.

use serde_json::{Map, Value};

use crate::config::problem::{Problems, did_you_mean};

/// A JSON object of the file with its key path.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The object.
    pub map: &'a Map<String, Value>,
    /// Key path; empty at the root.
    pub path: &'a str,
}

impl At<'_> {
    /// The path of a key in here.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A number, if it is one.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.map.get(key).and_then(Value::as_f64)
    }

    /// Every key must be known.
    pub fn keys(&self, known: &[&str], problems: &mut Problems) {
        for key in self.map.keys().filter(|k| !known.contains(&k.as_str())) {
            let near = suggest(did_you_mean(key, known.iter().copied()));
            problems.add(self.key(key), format!("unknown key{near}"));
        }
    }

    /// A number above 0, or null.
    pub fn positive(&self, key: &str, problems: &mut Problems) {
        match self.map.get(key) {
            None | Some(Value::Null) => {}
            Some(v) => match v.as_f64() {
                Some(0.0) => problems.add(self.key(key), "is 0: an unknown figure is null, never 0"),
                Some(x) if x.is_finite() && x > 0.0 => {}
                _ => problems.add(self.key(key), "must be a number above 0, or null"),
            },
        }
    }

    /// A whole number.
    pub fn count(&self, key: &str, problems: &mut Problems) -> Option<u64> {
        let found = self.map.get(key).and_then(Value::as_u64);
        if found.is_none() {
            problems.add(self.key(key), "must be a whole number, 0 or more");
        }
        found
    }

    /// A whole number, or nothing.
    pub fn optional_count(&self, key: &str, problems: &mut Problems) {
        if !self.absent(key) {
            self.count(key, problems);
        }
    }

    /// A share.
    pub fn share(&self, key: &str, problems: &mut Problems) -> Option<f64> {
        let found = self.number(key).filter(|x| (0.0..=1.0).contains(x));
        if found.is_none() {
            problems.add(self.key(key), "must be a share from 0 to 1");
        }
        found
    }

    /// A share, or nothing.
    pub fn optional_share(&self, key: &str, problems: &mut Problems) -> Option<f64> {
        if self.absent(key) { None } else { self.share(key, problems) }
    }

    /// A text that says something.
    pub fn text(&self, key: &str, problems: &mut Problems) {
        if self.map.get(key).and_then(Value::as_str).is_none_or(|t| t.trim().is_empty()) {
            problems.add(self.key(key), "is missing or empty");
        }
    }

    /// The same, or nothing.
    pub fn optional_text(&self, key: &str, problems: &mut Problems) {
        if !self.absent(key) {
            self.text(key, problems);
        }
    }

    /// A list of texts, or nothing.
    pub fn texts(&self, key: &str, problems: &mut Problems) {
        let fine = |v: &Value| v.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        if self.map.get(key).is_some_and(|v| !fine(v)) {
            problems.add(self.key(key), "must be a list of texts");
        }
    }

    /// Two numbers in order around the figure they belong to. `figure` is its key.
    pub fn interval(&self, key: &str, figure: &str, problems: &mut Problems) {
        if self.absent(key) {
            return;
        }
        let ends = self.map.get(key).and_then(Value::as_array).map(|a| a.iter().filter_map(Value::as_f64).collect());
        let ends: Vec<f64> = ends.unwrap_or_default();
        let &[low, high] = ends.as_slice() else {
            return problems.add(self.key(key), "must be two numbers, low and high");
        };
        match self.number(figure) {
            None => problems.add(self.key(key), format!("has no {figure} beside it")),
            // A bootstrap's end may pass the figure by a rounding.
            Some(x) if low > high || x < low - 1e-9 * x.abs() || x > high + 1e-9 * x.abs() => {
                problems.add(self.key(key), format!("goes from {low} to {high}, but {figure} is {x}"));
            }
            Some(_) => {}
        }
    }

    /// Figures that must not fall from one key to the next.
    pub fn rising(&self, keys: &[&str], problems: &mut Problems) {
        for pair in keys.windows(2) {
            let &[a, b] = pair else { continue };
            if let (Some(x), Some(y)) = (self.number(a), self.number(b))
                && x > y
            {
                problems.add(self.key(b), format!("is {y}, less than {a} = {x}"));
            }
        }
    }

    /// Joules have no place in a table whose basis is `unknown`.
    pub fn no_joules(&self, names: &[&str], problems: &mut Problems) {
        for key in names.iter().filter(|k| !self.absent(k)) {
            problems.add(self.key(key), "must be null: the table's basis is `unknown`");
        }
    }

    /// Missing or null.
    pub fn absent(&self, key: &str) -> bool {
        self.map.get(key).is_none_or(Value::is_null)
    }
}

/// An object of an object.
pub fn object<'a>(root: &'a Map<String, Value>, key: &str, problems: &mut Problems) -> Option<&'a Map<String, Value>> {
    let found = root.get(key).and_then(Value::as_object);
    if found.is_none() {
        problems.add(key, "is missing or no object");
    }
    found
}

/// "; did you mean".
pub fn suggest(near: Option<&str>) -> String {
    near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()
}
