//! Shipped list prices and sizes of models, found by a model's name.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::config::checked::Price;

static PRICES: LazyLock<BTreeMap<String, Priced>> =
    LazyLock::new(|| rows(include_str!("../../eval/data/prices/models.csv"), |p: &Priced| p.model.clone()));
static SIZES: LazyLock<BTreeMap<String, Size>> =
    LazyLock::new(|| rows(include_str!("../../eval/data/prices/sizes.csv"), |s: &Size| s.model.clone()));

#[derive(Clone, Debug, Deserialize)]
struct Priced {
    model: String,
    provider: String,
    input: f64,
    output: f64,
}

/// Parameters of a model in billions.
#[derive(Clone, Debug, Deserialize)]
pub struct Size {
    model: String,
    total_low: f64,
    total_high: f64,
    active_low: f64,
    active_high: f64,
    estimated: u8,
}

impl Size {
    /// Fewest and most in all.
    pub fn total(&self) -> (f64, f64) {
        (self.total_low, self.total_high)
    }

    /// Fewest and most that a token passes through.
    pub fn active(&self) -> (f64, f64) {
        (self.active_low, self.active_high)
    }

    /// Nobody but the provider knows.
    pub fn estimated(&self) -> bool {
        self.estimated != 0
    }
}

fn rows<T: for<'a> Deserialize<'a>>(text: &str, key: impl Fn(&T) -> String) -> BTreeMap<String, T> {
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    reader.deserialize::<T>().filter_map(Result::ok).map(|row| (key(&row), row)).collect()
}

/// Price per million tokens, and whose it is.
pub fn price(model: &str) -> Option<(Price, String)> {
    let row = names(model).find_map(|name| PRICES.get(&name))?;
    Some((Price { input: row.input, output: row.output }, format!("{} at {}", row.model, row.provider)))
}

/// Size of a model that the shipped list has.
pub fn size(model: &str) -> Option<&'static Size> {
    names(model).find_map(|name| SIZES.get(&name))
}

/// What a model may be listed as: without owner, without a host after an at sign.
fn names(model: &str) -> impl Iterator<Item = String> {
    let tail = model.rsplit('/').next().unwrap_or(model).to_lowercase();
    let bare = tail.split('@').next().unwrap_or(&tail).to_owned();
    let short = bare.strip_prefix("meta-").unwrap_or(&bare).to_owned();
    [tail, bare, short].into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_with_and_without_owner_and_host() {
        let (p, whose) = price("gpt-4o-2024-08-06").unwrap();
        assert!((p.input - 2.5).abs() < 1e-9 && (p.output - 10.0).abs() < 1e-9 && whose.ends_with("openai"));
        assert!(price("meta-llama/Meta-Llama-3.1-70B-Instruct").is_some());
        assert!(price("Meta-Llama-3.1-70B-Instruct@sambanova").is_some());
        assert!(price("no-such-model").is_none());
        assert!(size("gpt-4o-2024-08-06").unwrap().estimated());
        assert!(!size("meta-llama/Meta-Llama-3.1-70B-Instruct").unwrap().estimated());
        assert!(PRICES.len() > 700 && SIZES.len() > 300);
    }
}
