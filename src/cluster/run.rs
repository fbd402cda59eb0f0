//! The runner on a cluster: the client's side of a replay.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::engine::Client;
use super::job::{Job, What};
use super::log::Found;
use super::order::Order;
use super::sums::{Share, Sum, Survey};
use crate::clock;
use crate::replay::form::Form;
use crate::replay::outcome::{BadLine, Outcome};
use crate::replay::partial::Partial;
use crate::replay::prepare::{Prepared, prepare};
use crate::replay::run::{Request, Watch, finish};
use crate::replay::simulate::REFERENCES;
use crate::store;

/// Pieces sent at a time.
const WAVE: usize = 32;
/// Bad lines shown.
const SHOWN: usize = 10;

/// Where to run.
pub struct Cluster {
    /// Host and port of the scheduler.
    pub scheduler: String,
    /// Bytes of a piece.
    pub piece: u64,
    /// Texts of the request's policies by their hash.
    pub texts: HashMap<String, String>,
}

/// Runs a replay.
///
/// # Errors
/// Of the log, as in one process; the engine's; what is asked for is not given on a cluster.
pub fn run(request: &Request, cluster: &Cluster, watch: &Watch) -> Result<Outcome, String> {
    if request.rate.is_some() {
        return Err("--rate makes up arrivals for the queue at the local device, which a cluster does not walk; leave one of the two out".to_owned());
    }
    let began = clock::now();
    let name = request.file.display().to_string();
    let found = store::find(&request.file)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    let found = runtime.block_on(Found::of(&name, found))?;
    let mut prepared = prepare(request)?;
    let pass = Pass { found: &found, cluster, watch, name: &name };
    let (partial, complete) = runtime.block_on(pass.all(&mut prepared))?;
    let timed = prepared.reader.timed;
    let mut outcome = finish(prepared, &(partial, Vec::new(), complete), began.elapsed().as_secs_f64())?;
    if timed {
        outcome.assumptions.retain(|a| !a.starts_with("arrivals:"));
        outcome.assumptions.push(
            "arrivals: as logged, but a cluster does not walk the queue at the local device, which goes through the whole log in order: no \
             waits and no load; one process computes them"
                .to_owned(),
        );
    }
    Ok(outcome)
}

/// A pass over a log.
struct Pass<'a> {
    found: &'a Found,
    cluster: &'a Cluster,
    watch: &'a Watch,
    name: &'a str,
}

impl Pass<'_> {
    /// Wave by wave: while one is simulated, the next is surveyed.
    async fn all(&self, prepared: &mut Prepared<'_>) -> Result<(Partial, bool), String> {
        let request = prepared.reader.request;
        let client = Client::new(&self.cluster.scheduler).await.map_err(|e| self.engine(&e))?;
        let mut job = self.job(prepared)?;
        let survey = job.bytes()?;
        let mut pieces = self.found.cut(self.name, self.cluster.piece).await?;
        let mut order = Order::new(job.limit, prepared.reader.names.clone());
        let mut share = Share::default();
        self.watch.size.store(self.found.size, Ordering::Relaxed);
        let mut waves = pieces.chunks_mut(WAVE).peekable();
        let mut next = match waves.peek() {
            Some(wave) => client.sum::<Survey>(&survey, self.found.with(wave)).await.map_err(|e| self.engine(&e))?,
            None => Survey::default(),
        };
        let mut complete = true;
        while let Some(wave) = waves.next() {
            // One wave at least, or there is no result to give.
            if self.watch.stop.load(Ordering::Relaxed) && share.lines > 0 {
                complete = false;
                break;
            }
            order.take(std::mem::take(&mut next), wave);
            job.names.clone_from(&order.names.all);
            let from = wave.first().map_or(0, |p| p.first);
            job.dropped = order.dropped.iter().copied().filter(|n| *n >= from).collect();
            let bytes = job.bytes()?;
            let simulated = client.sum::<Share>(&bytes, self.found.with(wave));
            let surveyed = async {
                match waves.peek() {
                    Some(wave) => client.sum::<Survey>(&survey, self.found.with(wave)).await,
                    None => Ok(Survey::default()),
                }
            };
            let (part, after) = futures_util::try_join!(simulated, surveyed).map_err(|e| self.engine(&e))?;
            share.merge(part);
            next = after;
            self.watch.lines.store(share.lines, Ordering::Relaxed);
            self.watch.bytes.fetch_add(wave.iter().map(|p| p.bytes).sum::<u64>(), Ordering::Relaxed);
            if request.strict && (share.bad > 0 || order.backwards.0 > 0) {
                break;
            }
        }
        self.tell(prepared, order, &share)?;
        let routes = REFERENCES + prepared.setup.policies.len();
        let none = || Partial::new(routes, prepared.setup.diff.is_some());
        Ok((share.partial.unwrap_or_else(none), complete))
    }

    /// Into the log's account.
    fn tell(&self, prepared: &mut Prepared<'_>, order: Order, share: &Share) -> Result<(), String> {
        let reader = &mut prepared.reader;
        let late = order.backwards.1.map(|(line, by)| (line, format!("it arrived {by:.3} s before an earlier line")));
        let first = share.first_bad.iter().chain(&late).min().filter(|_| reader.request.strict);
        if let Some((line, why)) = first {
            return Err(format!("{}:{line}: {why}", self.name));
        }
        reader.log.lines = share.lines;
        reader.log.passed_over = share.passed;
        reader.log.bad = share.bad;
        reader.log.duplicates = order.dropped.len() as u64;
        reader.log.clock_backwards = order.backwards.0;
        let shown = share.first_bad.iter().take(SHOWN);
        reader.log.first_bad = shown.map(|(line, why)| BadLine { line: *line, why: why.clone() }).collect();
        (reader.names, reader.timed, reader.forgot) = (order.names, order.timed, order.forgot);
        Ok(())
    }

    fn job(&self, prepared: &Prepared<'_>) -> Result<Job, String> {
        let (setup, reader) = (&prepared.setup, &prepared.reader);
        let what = match &*reader.form {
            Form::Outcomes(columns) => What::Outcomes(*columns),
            Form::Log(log) => What::Log(log.packed()?),
            // What was fitted is large, and travels with every task.
            Form::Foreseen(..) => {
                return Err("on a cluster, what policies see is predicted by domain; leave the other predictor or --cluster out"
                    .to_owned());
            }
        };
        let text = |p: &std::sync::Arc<crate::policy::Policy>| {
            let text = self.cluster.texts.get(&*p.hash).cloned();
            text.map(|t| (p.name.to_string(), t)).ok_or_else(|| format!("{}: its text is not at hand", p.name))
        };
        Ok(Job {
            what,
            policies: setup.policies.iter().map(text).collect::<Result<_, _>>()?,
            counts: prepared.learned.counts.clone(),
            local: setup.local.clone(),
            cloud: setup.cloud.clone(),
            backends: [setup.weak.to_string(), setup.strong.to_string()],
            scale: setup.scale,
            seed: setup.seed,
            diff: setup.diff,
            names: reader.names.all.clone(),
            learned: setup.taxonomy.len(),
            dropped: Vec::new(),
            limit: reader.request.limit.unwrap_or(u64::MAX),
        })
    }

    fn engine(&self, e: &datafusion::error::DataFusionError) -> String {
        format!("{}: the cluster at {}: {e}", self.name, self.cluster.scheduler)
    }
}
