//! What of a policy file may be tuned: the keys of its `[tune]` table with their ranges, else those of its rule.
//!
//! Invariant: the file keeps its comments, its order and every key that is not tuned; a point always gives a text that says
//! exactly what was tried, because values are rounded before they are tried.

use std::ops::RangeInclusive;

use toml_edit::{DocumentMut, Item, Value};

use super::Setting;
use crate::classify::domain::Domain;
use crate::config::problem::did_you_mean;

/// Places after the point of a tuned value.
const PLACES: i32 = 4;
/// The keys of a rule that can be tuned, the range they are given where the file gives none, and what counts where they are not set.
const KNOWN: &[(&str, RangeInclusive<f64>, f64)] = &[
    ("rule.threshold", 0.0..=1.0, 0.5),
    ("rule.max_quality_loss", 0.0..=0.6, 0.05),
    ("rule.weights.energy", 0.0..=10.0, 0.0),
    ("rule.weights.cost", 0.0..=1000.0, 0.0),
    ("rule.weights.carbon", 0.0..=10.0, 0.0),
    ("rule.weights.latency", 0.0..=10.0, 0.0),
    ("rule.weights.errors", 0.0..=100.0, 0.0),
    ("verify.escalate_below", 0.0..=1.0, 0.5),
    ("floors", 0.0..=0.95, 0.0),
];

/// The key whose values are orders of backends.
const ORDER: &str = "order";
/// Backends whose orders are tried, at most: 24 orders.
const ORDERED: usize = 4;

/// One key with its range, or with the orders it may be set to.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Where it stands: `rule.max_quality_loss`, `floors."Legal services"`.
    pub path: Vec<String>,
    /// Least value.
    pub low: f64,
    /// Greatest value.
    pub high: f64,
    /// Value in the file, or what counts where it has none.
    pub now: f64,
    /// Orders of backends, values being indices; the first is what the file has, perhaps none. Empty for a number.
    pub orders: Vec<Vec<String>>,
}

/// A policy file and what of it may change.
#[derive(Clone, Debug)]
pub struct Space {
    document: DocumentMut,
    /// The keys, in the file's order.
    pub parameters: Vec<Parameter>,
}

impl Parameter {
    /// The key as a person writes it.
    pub fn key(&self) -> String {
        let bare = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let parts = self.path.iter().map(|part| if bare(part) { part.clone() } else { format!("\"{part}\"") });
        parts.collect::<Vec<_>>().join(".")
    }

    /// What a value stands for.
    pub fn setting(&self, value: f64) -> Setting {
        match self.order(value) {
            _ if self.orders.is_empty() => Setting::Number(value),
            Some(names) if !names.is_empty() => Setting::Order(names.clone()),
            _ => Setting::Unset,
        }
    }

    fn order(&self, value: f64) -> Option<&Vec<String>> {
        self.orders.get(value.max(0.0) as usize)
    }

    /// The value of a place from 0 to 1, rounded as it will be written.
    fn at(&self, share: f64) -> f64 {
        if !self.orders.is_empty() {
            let all = self.orders.len() as f64;
            return (share * all).floor().clamp(0.0, all - 1.0);
        }
        let unit = 10_f64.powi(PLACES);
        ((self.low + share * (self.high - self.low)) * unit).round() / unit
    }
}

impl Space {
    /// What of this file may be tuned. A range for `floors` stands for one floor in each of `domains`.
    ///
    /// # Errors
    /// The text is not TOML, `[tune]` names a key that cannot be tuned or a range that is none, or nothing can be tuned.
    pub fn of(text: &str, domains: &[Domain]) -> Result<Self, String> {
        let document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| format!("is not TOML: {e}"))?;
        let mut parameters = Vec::new();
        match document.get("tune").and_then(Item::as_table_like) {
            Some(table) => {
                for (key, range) in table.iter() {
                    if key == ORDER {
                        parameters.push(orders(&document, range)?);
                        continue;
                    }
                    let (low, high) = range_of(key, range)?;
                    add(&document, &mut parameters, key, low, high, domains)?;
                }
            }
            None => {
                for (key, range, _) in KNOWN.iter().filter(|(key, ..)| number(&document, &path(key)).is_some()) {
                    add(&document, &mut parameters, key, *range.start(), *range.end(), domains)?;
                }
            }
        }
        if parameters.is_empty() {
            return Err(
                "nothing in it can be tuned: a policy of the rule coverage-threshold or objective can, or one whose \
                        [tune] table gives ranges, such as \"rule.max_quality_loss\" = [0.0, 0.4]"
                    .to_owned(),
            );
        }
        Ok(Self { document, parameters })
    }

    /// Where the file stands, each from 0 to 1.
    pub fn now(&self) -> Vec<f64> {
        let share = |p: &Parameter| match p.orders.len() {
            0 => ((p.now - p.low) / (p.high - p.low)).clamp(0.0, 1.0),
            all => 0.5 / all as f64,
        };
        self.parameters.iter().map(share).collect()
    }

    /// The values of a point, in the order of the parameters.
    pub fn values(&self, point: &[f64]) -> Vec<f64> {
        self.parameters.iter().zip(point).map(|(p, share)| p.at(*share)).collect()
    }

    /// The file with these values.
    pub fn text(&self, values: &[f64]) -> String {
        let mut document = self.document.clone();
        for (parameter, number) in self.parameters.iter().zip(values) {
            match parameter.setting(*number) {
                Setting::Number(number) => set(&mut document, &parameter.path, Value::from(number)),
                // At the top, before the first table, whatever else stands there.
                Setting::Order(names) if *number > 0.0 => set(&mut document, &parameter.path, names.iter().collect()),
                Setting::Order(_) | Setting::Unset => {}
            }
        }
        document.to_string()
    }

    /// The same with another name.
    pub fn named(&self, values: &[f64], name: &str) -> String {
        let mut renamed = self.clone();
        if let Some(text) = renamed.document.get_mut("name").and_then(Item::as_value_mut) {
            let decor = text.decor().clone();
            *text = Value::from(name);
            *text.decor_mut() = decor;
        }
        renamed.text(values)
    }
}

