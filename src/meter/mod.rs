//! Metrics: counted in memory, rendered for Prometheus on the admin listener. [`names`] lists them.
//!
//! Invariants: handles are registered once and kept, so that a request costs a few atomic additions; no label value
//! comes from a client; nothing here waits. Without [`install`] every call does nothing.

mod backend;
pub mod log;
mod looks;
pub mod names;
mod registry;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};

use crate::journal::record::SHADOW;
use crate::journal::{Health, Outcome, Record, State};
use crate::policy::types::Place;

use backend::Backend;
use looks::Looks;
pub use looks::{Encoder, cache, encoder, posterior};
use registry::{counter, gauge, histogram};

/// Histogram samples are folded into buckets this often, so that memory stays bounded when nobody scrapes.
const FOLD: Duration = Duration::from_secs(5);

static METER: OnceLock<Meter> = OnceLock::new();

struct Meter {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// By endpoint, outcome and place; see [`slot`].
    requests: Vec<Counter>,
    /// By operation and place.
    spans: Vec<Spans>,
    overhead: Histogram,
    wasted: Gauge,
    saved: [Gauge; 3],
    in_flight: Gauge,
    connections: Gauge,
    looks: Looks,
    checks: [Counter; 3],
    reloads: [Counter; 2],
    backends: RwLock<HashMap<Arc<str>, Arc<Backend>>>,
    faults: RwLock<HashMap<&'static str, Counter>>,
}

struct Spans {
    duration: Histogram,
    first_token: Histogram,
}

/// Breaker of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// Queries pass.
    Closed,
    /// Nothing passes.
    Open,
    /// One probe passes.
    HalfOpen,
}

const ENDPOINTS: [&str; 5] = ["chat", "completions", "route", SHADOW, "other"];
const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Ok, "ok"),
    (Outcome::Cached, "cached"),
    (Outcome::Refused, "refused"),
    (Outcome::Upstream, "upstream"),
    (Outcome::Fault, "fault"),
    (Outcome::Hangup, "hangup"),
];
const VERDICTS: [&str; 3] = ["kept", "escalated", "given"];
const PLACES: [&str; 3] = ["local", "cloud", "none"];
const OPERATIONS: [&str; 2] = ["chat", "text_completion"];

/// Starts counting. Later calls do nothing.
pub fn install() {
    METER.get_or_init(|| {
        let meter = Meter::new();
        let handle = meter.handle.clone();
        let folding = std::thread::Builder::new().name("meter".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(FOLD);
                handle.run_upkeep();
            }
        });
        if let Err(e) = folding {
            tracing::error!(error = %e.kind(), "the meter's thread did not start: histograms grow until scraped");
        }
        meter
    });
}

/// The text that Prometheus scrapes.
pub fn render(journal: &Health) -> String {
    let Some(meter) = METER.get() else { return String::new() };
    meter.journal(journal);
    meter.handle.render()
}

/// Counts one finished request.
pub fn count(record: &Record) {
    if let Some(meter) = METER.get() {
        meter.count(record);
    }
}

/// Requests in flight now.
pub fn in_flight(n: usize) {
    if let Some(meter) = METER.get() {
        meter.in_flight.set(float(n));
    }
}

/// A client connection opened (+1) or closed (-1).
pub fn connections(change: f64) {
    if let Some(meter) = METER.get() {
        meter.connections.increment(change);
    }
}

/// A request that the edge refused before it became one.
pub fn refused(code: &'static str) {
    if let Some(meter) = METER.get() {
        meter.fault(code);
    }
}

/// A local answer was checked, with this verdict.
pub fn checked(verdict: &str) {
    let all = METER.get().into_iter().flat_map(|m| VERDICTS.iter().zip(&m.checks));
    all.filter(|(v, _)| **v == verdict).for_each(|(_, counter)| counter.increment(1));
}

/// A reload of the configuration.
pub fn reload(accepted: bool) {
    if let Some([refused, ok]) = METER.get().map(|m| &m.reloads) {
        if accepted { ok.increment(1) } else { refused.increment(1) }
    }
}

