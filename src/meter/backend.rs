//! What is counted per configured backend.

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::names;
use super::registry::{counter, gauge, histogram};
use crate::energy::Basis;
use crate::journal::Record;

const BASES: [Basis; 6] =
    [Basis::Counter, Basis::Power, Basis::Utilisation, Basis::Published, Basis::Modelled, Basis::Unknown];

/// Handles of one configured backend.
pub struct Backend {
    input: Counter,
    output: Counter,
    input_usage: Histogram,
    output_usage: Histogram,
    joules: [Gauge; BASES.len()],
    unknown: Counter,
    usd: Gauge,
    /// State of its breaker.
    pub breaker: Gauge,
    /// Jobs that wait for it.
    pub queue: Gauge,
}

impl Backend {
    /// Registers its handles.
    pub fn new(r: &PrometheusRecorder, name: &str) -> Self {
        let typed = |kind| [("backend", name), ("gen_ai_token_type", kind)];
        Self {
            input: counter(r, names::TOKENS_TOTAL, &typed("input")),
            output: counter(r, names::TOKENS_TOTAL, &typed("output")),
            input_usage: histogram(r, names::TOKEN_USAGE, &typed("input")),
            output_usage: histogram(r, names::TOKEN_USAGE, &typed("output")),
            joules: BASES.map(|b| gauge(r, names::JOULES, &[("backend", name), ("basis", b.name())])),
            unknown: counter(r, names::JOULES_UNKNOWN, &[("backend", name)]),
            usd: gauge(r, names::USD, &[("backend", name)]),
            breaker: gauge(r, names::BREAKER, &[("backend", name)]),
            queue: gauge(r, names::QUEUE, &[("backend", name)]),
        }
    }

    /// Counts one finished request that it was asked for.
    pub fn count(&self, record: &Record) {
        for (tokens, total, usage) in [
            (record.input_tokens, &self.input, &self.input_usage),
            (record.output_tokens, &self.output, &self.output_usage),
        ] {
            if let Some(n) = tokens {
                total.increment(u64::from(n));
                usage.record(f64::from(n));
            }
        }
        match record.joules.and_then(|j| Some((j.mid?, j.basis))) {
            Some((joules, basis)) => {
                if let Some((_, gauge)) = BASES.iter().zip(&self.joules).find(|(b, _)| **b == basis) {
                    gauge.increment(joules);
                }
            }
            None => self.unknown.increment(1),
        }
        self.usd.increment(record.usd.unwrap_or(0.0));
    }
}
