//! A taxonomy: the labels that texts are sorted into, read from a TOML file.
//!
//! Invariant: labels are unique, every parent is declared, and the whole fits the classifier's tables. A label may name the
//! domain that tables and policies use for it; mass of labels without one goes to `None`.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::domain::{Domain, Posterior};

/// Labels and groups a taxonomy has at most: sums of one text fit a fixed place on the stack.
pub const MOST_LABELS: usize = 240;
/// A name longer than this is a mistake.
const NAME_CHARS: usize = 80;
/// A file larger than this is no taxonomy.
const FILE_BYTES: u64 = 1 << 20;
/// What a text without anything to go on is called; no label may have this name.
pub const NONE: &str = "None";

/// The 14 categories of MMLU-Pro.
const MMLU_PRO: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/eval/taxonomies/mmlu-pro.toml"));

/// Labels, in the order of the classifier's outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taxonomy {
    /// Name, as `--taxonomy` takes it and artifacts carry it.
    pub name: String,
    /// A sentence on what is sorted.
    #[serde(default)]
    pub about: String,
    /// Coarser classes; thin labels are drawn towards theirs.
    #[serde(default, rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// What a text may be.
    #[serde(default, rename = "label")]
    pub labels: Vec<Label>,
}

/// A class of labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name.
    pub name: String,
    /// A sentence.
    #[serde(default)]
    pub about: String,
}

/// One label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Name, as in the data.
    pub name: String,
    /// A sentence.
    #[serde(default)]
    pub about: String,
    /// Name of its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The domain that tables and policies use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
}

/// Why a taxonomy was refused.
#[derive(Debug, thiserror::Error)]
pub enum TaxonomyError {
    /// The file could not be read.
    #[error("cannot read the taxonomy {0}: {1}")]
    Read(String, String),
    /// Not TOML, or other keys than these.
    #[error("the taxonomy is not understood: {0}")]
    Toml(String),
    /// What does not fit together, one line each.
    #[error("the taxonomy cannot be used: {}", .0.join("; "))]
    Wrong(Vec<String>),
    /// Neither a known name nor a file.
    #[error("unknown taxonomy `{0}`: known are aei and mmlu-pro, or give a file")]
    Unknown(String),
}

impl Taxonomy {
    /// One that ships with the program.
    pub fn known(name: &str) -> Option<Self> {
        match name {
            "mmlu-pro" => Self::parse(MMLU_PRO).ok(),
            "aei" => Some(Self::aei()),
            _ => None,
        }
    }

    /// A shipped one by name, else a file.
    pub fn find(name: &str) -> Result<Self, TaxonomyError> {
        if let Some(known) = Self::known(name) {
            return Ok(known);
        }
        if name.ends_with(".toml") || name.contains(['/', '\\']) || Path::new(name).is_file() {
            return Self::load(Path::new(name));
        }
        Err(TaxonomyError::Unknown(name.to_owned()))
    }

