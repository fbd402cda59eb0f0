//! Energy of this process without a meter: processor time times watts. Basis `utilisation`, with a wide stated range.
//!
//! Watts of one busy logical processor = TDP / logical processors of the package, TDP from the configuration or by the
//! name in `/proc/cpuinfo`. In a virtual machine the package is not all ours and often unnamed: then the spread of
//! today's server parts is taken. Never claims to be a measurement.

use std::io::Read;
use std::sync::{LazyLock, OnceLock};

use flate2::read::GzDecoder;

use super::{Basis, Joules};
use crate::clock::{self, Instant};

/// Processor names and their TDP; see the README beside the file.
const TDP_GZ: &[u8] = include_bytes!("../../eval/data/energy/cpu_tdp.csv.gz");
/// Ticks per second of `/proc/self/stat`; Linux fixes it at 100 for user space.
pub const TICKS_PER_S: f64 = 100.0;
/// Watts of one busy logical processor where the package is unknown: 360 W over 192 (96-core server part), 3.5 W, and
/// 125 W over 20 (desktop part).
const UNKNOWN_W: [f64; 3] = [1.9, 3.5, 6.3];
/// A busy package draws between 60 % of its TDP and 20 % over it, memory and losses included: an assumption.
const OF_TDP: [f64; 3] = [0.6, 0.9, 1.2];

static SEEN: LazyLock<Seen> = LazyLock::new(Seen::here);
static OVERRIDE_W: OnceLock<f64> = OnceLock::new();

/// Sets this machine's TDP, in W; the first call wins. Without one the shipped table is asked.
pub fn set_tdp(watts: f64) {
    let _ = OVERRIDE_W.set(watts);
}

/// What the watts of a busy logical processor follow from.
#[derive(Clone, Debug, PartialEq)]
pub struct Processor {
    /// Name in `/proc/cpuinfo`; empty where there is none.
    pub name: String,
    /// TDP of a package in W, if known.
    pub tdp_w: Option<f64>,
    /// W of one busy logical processor: low, mid, high.
    pub busy_w: [f64; 3],
    /// How that came about, for people.
    pub why: String,
}

/// This machine's processor.
pub fn processor() -> Processor {
    processor_of(&SEEN, OVERRIDE_W.get().copied())
}

/// W of one busy logical processor of this machine, middle figure, with a stated TDP in the table's place. Looks the processor
/// up each time: keep it.
pub fn busy_w(stated_tdp_w: Option<f64>) -> f64 {
    let [_, mid, _] = processor_of(&SEEN, stated_tdp_w.or_else(|| OVERRIDE_W.get().copied())).busy_w;
    mid
}

/// Measures one span of work of this process; several spans at once each count the whole process.
#[derive(Debug)]
pub struct Estimator {
    began: Instant,
    cpu_s: Option<f64>,
}

impl Estimator {
    /// Starts now.
    pub fn start() -> Self {
        Self { began: clock::now(), cpu_s: process_cpu_seconds() }
    }

    /// Processor seconds of this process since the start; none where the system does not tell.
    pub fn cpu_seconds(&self) -> Option<f64> {
        Some((process_cpu_seconds()? - self.cpu_s?).max(0.0))
    }

    /// Joules since the start; none if nothing is known or no processor time passed.
    pub fn stop(&self) -> Option<Joules> {
        let joules = joules(self.cpu_seconds()?);
        joules.mid.filter(|m| *m > 0.0).map(|_| joules)
    }

    /// Mean W since the start, the middle figure.
    pub fn watts(&self) -> Option<f64> {
        let seconds = clock::now().duration_since(self.began).as_secs_f64();
        Some(self.stop()?.mid? / seconds).filter(|w| w.is_finite())
    }
}

/// Joules of so many processor seconds on this machine.
pub fn joules(cpu_seconds: f64) -> Joules {
    let [low, mid, high] = processor().busy_w;
    Joules::range(low * cpu_seconds, mid * cpu_seconds, high * cpu_seconds, Basis::Utilisation)
}

/// Half the range over the middle: what a table states as its relative uncertainty.
pub fn relative_uncertainty() -> f64 {
    let [low, mid, high] = processor().busy_w;
    (high - low) / (2.0 * mid)
}

/// User and system seconds of this process, all threads; none off Linux.
pub fn process_cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    cpu_seconds_of(&stat)
}

/// Fields 14 and 15 of `/proc/PID/stat`; the name in field 2 may hold spaces and brackets.
pub fn cpu_seconds_of(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_S)
}

#[derive(Clone, Debug)]
struct Seen {
    name: String,
    logical: u32,
    packages: u32,
    virtual_machine: bool,
}

