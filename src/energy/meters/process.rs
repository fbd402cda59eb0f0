//! The last resort for a model in this process: its own processor time at busy watts, the rest of the machine at rest.
//!
//! Where other programs share the machine, the whole machine's time would charge a query for their work. So the figure is
//! what the machine would draw if only this process ran on it. Never a measurement; the same assumptions as
//! [`processor`](crate::energy::meters::processor).

use std::path::Path;

use crate::clock::{self, Instant};
use crate::energy::Basis;
use crate::energy::estimate::{self, TICKS_PER_S};
use crate::energy::meters::figure::Figure;
use crate::energy::meters::processor::{idle_w, uncertainty};
use crate::energy::meters::{Absent, Meter, Part, Rail, Reading};

/// Room for the whole line.
const LINE: usize = 1024;

/// Processor time of this process, as energy.
pub struct Process {
    rails: [Rail; 1],
    stat: Figure,
    busy_w: f64,
    idle_w: f64,
    logical: f64,
    last: (Instant, f64),
    joules: f64,
}

impl Process {
    /// Opens the process table under `proc`.
    ///
    /// # Errors
    /// There is none: this is not Linux.
    pub fn open(proc: &Path) -> Result<Self, Absent> {
        let stat = proc.join("self/stat");
        let why = format!("{}: no processor time in it", stat.display());
        let mut stat = Figure::of(stat);
        let cpu_s = seconds(&mut stat).ok_or(Absent { meter: "process", why, fix: None })?;
        let processor = estimate::processor();
        let [_, mid, _] = processor.busy_w;
        let rail = Rail {
            name: "processor/process".to_owned(),
            device: format!("{}: {}; this process alone, the rest at rest", processor.name, processor.why),
            part: Part::Package,
            basis: Basis::Utilisation,
            uncertainty: Some(uncertainty(processor.busy_w)),
            renewed_s: 1.0 / TICKS_PER_S,
            cap_w: processor.tdp_w,
        };
        let logical = crate::config::env::cores();
        Ok(Self {
            rails: [rail],
            stat,
            busy_w: mid,
            idle_w: idle_w(processor.busy_w),
            logical: f64::from(u32::try_from(logical).unwrap_or(u32::MAX)),
            last: (clock::now(), cpu_s),
            joules: 0.0,
        })
    }
}

impl Meter for Process {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        out.clear();
        let Some(cpu_s) = seconds(&mut self.stat) else {
            out.push(Reading::Missing);
            return;
        };
        let now = clock::now();
        let wall_s = now.saturating_duration_since(self.last.0).as_secs_f64();
        let busy = (cpu_s - self.last.1).max(0.0);
        let idle = (self.logical * wall_s - busy).max(0.0);
        self.last = (now, cpu_s);
        self.joules += busy * self.busy_w + idle * self.idle_w;
        out.push(Reading::Joules(self.joules));
    }
}

fn seconds(stat: &mut Figure) -> Option<f64> {
    estimate::cpu_seconds_of(stat.text(&mut [0; LINE])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_costs_busy_watts_and_a_table_that_vanishes_is_missing() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("self")).unwrap();
        let stat = root.path().join("self/stat");
        let at = |ticks: u32| format!("1 (a) R 1 1 1 0 -1 4194304 1 2 3 4 {ticks} 0 0 0 20 0 1 0");
        std::fs::write(&stat, at(100)).unwrap();
        let mut meter = Process::open(root.path()).unwrap();
        let mut out = Vec::new();
        std::fs::write(&stat, at(1100)).unwrap();
        meter.read(&mut out);
        let [Reading::Joules(joules)] = out[..] else { panic!("{out:?}") };
        // Ten processor seconds; the moment that passed here adds a little rest.
        assert!(joules >= 10.0 * meter.busy_w && joules < 10.5 * meter.busy_w, "{joules}");
        std::fs::remove_file(&stat).unwrap();
        meter.read(&mut out);
        assert_eq!(out, [Reading::Missing]);
        assert!(Process::open(&root.path().join("none")).is_err());
    }
}
