//! A query's text to its domains: the fast tier, a sentence encoder behind it where the configuration asks for one, and what
//! both said lately.
//!
//! Invariants: the fast tier always answers, and its answer stands wherever the encoder is missing, busy, late or broken; a
//! query waits for the encoder within `classify.budget` and for nothing else; what is kept are keyed hashes and numbers,
//! never a text, and never found by another tenant. Between `cache` and `signals` in the request path.

mod second;

use std::sync::Arc;

use self::second::{Second, Vector};
use crate::cache::recent::{Kept, Key};
use crate::classify::domain::Posterior;
use crate::classify::features::WINDOW_BYTES;
use crate::classify::topics::Topics;
use crate::classify::{AEI, Classifier, abstain};
use crate::config::classify::{Classify, Labels, Tier};
use crate::config::problem::Problem;
use crate::energy::estimate;
use crate::meter;
use crate::tier;

/// The fast tier's processor time: for any text, and for each byte that it reads. Stated, not measured each time: of the order
/// that `cargo bench --bench classify` finds, and a ten-thousandth of a small model's answer either way.
const FAST_S: f64 = 4e-6;
const FAST_S_PER_BYTE: f64 = 25e-9;
/// No margin reaches this: the encoder is asked for every text.
const ALWAYS: f32 = 2.0;

/// What a text was sorted into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sorted {
    /// Its domains.
    pub posterior: Posterior,
    /// Which tier had the last word; none where there is only the fast one.
    pub tier: Option<&'static str>,
    /// What sorting it took, J: processor time times watts of a busy core.
    pub joules: f64,
}

impl Sorted {
    /// Nothing was looked at.
    pub fn nothing() -> Self {
        Self { posterior: Posterior::none(), tier: None, joules: 0.0 }
    }
}

/// The classifier of a configuration.
pub struct Domains {
    by: By,
    second: Option<Second>,
    kept: Option<Arc<Kept<Sorted>>>,
    /// Of one busy logical processor.
    watts: f64,
    /// Why the configured encoder is not asked.
    lacks: Option<Problem>,
}

/// Who answers first.
#[derive(Clone)]
enum By {
    Domains(Arc<Classifier>),
    Labels(Arc<Topics>),
}

impl Domains {
    /// Loads what the configuration names. A missing encoder is no error: see [`Domains::lacks`].
    ///
    /// # Errors
    /// The artifact cannot be used.
    pub fn load(config: &Classify, cpu_tdp_w: Option<f64>) -> Result<Self, Problem> {
        let by = match &config.labels {
            Labels::Named(name) => named(name),
            Labels::File(path) => Topics::load(path)
                .map(|topics| By::Labels(Arc::new(topics)))
                .map_err(|e| Problem::new("classify.taxonomy", format!("{}: {e}", path.display())))?,
        };
        let mut made = Self {
            by,
            second: None,
            kept: (config.kept > 0).then(|| Arc::new(Kept::new(config.kept))),
            watts: estimate::busy_w(cpu_tdp_w),
            lacks: None,
        };
        match made.encoder(config) {
            Ok(vector) => made.second = vector.map(|vector| made.start(vector, config)),
            Err(why) => made.lacks = Some(Problem::new("classify.tier", why)),
        }
        Ok(made)
    }

    /// The same with another encoder, for tests.
    #[cfg(test)]
    fn with(by: By, vector: Vector, config: &Classify) -> Self {
        let kept = (config.kept > 0).then(|| Arc::new(Kept::new(config.kept)));
        let mut made = Self { by, second: None, kept, watts: 3.5, lacks: None };
        made.second = Some(made.start(vector, config));
        made
    }

    /// What stands in the way of the configured encoder, and what to do about it.
    pub fn lacks(&self) -> Option<&Problem> {
        self.lacks.as_ref()
    }

    /// In words, for people.
    pub fn about(&self) -> String {
        let labels = match &self.by {
            By::Domains(_) => "aei",
            By::Labels(topics) => &*topics.taxonomy.name,
        };
        let tier = match &self.second {
            None => "the fast tier".to_owned(),
            Some(second) => second.about(),
        };
        format!("{labels}, {tier}")
    }

