//! One hardened upstream in OpenAI's wire format.
//!
//! Invariant: it is the only thing in the program that sends a query over a socket. It goes to the configured host and
//! nowhere else: no redirect is followed, no proxy is read from the environment, no client's header or field chooses.
//! A cloud upstream opens no socket without a [`CloudPermit`], which policy makes for no private query. Every wait has
//! a limit, and dropping what `ask` returns (or its future) closes the upstream connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Uri};

use super::breaker::Phase;
use super::connect::Connector;
use super::lease::{Closed, Room};
use super::pool::{NoAnswer, Origin};
use super::reply::{self, Asked};
use super::scrub::Scrub;
use super::types::Answer;
use super::{fault, headers, watch};
use crate::api::Wants;
use crate::api::query::{Endpoint, Query};
use crate::clock::{self, Instant};
use crate::config::checked::{Backend, Kind, Waits};
use crate::fault::{Fault, Kind as FaultKind};
use crate::policy::types::{CloudPermit, Place};
use crate::verify::Trace;

/// Idle connections to servers on this machine are closed first by us: common servers close theirs after 5 s.
const IDLE_LOCAL: Duration = Duration::from_secs(4);
/// Providers' front ends keep idle connections for a minute and more; a handshake costs a tenth of a second.
const IDLE_CLOUD: Duration = Duration::from_secs(30);
/// When to come back if a backend is full or resting.
const COME_BACK: Duration = Duration::from_secs(1);

/// An upstream. Cheap to clone; shared by all workers, each with its own connections.
#[derive(Clone)]
pub struct Http(Arc<Upstream>);

struct Upstream {
    name: Arc<str>,
    place: Place,
    model: Arc<str>,
    chat: Uri,
    completions: Uri,
    authorization: Option<HeaderValue>,
    scrub: Scrub,
    origin: Arc<Origin>,
    waits: Waits,
    room: Arc<Room>,
    /// It may be asked for log-probabilities that the client does not want; false once it refused to.
    logprobs: AtomicBool,
}

impl Http {
    /// The one constructor; the error is a sentence for the operator.
    pub fn new(backend: &Backend) -> Result<Self, String> {
        let Kind::OpenAi(endpoint) = &backend.kind else {
            return Err("not an HTTP backend".to_owned());
        };
        let connector = Connector::new(endpoint, backend.place, &backend.waits)?;
        let idle = if backend.place == Place::Local { IDLE_LOCAL } else { IDLE_CLOUD };
        let key = endpoint.key.as_deref();
        let authorization = key.map(headers::authorization).transpose()?;
        Ok(Self(Arc::new(Upstream {
            name: Arc::clone(&backend.name),
            place: backend.place,
            model: Arc::clone(&endpoint.model),
            chat: under(&endpoint.base, "chat/completions")?,
            completions: under(&endpoint.base, "completions")?,
            scrub: Scrub::new(authorization.as_ref(), &Connector::host(endpoint)),
            authorization,
            origin: Origin::new(connector, idle, host(&endpoint.base)?),
            waits: backend.waits,
            room: Room::new(backend.max_in_flight),
            logprobs: AtomicBool::new(backend.caps.logprobs),
        })))
    }

    /// Name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Why a query would not get a place now; none when it would.
    pub fn closed(&self, now: Instant) -> Option<Closed> {
        self.0.room.state(now)
    }

    /// Queries in flight to it.
    pub fn in_flight(&self) -> usize {
        self.0.room.in_flight()
    }

    /// What its breaker lets through now.
    pub fn phase(&self) -> Phase {
        self.0.room.phase(clock::now())
    }

    /// Asks, and gives the answer once its head and first bytes are there: until then another backend may be tried.
    pub async fn ask(&self, query: &Query, permit: Option<&CloudPermit>) -> Result<Answer, Fault> {
        self.ask_for(query, permit, false).await
    }

