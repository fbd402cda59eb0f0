//! From evidence to P(the answer is right): a logistic model of a dozen weights.
//!
//! The shipped weights are those of `eval/artifacts/verify.toml`, whose head says what they were learned from; a policy may
//! replace any of them. Empty answers are wrong whatever the weights say.

use std::sync::LazyLock;

use super::evidence::{Evidence, FEATURES};

/// Text of the shipped weights.
const SHIPPED: &str = include_str!("../../eval/artifacts/verify.toml");

static DEFAULT: LazyLock<Model> = LazyLock::new(|| Model::parse(SHIPPED).unwrap_or(Model { weights: FALLBACK }));

/// What is left if the shipped file were damaged, which a test rules out: the prior, unchanged.
const FALLBACK: [f64; FEATURES.len()] = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];

/// Weights by [`FEATURES`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// One per feature.
    pub weights: [f64; FEATURES.len()],
}

impl Model {
    /// The shipped weights.
    pub fn shipped() -> Self {
        *DEFAULT
    }

    /// Reads weights: a TOML table with a number for each of [`FEATURES`], or those of them that are not 0.
    ///
    /// # Errors
    /// Says which key is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
        let mut model = Self { weights: [0.0; FEATURES.len()] };
        for (key, value) in &table {
            let number =
                value.as_float().filter(|x| x.is_finite()).ok_or(format!("{key}: must be a number such as 0.5"))?;
            if !model.set(key, number) {
                return Err(format!("{key}: there is no such weight"));
            }
        }
        Ok(model)
    }

    /// Sets one weight by its name; false if there is none of that name.
    pub fn set(&mut self, name: &str, weight: f64) -> bool {
        let place = FEATURES.iter().position(|f| *f == name).and_then(|at| self.weights.get_mut(at));
        place.map(|w| *w = weight).is_some()
    }

    /// P(the answer is right).
    pub fn p(&self, evidence: &Evidence) -> f64 {
        if evidence.empty {
            return 0.0;
        }
        let z: f64 = self.weights.iter().zip(evidence.features()).map(|(w, x)| w * x).sum();
        1.0 / (1.0 + (-z).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::super::evidence::Expected;
    use super::*;

    fn answer(mean: f64, least: f64) -> Evidence {
        Evidence {
            expected: Expected { prior: 0.5, tokens: 100.0, prompt: 50.0 },
            tokens: 100,
            whole: true,
            mean_logprob: Some(mean),
            min_logprob: Some(least),
            cut: false,
            empty: false,
            refuses: false,
            loops: false,
            stated: None,
        }
    }

    #[test]
    fn the_shipped_weights_are_read_and_every_one_is_named() {
        let model = Model::parse(SHIPPED).unwrap();
        assert_eq!(model, Model::shipped());
        for name in FEATURES {
            assert!(SHIPPED.contains(&format!("{name} ")), "{name}");
        }
    }

    #[test]
    fn a_surer_answer_is_likelier_right_and_what_is_no_answer_is_not() {
        let model = Model::shipped();
        let (sure, unsure) = (answer(-0.05, -0.6), answer(-1.0, -5.0));
        assert!(model.p(&sure) > model.p(&unsure) + 0.2, "{} {}", model.p(&sure), model.p(&unsure));
        assert_eq!(model.p(&Evidence { empty: true, ..sure }), 0.0);
        assert!(model.p(&Evidence { refuses: true, ..sure }) < model.p(&sure) - 0.2);
        assert!(model.p(&Evidence { loops: true, ..sure }) < model.p(&sure) - 0.2);
        let trusted = Expected { prior: 0.9, ..sure.expected };
        assert!(model.p(&Evidence { expected: trusted, ..sure }) > model.p(&sure));
    }

    #[test]
    fn wrong_weights_are_named() {
        assert!(Model::parse("mean_logprop = 1.0").unwrap_err().contains("no such weight"));
        assert!(Model::parse("bias = \"x\"").unwrap_err().contains("must be a number"));
        assert!(Model::parse("bias = nan").is_err());
        assert_eq!(Model::parse("bias = 1.5\n").unwrap().weights[0], 1.5);
    }
}
