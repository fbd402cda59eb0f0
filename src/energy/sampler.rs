//! A thread that reads every meter on a monotonic clock into a [`Trace`].
//!
//! Invariants: a slow reading shifts no later one; the thread measures what it costs itself; a meter of the machine's total that
//! goes silent is logged once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::energy::cost::thread_cpu_seconds;
use crate::energy::meters::{Meter, Reading};
use crate::energy::trace::{Event, Sample, Trace};

/// Between two samples unless configured.
pub const EVERY: Duration = Duration::from_millis(50);

/// The running thread. Dropping it stops it within one period.
pub struct Sampler {
    shared: Arc<Shared>,
    origin: Instant,
    every: Duration,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    trace: Mutex<Trace>,
    sampled: Condvar,
    stop: AtomicBool,
}

impl Sampler {
    /// Starts reading `meters` every `every`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(meters: Vec<Box<dyn Meter>>, every: Duration) -> std::io::Result<Self> {
        let every = every.max(Duration::from_millis(1));
        let rails = meters.iter().flat_map(|m| m.rails().to_vec()).collect();
        let trace = Mutex::new(Trace::new(rails, every.as_secs_f64()));
        let shared = Arc::new(Shared { trace, sampled: Condvar::new(), stop: AtomicBool::new(false) });
        let origin = clock::now();
        let own = shared.clone();
        let thread = std::thread::Builder::new()
            .name("energy sampler".to_owned())
            .spawn(move || own.serve(meters, origin, every))?;
        Ok(Self { shared, origin, every, thread: Some(thread) })
    }

    /// Seconds on the sampler's axis.
    pub fn now_s(&self) -> f64 {
        self.at_s(clock::now())
    }

    /// Where the axis begins.
    pub fn origin(&self) -> Instant {
        self.origin
    }

    /// An instant on the sampler's axis.
    pub fn at_s(&self, instant: Instant) -> f64 {
        instant.saturating_duration_since(self.origin).as_secs_f64()
    }

    /// Looks at what was seen so far; keep it short, the thread waits meanwhile.
    pub fn look<T>(&self, see: impl FnOnce(&Trace) -> T) -> T {
        see(&self.shared.lock())
    }

    /// From now on every reading is kept for [`Sampler::kept`].
    pub fn keep(&self) {
        self.shared.lock().keep();
    }

    /// The readings since the last call, of a sampler that was told to keep them.
    pub fn kept(&self) -> Vec<Sample> {
        self.shared.lock().kept()
    }

    /// Waits until something was sampled after `at_s`, so that a query that just ended lies inside the trace. Blocks for
    /// about one period, at most for `patience`; false if nothing came.
    pub fn wait_past(&self, at_s: f64, patience: Duration) -> bool {
        let until = clock::now() + patience;
        let mut trace = self.shared.lock();
        while trace.last_s().is_none_or(|last| last < at_s) {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                return false;
            }
            let slice = left.min(self.every * 2);
            (trace, _) = self.shared.sampled.wait_timeout(trace, slice).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Between two samples.
    pub fn every(&self) -> Duration {
        self.every
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, at: (f64, f64), all: &[Reading], meters: &[Box<dyn Meter>], cost: impl FnOnce(&mut Trace)) {
        let mut trace = self.lock();
        let told = trace.noticed;
        trace.take(at.0, at.1, all);
        cost(&mut trace);
        if trace.noticed == told {
            return;
        }
        trace.explain(|name| {
            let meter = meters.iter().find(|meter| meter.rails().iter().any(|rail| rail.name == name));
            meter.and_then(|meter| meter.trouble())
        });
        trace.news(told).for_each(log);
    }

    fn serve(&self, mut meters: Vec<Box<dyn Meter>>, origin: Instant, every: Duration) {
        let (mut all, mut some) = (Vec::new(), Vec::new());
        let cpu_at_start_s = thread_cpu_seconds();
        let mut next = origin;
        while !self.stop.load(Ordering::Acquire) {
            let began = clock::now();
            all.clear();
            for meter in &mut meters {
                meter.read(&mut some);
                all.append(&mut some);
            }
            let ended = clock::now();
            // The reading happened between the two; the middle is its best instant.
            let at = began + (ended - began) / 2;
            #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are below 2^53")]
            let wall_s = clock::unix_ms() as f64 / 1000.0;
            let at_s = at.saturating_duration_since(origin).as_secs_f64();
            self.take((at_s, wall_s), &all, &meters, |trace| {
                trace.cost.add((ended - began).as_secs_f64() * 1e6, cpu_at_start_s, at_s);
            });
            self.sampled.notify_all();
            // On the grid of the period, so that a slow reading does not shift all later ones.
            while next <= clock::now() {
                next += every;
            }
            std::thread::park_timeout(next.saturating_duration_since(clock::now()));
        }
    }
}

