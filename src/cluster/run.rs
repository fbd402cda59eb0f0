//! The runner on a cluster: the client's side of a replay.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path as File, PathBuf};
use std::sync::atomic::Ordering;

use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::engine::Client;
use super::job::Job;
use super::lines::{Piece, Reading};
use super::log::{Found, is_address};
use super::order::Order;
use super::sums::{Share, Sum, Survey};
use crate::clock;
use crate::replay::form::Form;
use crate::replay::learned::LEARNED;
use crate::replay::outcome::{BadLine, Outcome};
use crate::replay::outcomes::Models;
use crate::replay::partial::Partial;
use crate::replay::prepare::{Prepared, prepare};
use crate::replay::run::{Ask, Request, Watch, finish};
use crate::replay::simulate::REFERENCES;

/// Pieces sent at a time.
const WAVE: usize = 32;
/// Lines of a log that are brought here to learn from its labels: twice what is learned from.
const STAGED: u64 = 2 * LEARNED as u64;
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
pub fn run(mut request: Request, cluster: &Cluster, watch: &Watch) -> Result<Outcome, String> {
    if !matches!(request.ask, Ask::Outcomes) {
        return Err("a cluster replays outcome tables (--outcomes); leave --cluster out for other logs".to_owned());
    }
    if request.rate.is_some() {
        return Err("--rate makes up arrivals for the queue at the local device, which a cluster does not walk; leave one of the two out".to_owned());
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    let began = clock::now();
    let name = request.file.display().to_string();
    let found = runtime.block_on(Found::at(&name))?;
    let staged = Staged::of(&name, &found, &runtime)?;
    staged.file.clone_into(&mut request.file);
    let own = |why: String| why.replace(&*staged.file.display().to_string(), &name);
    let mut prepared = prepare(&request).map_err(own)?;
    prepared.reader.log.file.clone_from(&name);
    let pass = Pass { found: &found, cluster, watch, name: &name };
    let (partial, complete) = runtime.block_on(pass.all(&mut prepared))?;
    let timed = prepared.reader.timed;
    let mut outcome = finish(prepared, &(partial, Vec::new(), complete), began.elapsed().as_secs_f64()).map_err(own)?;
    if timed {
        outcome.assumptions.retain(|a| !a.starts_with("arrivals:"));
        outcome.assumptions.push(
            "arrivals: as logged, but a cluster does not walk the queue at the local device: no waits and no load"
                .to_owned(),
        );
    }
    Ok(outcome)
}

/// The log's beginning and its models, as files of this machine.
struct Staged {
    file: PathBuf,
    folder: Option<PathBuf>,
}

impl Staged {
    fn of(name: &str, found: &Found, runtime: &tokio::runtime::Runtime) -> Result<Self, String> {
        if !is_address(name) {
            return Ok(Self { file: PathBuf::from(name), folder: None });
        }
        let folder = std::env::temp_dir().join(format!("wattroute-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let staged = Self { file: folder.join("log.jsonl"), folder: Some(folder) };
        runtime.block_on(staged.bring(found)).map_err(|e| format!("{name}: {e}"))?;
        Ok(staged)
    }

    async fn bring(&self, found: &Found) -> Result<(), String> {
        let beside = Models::path(File::new(found.path.as_ref()));
        let beside = Path::parse(beside.to_string_lossy()).map_err(|e| e.to_string())?;
        let models = found.store.get(&beside).await.map_err(|e| e.to_string())?;
        let models = models.bytes().await.map_err(|e| e.to_string())?;
        std::fs::write(Models::path(&self.file), models).map_err(|e| e.to_string())?;
        let log = Piece { start: 0, end: found.size, first: 1 };
        let reading = Reading::open(found.store.as_ref(), &found.path, found.packed(), &log).await;
        let mut reading = reading.map_err(|e| e.to_string())?;
        let file = std::fs::File::create(&self.file).map_err(|e| e.to_string())?;
        let mut file = std::io::BufWriter::new(file);
        while let Some(batch) = reading.batch().await.map_err(|e| e.to_string())? {
            for line in &batch.lines {
                file.write_all(line).and_then(|()| file.write_all(b"\n")).map_err(|e| e.to_string())?;
            }
            if batch.first >= STAGED {
                break;
            }
        }
        file.flush().map_err(|e| e.to_string())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // Best effort: the folder for temporary files is swept by the system.
            drop(std::fs::remove_dir_all(folder));
        }
    }
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
        let mut pieces = self.found.cut(self.cluster.piece);
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
            if self.watch.stop.load(Ordering::Relaxed) {
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
            self.watch.bytes.store(wave.last().map_or(0, |p| p.end), Ordering::Relaxed);
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
        if !setup.predictions.by_domain_alone() {
            return Err(
                "on a cluster, what policies see is predicted by domain; leave the other predictor or --cluster out"
                    .to_owned(),
            );
        }
        let Form::Outcomes(columns) = *reader.form else {
            return Err("a cluster replays outcome tables".to_owned());
        };
        let text = |p: &std::sync::Arc<crate::policy::Policy>| {
            let text = self.cluster.texts.get(&*p.hash).cloned();
            text.map(|t| (p.name.to_string(), t)).ok_or_else(|| format!("{}: its text is not at hand", p.name))
        };
        Ok(Job {
            columns,
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