impl Seen {
    fn here() -> Self {
        Self::of(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    fn of(cpuinfo: &str) -> Self {
        let values = |key: &'static str| {
            cpuinfo
                .lines()
                .filter_map(move |l| l.split_once(':').filter(|(k, _)| k.trim() == key).map(|(_, v)| v.trim()))
        };
        let mut packages: Vec<&str> = values("physical id").collect();
        packages.sort_unstable();
        packages.dedup();
        Self {
            name: values("model name").next().unwrap_or_default().to_owned(),
            logical: u32::try_from(values("processor").count()).unwrap_or(u32::MAX).max(1),
            packages: u32::try_from(packages.len()).unwrap_or(u32::MAX).max(1),
            virtual_machine: values("flags").next().is_some_and(|f| f.split(' ').any(|w| w == "hypervisor")),
        }
    }
}

fn processor_of(seen: &Seen, stated_w: Option<f64>) -> Processor {
    let from_table = if seen.virtual_machine { None } else { tdp_of(&seen.name) };
    let tdp_w = stated_w.or(from_table);
    let (busy_w, why) = match tdp_w {
        Some(tdp) => {
            let each = tdp * f64::from(seen.packages) / f64::from(seen.logical);
            let origin = if stated_w.is_some() { "stated" } else { "by name" };
            let why = format!(
                "TDP {tdp} W ({origin}) x {} package(s) over {} logical processors, at 60, 90, 120 %",
                seen.packages, seen.logical
            );
            (OF_TDP.map(|share| share * each), why)
        }
        None if seen.virtual_machine => {
            (UNKNOWN_W, "a virtual machine: watts of one logical processor of today's parts".to_owned())
        }
        None => (UNKNOWN_W, "processor not in the table: watts of one logical processor of today's parts".to_owned()),
    };
    Processor { name: seen.name.clone(), tdp_w, busy_w, why }
}

/// TDP of a processor as the system names it. Trade marks, clock speeds and the words around the model's name go.
fn tdp_of(name: &str) -> Option<f64> {
    let wanted = plain(name);
    if wanted.is_empty() {
        return None;
    }
    let mut text = String::new();
    GzDecoder::new(TDP_GZ).read_to_string(&mut text).ok()?;
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let rows = reader.records().filter_map(Result::ok);
    let found = rows.filter(|r| r.get(0).is_some_and(|n| plain(n) == wanted));
    found.filter_map(|r| r.get(1)?.parse::<f64>().ok()).next().filter(|w| *w > 0.0)
}

fn plain(name: &str) -> String {
    let lower = name.to_lowercase().replace("(r)", " ").replace("(tm)", " ");
    let head = lower.split('@').next().unwrap_or_default();
    let noise = |w: &&str| {
        !matches!(*w, "cpu" | "processor" | "apu" | "gen" | "with" | "radeon" | "graphics")
            && !w.ends_with("-core")
            && !w.ends_with("th")
    };
    head.split_whitespace().filter(noise).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpuinfo(name: &str, logical: usize, flags: &str) -> String {
        let each = format!("model name\t: {name}\nphysical id\t: 0\nflags\t\t: fpu {flags}\n\n");
        (0..logical).map(|i| format!("processor\t: {i}\n{each}")).collect()
    }

    #[test]
    fn the_name_of_the_system_is_found_in_the_table() {
        for (name, tdp) in [
            ("AMD EPYC 9654 96-Core Processor", 360.0),
            ("Intel(R) Core(TM) i7-6900K CPU @ 3.20GHz", 140.0),
            ("Intel(R) Xeon(R) Platinum 9282 CPU @ 2.60GHz", 400.0),
        ] {
            assert_eq!(tdp_of(name), Some(tdp), "{name}");
        }
        assert_eq!(tdp_of("AMD EPYC"), None);
        assert_eq!(tdp_of(""), None);
    }

    #[test]
    fn bare_metal_shares_its_tdp_and_a_guest_says_that_it_cannot_know() {
        let metal = processor_of(&Seen::of(&cpuinfo("AMD EPYC 9654 96-Core Processor", 192, "sse2")), None);
        assert_eq!(metal.tdp_w, Some(360.0));
        assert!((metal.busy_w[1] - 0.9 * 360.0 / 192.0).abs() < 1e-9);
        let guest = processor_of(&Seen::of(&cpuinfo("AMD EPYC", 2, "sse2 hypervisor")), None);
        assert_eq!((guest.tdp_w, guest.busy_w), (None, UNKNOWN_W));
        assert!(guest.why.contains("virtual machine"));
        let stated = processor_of(&Seen::of(&cpuinfo("AMD EPYC", 2, "sse2 hypervisor")), Some(20.0));
        assert!((stated.busy_w[1] - 9.0).abs() < 1e-9);
        assert_eq!(processor_of(&Seen::of(""), None).busy_w, UNKNOWN_W);
    }

    #[test]
    fn processor_time_is_read_past_a_name_with_brackets() {
        let stat = "1 (a (b) c) R 1 1 1 0 -1 4194304 1 2 3 4 250 50 0 0 20 0 1 0";
        assert_eq!(cpu_seconds_of(stat), Some(3.0));
        assert_eq!(cpu_seconds_of("torn"), None);
    }

    #[tokio::test]
    async fn work_costs_joules_with_a_range_and_never_zero() {
        let meter = Estimator::start();
        let mut x = 1u64;
        while meter.cpu_seconds().is_some_and(|s| s < 0.05) {
            (0..100_000u64).for_each(|i| x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(i)));
        }
        let j = meter.stop().unwrap();
        assert!(j.low < j.mid && j.mid < j.high && j.basis == Basis::Utilisation, "{j:?}");
        assert!(meter.watts().unwrap() > 0.0);
        assert_eq!(Estimator { began: clock::now(), cpu_s: None }.stop(), None);
    }
}
