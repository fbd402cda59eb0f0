//! Shipped list prices of models, found by a model's name.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::config::checked::Price;
use crate::energy::cloud::sizes::listed_as;

static PRICES: LazyLock<BTreeMap<String, Priced>> = LazyLock::new(|| {
    let text = include_str!("../../eval/data/prices/models.csv");
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    reader.deserialize::<Priced>().filter_map(Result::ok).map(|row| (row.model.clone(), row)).collect()
});

#[derive(Clone, Debug, Deserialize)]
struct Priced {
    model: String,
    provider: String,
    input: f64,
    output: f64,
}

/// Price per million tokens, and whose it is.
pub fn price(model: &str) -> Option<(Price, String)> {
    let row = listed_as(model).find_map(|name| PRICES.get(&name))?;
    Some((Price { input: row.input, output: row.output }, format!("{} at {}", row.model, row.provider)))
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
        assert!(PRICES.len() > 700);
    }
}
