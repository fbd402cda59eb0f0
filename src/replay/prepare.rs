//! Before the queries: the models, what the first pass learns, and everything that decides and prices.

use super::case::Case;
use super::cost;
use super::decide::Known;
use super::learned::{LINES, Learned, Names, learn, parse};
use super::outcomes::{Columns, Model, Models};
use super::predictions::Predictions;
use super::reader::Reader;
use super::run::Request;
use super::simulate::Setup;
use super::source::Lines;
use super::taxonomy::domain_of;

/// A log whose first pass is made.
pub struct Prepared<'a> {
    /// Reads the queries.
    pub reader: Reader<'a>,
    /// What the first pass learned.
    pub learned: Learned,
    /// What decides and prices them.
    pub setup: Setup,
    /// The log's models.
    pub models: Models,
    /// The local side.
    pub weak: Model,
    /// The cloud.
    pub strong: Model,
}

/// Finds the models, and makes the first pass.
///
/// # Errors
/// File and line, and what is wrong there.
pub fn prepare(request: &Request) -> Result<Prepared<'_>, String> {
    let models = Models::beside(&request.file)?;
    let at = Models::path(&request.file);
    let find = |name: &str| models.find(name).map_err(|e| format!("{}: {e}", at.display()));
    let (weak, strong) = (find(&request.weak)?, find(&request.strong)?);
    if weak == strong {
        return Err(format!("weak and strong are the same model: {}", request.weak));
    }
    let columns = Columns { weak, strong, models: models.models.len(), text: false };
    let (Some(weak), Some(strong)) = (models.models.get(weak).cloned(), models.models.get(strong).cloned()) else {
        return Err("the models file changed".to_owned());
    };
    let mut names = Names::default();
    let learned = learn(request, columns, models.score_max, &mut names)?;
    let local = cost::local(&weak, &request.stated)?;
    let cloud = cost::cloud(&strong, &request.stated)?;
    let setup = Setup {
        policies: request.policies.clone(),
        predictions: Predictions::Domain(learned.counts.domains()),
        local,
        cloud,
        weak: format!("local/{}", weak.id).into(),
        strong: format!("cloud/{}", strong.id).into(),
        scale: learned.scale,
        seed: request.seed,
        diff: request.diff,
        taxonomy: names.all.iter().map(|name| domain_of(name)).collect(),
        known: Known::default(),
    };
    let mut reader = Reader::new(request, columns, names);
    reader.log.labels = if learned.graded { "grades" } else { "right or wrong" }.to_owned();
    Ok(Prepared { reader, learned, setup, models, weak, strong })
}

/// Every query of a log at once, for a search.
pub struct Gathered {
    /// What decides and prices them.
    pub setup: Setup,
    /// The queries, in the log's order.
    pub cases: Vec<Case>,
    /// BLAKE3 of the file, first 16 hex digits.
    pub hash: String,
}

/// Reads a log as a whole.
///
/// # Errors
/// As [`prepare`]; and where bad lines are errors, the first of them.
pub fn gather(request: &Request) -> Result<Gathered, String> {
    let Prepared { mut reader, setup, .. } = prepare(request)?;
    let mut lines = Lines::open(&request.file)?;
    let mut cases = Vec::new();
    while let Some(chunk) = lines.chunk(LINES)? {
        for row in parse(reader.columns, &chunk) {
            match row.and_then(|read| reader.admit(read.case)) {
                Ok(case) => cases.push(case),
                Err(bad) => reader.bad(bad)?,
            }
        }
    }
    let mut hasher = blake3::Hasher::new();
    let read = std::fs::File::open(&request.file).and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    read.map_err(|e| format!("{}: {e}", request.file.display()))?;
    let hash = hasher.finalize().to_hex().chars().take(16).collect();
    Ok(Gathered { setup, cases, hash })
}
