//! `[classify]`: how the gateway sorts a query's text into domains, and what it may take.

use std::path::PathBuf;
use std::time::Duration;

use super::env::Around;
use super::problem::{Problems, did_you_mean, shown};
use super::raw;
use super::resolve::{path_in, span, whole};

/// Taxonomies that ship with a trained classifier.
pub const SHIPPED: [&str; 2] = ["aei", "mmlu-pro"];
/// What a query may wait for the encoder where the file does not say: two of its texts on two cores.
const BUDGET: Duration = Duration::from_millis(30);
/// Posteriors kept where the encoder is asked and the file does not say: about 300 bytes each.
const KEPT: i64 = 10_000;
/// Most posteriors that can be kept: 300 MB.
const MOST_KEPT: i64 = 1_000_000;

/// How texts are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classify {
    /// Who answers.
    pub tier: Tier,
    /// Into which labels.
    pub labels: Labels,
    /// What a query may wait for the encoder; after that the fast tier's answer stands.
    pub budget: Duration,
    /// How many posteriors are kept by their text; 0 keeps none.
    pub kept: u64,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Hashed features alone: microseconds.
    Fast,
    /// A sentence encoder where those are not sure.
    Auto,
    /// The encoder for every text.
    Encoder,
}

/// The labels that texts are sorted into, before they become the domains of tables and policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// One of [`SHIPPED`].
    Named(String),
    /// A trained artifact.
    File(PathBuf),
}

/// Reads the section.
pub fn section(raw: &raw::Classify, around: &Around, problems: &mut Problems) -> Option<Classify> {
    let tier = match raw.tier.as_deref() {
        None | Some("fast") => Ok(Tier::Fast),
        Some("auto") => Ok(Tier::Auto),
        Some("encoder") => Ok(Tier::Encoder),
        Some(other) => Err(format!("must be fast, auto or encoder (got {})", shown(other))),
    };
    let tier = problems.keep("classify.tier", tier);
    let labels = labels(raw.taxonomy.as_deref().unwrap_or("aei"), around, problems);
    let budget = span(raw.budget.as_deref(), BUDGET, (1, 10_000), "classify.budget", problems);
    let usual = if tier == Some(Tier::Fast) { 0 } else { KEPT };
    let kept = whole(raw.kept, usual, 0, MOST_KEPT, "classify.kept", problems);
    Some(Classify { tier: tier?, labels: labels?, budget: budget?, kept: kept? })
}

/// A shipped taxonomy, else the file of a trained one; what is in it is for the loader and `check`.
fn labels(text: &str, around: &Around, problems: &mut Problems) -> Option<Labels> {
    const AT: &str = "classify.taxonomy";
    if SHIPPED.contains(&text) {
        return Some(Labels::Named(text.to_owned()));
    }
    if text.ends_with(".toml") {
        problems.add(AT, "is a list of labels: name the artifact that `wattroute train domain` made of it");
        return None;
    }
    if text.contains(['/', '\\', '.']) {
        return path_in(around, text, AT, problems).map(Labels::File);
    }
    let near = did_you_mean(text, SHIPPED).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
    let known = SHIPPED.join(", ");
    problems.add(AT, format!("must be {known} or the file of a trained artifact (got {}){near}", shown(text)));
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(tier: &str, taxonomy: &str, more: raw::Classify) -> Result<Classify, Problems> {
        let mut problems = Problems::default();
        let raw = raw::Classify { tier: Some(tier.into()), taxonomy: Some(taxonomy.into()), ..more };
        let found = section(&raw, &Around::fixed(&[], Path::new(".")), &mut problems);
        problems.finish(found)
    }

    #[test]
    fn only_a_gateway_with_an_encoder_keeps_posteriors_unless_it_is_told_to() {
        let none = raw::Classify::default;
        assert_eq!(read("fast", "aei", none()).unwrap().kept, 0);
        assert_eq!(read("auto", "mmlu-pro", none()).unwrap().kept, 10_000);
        assert_eq!(read("fast", "aei", raw::Classify { kept: Some(5), ..none() }).unwrap().kept, 5);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_key() {
        let none = raw::Classify::default;
        for (tier, taxonomy, more, want) in [
            ("slow", "aei", none(), "classify.tier: must be fast, auto or encoder (got `slow`)"),
            ("fast", "mmlu", none(), "did you mean `mmlu-pro`?"),
            ("fast", "mine.toml", none(), "classify.taxonomy: is a list of labels"),
            ("fast", "no/such.bin", none(), "no/such.bin cannot be used"),
            ("auto", "aei", raw::Classify { budget: Some("1h".into()), ..none() }, "classify.budget: must be from 1ms"),
            ("auto", "aei", raw::Classify { kept: Some(-1), ..none() }, "classify.kept: must be from 0"),
        ] {
            let told = read(tier, taxonomy, more).unwrap_err().to_string();
            assert!(told.contains(want), "{want}: {told}");
        }
    }
}