    /// Asks a local server with its answer under watch. What only we want of it costs the client nothing: a server that
    /// refuses log-probabilities is asked again without, and never again with.
    pub async fn ask_watched(&self, query: &Query, trace: &Trace) -> Result<Answer, Fault> {
        let ours = !query.needs.logprobs && self.0.logprobs.load(Ordering::Relaxed);
        let answer = self.ask_for(query, None, ours).await?;
        if !ours || answer.too_long() || !matches!(answer.status.as_u16(), 400 | 422 | 501) {
            return Ok(watch::over(answer, trace, ours));
        }
        drop(answer);
        let plain = self.ask_for(query, None, false).await?;
        if plain.status.is_success() {
            tracing::warn!(backend = %self.0.name, "it refuses log-probabilities: its answers are checked without");
            self.0.logprobs.store(false, Ordering::Relaxed);
        }
        Ok(watch::over(plain, trace, false))
    }

    async fn ask_for(&self, query: &Query, permit: Option<&CloudPermit>, logprobs: bool) -> Result<Answer, Fault> {
        let upstream = &*self.0;
        if upstream.place == Place::Cloud && permit.is_none() {
            return Err(Fault::new(FaultKind::Internal, "a query without leave for the cloud was about to go there"));
        }
        let now = clock::now();
        let mut lease = upstream.room.enter(now).map_err(|closed| no_place(&upstream.name, closed))?;
        let asked = Asked { name: &upstream.name, stream: query.stream, at: now, waits: &upstream.waits };
        let mut answer = match self.attempt(query, &asked, Wants { usage: true, logprobs }).await {
            Ok(answer) => answer,
            Err(fault) => {
                lease.fault(&fault);
                return Err(fault);
            }
        };
        if let Some(report) = reply::report(&answer) {
            lease.report(report);
        }
        answer.hide_usage = query.stream && !query.include_usage;
        answer.lease = Some(lease);
        Ok(answer)
    }

    async fn attempt(&self, query: &Query, asked: &Asked<'_>, wants: Wants) -> Result<Answer, Fault> {
        let upstream = &*self.0;
        let body = crate::api::rewrite(query, &upstream.model, wants);
        let uri = match query.endpoint {
            Endpoint::Chat => &upstream.chat,
            Endpoint::Completions => &upstream.completions,
        };
        let mut fresh = false;
        let response = loop {
            let request = headers::request(query, upstream.authorization.as_ref(), body.clone());
            let sent = upstream.origin.send(request, uri, fresh);
            match tokio::time::timeout_at(asked.first_deadline(), sent).await {
                Ok(Err(NoAnswer::Stale(error))) if !fresh => {
                    tracing::debug!(backend = %upstream.name, %error, "a used connection had been closed: asked again");
                    fresh = true;
                }
                Ok(sent) => break sent.map_err(|error| fault::transport(asked.name, error))?,
                Err(_) => return Err(asked.too_late()),
            }
        };
        reply::read(response, asked, &upstream.scrub).await
    }
}

fn no_place(name: &str, closed: Closed) -> Fault {
    let fault = match closed {
        Closed::Full => Fault::new(FaultKind::Overloaded, format!("backend `{name}` has no room")),
        Closed::Unhealthy => Fault::new(FaultKind::NoBackend, format!("backend `{name}` is resting after failures")),
    };
    fault.retry_after(COME_BACK)
}

/// The address of a path below the configured base.
fn under(base: &Uri, path: &str) -> Result<Uri, String> {
    let text = base.to_string();
    if text.contains(['?', '#']) {
        return Err("base_url must not hold a query or a fragment".to_owned());
    }
    format!("{}/{path}", text.trim_end_matches('/')).parse().map_err(|e| format!("base_url: {e}"))
}

/// What requests name as `Host`: the port only where it is not the scheme's own.
fn host(base: &Uri) -> Result<HeaderValue, String> {
    let host = base.host().ok_or("base_url has no host")?;
    let usual = if base.scheme_str() == Some("https") { 443 } else { 80 };
    let text = match base.port_u16().filter(|port| *port != usual) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    text.parse().map_err(|_| "base_url: the host cannot be sent in a header".to_owned())
}