/// Only what makes figures unknown is worth a line.
fn log(event: &Event) {
    match event {
        Event::Lost { rail, why, total: true, .. } => {
            let why = why.as_deref().unwrap_or("it cannot be read");
            tracing::warn!(rail, why, "a meter went silent: joules are unknown until it is back");
        }
        Event::Back { rail, .. } => tracing::info!(rail, "a meter is back"),
        Event::Gap { .. } | Event::ClockStep { .. } | Event::Lost { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::Basis;
    use crate::energy::meters::rapl::Rapl;
    use crate::energy::meters::{Part, Rail};

    fn rails(n: usize) -> Vec<Rail> {
        (0..n)
            .map(|i| Rail {
                name: format!("test/{i}"),
                device: String::new(),
                part: Part::Gpu,
                basis: Basis::Power,
                uncertainty: None,
                renewed_s: 0.01,
                cap_w: None,
            })
            .collect()
    }

    struct Steady(Vec<Rail>, Arc<AtomicBool>);

    impl Meter for Steady {
        fn rails(&self) -> &[Rail] {
            &self.0
        }

        fn read(&mut self, out: &mut Vec<Reading>) {
            out.clear();
            out.push(if self.1.load(Ordering::Relaxed) { Reading::Missing } else { Reading::Watts(50.0) });
        }
    }

    #[test]
    fn the_thread_samples_states_its_cost_and_stops() {
        let broken = Arc::new(AtomicBool::new(false));
        let meters: Vec<Box<dyn Meter>> = vec![Box::new(Steady(rails(1), broken.clone()))];
        let sampler = Sampler::start(meters, Duration::from_millis(2)).unwrap();
        let start_s = sampler.now_s();
        assert!(sampler.wait_past(start_s + 0.02, Duration::from_secs(10)));
        let joules = sampler.look(|trace| trace.series[0].between(start_s + 0.005, start_s + 0.015));
        // A busy machine may leave a gap; then the joules are unknown, and never something else.
        if let Some(joules) = joules {
            assert!((joules - 0.5).abs() < 1e-6, "{joules}");
        }
        let cost = sampler.look(|trace| trace.cost);
        assert!(cost.samples >= 2 && cost.mean_us > 0.0 && cost.worst_us >= cost.mean_us);
        broken.store(true, Ordering::Relaxed);
        let now_s = sampler.now_s();
        assert!(sampler.wait_past(now_s + 0.01, Duration::from_secs(10)));
        assert!(sampler.look(|trace| trace.missing[0]));
        assert!(!sampler.wait_past(sampler.now_s() + 60.0, Duration::from_millis(5)));
    }
    #[test]
    fn eight_zones_cost_less_than_a_fiftieth_of_a_core_at_the_default_period() {
        let root = tempfile::tempdir().unwrap();
        for i in 0..8 {
            let zone = root.path().join(format!("intel-rapl:{i}"));
            std::fs::create_dir(&zone).unwrap();
            for (file, text) in [("name", format!("package-{i}")), ("energy_uj", "12345678\n".to_owned())] {
                std::fs::write(zone.join(file), text).unwrap();
            }
        }
        let meter = Rapl::open(root.path()).unwrap();
        assert_eq!(meter.rails().len(), 8);
        // Five times as often as usual, so that the test is short: then five times the share.
        let often = 5.0;
        let sampler = Sampler::start(vec![Box::new(meter)], EVERY.div_f64(often)).unwrap();
        let until = clock::now() + Duration::from_secs(60);
        while sampler.look(|trace| trace.cost.samples) < 41 && clock::now() < until {
            sampler.wait_past(sampler.now_s() + 0.1, Duration::from_secs(10));
        }
        let cost = sampler.look(|trace| trace.cost);
        assert!(sampler.look(|trace| trace.missing.iter().all(|missing| !missing)));
        if let Some(share) = cost.core_share {
            assert!(share > 0.0 && share / often < 0.02, "{cost:?}");
        }
    }
}
