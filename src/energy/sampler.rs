//! A thread that reads every meter on a monotonic clock and keeps each rail's energy as a line over time.
//!
//! Invariants: joules only rise; power is integrated by the trapezoid between two readings that both succeeded; a stretch
//! in which a rail could not be read, or in which the thread did not come to run, is a gap and is said to be one. The
//! thread measures what it costs itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use crate::clock::{self, Instant};
use crate::energy::cost::{Cost, thread_cpu_seconds};
use crate::energy::meters::{Meter, Rail, Reading, total_of};
use crate::energy::series::Series;

/// Between two samples unless configured.
pub const EVERY: Duration = Duration::from_millis(50);
/// Points kept per rail: two hours at the default period.
const MOST_POINTS: usize = 144_000;
/// Gaps and steps remembered.
const MOST_EVENTS: usize = 1_000;
/// An interval this many periods long (and at least [`GAP_S`]) is a gap.
const GAP_PERIODS: f64 = 5.0;
const GAP_S: f64 = 0.5;
/// The wall clock is said to have stepped if it moved this much differently from the monotonic one, in seconds.
const STEP_S: f64 = 1.0;

/// Something the sampler noticed about time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// Nothing was read between two instants: the machine slept or was overloaded. Counters bridge it, power does not.
    Gap {
        /// Seconds on the sampler's axis.
        from_s: f64,
        /// Seconds on the sampler's axis.
        to_s: f64,
    },
    /// The wall clock was set, or the machine was suspended. Attribution is on the monotonic axis and is not moved by it.
    ClockStep {
        /// Seconds on the sampler's axis.
        at_s: f64,
        /// Seconds by which the wall clock moved more than the monotonic one.
        by_s: f64,
    },
}

/// What was seen so far.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Rails, as the meters listed them.
    pub rails: Vec<Rail>,
    /// Energy of each.
    pub series: Vec<Series>,
    /// Rails that could not be read the last time.
    pub missing: Vec<bool>,
    /// Gaps and steps, oldest first.
    pub events: Vec<Event>,
    /// What sampling cost.
    pub cost: Cost,
    last_w: Vec<Option<f64>>,
    last_counter: Vec<Option<f64>>,
    last_at_s: Option<f64>,
    last_wall_s: Option<f64>,
    period_s: f64,
}

impl Trace {
    /// An empty trace of these rails, sampled every `period_s` seconds.
    pub fn new(rails: Vec<Rail>, period_s: f64) -> Self {
        let n = rails.len();
        Self {
            series: vec![Series::new(MOST_POINTS); n],
            missing: vec![true; n],
            events: Vec::new(),
            cost: Cost::default(),
            last_w: vec![None; n],
            last_counter: vec![None; n],
            last_at_s: None,
            last_wall_s: None,
            period_s,
            rails,
        }
    }

    /// Takes one reading of every rail. `wall_s` is the wall clock, used for nothing but noticing its steps.
    pub fn take(&mut self, at_s: f64, wall_s: f64, readings: &[Reading]) {
        let interval_s = self.last_at_s.map(|last| at_s - last);
        let gap = interval_s.is_some_and(|dt| dt > (GAP_PERIODS * self.period_s).max(GAP_S));
        if let Some(last_s) = self.last_at_s.filter(|_| gap) {
            self.notice(Event::Gap { from_s: last_s, to_s: at_s });
        }
        if let (Some(dt), Some(wall)) = (interval_s, self.last_wall_s) {
            let by_s = (wall_s - wall) - dt;
            if by_s.abs() > STEP_S {
                self.notice(Event::ClockStep { at_s, by_s });
            }
        }
        for index in 0..self.rails.len() {
            let reading = readings.get(index).copied().unwrap_or(Reading::Missing);
            self.rail(index, at_s, reading, gap);
        }
        (self.last_at_s, self.last_wall_s) = (Some(at_s), Some(wall_s));
    }

    fn rail(&mut self, index: usize, at_s: f64, reading: Reading, gap: bool) {
        let (Some(series), Some(missing)) = (self.series.get_mut(index), self.missing.get_mut(index)) else { return };
        let (Some(last_w), Some(last_counter)) = (self.last_w.get_mut(index), self.last_counter.get_mut(index)) else {
            return;
        };
        *missing = reading == Reading::Missing;
        match reading {
            Reading::Missing => *last_w = None,
            Reading::Joules(now) => {
                // A counter bridges whatever was not seen: the joules are right, only their place in between is not.
                let step = last_counter.map_or(0.0, |last| now - last);
                if series.grow(at_s, step.max(0.0)) {
                    *last_counter = Some(now);
                }
            }
            Reading::Watts(now) if !(now.is_finite() && now >= 0.0) => (*missing, *last_w) = (true, None),
            Reading::Watts(now) => {
                let before = last_w.replace(now).filter(|_| !gap);
                let last_s = series.last().map(|p| p.at_s);
                match (before, last_s) {
                    (Some(before), Some(last_s)) => {
                        series.grow(at_s, (before + now) / 2.0 * (at_s - last_s));
                    }
                    // The first reading after nothing: what lies between is unknown.
                    _ => {
                        series.resume(at_s);
                    }
                }
            }
        }
    }

    fn notice(&mut self, event: Event) {
        if self.events.len() < MOST_EVENTS {
            self.events.push(event);
        }
    }

    /// Rails that make up the machine's total; see [`total_of`].
    pub fn total(&self) -> Vec<usize> {
        total_of(&self.rails)
    }

