//! Places that answer: hardened HTTP upstreams and the embedded engine, behind one `ask`.
//!
//! Invariants: hosts come from configuration only; a cloud backend cannot be asked without a [`CloudPermit`]; a fall-back
//! happens only while nothing was sent to the client, and only within the retry budget.

mod address;
pub mod breaker;
mod chunked;
mod connect;
pub mod embedded;
mod fault;
mod headers;
pub mod http;
pub mod lease;
mod line;
mod pool;
mod refusal;
mod render;
mod reply;
pub mod retry;
mod scrub;
mod sluice;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
pub mod types;
mod watch;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::query::Query;
use crate::clock;
use crate::config::checked::{self, Kind};
use crate::engine::Engine;
use crate::engine::types::{Batch, KvUse, ModelSpec};
use crate::fault::{Fault, Kind as FaultKind};
use crate::meter;
use crate::models::{self, Store};
use crate::policy::types::{CloudPermit, Place, State};
use crate::predict::Outlook;
use crate::verify::Trace;

use breaker::Phase;
use embedded::Embedded;
use http::Http;
use lease::Closed;
use types::Answer;

/// A configured backend with its table.
pub struct Backend {
    /// As configured.
    pub config: checked::Backend,
    /// Its table, and what it would make of a query.
    pub outlook: Outlook,
    answering: Answering,
}

enum Answering {
    Http(Http),
    Embedded(Embedded),
    /// With the reason.
    Off(Arc<str>),
}

/// An answer that writes what it says into a trace on its way, and is otherwise unchanged.
pub fn watched(answer: Answer, trace: &Trace) -> Answer {
    watch::over(answer, trace, false)
}

