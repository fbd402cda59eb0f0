//! The runner on a cluster: the client's side of a replay.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::engine::Client;
use super::job::{Job, What};
use super::lines::Piece;
use super::log::Found;
use super::order::Order;
use super::sums::{Share, Sum, Survey};
use crate::clock;
use crate::replay::form::Form;
use crate::replay::learned::too_soon;
use crate::replay::outcome::{BadLine, Outcome};
use crate::replay::partial::Partial;
use crate::replay::prepare::{Prepared, prepare};
use crate::replay::run::{self as replay, Request, Watch, finish};
use crate::replay::simulate::REFERENCES;
use crate::replay::turn::idle;
use crate::store;

/// Pieces of the first wave.
const FIRST: usize = 8;
/// Pieces sent at a time, at most.
const WAVE: usize = 64;
/// Queries of a wave, about: their keys and decisions come to the client, some 50 bytes each.
const QUERIES: u64 = 2_000_000;
/// Queries of one piece beyond which decisions do not fit into a message.
const LARGEST: u64 = 20_000_000;
/// Bad lines shown.
const SHOWN: usize = 10;
/// Between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(50);

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
/// Of the log, as in one process, and the engine's.
pub fn run(request: &Request, cluster: &Cluster, watch: &Watch) -> Result<Outcome, String> {
    let began = clock::now();
    let name = request.file.display().to_string();
    let found = store::find(&request.file)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    let found = runtime.block_on(Found::of(&name, found))?;
    let mut prepared = prepare(request, &watch.stop)?;
    let pass = Pass { found: &found, cluster, watch, name: &name };
    let passed = runtime.block_on(pass.all(&mut prepared));
    // What a stop leaves at work is not waited for.
    runtime.shutdown_background();
    let passed = passed?;
    let unwalked = prepared.reader.timed && passed.1.is_empty();
    let mut outcome = finish(prepared, &passed, began.elapsed().as_secs_f64())?;
    if unwalked {
        outcome.warnings.push(format!(
            "no waits are computed: a piece of the log has more than {LARGEST} queries; unpack the log, or replay it in one process"
        ));
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
    async fn all(&self, prepared: &mut Prepared<'_>) -> Result<replay::Pass, String> {
        let request = prepared.reader.request;
        let client = Client::new(&self.cluster.scheduler).await.map_err(|e| self.engine(&e))?;
        let mut job = self.job(prepared)?;
        let survey = job.survey().bytes()?;
        let rate = request.rate.map(|rate| (rate, fastrand::Rng::with_seed(request.seed)));
        let mut order = Order::new(job.limit, prepared.reader.names.clone(), rate);
        let mut devices = idle(&prepared.setup, request.seats);
        let mut share = Share::default();
        let mut pieces = self.found.cut(self.name, self.cluster.piece).await?;
        self.watch.size.store(self.found.size, Ordering::Relaxed);
        let surveyed = async |wave: &[Piece]| match wave {
            [] => Ok(Survey::default()),
            _ => client.sum::<Survey>(&survey, self.found.with(wave)).await.map_err(|e| self.engine(&e)),
        };
        let first = FIRST.min(pieces.len());
        let (mut wave, mut rest) = pieces.split_at_mut(first);
        let first = self.unless_stopped(surveyed(wave)).await;
        let mut next = first.ok_or_else(|| too_soon(request))??;
        let (mut complete, mut taken) = (true, 0);
        while !wave.is_empty() {
            let before = (order.queries, order.dropped.len(), order.backwards);
            order.take(std::mem::take(&mut next), wave);
            taken += wave.len();
            job.names.clone_from(&order.names.all);
            let from = wave.first().map_or(0, |p| p.first);
            job.dropped = order.dropped.iter().copied().filter(|n| *n >= from).collect();
            job.walk = order.timed && order.queries - before.0 <= LARGEST;
            let (after, beyond) = rest.split_at_mut(width(taken, order.queries).min(rest.len()));
            let bytes = job.bytes()?;
            let simulated =
                async { client.sum::<Share>(&bytes, self.found.with(wave)).await.map_err(|e| self.engine(&e)) };
            let both = futures_util::future::try_join(simulated, surveyed(after));
            let Some(done) = self.unless_stopped(both).await else {
                order.dropped.truncate(before.1);
                order.backwards = before.2;
                complete = false;
                break;
            };
            let (mut part, survey) = done?;
            if job.walk {
                order.queue(&mut devices, std::mem::take(&mut part.turns));
            } else {
                devices.clear();
            }
            share.merge(part);
            self.watch.lines.store(share.lines, Ordering::Relaxed);
            self.watch.bytes.fetch_add(wave.iter().map(|p| p.bytes).sum::<u64>(), Ordering::Relaxed);
            if request.strict && (share.bad > 0 || order.backwards.0 > 0) {
                break;
            }
            (next, wave, rest) = (survey, after, beyond);
        }
        self.tell(prepared, order, &share)?;
        let routes = REFERENCES + prepared.setup.policies.len();
        let none = || Partial::new(routes, prepared.setup.diff.is_some());
        Ok((share.partial.unwrap_or_else(none), devices, complete))
    }

    /// What comes of it, unless an interrupt comes before.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            while !self.watch.stop.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            done = work => Some(done),
            () = stopped => None,
        }
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
            Form::Foreseen(columns, foreseer) => What::Foreseen(*columns, foreseer.packed()?),
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
            walk: false,
        })
    }

    fn engine(&self, e: &datafusion::error::DataFusionError) -> String {
        format!("{}: the cluster at {}: {e}", self.name, self.cluster.scheduler)
    }
}

/// Pieces of the next wave, by the queries of the pieces so far.
fn width(pieces: usize, queries: u64) -> usize {
    let each = queries / (pieces as u64).max(1);
    usize::try_from(QUERIES / each.max(1)).unwrap_or(WAVE).clamp(1, WAVE)
}
