//! The only wiring place: a configuration becomes a running gateway.
//!
//! Order of a start: state (tables, policies, models), then the ports, then the threads. Nothing listens before
//! everything that can be wrong has been looked at.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;

use crate::backend::retry::Budget;
use crate::bandit::Bandit;
use crate::cache::Cache;
use crate::clock;
use crate::config::checked::{Energy, Limits};
use crate::config::{self, Config};
use crate::edge::admin::{Admin, Page, Readiness};
use crate::edge::{self, Drain, Serving, Settings};
use crate::energy::ledger::Ledger;
use crate::energy::meters::{Places, discover};
use crate::energy::sampler;
use crate::fault::{Fault, Kind};
use crate::gate::{Conn, Gate};
use crate::journal::{Journal, State as JournalState, Tap};
use crate::learn::Learning;
use crate::relay::Broken;
use crate::shadow::Shadows;
use crate::state::State;
use crate::sticky::Sticky;
use crate::{meter, path};

/// What every request shares.
pub struct App {
    /// Backends and policies; swapped whole on a reload.
    pub state: ArcSwap<State>,
    /// Keys and room.
    pub gate: Gate,
    /// Exact answers, if opted in.
    pub cache: Cache,
    /// One entry per request.
    pub journal: Journal,
    /// What traffic teaches about the tables.
    learning: Arc<Learning>,
    /// What judged answers teach policies that learn from them.
    pub bandit: Arc<Bandit>,
    /// Extra attempts that fall-backs may make.
    pub budget: Mutex<Budget>,
    /// Where conversations were answered last.
    pub sticky: Sticky,
    /// Queries that are asked again for comparison.
    pub shadows: Shadows,
    /// What local answers take, where a meter can be read.
    pub ledger: Option<Ledger>,
    /// Sizes and waits of the client's side.
    pub limits: Limits,
    /// Start, Unix seconds: `created` of the model list.
    pub created: u64,
    /// What TLS shows, if it is spoken.
    certificate: Option<Arc<edge::tls::Shown>>,
    drain: Drain,
}

/// A gateway at work.
pub struct Running {
    /// Data plane.
    pub data: SocketAddr,
    /// Admin listener.
    pub admin: SocketAddr,
    /// What requests share.
    pub app: Arc<App>,
    serving: [Serving; 2],
    /// The admin listener outlives the data plane, so that a drain can be watched.
    watching: Drain,
}

impl App {
    /// Starts a gateway and returns when it listens. Loading models takes as long as reading their files.
    ///
    /// # Errors
    /// What is wrong and what to do about it; nothing is left running.
    pub async fn start(config: Config) -> Result<Running, String> {
        let built = tokio::task::spawn_blocking(move || State::build(config, None)).await;
        let state = built.map_err(|_| "loading failed in a way that was not foreseen".to_owned())??;
        let server = &state.config.server;
        let gate = Gate::new(&state.config).map_err(|e| e.to_string())?;
        let tls = server.tls.as_ref().map(edge::tls::acceptor).transpose().map_err(|e| e.to_string())?;
        let (tls, certificate) = tls.unzip();
        let data = edge::bind(server.listen, server.workers).map_err(|e| e.to_string())?;
        let admin = edge::bind(server.admin, 1).map_err(|e| e.to_string())?;
        let (limits, grace, loopback) = (state.config.limits.clone(), server.grace, server.admin.ip().is_loopback());
        meter::install();
        let learning = Arc::new(Learning::open(&state.config));
        learning.attach(&state);
        let journal = Some(state.config.journal.path.as_path()).filter(|_| state.config.journal.enabled);
        let bandit = Arc::new(Bandit::open(journal));
        let taught = (Arc::clone(&learning), Arc::clone(&bandit));
        let tap: Tap = Box::new(move |record| {
            taught.0.take(record);
            taught.1.take(record);
        });
        let app = Arc::new(Self {
            gate,
            cache: Cache::new(&state.config.cache),
            journal: Journal::open_with(&state.config.journal, Some(tap)),
            learning,
            bandit,
            budget: Mutex::new(Budget::new(clock::now())),
            sticky: Sticky::default(),
            shadows: Shadows::default(),
            ledger: ledger(&state.config.energy),
            limits: limits.clone(),
            created: clock::unix_ms() / 1000,
            certificate,
            drain: Drain::new(),
            state: ArcSwap::from_pointee(state),
        });
        let pages = Arc::new(app.clone().admin(loopback));
        let plain = Settings { limits: limits.clone(), tls: None, grace, refused: Arc::new(meter::refused) };
        let watching = Drain::new();
        let admin = edge::serve(admin, plain, &watching, move |_| edge::admin::handler(Arc::clone(&pages)))
            .map_err(|e| e.to_string())?;
        let shared = Arc::clone(&app);
        let make = move |_| {
            let app = Arc::clone(&shared);
            move |request: Request<Incoming>, conn: Conn| {
                path::handle(Arc::clone(&app), request, conn)
                    .map(|response| response.map(|body| body.map_err(broke_off)))
            }
        };
        let counting = app.journal.clone();
        let refused = Arc::new(move |code| {
            meter::refused(code);
            counting.refused(code);
        });
        let settings = Settings { limits, tls, grace, refused };
        let data = edge::serve(data, settings, &app.drain, make).map_err(|e| e.to_string())?;
        Ok(Running { data: data.addr(), admin: admin.addr(), app, serving: [data, admin], watching })
    }

