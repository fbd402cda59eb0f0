//! One logged query, ready to be decided again.

use super::predictions::Expected;
use crate::predict::fit;
use crate::verify::Evidence;

/// Folds of a cross-fitted prediction.
pub const FOLDS: usize = 5;

/// One logged query.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// Line in the log.
    pub line: u64,
    /// Its key.
    pub id: Box<str>,
    /// Domain as the log names it; empty where it does not.
    pub domain: Box<str>,
    /// Index of the domain, given while the log is read in order.
    pub domain_index: usize,
    /// Hash of the prompt's stem (of the id where there is no prompt): folds and resamples keep one stem together.
    pub stem: u64,
    /// The prompt, where a predictor asks for text.
    pub text: Option<Box<str>>,
    /// Prompt tokens; estimated as characters over four where the log has none.
    pub input_tokens: f64,
    /// Seconds since the log's first query.
    pub arrival_s: Option<f64>,
    /// What the weak model made of it.
    pub weak: Arm,
    /// What the strong model made of it.
    pub strong: Arm,
    /// What tables expect of it, in a log without labels.
    pub expected: Option<Expected>,
    /// What the weak model's answer shows of itself, where the log tells; what was expected of it is filled in by the decision.
    pub evidence: Option<Evidence>,
    /// What was decided on it when it was live, where the log says at which odds.
    pub logged: Option<Logged>,
}

/// A decision of the live line, as off-policy estimates need it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logged {
    /// The decision kept the query on the local side; what a check or a fault made of it afterwards does not count.
    pub local: bool,
    /// Probability of this side under the policy that was live, above 0 and at most 1.
    pub propensity: f64,
    /// What somebody thought of the answer, from 0, bad, to 1, good; none where nobody told.
    pub reward: Option<f64>,
}

impl Logged {
    /// From a log's own words: `local` or `cloud` (`weak` or `strong`), how likely that was, what it earned. None where the log
    /// tells no action or no odds.
    ///
    /// # Errors
    /// Another action, or odds that are none.
    pub fn read(action: Option<&str>, propensity: Option<f64>, reward: Option<f64>) -> Result<Option<Self>, String> {
        let (Some(action), Some(propensity)) = (action, propensity) else { return Ok(None) };
        let local = match action {
            "local" | "weak" => true,
            "cloud" | "strong" => false,
            other => return Err(format!("`action` is `{other}`, not local (weak) or cloud (strong)")),
        };
        if !(propensity > 0.0 && propensity <= 1.0) {
            return Err(format!("`propensity` is {propensity}, not above 0 and at most 1"));
        }
        Ok(Some(Self { local, propensity, reward }))
    }
}

/// What one model made of a query.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arm {
    /// Right or wrong as 1 or 0, or a grade as logged; none where it did not answer.
    pub ok: Option<f64>,
    /// Generated tokens.
    pub output_tokens: Option<f64>,
    /// US dollars as logged.
    pub usd: Option<f64>,
    /// Seconds as logged.
    pub seconds: Option<f64>,
}

impl Case {
    /// Which fold it belongs to: the same for all queries of one stem.
    pub fn fold(&self) -> usize {
        (self.stem % FOLDS as u64) as usize
    }
}

/// Hash of a prompt's stem, as [`fit::model::stem`] has it.
pub fn stem(prompt: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    fit::model::stem(prompt, |letter| hash = (hash ^ u64::from(u32::from(letter))).wrapping_mul(0x0000_0100_0000_01b3));
    mixed(hash)
}

/// Hash of a key.
pub fn hash(text: &str) -> u64 {
    let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    mixed(text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// SplitMix64's finisher: every bit of the input moves every bit of the output.
pub fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stem_whatever_the_spacing_and_another_for_other_numbers() {
        assert_eq!(stem("What is 2 + 3?"), stem("what  is 2+3 "));
        assert_ne!(stem("What is 2 + 3?"), stem("What is 2 + 4?"));
        assert_eq!(stem("ÄRGER?\nA. yes\nB. no"), stem("ärger?\nA. no\nB. yes"));
        let folds: Vec<usize> =
            (0..1000).map(|i| Case { stem: stem(&format!("q{i}")), ..Case::default() }.fold()).collect();
        assert!((0..FOLDS).all(|f| (150..250).contains(&folds.iter().filter(|x| **x == f).count())));
    }
}