impl Backend {
    /// Whether this machine's meters see it: a model in this process, or a local server reached over loopback.
    pub fn runs_here(&self) -> bool {
        let loopback = |host: &str| {
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
            host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.is_loopback())
        };
        self.config.place == Place::Local
            && match &self.config.kind {
                Kind::Embedded(_) => true,
                Kind::OpenAi(endpoint) => endpoint.base.host().is_some_and(loopback),
            }
    }

    /// Loads what the backend needs. A model or key that is missing switches it off; a bad table is an error.
    pub fn new(config: &checked::Backend, energy: &checked::Energy, before: Option<&Self>) -> Result<Self, String> {
        let outlook = Outlook::of(config, energy).map_err(|problems| problems.to_string())?;
        let answering = match (&config.off, &config.kind) {
            (Some(why), _) => Answering::Off(Arc::clone(why)),
            (None, Kind::OpenAi(_)) => Answering::Http(Http::new(config)?),
            (None, Kind::Embedded(model)) => match engine(model, before) {
                Ok(engine) => Answering::Embedded(Embedded::new(Arc::clone(&config.name), engine, config.waits)),
                Err(why) => {
                    // Clients see the reason of a backend that is off; paths of this machine are for the log only.
                    tracing::error!(backend = %config.name, why, "backend is off");
                    Answering::Off("its model cannot be used: the gateway's log says why".into())
                }
            },
        };
        Ok(Self { config: config.clone(), outlook, answering })
    }

    /// Why it is off, if it is.
    pub fn off(&self) -> Option<&str> {
        match &self.answering {
            Answering::Off(why) => Some(why),
            Answering::Http(_) | Answering::Embedded(_) => None,
        }
    }

    /// Whether it can take a query now.
    pub fn state(&self) -> State {
        match &self.answering {
            Answering::Off(why) => State::NotConfigured(Arc::clone(why)),
            Answering::Embedded(embedded) if embedded.engine().full() => State::Full,
            Answering::Embedded(_) => State::Ready,
            Answering::Http(http) => match http.closed(clock::now()) {
                None => State::Ready,
                Some(Closed::Full) => State::Full,
                Some(Closed::Unhealthy) => State::Unhealthy,
            },
        }
    }

    /// Asks it. Resolves with the first bytes of an answer; until then another backend may be asked.
    pub async fn ask(&self, query: &Query, permit: Option<&CloudPermit>) -> Result<Answer, Fault> {
        match &self.answering {
            Answering::Http(http) => http.ask(query, permit).await,
            Answering::Embedded(embedded) => embedded.ask(query).await,
            Answering::Off(_) => Err(Fault::new(FaultKind::NoBackend, format!("{} is off", self.config.name))),
        }
    }

    /// Asks it for an answer that will be checked: what it says goes into the trace too. There is no permit to give, so that
    /// no cloud backend can be asked this way.
    pub async fn ask_watched(&self, query: &Query, trace: &Trace) -> Result<Answer, Fault> {
        match &self.answering {
            Answering::Http(http) => http.ask_watched(query, trace).await,
            Answering::Embedded(embedded) => embedded.ask_watched(query, trace).await,
            Answering::Off(_) => self.ask(query, None).await,
        }
    }

    /// Why the embedded engine refuses a query whatever its state; none for the others, which pass everything on.
    pub fn refuses(&self, query: &Query) -> Option<Fault> {
        match &self.answering {
            Answering::Embedded(embedded) => embedded.refuses(query),
            Answering::Http(_) | Answering::Off(_) => None,
        }
    }

    /// One line for people.
    pub fn about(&self) -> String {
        let table = match &self.outlook.table {
            Some(t) => format!("table {} on {} (n = {}, {})", t.model, t.device, t.overall.n, t.basis.name()),
            None => "no table: a prior is used".to_owned(),
        };
        let model = match &self.config.kind {
            Kind::OpenAi(endpoint) => endpoint.model.to_string(),
            Kind::Embedded(embedded) => embedded.model.clone(),
        };
        format!("{model}, context {}, {table}", self.config.caps.context)
    }

    /// For the admin page.
    pub fn facts(&self) -> Value {
        let state = match self.state() {
            State::Ready => "ready".to_owned(),
            State::Loading => "loading".to_owned(),
            State::Unhealthy => "unhealthy".to_owned(),
            State::Full => "full".to_owned(),
            State::NotConfigured(why) | State::Unable(why) => format!("off: {why}"),
        };
        json!({ "name": self.config.name, "place": self.config.place, "state": state, "about": self.about(),
                "in_flight": self.in_flight(), "kv": self.kv().map(kv_facts) })
    }

    /// Puts its gauges into the metrics.
    pub fn count(&self) {
        meter::queue_depth(&self.config.name, self.in_flight());
        if let Some(kv) = self.kv() {
            meter::kv(&self.config.name, [kv.bound, kv.promised, kv.kept], kv.reused_tokens);
        }
        let learned = &self.outlook.factors;
        let factors =
            [("joules", learned.joules()), ("first_token", learned.first()), ("per_output_token", learned.rest())];
        meter::learned(&self.config.name, factors);
        let phase = match &self.answering {
            Answering::Http(http) => http.phase(),
            Answering::Embedded(_) | Answering::Off(_) => Phase::Closed,
        };
        let state = match phase {
            Phase::Closed => meter::Breaker::Closed,
            Phase::Open => meter::Breaker::Open,
            Phase::HalfOpen => meter::Breaker::HalfOpen,
        };
        meter::breaker(&self.config.name, state);
    }

    /// What an embedded model's keys and values take.
    fn kv(&self) -> Option<KvUse> {
        match &self.answering {
            Answering::Embedded(embedded) => Some(embedded.engine().kv()),
            Answering::Http(_) | Answering::Off(_) => None,
        }
    }

    fn in_flight(&self) -> usize {
        match &self.answering {
            Answering::Http(http) => http.in_flight(),
            Answering::Embedded(embedded) => embedded.engine().waiting() + embedded.engine().running(),
            Answering::Off(_) => 0,
        }
    }
}

fn kv_facts(kv: KvUse) -> Value {
    json!({ "bound_bytes": kv.bound, "promised_bytes": kv.promised, "running_bytes": kv.running, "kept_bytes": kv.kept,
            "kept_beginnings": kv.prefixes, "reused_tokens": kv.reused_tokens })
}

/// The engine of a model: the one already loaded for the same settings, else a new one.
fn engine(model: &checked::Embedded, before: Option<&Backend>) -> Result<Arc<Engine>, String> {
    if let Some(Backend { config, answering: Answering::Embedded(embedded), .. }) = before
        && let Kind::Embedded(loaded) = &config.kind
        && crate::state::same_model(loaded, model)
    {
        return Ok(Arc::clone(embedded.engine()));
    }
    let wanted = models::resolve(&model.model, model.sha256.as_deref()).map_err(|e| e.to_string())?;
    let store = Store::of_user().map_err(|e| e.to_string())?;
    let path = models::locate(&store, &wanted).map_err(|e| e.to_string())?;
    let missing = || format!("its model is not here: run `wattroute models pull {}`", model.model);
    let spec = ModelSpec {
        name: model.model.clone(),
        path: path.ok_or_else(missing)?,
        context: model.context,
        template: model.template.clone(),
        threads: model.threads,
        attention: model.attention.clone(),
        queue: model.queue,
        batch: Batch { streams: model.streams, kv_memory: model.kv_memory, stall: model.stall },
    };
    Engine::load(&spec).map(Arc::new).map_err(|e| e.to_string())
}
