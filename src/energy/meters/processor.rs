//! The last resort: watts of a busy and of an idle logical processor, times the seconds they were so. Never a measurement.
//!
//! The busy figure is [`estimate`](crate::energy::estimate)'s (TDP by name, or today's spread). An idle logical processor
//! is taken to draw 5 to 25 % of a busy one, with its share of the package's uncore: an assumption that is stated.

use std::path::{Path, PathBuf};

use crate::energy::Basis;
use crate::energy::estimate::{self, TICKS_PER_S};
use crate::energy::meters::{Absent, Meter, Part, Rail, Reading};

/// Idle watts over busy watts: low, mid, high.
const IDLE_SHARE: [f64; 3] = [0.05, 0.12, 0.25];
/// The process table counts in ticks.
const RENEWED_S: f64 = 1.0 / TICKS_PER_S;

/// Processor time of the whole machine, as energy.
pub struct Processor {
    rails: [Rail; 1],
    stat: PathBuf,
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
        let last = std::fs::read_to_string(&stat).ok().and_then(|text| ticks(&text)).ok_or_else(|| Absent {
            meter: "processor",
            why: format!("{}: no processor times in it", stat.display()),
            fix: None,
        })?;
        let processor = estimate::processor();
        let [low, mid, high] = processor.busy_w;
        let rail = Rail {
            name: "processor/time".to_owned(),
            device: format!("{}: {}", processor.name, processor.why),
            part: Part::Package,
            basis: Basis::Utilisation,
            uncertainty: Some((high - low) / (2.0 * mid)),
            renewed_s: RENEWED_S,
            cap_w: processor.tdp_w,
        };
        Ok(Self { rails: [rail], stat, busy_w: mid, idle_w: mid * IDLE_SHARE[1], last, joules: 0.0 })
    }

    /// Relative range of the idle figure, for people.
    pub fn idle_share() -> [f64; 3] {
        IDLE_SHARE
    }
}

impl Meter for Processor {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        out.clear();
        let Some(now) = std::fs::read_to_string(&self.stat).ok().and_then(|text| ticks(&text)) else {
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