/// The breaker of a configured backend.
pub fn breaker(backend: &Arc<str>, state: Breaker) {
    if let Some(meter) = METER.get() {
        meter.backend(backend).breaker.set(match state {
            Breaker::Closed => 0.0,
            Breaker::Open => 1.0,
            Breaker::HalfOpen => 2.0,
        });
    }
}

/// Jobs that wait for a configured backend.
pub fn queue_depth(backend: &Arc<str>, waiting: usize) {
    if let Some(meter) = METER.get() {
        meter.backend(backend).queue.set(float(waiting));
    }
}

/// Keys and values of an embedded model: its bound, what is promised to running queries, and what kept beginnings take,
/// in bytes; and the prompt tokens that came from them since it was loaded.
pub fn kv(backend: &Arc<str>, bytes: [usize; 3], reused: u64) {
    if let Some(meter) = METER.get() {
        for (kind, bytes) in ["bound", "promised", "kept"].into_iter().zip(bytes) {
            gauge(&meter.recorder, names::KV, &[("backend", &**backend), ("use", kind)]).set(float(bytes));
        }
        counter(&meter.recorder, names::REUSED, &[("backend", &**backend)]).absolute(reused);
    }
}

/// What a backend's own traffic taught, as factors on its table.
pub fn learned(backend: &Arc<str>, factors: [(&'static str, f64); 3]) {
    if let Some(meter) = METER.get() {
        for (figure, factor) in factors {
            gauge(&meter.recorder, names::LEARNED, &[("backend", &**backend), ("figure", figure)]).set(factor);
        }
    }
}

impl Meter {
    fn new() -> Self {
        let recorder = registry::recorder();
        let r = &recorder;
        let mut requests = Vec::new();
        for endpoint in ENDPOINTS {
            for (_, outcome) in OUTCOMES {
                for place in PLACES {
                    requests.push(counter(
                        r,
                        names::REQUESTS,
                        &[("endpoint", endpoint), ("outcome", outcome), ("place", place)],
                    ));
                }
            }
        }
        let mut spans = Vec::new();
        for operation in OPERATIONS {
            for place in PLACES {
                let labels = [("gen_ai_operation_name", operation), ("place", place)];
                spans.push(Spans {
                    duration: histogram(r, names::DURATION, &labels),
                    first_token: histogram(r, names::FIRST_TOKEN, &labels),
                });
            }
        }
        Self {
            handle: recorder.handle(),
            requests,
            spans,
            overhead: histogram(r, names::OVERHEAD_TIME, &[]),
            wasted: gauge(r, names::WASTED, &[]),
            saved: ["low", "mid", "high"].map(|a| gauge(r, names::SAVED, &[("assumption", a)])),
            in_flight: gauge(r, names::IN_FLIGHT, &[]),
            connections: gauge(r, names::CONNECTIONS, &[]),
            looks: Looks::new(r),
            checks: VERDICTS.map(|v| counter(r, names::CHECKS, &[("verdict", v)])),
            reloads: ["refused", "ok"].map(|w| counter(r, names::RELOADS, &[("result", w)])),
            backends: RwLock::default(),
            faults: RwLock::default(),
            recorder,
        }
    }

    fn count(&self, record: &Record) {
        let place = record.place.map_or(2, |p| if p == Place::Local { 0 } else { 1 });
        if let Some(counter) = self.requests.get(slot(record, place)) {
            counter.increment(1);
        }
        let operation = usize::from(record.endpoint == "completions");
        if let (Some(spans), true) =
            (self.spans.get(operation * PLACES.len() + place), !["route", SHADOW].contains(&record.endpoint))
        {
            spans.duration.record(record.total_ms / 1e3);
            if let Some(ms) = record.ttft_ms {
                spans.first_token.record(ms / 1e3);
            }
        }
        self.overhead.record(record.overhead_us / 1e6);
        if let Some(code) = record.fault {
            self.fault(code);
        }
        self.wasted.increment(record.wasted_joules.unwrap_or(0.0));
        let [low, mid, high] = &self.saved;
        for (gauge, value) in [(low, record.saved.low), (mid, record.saved.mid), (high, record.saved.high)] {
            gauge.increment(value.unwrap_or(0.0));
        }
        if let Some(name) = &record.backend {
            self.backend(name).count(record);
        }
    }

    fn fault(&self, code: &'static str) {
        if let Some(counter) = self.faults.read().unwrap_or_else(PoisonError::into_inner).get(code) {
            return counter.increment(1);
        }
        let new = counter(&self.recorder, names::FAULTS, &[("code", code)]);
        self.faults.write().unwrap_or_else(PoisonError::into_inner).entry(code).or_insert(new).increment(1);
    }

    /// Names come from the configuration, so the map is as small as that.
    fn backend(&self, name: &Arc<str>) -> Arc<Backend> {
        if let Some(found) = self.backends.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(found);
        }
        let new = Arc::new(Backend::new(&self.recorder, name));
        Arc::clone(self.backends.write().unwrap_or_else(PoisonError::into_inner).entry(Arc::clone(name)).or_insert(new))
    }

    fn journal(&self, health: &Health) {
        let r = &self.recorder;
        counter(r, names::JOURNAL_WRITTEN, &[]).absolute(health.written);
        counter(r, names::JOURNAL_DROPPED, &[]).absolute(health.dropped);
        counter(r, names::JOURNAL_ERRORS, &[]).absolute(health.errors);
        gauge(r, names::JOURNAL_WAITING, &[]).set(float(health.waiting));
        gauge(r, names::JOURNAL_UP, &[]).set(if matches!(health.state, State::Failing(_)) { 0.0 } else { 1.0 });
    }
}

/// Index into `Meter::requests`.
fn slot(record: &Record, place: usize) -> usize {
    let endpoint = ENDPOINTS.iter().position(|e| *e == record.endpoint).unwrap_or(ENDPOINTS.len() - 1);
    let outcome = OUTCOMES.iter().position(|(o, _)| *o == record.outcome).unwrap_or(0);
    (endpoint * OUTCOMES.len() + outcome) * PLACES.len() + place
}

#[expect(clippy::cast_precision_loss, reason = "counts of things in memory stay far below 2^52")]
fn float(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::names::Kind;
    use super::*;
    use crate::energy::{Basis, Joules};

    #[test]
    fn a_request_shows_up_under_every_name_it_touches() {
        install();
        let record = Record {
            endpoint: "chat",
            backend: Some(Arc::from("local/smollm2")),
            place: Some(Place::Local),
            outcome: Outcome::Ok,
            input_tokens: Some(12),
            output_tokens: Some(30),
            joules: Some(Joules::range(1.0, 2.0, 3.0, Basis::Utilisation)),
            total_ms: 120.0,
            ttft_ms: Some(15.0),
            overhead_us: 40.0,
            ..Record::default()
        };
        count(&record);
        count(&Record { joules: None, fault: Some("upstream_cut"), outcome: Outcome::Fault, ..record });
        let health = Health { state: State::Writing, written: 7, dropped: 1, errors: 2, waiting: 3 };
        let text = render(&health);
        for line in [
            "wattroute_requests_total{endpoint=\"chat\",outcome=\"ok\",place=\"local\"} 1",
            "wattroute_requests_total{endpoint=\"chat\",outcome=\"fault\",place=\"local\"} 1",
            "wattroute_faults_total{code=\"upstream_cut\"} 1",
            "wattroute_tokens_total{backend=\"local/smollm2\",gen_ai_token_type=\"output\"} 60",
            "wattroute_joules{backend=\"local/smollm2\",basis=\"utilisation\"} 2",
            "wattroute_joules_unknown_total{backend=\"local/smollm2\"} 1",
            "gen_ai_server_request_duration_seconds_bucket{gen_ai_operation_name=\"chat\",place=\"local\",le=\"0.16\"} 2",
            "wattroute_overhead_seconds_bucket{le=\"0.00004\"} 2",
            "wattroute_journal_dropped_total 1",
            "wattroute_journal_up 1",
        ] {
            assert!(text.contains(line), "{line}\nnot in\n{text}");
        }
    }

    #[test]
    fn every_histogram_has_buckets_and_every_name_help() {
        for name in names::ALL {
            assert_eq!(name.kind == Kind::Histogram, !name.buckets.is_empty(), "{}", name.name);
            assert!(name.help.ends_with('.'), "{}", name.name);
        }
    }
}
