//! Names to handles of the Prometheus recorder.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use super::names::{self, Kind, Name};

const META: Metadata<'static> = Metadata::new("wattroute", Level::INFO, None);

fn key(name: Name, labels: &[(&'static str, &str)]) -> Key {
    Key::from_parts(name.name, labels.iter().map(|(k, v)| Label::new(*k, (*v).to_owned())).collect::<Vec<_>>())
}

/// A counter with fixed labels.
pub fn counter(r: &PrometheusRecorder, name: Name, labels: &[(&'static str, &str)]) -> Counter {
    r.register_counter(&key(name, labels), &META)
}

/// A gauge with fixed labels.
pub fn gauge(r: &PrometheusRecorder, name: Name, labels: &[(&'static str, &str)]) -> Gauge {
    r.register_gauge(&key(name, labels), &META)
}

/// A histogram with fixed labels.
pub fn histogram(r: &PrometheusRecorder, name: Name, labels: &[(&'static str, &str)]) -> Histogram {
    r.register_histogram(&key(name, labels), &META)
}

fn describe(r: &PrometheusRecorder) {
    for name in names::ALL {
        let (key, help): (KeyName, SharedString) = (name.name.into(), name.help.into());
        let unit: Option<Unit> = None;
        match name.kind {
            Kind::Counter => r.describe_counter(key, unit, help),
            Kind::Gauge => r.describe_gauge(key, unit, help),
            Kind::Histogram => r.describe_histogram(key, unit, help),
        }
    }
}

/// A recorder that knows every name, its help and its buckets.
pub fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for name in names::ALL.iter().filter(|n| n.kind == Kind::Histogram) {
        // Fails only for an empty list, and each has buckets (a test); without them it would be a summary.
        builder = match builder.set_buckets_for_metric(Matcher::Full(name.name.to_owned()), name.buckets) {
            Ok(b) => b,
            Err(_) => PrometheusBuilder::new(),
        };
    }
    let recorder = builder.build_recorder();
    describe(&recorder);
    recorder
}
