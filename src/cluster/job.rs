//! What executors need to simulate, as bytes: everything that one process would have at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::classify::domain::Posterior;
use crate::policy::Policy;
use crate::policy::parse;
use crate::replay::case::Case;
use crate::replay::cost::Tariff;
use crate::replay::decide::Known;
use crate::replay::foreseen::Foreseer;
use crate::replay::form::{Form, Packed, Unlabelled};
use crate::replay::learned::OTHER;
use crate::replay::outcomes::Columns;
use crate::replay::predictions::{Counts, Predictions};
use crate::replay::simulate::Setup;
use crate::replay::taxonomy::domain_of;

/// A job as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// How a line becomes a query.
    pub what: What,
    /// Name and text of each policy.
    pub policies: Vec<(String, String)>,
    /// What the first queries' labels tell.
    pub counts: Counts,
    /// What a local answer costs.
    pub local: Tariff,
    /// What a cloud answer costs.
    pub cloud: Tariff,
    /// Backends of both sides.
    pub backends: [String; 2],
    /// A full grade.
    pub scale: f64,
    /// Seed of draws.
    pub seed: u64,
    /// Two policies to compare.
    pub diff: Option<(usize, usize)>,
    /// Domains of the log, in the order of their first query.
    pub names: Vec<String>,
    /// Of those, how many were there when predictions were made.
    pub learned: usize,
    /// Lines whose key was seen before, rising.
    pub dropped: Vec<u64>,
    /// Lines to read, at most.
    pub limit: u64,
    /// The local device's queue is to be walked: each decision is given.
    pub walk: bool,
}

/// How lines are read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    /// With labels: which two models of a row are compared.
    Outcomes(Columns),
    /// The same, and what foresees each row, packed.
    Foreseen(Columns, Vec<u8>),
    /// Without: a format, and the tables that stand in for labels.
    Log(Packed),
}

/// A job ready to work.
pub struct Ready {
    /// How a line becomes a query.
    pub form: Form,
    /// What decides and prices.
    pub setup: Setup,
    index: HashMap<String, usize>,
    other: usize,
    dropped: Vec<u64>,
    /// Lines to read, at most.
    pub limit: u64,
    /// Each decision is given.
    pub walk: bool,
}

/// The last foreseer that came by: a process works on many tasks of one replay.
static FORESEER: Mutex<Option<(blake3::Hash, Arc<Foreseer>)>> = Mutex::new(None);

fn foreseer(packed: &[u8]) -> Result<Arc<Foreseer>, String> {
    let hash = blake3::hash(packed);
    let mut last = FORESEER.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((known, own)) if *known == hash => Ok(Arc::clone(own)),
        _ => {
            let own = Arc::new(Foreseer::unpacked(packed)?);
            *last = Some((hash, Arc::clone(&own)));
            Ok(own)
        }
    }
}

impl Job {
    /// The same for a survey, which reads lines and foresees nothing.
    #[must_use]
    pub fn survey(&self) -> Self {
        match &self.what {
            What::Foreseen(columns, _) => Self { what: What::Outcomes(*columns), ..self.clone() },
            _ => self.clone(),
        }
    }

    /// As bytes.
    ///
    /// # Errors
    /// None that is expected.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        postcard::to_allocvec(self).map_err(|e| format!("a job cannot be written down: {e}"))
    }

    /// Back from bytes.
    ///
    /// # Errors
    /// The bytes are not of a job of this version, or a policy in it is not one.
    pub fn ready(bytes: &[u8]) -> Result<Ready, String> {
        let version = "not a job of this version: all processes of a cluster are to be of one version";
        let job: Self = postcard::from_bytes(bytes).map_err(|e| format!("{version} ({e})"))?;
        let mut policies = Vec::with_capacity(job.policies.len());
        for (name, text) in &job.policies {
            let read: Policy = parse(text, name).map_err(|e| e.to_string())?;
            policies.push(Arc::new(Policy { name: name.as_str().into(), ..read }));
        }
        let [weak, strong] = job.backends;
        let (form, predictions) = match &job.what {
            What::Outcomes(columns) => (Form::Outcomes(*columns), Predictions::Domain(job.counts.domains())),
            What::Foreseen(columns, packed) => {
                let foreseer = foreseer(packed).map_err(|e| format!("{version} ({e})"))?;
                (Form::Foreseen(*columns, foreseer), Predictions::Query(job.counts.domains()))
            }
            What::Log(packed) => {
                let log = Unlabelled::unpacked(packed).map_err(|e| format!("{version} ({e})"))?;
                let unknown = log.expected(&Posterior::none(), 0.0);
                (Form::Log(Box::new(log)), Predictions::Tables(unknown))
            }
        };
        let setup = Setup {
            policies,
            predictions,
            local: job.local,
            cloud: job.cloud,
            weak: weak.into(),
            strong: strong.into(),
            scale: job.scale,
            seed: job.seed,
            diff: job.diff,
            taxonomy: job.names.iter().take(job.learned).map(|name| domain_of(name)).collect(),
            known: Known::default(),
        };
        let index: HashMap<String, usize> = job.names.into_iter().enumerate().map(|(i, name)| (name, i)).collect();
        let other = index.get(OTHER).copied().unwrap_or_default();
        Ok(Ready { form, setup, index, other, dropped: job.dropped, limit: job.limit, walk: job.walk })
    }
}

impl Ready {
    /// The index of a domain's name.
    pub fn domain(&self, name: &str) -> usize {
        self.index.get(name).copied().unwrap_or(self.other)
    }

    /// Why a query is left out although it can be read.
    pub fn left_out(&self, case: &Case) -> Option<String> {
        self.dropped.binary_search(&case.line).is_ok().then(|| format!("its id `{}` was seen before", case.id))
    }
}