fn range_of(key: &str, range: &Item) -> Result<(f64, f64), String> {
    let ends: Option<Vec<f64>> = range.as_array().map(|a| a.iter().filter_map(float).collect());
    let known = KNOWN.iter().map(|(known, ..)| *known).chain([ORDER]);
    if !known.clone().any(|k| k == key || (k == "floors" && key.starts_with("floors."))) {
        let near = did_you_mean(key, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(format!("tune.\"{key}\": is no key that can be tuned{near}"));
    }
    match ends.as_deref() {
        Some([low, high]) if low < high && low.is_finite() && high.is_finite() => Ok((*low, *high)),
        _ => Err(format!("tune.\"{key}\": must be a range of two numbers, the smaller first, such as [0.0, 0.4]")),
    }
}

/// Every order of the backends that a list names.
fn orders(document: &DocumentMut, named: &Item) -> Result<Parameter, String> {
    let names = |item: &Item| -> Option<Vec<String>> {
        item.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let all = names(named).filter(|all| (2..=ORDERED).contains(&all.len()));
    let Some(all) = all.filter(|all| all.iter().enumerate().all(|(i, name)| !all.iter().take(i).any(|o| o == name)))
    else {
        return Err(format!(
            "tune.{ORDER}: must be a list of two to {ORDERED} backends or places, each once, such as [\"local\", \"cloud\"]"
        ));
    };
    let now = document.get(ORDER).and_then(names).unwrap_or_default();
    let mut orders = vec![Vec::new()];
    for name in &all {
        let longer = |order: &Vec<String>| {
            (0..=order.len())
                .map(|at| [order.get(..at), Some(std::slice::from_ref(name)), order.get(at..)])
                .map(|parts| parts.into_iter().flatten().flatten().cloned().collect())
                .collect::<Vec<Vec<String>>>()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    orders.retain(|order| *order != now);
    orders.sort();
    orders.insert(0, now);
    Ok(Parameter { path: path(ORDER), low: 0.0, high: (orders.len() - 1) as f64, now: 0.0, orders })
}

fn add(
    document: &DocumentMut,
    into: &mut Vec<Parameter>,
    key: &str,
    low: f64,
    high: f64,
    domains: &[Domain],
) -> Result<(), String> {
    let otherwise = KNOWN.iter().find(|(known, ..)| *known == key).map_or(0.0, |(.., value)| *value);
    let paths: Vec<Vec<String>> = match key.strip_prefix("floors.") {
        Some(domain) => {
            let domain = domain.trim_matches('"');
            if !Domain::all().any(|d| d.name() == domain) {
                return Err(format!("tune.\"{key}\": no domain has this name"));
            }
            vec![vec!["floors".to_owned(), domain.to_owned()]]
        }
        None if key == "floors" => domains.iter().map(|d| vec!["floors".to_owned(), d.name().to_owned()]).collect(),
        None => vec![path(key)],
    };
    for path in paths {
        let now = number(document, &path).unwrap_or(otherwise);
        into.push(Parameter { path, low, high, now, orders: Vec::new() });
    }
    Ok(())
}

fn path(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

fn float(value: &Value) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a range's end")]
    value.as_float().or_else(|| value.as_integer().map(|i| i as f64))
}

fn number(document: &DocumentMut, path: &[String]) -> Option<f64> {
    let mut item = document.as_item();
    for part in path {
        item = item.get(part.as_str())?;
    }
    item.as_value().and_then(float)
}

/// Sets a value and keeps what stands around it.
fn set(document: &mut DocumentMut, path: &[String], new: Value) {
    let Some((last, tables)) = path.split_last() else { return };
    let mut item = document.as_item_mut();
    for part in tables {
        let Some(table) = item.as_table_like_mut() else { return };
        if !table.contains_key(part) {
            table.insert(part, toml_edit::table());
        }
        let Some(inner) = table.get_mut(part) else { return };
        item = inner;
    }
    let Some(table) = item.as_table_like_mut() else { return };
    match table.get_mut(last).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = new;
            *old.decor_mut() = decor;
        }
        None => {
            table.insert(last, Item::Value(new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# what it is for\nname  = \"b\"   # its name\n\n[rule]\nkind = \"objective\"\nmax_quality_loss = 0.05 # at most\n\n[floors] # by domain\n\"Legal services\" = 0.6\n";

    #[test]
    fn a_tuned_file_keeps_its_comments_and_says_what_was_tried() {
        let space = Space::of(FILE, &[]).unwrap();
        assert_eq!(space.parameters.iter().map(Parameter::key).collect::<Vec<_>>(), ["rule.max_quality_loss"]);
        let values = space.values(&[0.25]);
        assert_eq!(values, [0.15]);
        let text = space.named(&values, "b-tuned");
        assert_eq!(text, FILE.replace("0.05", "0.15").replace("\"b\"", "\"b-tuned\""));
        assert!((space.now()[0] - 0.05 / 0.6).abs() < 1e-12);
    }

    #[test]
    fn floors_stand_for_one_floor_in_each_domain_of_the_log() {
        let text = format!("{FILE}\n[tune]\nfloors = [0.0, 0.9]\n\"rule.max_quality_loss\" = [0, 1]\n");
        let domains: Vec<Domain> = Domain::all().filter(|d| ["Legal services", "None"].contains(&d.name())).collect();
        let space = Space::of(&text, &domains).unwrap();
        assert_eq!(space.parameters.len(), domains.len() + 1);
        let legal = space.parameters.iter().find(|p| p.key() == "floors.\"Legal services\"").unwrap();
        assert_eq!((legal.low, legal.high, legal.now), (0.0, 0.9, 0.6));
        let written = space.text(&space.values(&[0.5, 0.5, 0.5]));
        assert!(written.contains("\"Legal services\" = 0.45") && written.contains("[floors] # by domain"), "{written}");
    }

    #[test]
    fn an_order_of_backends_is_one_key_of_all_their_orders() {
        let space = Space::of(&format!("{FILE}\n[tune]\norder = [\"a\", \"local\", \"c\"]\n"), &[]).unwrap();
        let order = &space.parameters[0];
        assert_eq!((order.key(), order.orders.len(), space.now()), ("order".to_owned(), 7, vec![0.5 / 7.0]));
        assert_eq!((order.setting(0.0), order.setting(order.now).to_string()), (Setting::Unset, "none".to_owned()));
        let every: std::collections::BTreeSet<String> = order.orders.iter().map(|o| o.join(" ")).collect();
        assert_eq!(every.len(), 7, "each once");
        assert_eq!(space.text(&space.values(&space.now())), space.document.to_string(), "as it is");
        let text = space.text(&space.values(&[1.0]));
        let policy = crate::policy::parse(
            &format!("about = \"x\"\n{text}")
                .replace("kind = \"objective\"", "kind = \"objective\"\nminimise = \"energy\""),
            "b.toml",
        )
        .unwrap();
        assert_eq!(policy.order.iter().map(|n| &**n).collect::<Vec<_>>(), ["local", "c", "a"]);
        // What the file has is one of them, and is first.
        let own = format!("order = [\"local\", \"a\"] # mine\n{FILE}\n[tune]\norder = [\"a\", \"local\"]\n");
        let space = Space::of(&own, &[]).unwrap();
        assert_eq!(space.parameters[0].orders, [["local", "a"], ["a", "local"]]);
        assert!(space.text(&[1.0]).starts_with("order = [\"a\", \"local\"] # mine\n"));
    }

    #[test]
    fn what_cannot_be_tuned_is_said() {
        for (more, want) in [
            ("[tune]\n\"rule.max_quality_los\" = [0, 1]", "did you mean `rule.max_quality_loss`?"),
            ("[tune]\n\"rule.threshold\" = [1, 0]", "the smaller first"),
            ("[tune]\n\"rule.threshold\" = 3", "a range of two numbers"),
            ("[tune]\norder = [\"local\"]", "two to 4 backends"),
            ("[tune]\norder = [\"a\", \"b\", \"a\"]", "each once"),
            ("[tune]\nordr = [0, 1]", "did you mean `order`?"),
            ("[tune]\n\"floors.Cooking\" = [0, 1]", "no domain has this name"),
            ("[tune]\n", "nothing in it can be tuned"),
            ("[tune", "is not TOML"),
        ] {
            let said = Space::of(&format!("{FILE}\n{more}\n"), &[]).unwrap_err();
            assert!(said.contains(want), "{more}: {said}");
        }
        assert!(Space::of("name = \"x\"\n[rule]\nkind = \"all-cloud\"\n", &[]).unwrap_err().contains("nothing in it"));
    }
}
