//! Before the queries: the models, what the first pass learns, and everything that decides and prices.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::case::Case;
use super::cost;
use super::decide::Known;
use super::foreseen::Foreseer;
use super::form::{Form, Unlabelled};
use super::learned::{LINES, Learned, Names, learn, parse};
use super::outcomes::{Columns, Model, Models};
use super::predictions::Predictions;
use super::reader::Reader;
use super::run::{Ask, Predictor, Request};
use super::simulate::Setup;
use super::source::{self, Lines};
use super::taxonomy::domain_of;
use crate::classify::domain::Posterior;
use crate::tables::Table;

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
/// File and line, and what is wrong there; `stop` was set before it was through.
pub fn prepare<'a>(request: &'a Request, stop: &AtomicBool) -> Result<Prepared<'a>, String> {
    let opened = match &request.ask {
        Ask::Outcomes => labelled(request, stop)?,
        Ask::Log { format } => unlabelled(request, format.as_deref())?,
    };
    let [weak, strong] = opened.pair;
    let setup = Setup {
        policies: request.policies.clone(),
        predictions: opened.predictions,
        local: cost::local(&weak, opened.own, &request.stated)?,
        cloud: cost::cloud(&strong, &request.stated)?,
        weak: format!("local/{}", weak.id).into(),
        strong: format!("cloud/{}", strong.id).into(),
        scale: opened.learned.scale,
        seed: request.seed,
        diff: request.diff,
        taxonomy: opened.names.all.iter().map(|name| domain_of(name)).collect(),
        known: Known::default(),
    };
    let mut reader = Reader::new(request, Arc::new(opened.form), opened.names);
    opened.labels.clone_into(&mut reader.log.labels);
    Ok(Prepared { reader, learned: opened.learned, setup, models: opened.models, weak, strong })
}

/// A log, ready to be read.
struct Opened {
    form: Form,
    models: Models,
    pair: [Model; 2],
    learned: Learned,
    predictions: Predictions,
    names: Names,
    labels: &'static str,
    /// The local side's table, where one is named.
    own: Option<Arc<Table>>,
}

fn labelled(request: &Request, stop: &AtomicBool) -> Result<Opened, String> {
    let models = Models::beside(&request.file)?;
    let at = Models::path(&request.file);
    let find = |name: &str| models.find(name).map_err(|e| format!("{}: {e}", at.display()));
    let (weak, strong) = (find(&request.weak)?, find(&request.strong)?);
    if weak == strong {
        return Err(format!("weak and strong are the same model: {}", request.weak));
    }
    let columns = Columns { weak, strong, models: models.models.len(), text: request.predictor == Predictor::Query };
    let (Some(weak), Some(strong)) = (models.models.get(weak).cloned(), models.models.get(strong).cloned()) else {
        return Err("the models file changed".to_owned());
    };
    let mut names = Names::default();
    let mut learned = learn(request, &Form::Outcomes(columns), models.score_max, &mut names, stop)?;
    let domains = learned.counts.domains();
    let foreseer = learned.sample.take().map(|sample| Arc::new(sample.fit(learned.scale)));
    learned.foreseen = foreseer.as_deref().map(Foreseer::told);
    let (form, predictions) = match foreseer {
        Some(foreseer) => (Form::Foreseen(columns, foreseer), Predictions::Query(domains)),
        None => (Form::Outcomes(columns), Predictions::Domain(domains)),
    };
    let labels = if learned.graded { "grades" } else { "right or wrong" };
    Ok(Opened { form, models, pair: [weak, strong], learned, predictions, names, labels, own: None })
}

fn unlabelled(request: &Request, format: Option<&str>) -> Result<Opened, String> {
    let log = Unlabelled::open(request, format)?;
    Ok(Opened {
        models: Models::default(),
        own: log.local_table(),
        pair: log.models(),
        predictions: Predictions::Tables(log.expected(&Posterior::none(), 0.0)),
        form: Form::Log(Box::new(log)),
        learned: Learned { scale: 1.0, ..Learned::default() },
        names: Names::of_the_taxonomy(),
        labels: "predicted",
    })
}

/// Every query of a log at once, for a search.
pub struct Gathered {
    /// What decides and prices them.
    pub setup: Setup,
    /// The queries, in the log's order.
    pub cases: Vec<Case>,
    /// BLAKE3 of the log, first 16 hex digits.
    pub hash: String,
}

/// Reads a log as a whole.
///
/// # Errors
/// As [`prepare`]; and where bad lines are errors, the first of them.
pub fn gather(request: &Request) -> Result<Gathered, String> {
    let Prepared { mut reader, setup, .. } = prepare(request, &AtomicBool::new(false))?;
    let mut lines = Lines::open(&request.file)?;
    let mut cases = Vec::new();
    while let Some(chunk) = lines.chunk(LINES)? {
        for row in parse(&Arc::clone(&reader.form), &chunk).rows {
            match row.and_then(|read| reader.admit(read.case)) {
                Ok(case) => cases.push(case),
                Err(bad) => reader.bad(bad)?,
            }
        }
    }
    Ok(Gathered { setup, cases, hash: source::hash(&request.file)? })
}