    /// Swaps in a new configuration; requests under way keep the old one. Models whose settings stay are kept. A renewed
    /// certificate is shown to new connections; one that cannot be used is warned of, and the old one stays.
    ///
    /// # Errors
    /// A table or policy that cannot be used: the old configuration stays.
    pub fn reload(&self, config: Config) -> Result<Vec<&'static str>, String> {
        let before = self.state.load_full();
        let restart = config::watch::needs_restart(&before.config, &config);
        let state = State::build(config, Some(&before))?;
        if let (Some(shown), Some(files)) = (&self.certificate, &state.config.server.tls)
            && let Err(why) = shown.renew(files)
        {
            tracing::warn!(%why, "the new certificate cannot be used; the old one stays");
        }
        self.learning.attach(&state);
        self.state.store(Arc::new(state));
        self.cache.clear();
        Ok(restart)
    }

    /// Whether requests are wanted, and what an operator should know.
    pub fn readiness(&self) -> Readiness {
        let state = self.state.load();
        let journal = self.journal.health();
        let mut reasons = Vec::new();
        if !self.drain.is_serving() {
            reasons.push("draining".to_owned());
        }
        if state.on() == 0 {
            reasons.push("no backend is on".to_owned());
        }
        if let JournalState::Failing(why) = &journal.state {
            tracing::debug!(why, "journal failing");
        }
        Readiness {
            reasons,
            backends_on: state.on(),
            in_flight: self.gate.in_flight(),
            journal_dropped: journal.dropped,
        }
    }

    fn admin(self: Arc<Self>, loopback: bool) -> Admin {
        let (metrics, ready, backends, learned, journal) =
            (self.clone(), self.clone(), self.clone(), self.clone(), self);
        let mut pages: BTreeMap<&'static str, Page> = BTreeMap::new();
        pages.insert(
            "/admin/backends",
            Box::new(move || {
                let state = backends.state.load();
                state.backends.iter().map(|b| b.facts()).collect()
            }),
        );
        pages.insert("/admin/learned", Box::new(move || learned.learning.facts()));
        let [shown, frozen, thawed, back] = [0; 4].map(|_| Arc::clone(&journal.bandit));
        pages.insert("/admin/bandit", Box::new(move || shown.facts()));
        let mut actions: BTreeMap<&'static str, Page> = BTreeMap::new();
        actions.insert("/admin/bandit/freeze", Box::new(move || frozen.freeze(true)));
        actions.insert("/admin/bandit/thaw", Box::new(move || thawed.freeze(false)));
        actions.insert("/admin/bandit/rollback", Box::new(move || back.roll_back()));
        pages.insert("/admin/journal", Box::new(move || json!(journal.journal.health())));
        Admin {
            metrics: Box::new(move || {
                meter::in_flight(metrics.gate.in_flight());
                for backend in &metrics.state.load().backends {
                    backend.count();
                }
                meter::render(&metrics.journal.health())
            }),
            ready: Box::new(move || ready.readiness()),
            pages,
            actions,
            loopback,
        }
    }
}

/// The meters of this machine, read from now on; none if the configuration says so or no part of it has a sensor.
fn ledger(energy: &Energy) -> Option<Ledger> {
    if !energy.read_meters {
        return None;
    }
    let ledger = Ledger::start(discover(&Places::of(energy)).meters, sampler::EVERY).unwrap_or_else(|e| {
        tracing::warn!(error = %e, "the meters are not read: no thread for them");
        None
    });
    if let Some(ledger) = &ledger {
        let (rails, basis) = ledger.rails();
        tracing::info!(rails = rails.join(", "), basis = basis.name(), "reading meters");
    }
    ledger
}

/// The relay has told the client; what is left is to abort the connection.
fn broke_off(_: Broken) -> Fault {
    Fault::new(Kind::UpstreamCut, "the answer broke off")
}

impl Running {
    /// Serves until a signal asks to stop and the running answers have ended.
    pub async fn until_signal(self) {
        let drain = self.app.drain.clone();
        tokio::select! {
            () = self.ended() => {}
            done = edge::on_signals(&drain) => {
                if let Err(e) = done {
                    tracing::error!(error = %e, "signals cannot be watched");
                }
            }
        }
    }

    /// Stops: no new connections, running answers to their end, the journal to disk.
    pub async fn shutdown(self) {
        self.app.drain.leave();
        self.app.drain.begin();
        self.ended().await;
    }

    async fn ended(self) {
        let [data, admin] = self.serving;
        data.ended().await;
        if let Some(ledger) = self.app.ledger.clone() {
            // The last answers' entries wait for the meters.
            let _ = tokio::task::spawn_blocking(move || ledger.settle()).await;
        }
        self.app.journal.flush().await;
        self.app.learning.keep();
        self.app.bandit.keep();
        self.watching.begin();
        admin.ended().await;
    }
}
