//! What `wattroute classify` sorts by: the domains, or the labels of another taxonomy.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::classify::Classifier;
use crate::classify::artifact::ArtifactError;
use crate::classify::domain::Domain;
use crate::classify::taxonomy::{NONE, Taxonomy};
use crate::classify::topics::Topics;
use crate::cli::classify::{ClassifyArgs, Tier};
use crate::tier::Vectors;

/// A classifier and how it answers.
pub struct Sorter {
    by: By,
    abstain: bool,
    /// The encoder, and the margin below which it is asked.
    second: Option<(Vectors, f32)>,
}

enum By {
    Domains(Arc<Classifier>),
    Labels(Arc<Topics>),
}

/// One text's answer.
pub struct Answer {
    /// Chosen name and its probability.
    top: (String, f32),
    /// Every name with its probability, in the taxonomy's order; `None` last.
    pub posterior: Vec<(String, f32)>,
}

impl Sorter {
    /// As the arguments say; an error names what to do.
    pub fn of(args: &ClassifyArgs) -> Result<Self, String> {
        let by = if args.taxonomy == "aei" {
            By::Domains(match &args.artifact {
                Some(path) => Arc::new(Classifier::load(path).map_err(|e| e.to_string())?),
                None => Classifier::shipped(),
            })
        } else {
            By::Labels(labels(&args.taxonomy, args.artifact.as_deref())?)
        };
        let second = match args.tier {
            Tier::Fast => None,
            tier => {
                let Some(below) = by.ask_below() else {
                    return Err(format!(
                        "taxonomy `{0}` has no head for the encoder: train one with `wattroute train domain --taxonomy {0} \
                         --tier encoder`",
                        args.taxonomy
                    ));
                };
                // No margin reaches 2: the encoder is asked for every text.
                Some((Vectors::load(None)?, if tier == Tier::Encoder { 2.0 } else { below }))
            }
        };
        Ok(Self { by, abstain: args.abstain, second })
    }

    /// By the domains.
    #[cfg(test)]
    pub fn domains(classifier: Arc<Classifier>) -> Self {
        Self { by: By::Domains(classifier), abstain: false, second: None }
    }

    /// Names of all answers but an open one.
    pub fn names(&self) -> Vec<String> {
        match &self.by {
            By::Domains(_) => Domain::all().map(|d| d.name().to_owned()).collect(),
            By::Labels(topics) => topics.taxonomy.labels.iter().map(|l| l.name.clone()).collect(),
        }
    }

    /// Sorts a text. Labels of a taxonomy get the whole posterior; `None` gets it where the text says nothing.
    pub fn sort(&self, text: &str) -> Result<Answer, String> {
        Ok(match &self.by {
            By::Domains(classifier) => {
                let (mut posterior, margin) = classifier.fast(text);
                if let Some((vectors, below)) = &self.second
                    && margin < *below
                {
                    posterior = classifier.posterior_with(text, &vectors.of(text)?);
                }
                let (domain, p) = posterior.top();
                let all = Domain::all().zip(posterior.0).map(|(d, p)| (d.name().to_owned(), p)).collect();
                Answer { top: (domain.name().to_owned(), p), posterior: all }
            }
            By::Labels(topics) => {
                let mut sorted = topics.sort(text);
                if let Some((vectors, below)) = &self.second
                    && sorted.top.is_some()
                    && sorted.margin() < *below
                {
                    sorted = topics.sort_with(text, &vectors.of(text)?);
                }
                let none = if sorted.top.is_none() { 1.0 } else { 0.0 };
                let mut posterior: Vec<(String, f32)> =
                    self.names().into_iter().zip(sorted.p.iter().copied()).collect();
                let best = sorted.top.and_then(|top| posterior.get(top)).cloned();
                posterior.push((NONE.to_owned(), none));
                let top = best.filter(|_| sorted.sure || !self.abstain).unwrap_or((NONE.to_owned(), none));
                Answer { top, posterior }
            }
        })
    }
}

impl By {
    /// The margin that training chose; `None` without a head for the encoder.
    fn ask_below(&self) -> Option<f32> {
        match self {
            Self::Domains(classifier) => classifier.ask_below(),
            Self::Labels(topics) => topics.encoder.as_ref().map(|_| topics.ask_below),
        }
    }
}

/// By name, by artifact, or by TOML file with the artifact beside it.
fn labels(taxonomy: &str, artifact: Option<&Path>) -> Result<Arc<Topics>, String> {
    if artifact.is_none() && is_artifact(Path::new(taxonomy)) {
        return Topics::load(Path::new(taxonomy)).map(Arc::new).map_err(|e| format!("{taxonomy}: {e}"));
    }
    let wanted = Taxonomy::find(taxonomy).map_err(|e| e.to_string())?;
    let Some(path) = artifact else {
        return Topics::shipped(&wanted.name).filter(|t| t.taxonomy == wanted).ok_or_else(|| {
            format!(
                "nothing is trained for taxonomy `{}` yet: run `wattroute train domain --taxonomy {taxonomy} --data ROWS.jsonl \
                 --out FILE`, then give that file",
                wanted.name
            )
        });
    };
    let topics = Topics::load(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if topics.taxonomy.labels.iter().map(|l| &l.name).ne(wanted.labels.iter().map(|l| &l.name)) {
        let error = ArtifactError::Taxonomy { found: topics.taxonomy.name, wanted: wanted.name };
        return Err(format!("{}: {error}", path.display()));
    }
    // The file's sentences and domains may have changed since training; the labels have not.
    Ok(Arc::new(Topics { taxonomy: wanted, ..topics }))
}

fn is_artifact(path: &Path) -> bool {
    let mut magic = [0; 8];
    path.extension().is_none_or(|e| e != "toml")
        && File::open(path).is_ok_and(|mut f| f.read_exact(&mut magic).is_ok())
        && (magic.starts_with(b"WR"))
}

impl Answer {
    /// As a JSON object: `domain`, `p`, `posterior`.
    pub fn facts(&self) -> Map<String, Value> {
        // Six decimals: more would only show the rounding of single precision.
        let rounded = |p: f32| json!((f64::from(p) * 1e6).round() / 1e6);
        let all: Map<String, Value> = self.posterior.iter().map(|(name, p)| (name.clone(), rounded(*p))).collect();
        Map::from_iter([
            ("domain".to_owned(), json!(self.top.0)),
            ("p".to_owned(), rounded(self.top.1)),
            ("posterior".to_owned(), Value::Object(all)),
        ])
    }
}