    /// The 22 domains; `None` is a label of its own there.
    fn aei() -> Self {
        let about = "The 22 categories of the Anthropic Economic Index, and None.".to_owned();
        let label = |domain: Domain| Label {
            name: domain.name().to_owned(),
            about: String::new(),
            parent: None,
            domain: Some(domain),
        };
        Self { name: "aei".into(), about, groups: Vec::new(), labels: Domain::all().map(label).collect() }
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, TaxonomyError> {
        let fail = |why: String| TaxonomyError::Read(path.display().to_string(), why);
        let size = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
        if size > FILE_BYTES {
            return Err(fail(format!("{size} bytes are no taxonomy")));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?)
    }

    /// Reads and checks TOML text; all that is wrong is told together.
    pub fn parse(text: &str) -> Result<Self, TaxonomyError> {
        let taxonomy: Self = toml::from_str(text).map_err(|e| TaxonomyError::Toml(e.to_string()))?;
        let wrong = taxonomy.problems();
        if wrong.is_empty() { Ok(taxonomy) } else { Err(TaxonomyError::Wrong(wrong)) }
    }

    fn problems(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.labels.len() < 2 {
            wrong.push(format!("{} labels: at least two [[label]] are needed", self.labels.len()));
        }
        if self.labels.len() + self.groups.len() > MOST_LABELS {
            wrong.push(format!(
                "{} labels and {} groups: at most {MOST_LABELS} together",
                self.labels.len(),
                self.groups.len()
            ));
        }
        let names =
            self.labels.iter().map(|l| ("label", &l.name)).chain(self.groups.iter().map(|g| ("group", &g.name)));
        let mut seen = BTreeSet::new();
        for (what, name) in names.chain([("taxonomy", &self.name)]) {
            if name.trim().is_empty() || name.trim() != name || name.chars().count() > NAME_CHARS {
                wrong.push(format!("{what} `{name}`: a name has 1 to {NAME_CHARS} characters, no blanks around it"));
            }
            if what == "label" && name.eq_ignore_ascii_case(NONE) && self.name != "aei" {
                wrong.push(format!("label `{name}`: that is what a text without a label is called"));
            }
            if !seen.insert((what, name.to_lowercase())) {
                wrong.push(format!("{what} `{name}` is there twice"));
            }
        }
        for label in &self.labels {
            if let Some(parent) = &label.parent
                && self.group(parent).is_none()
            {
                wrong.push(format!("label `{}`: there is no [[group]] named `{parent}`", label.name));
            }
        }
        wrong
    }

    /// Index of a group.
    pub fn group(&self, name: &str) -> Option<usize> {
        self.groups.iter().position(|g| g.name == name)
    }

    /// Index of a label's group.
    pub fn parent_of(&self, label: usize) -> Option<usize> {
        self.labels.get(label)?.parent.as_deref().and_then(|name| self.group(name))
    }

    /// Index of a label, whatever its case; the error names the nearest one.
    pub fn label(&self, name: &str) -> Result<usize, String> {
        if let Some(at) = self.labels.iter().position(|l| l.name.eq_ignore_ascii_case(name.trim())) {
            return Ok(at);
        }
        let near = self.labels.iter().max_by(|a, b| {
            let near = |l: &Label| strsim::jaro_winkler(&l.name.to_lowercase(), &name.to_lowercase());
            near(a).total_cmp(&near(b))
        });
        let hint = near.map(|l| format!(" (did you mean `{}`?)", l.name)).unwrap_or_default();
        Err(format!("unknown label `{name}` in taxonomy `{}`{hint}", self.name))
    }

    /// The text of the file that [`Self::parse`] reads.
    pub fn render(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// A distribution over labels as one over the domains that tables and policies know.
    pub fn onto_domains(&self, p: &[f32]) -> Posterior {
        let mut out = Posterior([0.0; super::domain::DOMAINS]);
        let mut rest = 1.0f32;
        for (label, mass) in self.labels.iter().zip(p) {
            let domain = label.domain.unwrap_or(Domain::NONE);
            if let Some(place) = out.0.get_mut(domain.index()) {
                *place += mass;
                rest -= mass;
            }
        }
        if let Some(none) = out.0.get_mut(Domain::NONE.index()) {
            *none += rest.max(0.0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_taxonomies_are_sound_and_written_as_read() {
        for (name, labels) in [("mmlu-pro", 14), ("aei", 23)] {
            let taxonomy = Taxonomy::known(name).unwrap();
            assert_eq!((taxonomy.name.as_str(), taxonomy.labels.len()), (name, labels));
            assert_eq!(Taxonomy::parse(&taxonomy.render()).unwrap(), taxonomy);
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let text = "name = \"\"\n[[group]]\nname = \"g\"\n[[label]]\nname = \"a\"\nparent = \"h\"\n[[label]]\nname = \"A\"\n[[label]]\nname = \"none\"";
        let told = Taxonomy::parse(text).unwrap_err().to_string();
        for part in ["taxonomy ``", "no [[group]] named `h`", "label `A` is there twice", "label `none`"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn bad_files_are_refused() {
        let two = "name = \"x\"\n[[label]]\nname = \"a\"\n[[label]]\nname = \"b\"\n";
        assert!(Taxonomy::parse(two).is_ok());
        assert!(matches!(Taxonomy::parse("name = \"x\""), Err(TaxonomyError::Wrong(_))));
        assert!(matches!(Taxonomy::parse("labels = 3"), Err(TaxonomyError::Toml(_))));
        let told = Taxonomy::parse(&format!("{two}domain = \"Alchemy\"")).unwrap_err().to_string();
        assert!(told.contains("unknown domain `Alchemy`"), "{told}");
        let many: String = (0..=MOST_LABELS).map(|i| format!("[[label]]\nname = \"l{i}\"\n")).collect();
        assert!(Taxonomy::parse(&format!("name = \"x\"\n{many}")).unwrap_err().to_string().contains("at most"));
        assert!(matches!(Taxonomy::find("aie"), Err(TaxonomyError::Unknown(_))));
        assert!(matches!(Taxonomy::find("no/such.toml"), Err(TaxonomyError::Read(..))));
    }

    #[test]
    fn unknown_labels_get_a_hint_and_known_ones_any_case() {
        let taxonomy = Taxonomy::known("mmlu-pro").unwrap();
        assert_eq!(taxonomy.label("Math"), taxonomy.label("math"));
        assert!(taxonomy.label("phisics").unwrap_err().contains("did you mean `physics`?"));
    }

    #[test]
    fn mass_without_a_domain_is_none() {
        let text = "name = \"x\"\n[[label]]\nname = \"a\"\ndomain = \"Legal services\"\n[[label]]\nname = \"b\"\n";
        let p = Taxonomy::parse(text).unwrap().onto_domains(&[0.75, 0.25]);
        assert_eq!(p.of("Legal services".parse().unwrap()), 0.75);
        assert_eq!(p.of(Domain::NONE), 0.25);
    }
}
