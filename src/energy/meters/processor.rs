//! The last resort: watts of a busy and of an idle logical processor, times the seconds they were so. Never a measurement.
//!
//! The busy figure is [`estimate`](crate::energy::estimate)'s (TDP by name, or today's spread). An idle logical processor
//! is taken to draw 5 to 25 % of a busy one, with its share of the package's uncore: an assumption that is stated.

use std::path::Path;

use crate::energy::Basis;
use crate::energy::estimate::{self, TICKS_PER_S};
use crate::energy::meters::figure::Figure;
use crate::energy::meters::{Absent, Meter, Part, Rail, Reading};

/// Idle watts over busy watts: low, mid, high.
const IDLE_SHARE: [f64; 3] = [0.05, 0.12, 0.25];
/// Room for the line over all processors.
const LINE: usize = 512;
/// The process table counts in ticks.
const RENEWED_S: f64 = 1.0 / TICKS_PER_S;

/// Processor time of the whole machine, as energy.
pub struct Processor {
    rails: [Rail; 1],
    stat: Figure,
    busy_w: f64,
    idle_w: f64,
    last: Ticks,
    joules: f64,
}

/// Ticks since boot, over all processors.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    busy: f64,
    idle: f64,
}

impl Processor {
    /// Opens the process table under `proc`.
    ///
    /// # Errors
    /// There is none: this is not Linux.
    pub fn open(proc: &Path) -> Result<Self, Absent> {
        let stat = proc.join("stat");
        let why = format!("{}: no processor times in it", stat.display());
        let mut stat = Figure::of(stat);
        let last = read(&mut stat).ok_or(Absent { meter: "processor", why, fix: None })?;
        let processor = estimate::processor();
        let [_, mid, _] = processor.busy_w;
        let rail = Rail {
            name: "processor/time".to_owned(),
            device: format!("{}: {}", processor.name, processor.why),
            part: Part::Package,
            basis: Basis::Utilisation,
            uncertainty: Some(uncertainty(processor.busy_w)),
            renewed_s: RENEWED_S,
            cap_w: processor.tdp_w,
        };
        Ok(Self { rails: [rail], stat, busy_w: mid, idle_w: idle_w(processor.busy_w), last, joules: 0.0 })
    }
}

/// Watts of an idle logical processor, the middle figure.
pub fn idle_w(busy_w: [f64; 3]) -> f64 {
    let ([_, busy, _], [_, share, _]) = (busy_w, IDLE_SHARE);
    busy * share
}

/// Relative uncertainty of joules over any mix of busy and idle time: the wider of the two ranges, as half of it over its middle.
/// An idle processor is known far worse than a busy one.
pub fn uncertainty(busy_w: [f64; 3]) -> f64 {
    let half = |[low, mid, high]: [f64; 3]| (high - low) / (2.0 * mid);
    let ([low, mid, high], [least, middle, most]) = (busy_w, IDLE_SHARE);
    half(busy_w).max(half([low * least, mid * middle, high * most]))
}

impl Meter for Processor {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        out.clear();
        let Some(now) = read(&mut self.stat) else {
            out.push(Reading::Missing);
            return;
        };
        // Ticks of idle time may step back by a little when a processor sleeps deeply.
        let busy = (now.busy - self.last.busy).max(0.0) / TICKS_PER_S;
        let idle = (now.idle - self.last.idle).max(0.0) / TICKS_PER_S;
        self.last = now;
        self.joules += busy * self.busy_w + idle * self.idle_w;
        out.push(Reading::Joules(self.joules));
    }
}

fn read(stat: &mut Figure) -> Option<Ticks> {
    ticks(stat.text(&mut [0; LINE])?)
}

/// The line over all processors: user, nice, system, idle, iowait, irq, softirq, steal. Stolen time is another guest's.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let fields: Vec<f64> = line.split_ascii_whitespace().map_while(|f| f.parse().ok()).collect();
    let [user, nice, system, idle, wait, irq, softirq, ..] = fields.as_slice() else { return None };
    Some(Ticks { busy: user + nice + system + irq + softirq, idle: idle + wait })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_range_covers_busy_and_idle_time() {
        let busy_w = [1.9, 3.5, 6.3];
        let stated = uncertainty(busy_w);
        for (low, mid, high) in [(1.9, 3.5, 6.3), (1.9 * 0.05, 3.5 * 0.12, 6.3 * 0.25)] {
            assert!((high - low) / (2.0 * mid) <= stated + 1e-12, "{mid}: {stated}");
        }
        // Idle is the worse known of the two: between 0.095 and 1.575 W around 0.42 W.
        assert!((stated - 1.7619).abs() < 1e-3, "{stated}");
    }

    #[test]
    fn busy_and_idle_time_cost_and_stolen_time_does_not() {
        let root = tempfile::tempdir().unwrap();
        let stat = root.path().join("stat");
        std::fs::write(&stat, "cpu  100 0 100 1000 0 0 0 50 0 0\ncpu0 1 1 1 1\n").unwrap();
        let mut meter = Processor::open(root.path()).unwrap();
        let (busy_w, idle_w) = (meter.busy_w, meter.idle_w);
        let mut out = Vec::new();
        std::fs::write(&stat, "cpu  300 0 100 1100 0 0 0 5000 0 0\n").unwrap();
        meter.read(&mut out);
        let [Reading::Joules(joules)] = out[..] else { panic!("{out:?}") };
        assert!((joules - (2.0 * busy_w + idle_w)).abs() < 1e-9);
        std::fs::write(&stat, "cpu  300 0 100 1090 0 0 0 5000 0 0\n").unwrap();
        meter.read(&mut out);
        assert_eq!(out, [Reading::Joules(joules)]);
        std::fs::write(&stat, "nothing").unwrap();
        meter.read(&mut out);
        assert_eq!(out, [Reading::Missing]);
        assert_eq!(meter.rails()[0].basis, Basis::Utilisation);
        assert!(meter.rails()[0].uncertainty.unwrap() > 0.0);
        assert!(Processor::open(&root.path().join("none")).is_err());
    }
}