    /// Sorts a text of a tenant. Waits for the encoder only, within its budget.
    pub async fn sort(&self, text: &str, tenant: &str) -> Sorted {
        let Some(kept) = &self.kept else { return self.made(text, None).await };
        let key = kept.key(tenant, text);
        let found = kept.get(&key);
        meter::posterior(found.is_some());
        match found {
            Some(found) => found,
            None => self.made(text, Some(key)).await,
        }
    }

    /// Sorts a text and takes the time it takes: for the command line, never for a runtime's thread.
    pub fn sort_now(&self, text: &str) -> Sorted {
        let (fast, margin) = self.fast(text);
        let second = self.second.as_ref().filter(|second| margin < second.below);
        second.and_then(|second| second.ask_now(text)).unwrap_or(fast)
    }

    async fn made(&self, text: &str, key: Option<Key>) -> Sorted {
        let (fast, margin) = self.fast(text);
        let Some(second) = self.second.as_ref().filter(|second| margin < second.below) else {
            if let (Some(kept), Some(key)) = (&self.kept, key) {
                kept.put(key, Sorted { joules: 0.0, ..fast });
            }
            return fast;
        };
        // What stands for want of time is not kept: the next one may find the encoder free.
        match second.ask(text, key).await {
            Ok(sorted) => Sorted { joules: sorted.joules + fast.joules, ..sorted },
            Err(spent) => Sorted { joules: spent + fast.joules, ..fast },
        }
    }

    /// The fast tier's answer, and how far its best label is ahead.
    fn fast(&self, text: &str) -> (Sorted, f32) {
        let (posterior, margin) = self.by.sort(text, None);
        let bytes = f64::from(u32::try_from(text.len().min(WINDOW_BYTES)).unwrap_or(u32::MAX));
        let joules = (FAST_S + FAST_S_PER_BYTE * bytes) * self.watts;
        (Sorted { posterior, tier: self.second.is_some().then_some("fast"), joules }, margin)
    }

    /// The configured encoder; none where none is configured.
    fn encoder(&self, config: &Classify) -> Result<Option<Vector>, String> {
        if config.tier == Tier::Fast {
            return Ok(None);
        }
        if self.by.ask_below().is_none() {
            return Err("this taxonomy has no head for the encoder: write \"fast\", or train one with \
                        `wattroute train domain --taxonomy LABELS.toml --tier encoder`"
                .to_owned());
        }
        let encoder = tier::encoder(None)?;
        Ok(Some(Box::new(move |text: &str| {
            let vector = encoder.encode(&[text]).map_err(|e| e.to_string())?.pop();
            vector.ok_or_else(|| "the encoder gave nothing".to_owned())
        })))
    }

    fn start(&self, vector: Vector, config: &Classify) -> Second {
        let by = self.by.clone();
        let sort = move |text: &str| Ok(by.sort(text, Some(&vector(text)?)).0);
        let below = self.by.ask_below().filter(|_| config.tier != Tier::Encoder).unwrap_or(ALWAYS);
        Second::start(Box::new(sort), (below, config.budget), self.watts, self.kept.clone())
    }
}

/// The shipped classifier of a taxonomy.
fn named(name: &str) -> By {
    let labels = Topics::shipped(name).filter(|_| name != AEI);
    labels.map_or_else(|| By::Domains(Classifier::shipped()), By::Labels)
}

impl By {
    /// The margin of `auto` that training chose; none without a head for the encoder.
    fn ask_below(&self) -> Option<f32> {
        match self {
            Self::Domains(classifier) => classifier.ask_below(),
            Self::Labels(topics) => topics.encoder.as_ref().map(|_| topics.ask_below),
        }
    }

