//! GPUs and sockets that report through hardware monitors: AMD GPUs (power), Intel GPUs (energy), AMD sockets (energy).

use std::path::{Path, PathBuf};

use crate::energy::Basis;
use crate::energy::meters::{Absent, Meter, Part, Rail, Reading, entries, number, word};

/// Drivers whose figures are about a GPU.
const GPUS: [&str; 3] = ["amdgpu", "i915", "xe"];
/// Drivers whose energy counters labelled `Esocket` are processor packages.
const SOCKETS: [&str; 2] = ["amd_energy", "zenergy"];
/// AMD's firmware averages power over about this long; Intel's counter is finer.
const POWER_RENEWED_S: f64 = 0.1;
const COUNTER_RENEWED_S: f64 = 0.01;
/// Microjoules and microwatts.
const MICRO: f64 = 1e-6;

/// All monitors that report energy or power.
pub struct Hwmon {
    rails: Vec<Rail>,
    sources: Vec<Source>,
}

enum Source {
    Energy(PathBuf, Counter),
    Power(PathBuf),
}

/// A counter that may start at 0 again when its driver is loaded anew.
#[derive(Default)]
struct Counter {
    last_uj: Option<f64>,
    joules: f64,
}

impl Counter {
    /// Joules since the first reading; nothing counted so far is taken back.
    fn advance(&mut self, now_uj: f64) -> f64 {
        self.joules += self.last_uj.map_or(0.0, |last| (now_uj - last).max(0.0) * MICRO);
        self.last_uj = Some(now_uj);
        self.joules
    }
}

impl Hwmon {
    /// Opens the monitors under `folder`.
    ///
    /// # Errors
    /// Says which drivers were there if none reports energy or power of a GPU or socket.
    pub fn open(folder: &Path) -> Result<Self, Absent> {
        let mut meter = Self { rails: Vec::new(), sources: Vec::new() };
        let mut drivers = Vec::new();
        for monitor in entries(folder) {
            let Some(driver) = word(&monitor.join("name")) else { continue };
            let id = monitor.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if GPUS.contains(&driver.as_str()) {
                meter.gpu(&monitor, &driver, &id);
            } else if SOCKETS.contains(&driver.as_str()) {
                meter.sockets(&monitor, &driver);
            }
            drivers.push(driver);
        }
        if meter.sources.is_empty() {
            let seen = if drivers.is_empty() { "none".to_owned() } else { drivers.join(", ") };
            let why = format!("no GPU or socket with energy or power under {} (drivers: {seen})", folder.display());
            return Err(Absent { meter: "hwmon", why, fix: None });
        }
        Ok(meter)
    }

    /// A counter is preferred to power; AMD calls its power `average` on some parts and `input` on others.
    fn gpu(&mut self, monitor: &Path, driver: &str, id: &str) {
        let name = format!("{driver}/{id}");
        let cap_w = ["power1_cap", "power1_max"].iter().find_map(|f| number(&monitor.join(f))).map(|uw| uw * MICRO);
        let counter = monitor.join("energy1_input");
        if number(&counter).is_some() {
            self.push(name, driver, Part::Gpu, cap_w, Source::Energy(counter, Counter::default()));
            return;
        }
        let power = ["power1_average", "power1_input"].map(|f| monitor.join(f));
        if let Some(file) = power.into_iter().find(|f| number(f).is_some()) {
            self.push(name, driver, Part::Gpu, cap_w, Source::Power(file));
        }
    }

    fn sockets(&mut self, monitor: &Path, driver: &str) {
        for file in entries(monitor) {
            let Some(stem) = file.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix("_label")) else {
                continue;
            };
            let Some(label) = word(&file).filter(|l| l.starts_with("Esocket")) else { continue };
            let counter = monitor.join(format!("{stem}_input"));
            if number(&counter).is_some() {
                let name = format!("{driver}/{label}");
                let source = Source::Energy(counter, Counter::default());
                self.push(name, driver, Part::Package, None, source);
            }
        }
    }

    fn push(&mut self, name: String, driver: &str, part: Part, cap_w: Option<f64>, source: Source) {
        let (basis, renewed_s) = match source {
            Source::Energy(..) => (Basis::Counter, COUNTER_RENEWED_S),
            Source::Power(_) => (Basis::Power, POWER_RENEWED_S),
        };
        self.rails.push(Rail { name, device: driver.to_owned(), part, basis, uncertainty: None, renewed_s, cap_w });
        self.sources.push(source);
    }
}

impl Meter for Hwmon {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        out.clear();
        out.extend(self.sources.iter_mut().map(|source| match source {
            Source::Power(file) => number(file).map_or(Reading::Missing, |uw| Reading::Watts(uw * MICRO)),
            Source::Energy(file, counter) => {
                number(file).map_or(Reading::Missing, |uj| Reading::Joules(counter.advance(uj)))
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::device;
    use super::*;

    #[test]
    fn gpus_and_sockets_are_found_and_other_monitors_are_not() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "hwmon0", &[("name", "coretemp"), ("temp1_input", "40000")]);
        device(root.path(), "hwmon1", &[("name", "amdgpu"), ("power1_average", "35000000"), ("power1_cap", "2e8")]);
        let intel = device(root.path(), "hwmon2", &[("name", "xe"), ("energy1_input", "5000000")]);
        device(
            root.path(),
            "hwmon3",
            &[
                ("name", "amd_energy"),
                ("energy1_label", "Ecore000"),
                ("energy1_input", "9"),
                ("energy2_label", "Esocket0"),
                ("energy2_input", "77"),
            ],
        );
        let mut meter = Hwmon::open(root.path()).unwrap();
        let rails: Vec<_> = meter.rails().iter().map(|r| (r.name.as_str(), r.part, r.basis)).collect();
        assert_eq!(
            rails,
            [
                ("amdgpu/hwmon1", Part::Gpu, Basis::Power),
                ("xe/hwmon2", Part::Gpu, Basis::Counter),
                ("amd_energy/Esocket0", Part::Package, Basis::Counter),
            ]
        );
        assert_eq!(meter.rails()[0].cap_w, Some(200.0));
        let mut out = Vec::new();
        meter.read(&mut out);
        assert_eq!(out, [Reading::Watts(35.0), Reading::Joules(0.0), Reading::Joules(0.0)]);
        std::fs::write(intel.join("energy1_input"), "8000000").unwrap();
        meter.read(&mut out);
        assert_eq!(out[1], Reading::Joules(3.0));
        // The driver was loaded anew: nothing is taken back, and counting goes on from there.
        std::fs::write(intel.join("energy1_input"), "1000000").unwrap();
        meter.read(&mut out);
        assert_eq!(out[1], Reading::Joules(3.0));
        std::fs::write(intel.join("energy1_input"), "2000000").unwrap();
        meter.read(&mut out);
        assert_eq!(out[1], Reading::Joules(4.0));
        std::fs::remove_file(intel.join("energy1_input")).unwrap();
        meter.read(&mut out);
        assert_eq!(out[1], Reading::Missing);
    }

    #[test]
    fn a_machine_without_them_says_what_it_has() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "hwmon0", &[("name", "coretemp")]);
        let absent = Hwmon::open(root.path()).err().unwrap();
        assert!(absent.why.ends_with("(drivers: coretemp)"), "{absent:?}");
    }
}
