//! The 22 Anthropic Economic Index categories and `None`, and a distribution over them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Number of domains, `None` included.
pub const DOMAINS: usize = 23;

/// Names as the taxonomy prints them (arXiv 2511.07885, Table 3). `None` is last and is what abstention gives.
pub const NAMES: [&str; DOMAINS] = [
    "Computer and mathematical",
    "Arts, design, sports, entertainment, and media",
    "Life, physical, and social science",
    "Education instruction and library",
    "Architecture and engineering",
    "Business and financial operations",
    "Healthcare practitioners and technical",
    "Office and administrative support",
    "Legal services",
    "Community and social service",
    "Transportation and material moving",
    "Sales and related",
    "Food preparation and serving related",
    "General management",
    "Installation, maintenance, and repair",
    "Farming, fishing, and forestry",
    "Protective service",
    "Construction and extraction",
    "Healthcare support",
    "Production services",
    "Personal care and service",
    "Building grounds cleaning and maintenance",
    "None",
];

/// One domain, an index into [`NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(u8);

impl Default for Domain {
    fn default() -> Self {
        Self::NONE
    }
}

impl Domain {
    /// The classifier abstains.
    pub const NONE: Self = Self(22);

    /// All domains in the order of [`NAMES`].
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        (0u8..23).map(Self)
    }

    /// The domain at an index of [`NAMES`].
    pub fn at(index: usize) -> Option<Self> {
        u8::try_from(index).ok().filter(|i| usize::from(*i) < DOMAINS).map(Self)
    }

    /// Index into [`NAMES`] and into a [`Posterior`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The printed name.
    pub fn name(self) -> &'static str {
        NAMES.get(self.index()).copied().unwrap_or("None")
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Domain {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        NAMES.iter().position(|n| n.eq_ignore_ascii_case(s.trim())).and_then(Self::at).ok_or_else(|| {
            format!("unknown domain `{s}`; the 22 domains and None are listed by `wattroute classify --domains`")
        })
    }
}

impl TryFrom<String> for Domain {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<Domain> for String {
    fn from(d: Domain) -> Self {
        d.name().to_owned()
    }
}

/// A probability for each domain; sums to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior(pub [f32; DOMAINS]);

impl Posterior {
    /// All mass on `None`.
    pub fn none() -> Self {
        let mut p = [0.0; DOMAINS];
        if let Some(last) = p.last_mut() {
            *last = 1.0;
        }
        Self(p)
    }

    /// Most likely domain and its probability; ties go to the lower index.
    pub fn top(&self) -> (Domain, f32) {
        let mut best = (Domain::NONE, f32::MIN);
        for (d, p) in Domain::all().zip(self.0) {
            if p > best.1 {
                best = (d, p);
            }
        }
        best
    }

    /// Probability of one domain.
    pub fn of(&self, domain: Domain) -> f32 {
        self.0.get(domain.index()).copied().unwrap_or(0.0)
    }
}