    /// Mean watts of a rail over the last `seconds`; none if it was not seen for so long.
    pub fn watts(&self, rail: usize, seconds: f64) -> Option<f64> {
        if self.missing.get(rail).copied().unwrap_or(true) {
            return None;
        }
        let series = self.series.get(rail)?;
        let (first_s, last_s) = series.span()?;
        let from_s = (last_s - seconds).max(first_s);
        // A hole in the window: what is known of its newest part.
        series.watts(from_s, last_s).or_else(|| series.watts(series.instants(from_s, last_s).last()?, last_s))
    }

    /// When it was sampled last, in seconds on the sampler's axis.
    pub fn last_s(&self) -> Option<f64> {
        self.last_at_s
    }
}

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

    /// Waits until something was sampled after `at_s`, so that a query that just ended lies inside the trace. Blocks for
    /// about one period, at most for `patience`; false if nothing came.
    pub fn wait_past(&self, at_s: f64, patience: Duration) -> bool {
        let until = clock::now() + patience;
        let mut trace = self.shared.lock();
        while trace.last_at_s.is_none_or(|last| last < at_s) {
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
            {
                let mut trace = self.lock();
                trace.take(at_s, wall_s, &all);
                trace.cost.add((ended - began).as_secs_f64() * 1e6, cpu_at_start_s, at_s);
            }
            self.sampled.notify_all();
            // On the grid of the period, so that a slow reading does not shift all later ones.
            while next <= clock::now() {
                next += every;
            }
            std::thread::park_timeout(next.saturating_duration_since(clock::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::Basis;
    use crate::energy::meters::Part;

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

    fn trace(readings: &[(f64, Reading)]) -> Trace {
        let mut trace = Trace::new(rails(1), 0.1);
        for (at_s, reading) in readings {
            trace.take(*at_s, 1e9 + at_s, &[*reading]);
        }
        trace
    }

    #[test]
    fn power_is_integrated_and_counters_are_taken_as_they_are() {
        use Reading::{Joules, Watts};
        let power = trace(&[(0.0, Watts(10.0)), (0.1, Watts(30.0)), (0.2, Watts(30.0))]);
        assert!((power.series[0].between(0.0, 0.2).unwrap() - 5.0).abs() < 1e-9);
        assert!((power.watts(0, 0.1).unwrap() - 30.0).abs() < 1e-9);
        let counter = trace(&[(0.0, Joules(500.0)), (0.1, Joules(503.0)), (0.2, Joules(503.0)), (0.3, Joules(510.0))]);
        assert!((counter.series[0].between(0.0, 0.3).unwrap() - 10.0).abs() < 1e-9);
        assert!(power.events.is_empty() && counter.events.is_empty());
    }

    #[test]
    fn a_gap_is_bridged_by_a_counter_and_left_open_by_power() {
        use Reading::{Joules, Missing, Watts};
        let counter = trace(&[(0.0, Joules(0.0)), (0.1, Joules(1.0)), (9.0, Joules(90.0))]);
        assert!((counter.series[0].between(0.0, 9.0).unwrap() - 90.0).abs() < 1e-9);
        assert_eq!(counter.events, [Event::Gap { from_s: 0.1, to_s: 9.0 }]);
        let power = trace(&[(0.0, Watts(10.0)), (0.1, Watts(10.0)), (9.0, Watts(10.0)), (9.1, Watts(10.0))]);
        assert_eq!(power.series[0].between(0.0, 9.0), None);
        assert!((power.series[0].between(9.0, 9.1).unwrap() - 1.0).abs() < 1e-9);
        // A meter that disappears is unknown from then on, and counted again when it comes back.
        let gone = trace(&[(0.0, Watts(10.0)), (0.1, Watts(10.0)), (0.2, Missing)]);
        assert_eq!((gone.missing[0], gone.watts(0, 1.0)), (true, None));
        let back = trace(&[(0.0, Watts(10.0)), (0.1, Missing), (0.2, Watts(20.0)), (0.3, Watts(20.0))]);
        assert_eq!(back.series[0].between(0.0, 0.2), None);
        assert!((back.series[0].between(0.2, 0.3).unwrap() - 2.0).abs() < 1e-9);
        assert!(trace(&[(0.0, Watts(f64::NAN))]).missing[0]);
    }

    #[test]
    fn a_wall_clock_that_is_set_is_noticed_and_moves_no_joule() {
        let mut trace = Trace::new(rails(1), 0.1);
        for (at_s, wall_s) in [(0.0, 100.0), (0.1, 100.1), (0.2, 3700.2), (0.3, 3700.3)] {
            trace.take(at_s, wall_s, &[Reading::Watts(10.0)]);
        }
        let [Event::ClockStep { at_s, by_s }] = trace.events[..] else { panic!("{:?}", trace.events) };
        assert!(at_s == 0.2 && (by_s - 3600.0).abs() < 1e-6);
        assert!((trace.series[0].between(0.0, 0.3).unwrap() - 3.0).abs() < 1e-9);
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
        assert!(cost.core_share.is_none_or(|share| (0.0..=1.5).contains(&share)));
        broken.store(true, Ordering::Relaxed);
        let now_s = sampler.now_s();
        assert!(sampler.wait_past(now_s + 0.01, Duration::from_secs(10)));
        assert!(sampler.look(|trace| trace.missing[0]));
        assert!(!sampler.wait_past(sampler.now_s() + 60.0, Duration::from_millis(5)));
    }
}
