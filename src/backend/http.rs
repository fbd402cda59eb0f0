//! One hardened upstream in OpenAI's wire format.
//!
//! Invariant: it is the only thing in the program that sends a query over a socket. It goes to the configured host and
//! nowhere else: no redirect is followed, no proxy is read from the environment, no client's header or field chooses.
//! A cloud upstream opens no socket without a [`CloudPermit`], which policy makes for no private query. Every wait has
//! a limit, and dropping what `ask` returns (or its future) closes the upstream connection.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::Connector;
use super::lease::{Closed, Room};
use super::reply::{self, Asked};
use super::scrub::Scrub;
use super::types::Answer;
use super::{fault, headers};
use crate::api::query::{Endpoint, Query};
use crate::clock::{self, Instant};
use crate::config::checked::{Backend, Kind, Waits};
use crate::fault::{Fault, Kind as FaultKind};
use crate::policy::types::{CloudPermit, Place};

/// Idle connections to servers on this machine are closed first by us: common servers close theirs after 5 s.
const IDLE_LOCAL: Duration = Duration::from_secs(4);
/// Providers' front ends keep idle connections for a minute and more; a handshake costs a tenth of a second.
const IDLE_CLOUD: Duration = Duration::from_secs(30);
/// Idle connections kept per worker.
const MAX_IDLE: usize = 64;
/// An HTTP/2 upstream that does not answer a ping for this long is gone.
const PING: Duration = Duration::from_secs(20);
/// When to come back if a backend is full or resting.
const COME_BACK: Duration = Duration::from_secs(1);

type Pool = Client<Connector, Full<Bytes>>;

/// An upstream. Cheap to clone; shared by all workers, each with its own connections.
#[derive(Clone)]
pub struct Http(Arc<Upstream>);

struct Upstream {
    /// Names its connection pools.
    id: u64,
    name: Arc<str>,
    place: Place,
    model: Arc<str>,
    chat: Uri,
    completions: Uri,
    authorization: Option<HeaderValue>,
    scrub: Scrub,
    connector: Connector,
    waits: Waits,
    room: Arc<Room>,
}

impl Http {
    /// The one constructor; the error is a sentence for the operator.
    pub fn new(backend: &Backend) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Kind::OpenAi(endpoint) = &backend.kind else {
            return Err("not an HTTP backend".to_owned());
        };
        let connector = Connector::new(endpoint, backend.place, &backend.waits)?;
        let key = endpoint.key.as_deref();
        let authorization = key.map(headers::authorization).transpose()?;
        Ok(Self(Arc::new(Upstream {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: Arc::clone(&backend.name),
            place: backend.place,
            model: Arc::clone(&endpoint.model),
            chat: under(&endpoint.base, "chat/completions")?,
            completions: under(&endpoint.base, "completions")?,
            scrub: Scrub::new(authorization.as_ref(), &Connector::host(endpoint)),
            authorization,
            connector,
            waits: backend.waits,
            room: Room::new(backend.max_in_flight),
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

    /// Asks, and gives the answer once its head and first bytes are there: until then another backend may be tried.
    pub async fn ask(&self, query: &Query, permit: Option<&CloudPermit>) -> Result<Answer, Fault> {
        let upstream = &*self.0;
        if upstream.place == Place::Cloud && permit.is_none() {
            return Err(Fault::new(FaultKind::Internal, "a query without leave for the cloud was about to go there"));
        }
        let now = clock::now();
        let mut lease = upstream.room.enter(now).map_err(|closed| no_place(&upstream.name, closed))?;
        let asked = Asked { name: &upstream.name, stream: query.stream, at: now, waits: &upstream.waits };
        let mut answer = match self.attempt(query, &asked).await {
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

    async fn attempt(&self, query: &Query, asked: &Asked<'_>) -> Result<Answer, Fault> {
        let upstream = &*self.0;
        let body = crate::api::rewrite(query, &upstream.model, true);
        let uri = match query.endpoint {
            Endpoint::Chat => &upstream.chat,
            Endpoint::Completions => &upstream.completions,
        };
        let request = headers::request(query, uri, upstream.authorization.as_ref(), body);
        let sent = self.pool().request(request);
        let response = match tokio::time::timeout_at(asked.first_deadline(), sent).await {
            Ok(sent) => sent.map_err(|error| fault::transport(asked.name, error))?,
            Err(_) => return Err(asked.too_late()),
        };
        reply::read(response, asked, &upstream.scrub).await
    }

    /// This worker's connections: a connection lives on the runtime that opened it, so none is shared across threads.
    fn pool(&self) -> Pool {
        thread_local! {
            static POOLS: RefCell<Vec<(u64, Weak<Upstream>, Pool)>> = const { RefCell::new(Vec::new()) };
        }
        POOLS.with_borrow_mut(|pools| {
            if let Some((_, _, pool)) = pools.iter().find(|(id, _, _)| *id == self.0.id) {
                return pool.clone();
            }
            // A reloaded configuration leaves pools of upstreams behind that are gone.
            pools.retain(|(_, upstream, _)| upstream.strong_count() > 0);
            let pool = self.0.new_pool();
            pools.push((self.0.id, Arc::downgrade(&self.0), pool.clone()));
            pool
        })
    }
}

impl Upstream {
    fn new_pool(&self) -> Pool {
        let idle = if self.place == Place::Local { IDLE_LOCAL } else { IDLE_CLOUD };
        // A request is sent again only when hyper hands it back unwritten because a pooled connection had closed.
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(idle)
            .pool_max_idle_per_host(MAX_IDLE)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PING)
            .build(self.connector.clone())
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
