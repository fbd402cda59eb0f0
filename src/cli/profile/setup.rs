//! What a run needs before its first question: the backend, its meters, what the record file says of it, what it must match.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Args;
use super::before::{self, command};
use crate::backend::Backend;
use crate::clock;
use crate::config::Config;
use crate::config::attention::{Attention, Lambda, Lla, Solver};
use crate::config::checked::{self, Kind};
use crate::config::problem::did_you_mean;
use crate::energy::meters::Places;
use crate::energy::{cloud, estimate};
use crate::models::{self, Digest, Progress, Reference, Store};
use crate::policy::types::Place;
use crate::profile::counting::{self, Counter};
use crate::profile::metered::{Metered, Scope};
use crate::profile::record::{self, Run, Source};
use crate::profile::run::Energy;

/// Settings of local linear attention that `--lambda` leaves as they are: those of the configuration's defaults.
const TOLERANCE: f32 = 1e-3;
const ITERATIONS: usize = 32;

/// `local/smollm2` writes `smollm2.json`.
pub fn default_out(backend: &str) -> PathBuf {
    PathBuf::from(format!("{}.json", backend.rsplit('/').next().unwrap_or("profile")))
}

/// The backend as it is configured, with what the command line changes.
fn configured(config: &Config, name: &str, args: &Args) -> Result<checked::Backend, String> {
    let Some(found) = config.backends.iter().find(|b| *b.name == *name) else {
        let near = did_you_mean(name, config.backends.iter().map(|b| &*b.name));
        let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        return Err(format!("no backend `{name}` in the configuration{near}"));
    };
    let mut backend = found.clone();
    let most = args.streams.iter().copied().max().unwrap_or(1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    backend.max_in_flight = backend.max_in_flight.max(most);
    let lambda = args.lambda.filter(|_| name == args.backend);
    match &mut backend.kind {
        Kind::Embedded(embedded) => {
            embedded.streams = embedded.streams.max(most);
            embedded.queue = embedded.queue.max(most);
            if let Some(lambda) = lambda {
                embedded.attention = attention(lambda)?;
            }
        }
        Kind::OpenAi(_) if lambda.is_some() => {
            return Err("--lambda is for embedded backends: a server attends as it does".to_owned());
        }
        Kind::OpenAi(_) => {}
    }
    Ok(backend)
}

fn attention(lambda: f32) -> Result<Attention, String> {
    if lambda == f32::INFINITY {
        return Ok(Attention::Softmax);
    }
    if lambda.is_nan() || lambda <= 0.0 {
        return Err("--lambda must be above 0, or inf for softmax".to_owned());
    }
    Ok(Attention::Lla(Lla {
        lambda: Lambda::One(lambda),
        except: Vec::new(),
        solver: Solver::Auto,
        tolerance: TOLERANCE,
        iterations: ITERATIONS,
        radius: f32::INFINITY,
    }))
}

/// Loads it; a model that is not here is fetched.
///
/// # Errors
/// It cannot be used, with why.
pub async fn backend(config: &Config, name: &str, args: &Args) -> Result<Backend, String> {
    let backend = configured(config, name, args)?;
    if let Kind::Embedded(embedded) = &backend.kind {
        let store = Store::of_user().map_err(|e| e.to_string())?;
        let wanted = models::resolve(&embedded.model, embedded.sha256.as_deref()).map_err(|e| e.to_string())?;
        models::pull(&store, &wanted, &Progress::stderr()).await.map_err(|e| e.to_string())?;
    }
    let energy = config.energy.clone();
    let built = tokio::task::spawn_blocking(move || Backend::new(&backend, &energy, None)).await;
    let built = built.map_err(|_| "loading failed in a way that was not foreseen".to_owned())??;
    match built.off() {
        Some(why) => Err(format!("{name}: {why}")),
        None => Ok(built),
    }
}

/// Meters that are settled, or the cloud's model.
///
/// # Errors
/// The sampler does not start, or the configured model has no points.
pub async fn energy(args: &Args, config: &Config, backend: &Backend) -> Result<Energy, String> {
    if backend.config.place == Place::Cloud {
        let model = cloud::Model::new(&backend.config.energy, &config.energy)?;
        if model.is_none() {
            eprintln!("no energy model for {}: joules will be unknown; see [backends.NAME.energy]", args.backend);
        }
        return Ok(Energy::Modelled(model));
    }
    let scope = match backend.config.kind {
        Kind::Embedded(_) => Scope::Process,
        Kind::OpenAi(_) => Scope::Machine,
    };
    let places = Places::of(&config.energy);
    let mut metered = Metered::start(&places, scope, Duration::from_millis(args.sample))?;
    let rest = metered.settle(args.settle).await;
    let idle = metered.about().iter().filter(|r| r.total).map(|r| r.idle_w).sum::<Option<f64>>();
    eprintln!(
        "joules: {} (basis {}); at rest {}{}",
        metered.scope(),
        metered.basis().map_or("unknown", |b| b.name()),
        idle.map_or("not known".to_owned(), |w| format!("{w:.2} W")),
        if rest.steady { "" } else { ", not steady" },
    );
    Ok(Energy::Metered(Box::new(metered)))
}

/// The run as far as it is known before anything is loaded.
///
/// # Errors
/// No such backend.
pub fn about(args: &Args, config: &Config, suites: Vec<Source>) -> Result<Run, String> {
    let backend = configured(config, &args.backend, args)?;
    let (model, runtime, attention) = match &backend.kind {
        Kind::Embedded(embedded) => {
            let file = Path::new(&embedded.model).file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let model = if embedded.model.contains('/') { file.unwrap_or_default() } else { embedded.model.clone() };
            (model, "wattroute embedded".to_owned(), embedded.attention.to_string())
        }
        Kind::OpenAi(endpoint) => {
            let place = if backend.place == Place::Cloud { "provider" } else { before::UNNAMED_SERVER };
            (endpoint.model.to_string(), args.runtime.clone().unwrap_or(place.to_owned()), "server".to_owned())
        }
    };
    let processor = estimate::processor().name;
    let processor = if processor.is_empty() { "an unnamed processor".to_owned() } else { processor };
    let device = match backend.place {
        Place::Cloud => "provider".to_owned(),
        Place::Local => format!("{} logical processors of {processor}", crate::config::env::cores()),
    };
    Ok(Run {
        format: record::FORMAT,
        at: clock::rfc3339(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: command(args, config),
        backend: args.backend.clone(),
        place: backend.place.name().to_owned(),
        model: args.model_name.clone().unwrap_or(model),
        runtime,
        attention,
        device,
        suites,
        streams: args.streams.clone(),
        repeats: args.repeats,
        ..Run::default()
    })
}

/// SHA-256 of an embedded backend's model file; none of a server's, which nobody shows us.
///
/// # Errors
/// The file cannot be read.
pub async fn digest(config: &Config, args: &Args) -> Result<Option<String>, String> {
    let Kind::Embedded(embedded) = configured(config, &args.backend, args)?.kind else { return Ok(None) };
    let wanted = models::resolve(&embedded.model, embedded.sha256.as_deref()).map_err(|e| e.to_string())?;
    let path = match wanted {
        Reference::Stored(stored) => return Ok(Some(stored.sha256.to_string())),
        Reference::File(_, Some(pinned)) => return Ok(Some(pinned.to_string())),
        Reference::File(path, None) => path,
    };
    let hashing = tokio::task::spawn_blocking(move || {
        let found = std::fs::File::open(&path).and_then(|mut file| Digest::of(&mut file));
        found.map(|digest| Some(digest.to_string())).map_err(|e| format!("{}: {e}", path.display()))
    });
    hashing.await.map_err(|_| "hashing failed in a way that was not foreseen".to_owned())?
}

/// The arguments with nothing in them twice.
pub fn once(args: &Args) -> Args {
    let mut args = args.clone();
    let mut seen = BTreeSet::new();
    args.streams.retain(|streams| seen.insert(*streams));
    let mut seen = BTreeSet::new();
    args.suite.retain(|suite| seen.insert(suite.clone()));
    args
}

/// Adds what the meters say of themselves.
pub fn measured(mut about: Run, energy: &Energy) -> Run {
    match energy {
        Energy::Metered(metered) => {
            about.rails = metered.about();
            about.basis = metered.basis();
            about.scope = metered.scope();
            about.sample_s = Some(metered.every_s());
            let gpus: Vec<&str> = about.rails.iter().filter(|r| r.part == "gpu").map(|r| r.device.as_str()).collect();
            let split = |device: &str| device.split_once(", driver ").map(|(d, v)| (d.to_owned(), v.to_owned()));
            if let Some((device, driver)) = gpus.first().and_then(|device| split(device)) {
                about.device = format!("{}x {device}, {}", gpus.len(), about.device);
                about.driver = Some(driver);
            }
        }
        Energy::Modelled(Some(model)) => {
            about.basis = Some(model.output.basis);
            about.scope = model.derivation().to_owned();
        }
        Energy::Modelled(None) => about.scope = "no energy model is configured".to_owned(),
    }
    about
}

/// Who counts tokens.
///
/// # Errors
/// The tokenizer is not there.
pub fn counter(args: &Args, config: &Config) -> Result<Counter, String> {
    let backend = configured(config, &args.backend, args)?;
    let tokenizer = args.tokenizer.as_deref().map(counting::tokenizer).transpose()?;
    Ok(Counter::new(matches!(backend.kind, Kind::Embedded(_)), tokenizer))
}