    /// Domains, with a sentence vector where one is at hand, and how far the best label is ahead.
    fn sort(&self, text: &str, vector: Option<&[f32]>) -> (Posterior, f32) {
        match self {
            Self::Domains(classifier) => match vector {
                Some(vector) => (classifier.posterior_with(text, vector), 1.0),
                None => classifier.fast(text),
            },
            Self::Labels(topics) => {
                let sorted = match vector {
                    Some(vector) => topics.sort_with(text, vector),
                    None => topics.sort(text),
                };
                let head = topics.encoder.as_ref().filter(|_| vector.is_some()).unwrap_or(&topics.fast);
                // Labels abstain as domains do: what is not sure is mostly none of them.
                (abstain(topics.taxonomy.onto_domains(&sorted.p), head.threshold), sorted.margin())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::classify::topics::{Head, VECTOR};

    const BELOW: f32 = 0.6;

    /// The shipped labels with a head that goes by the first number of the vector alone: 1 is law.
    pub fn topics() -> Arc<Topics> {
        let topics = Topics::shipped("mmlu-pro").unwrap();
        let labels = topics.labels();
        let law = topics.taxonomy.label("law").unwrap();
        let mut weights = vec![0.0; (labels + VECTOR) * labels];
        weights[labels * labels + law] = 50.0;
        let head = Head { weights, bias: vec![0.0; labels], temperature: 1.0, threshold: 0.0 };
        Arc::new(Topics { encoder: Some(head), ask_below: BELOW, ..Topics::clone(&topics) })
    }

    fn law() -> Vector {
        Box::new(|_| {
            let mut vector = vec![0.0; VECTOR];
            vector[0] = 1.0;
            Ok(vector)
        })
    }

    fn config(tier: Tier, budget_ms: u64, kept: u64) -> Classify {
        let labels = Labels::Named("mmlu-pro".into());
        Classify { tier, labels, budget: Duration::from_millis(budget_ms), kept }
    }

    const SURE: &str = "What is the derivative of the function f(x) = x^2 + 3x at x = 2?";
    const UNSURE: &str = "Tell me about it";

    #[tokio::test]
    async fn the_encoder_has_the_last_word_where_it_is_asked_and_is_charged() {
        let always = Domains::with(By::Labels(topics()), law(), &config(Tier::Encoder, 5000, 0));
        let auto = Domains::with(By::Labels(topics()), law(), &config(Tier::Auto, 5000, 0));
        let by_encoder = always.sort(SURE, "t").await;
        assert_eq!((by_encoder.tier, by_encoder.posterior.top().0.name()), (Some("encoder"), "Legal services"));
        let (fast, margin) = auto.fast(SURE);
        assert!(margin > BELOW, "{margin}");
        assert_eq!(auto.sort(SURE, "t").await, Sorted { tier: Some("fast"), ..fast });
        let unsure = auto.sort(UNSURE, "t").await;
        assert_eq!(unsure.tier, Some("encoder"));
        assert!(unsure.joules > auto.fast(UNSURE).0.joules);
        let now = std::thread::scope(|s| s.spawn(|| auto.sort_now(UNSURE)).join()).unwrap();
        assert_eq!((now.posterior, now.tier), (unsure.posterior, Some("encoder")));
    }

    #[tokio::test]
    async fn over_budget_or_broken_the_fast_answer_stands() {
        let slow: Vector = Box::new(|_| {
            std::thread::sleep(Duration::from_millis(50));
            law()("")
        });
        let late = Domains::with(By::Labels(topics()), slow, &config(Tier::Encoder, 5, 0));
        let sorted = late.sort(SURE, "t").await;
        assert_eq!((sorted.tier, sorted.posterior), (Some("fast"), late.fast(SURE).0.posterior));
        assert!(sorted.joules > late.fast(SURE).0.joules, "the time that ran is charged");
        let broken = Domains::with(By::Labels(topics()), Box::new(|_| Err("no".into())), &config(Tier::Auto, 5000, 0));
        assert_eq!(broken.sort(UNSURE, "t").await, broken.fast(UNSURE).0);
    }

    #[tokio::test]
    async fn what_the_encoder_said_is_kept_for_the_same_tenant_only() {
        let domains = Domains::with(By::Labels(topics()), law(), &config(Tier::Encoder, 5000, 100));
        let first = domains.sort(UNSURE, "one").await;
        let again = domains.sort(UNSURE, "one").await;
        assert_eq!((again.posterior, again.tier, again.joules), (first.posterior, Some("encoder"), 0.0));
        let other = domains.sort(UNSURE, "two").await;
        assert!(other.joules > 0.0, "another tenant's text is sorted anew");
    }

    #[tokio::test]
    async fn the_default_asks_no_encoder_and_names_no_tier() {
        let plain = Classify { labels: Labels::Named("aei".into()), ..config(Tier::Fast, 30, 0) };
        let domains = Domains::load(&plain, None).unwrap();
        let sorted = domains.sort("Write a Python function that reverses a list", "t").await;
        assert_eq!(sorted.posterior, Classifier::shipped().posterior("Write a Python function that reverses a list"));
        assert_eq!((sorted.tier, domains.lacks()), (None, None));
        assert!(sorted.joules > 0.0 && sorted.joules < 1e-3);
    }
}
