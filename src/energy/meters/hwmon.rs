//! GPUs and sockets that report through hardware monitors: AMD GPUs (power), Intel GPUs (energy), AMD sockets (energy).
//!
//! Invariant: one source per part. Sockets that RAPL counts too are shown and not added, and the power of an AMD GPU that sits
//! in a processor's package is the package's.

use std::path::{Path, PathBuf};

use crate::energy::Basis;
use crate::energy::meters::figure::Figure;
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
    Energy(Figure, Counter),
    Power(Figure),
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
    /// Opens the monitors under `folder`. `packages` says that another meter counts the processor's packages.
    ///
    /// # Errors
    /// Says which drivers were there if none reports energy or power of a GPU or socket.
    pub fn open(folder: &Path, packages: bool) -> Result<Self, Absent> {
        let mut meter = Self { rails: Vec::new(), sources: Vec::new() };
        let monitors: Vec<(PathBuf, String)> = entries(folder)
            .into_iter()
            .filter_map(|monitor| Some((monitor.clone(), word(&monitor.join("name"))?)))
            .collect();
        // Sockets first: whether something counts the packages decides what a GPU within one is.
        let mut counted = packages;
        for driver in SOCKETS {
            let part = if counted { Part::Inner } else { Part::Package };
            for (monitor, _) in monitors.iter().filter(|(_, name)| name == driver) {
                meter.sockets(monitor, driver, part);
            }
            counted |= meter.rails.iter().any(|rail| rail.part == Part::Package);
        }
        for (monitor, driver) in monitors.iter().filter(|(_, name)| GPUS.contains(&name.as_str())) {
            let id = monitor.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let part = match is_apu(monitor, driver) {
                true if counted => Part::Inner,
                true => Part::Package,
                false => Part::Gpu,
            };
            meter.gpu(monitor, driver, &id, part);
        }
        let drivers: Vec<String> = monitors.into_iter().map(|(_, driver)| driver).collect();
        if meter.sources.is_empty() {
            let seen = if drivers.is_empty() { "none".to_owned() } else { drivers.join(", ") };
            let why = format!("no GPU or socket with energy or power under {} (drivers: {seen})", folder.display());
            return Err(Absent { meter: "hwmon", why, fix: None });
        }
        Ok(meter)
    }

    /// A counter is preferred to power; AMD calls its power `average` on some parts and `input` on others.
    fn gpu(&mut self, monitor: &Path, driver: &str, id: &str, part: Part) {
        let name = format!("{driver}/{id}");
        let cap_w = ["power1_cap", "power1_max"].iter().find_map(|f| number(&monitor.join(f))).map(|uw| uw * MICRO);
        let counter = monitor.join("energy1_input");
        if number(&counter).is_some() {
            self.push(name, driver, part, cap_w, Source::Energy(Figure::of(counter), Counter::default()));
            return;
        }
        let power = ["power1_average", "power1_input"].map(|f| monitor.join(f));
        if let Some(file) = power.into_iter().find(|f| number(f).is_some()) {
            self.push(name, driver, part, cap_w, Source::Power(Figure::of(file)));
        }
    }

    fn sockets(&mut self, monitor: &Path, driver: &str, part: Part) {
        for file in entries(monitor) {
            let Some(stem) = file.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix("_label")) else {
                continue;
            };
            let Some(label) = word(&file).filter(|l| l.starts_with("Esocket")) else { continue };
            let counter = monitor.join(format!("{stem}_input"));
            if number(&counter).is_some() {
                let name = format!("{driver}/{label}");
                let source = Source::Energy(Figure::of(counter), Counter::default());
                self.push(name, driver, part, None, source);
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
            Source::Power(file) => file.number().map_or(Reading::Missing, |uw| Reading::Watts(uw * MICRO)),
            Source::Energy(file, counter) => {
                file.number().map_or(Reading::Missing, |uj| Reading::Joules(counter.advance(uj)))
            }
        }));
    }
}

/// Whether an AMD GPU shares its package with the processor: then its power is the whole package's. The driver gives the
/// north bridge's voltage of such parts only.
fn is_apu(monitor: &Path, driver: &str) -> bool {
    driver == "amdgpu" && word(&monitor.join("in1_label")).is_some_and(|label| label == "vddnb")
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
        let mut meter = Hwmon::open(root.path(), false).unwrap();
        let rails: Vec<_> = meter.rails().iter().map(|r| (r.name.as_str(), r.part, r.basis)).collect();
        assert_eq!(
            rails,
            [
                ("amd_energy/Esocket0", Part::Package, Basis::Counter),
                ("amdgpu/hwmon1", Part::Gpu, Basis::Power),
                ("xe/hwmon2", Part::Gpu, Basis::Counter),
            ]
        );
        assert_eq!(meter.rails()[1].cap_w, Some(200.0));
        let mut out = Vec::new();
        meter.read(&mut out);
        assert_eq!(out, [Reading::Joules(0.0), Reading::Watts(35.0), Reading::Joules(0.0)]);
        std::fs::write(intel.join("energy1_input"), "8000000").unwrap();
        meter.read(&mut out);
        assert_eq!(out[2], Reading::Joules(3.0));
        // The driver was loaded anew: nothing is taken back, and counting goes on from there.
        std::fs::write(intel.join("energy1_input"), "1000000").unwrap();
        meter.read(&mut out);
        assert_eq!(out[2], Reading::Joules(3.0));
        std::fs::write(intel.join("energy1_input"), "2000000").unwrap();
        meter.read(&mut out);
        assert_eq!(out[2], Reading::Joules(4.0));
        std::fs::remove_file(intel.join("energy1_input")).unwrap();
        meter.read(&mut out);
        assert_eq!(out[2], Reading::Missing);
    }

    #[test]
    fn a_package_has_one_source_whoever_else_reports_it() {
        let socket = [("name", "zenergy"), ("energy1_label", "Esocket0"), ("energy1_input", "77")];
        let apu = [("name", "amdgpu"), ("in1_label", "vddnb"), ("power1_average", "15000000")];
        let card = [("name", "amdgpu"), ("power1_average", "35000000")];
        let parts = |devices: &[&[(&str, &str)]], packages: bool| -> Vec<Part> {
            let root = tempfile::tempdir().unwrap();
            for (i, files) in devices.iter().enumerate() {
                device(root.path(), &format!("hwmon{i}"), files);
            }
            Hwmon::open(root.path(), packages).unwrap().rails().iter().map(|rail| rail.part).collect()
        };
        assert_eq!(parts(&[&socket], false), [Part::Package]);
        assert_eq!(parts(&[&socket], true), [Part::Inner]);
        assert_eq!(parts(&[&apu], false), [Part::Package]);
        assert_eq!(parts(&[&apu], true), [Part::Inner]);
        assert_eq!(parts(&[&apu, &socket], false), [Part::Package, Part::Inner]);
        assert_eq!(parts(&[&apu, &card, &socket], true), [Part::Inner, Part::Inner, Part::Gpu]);
        let both = [("name", "amd_energy"), ("energy1_label", "Esocket0"), ("energy1_input", "5")];
        assert_eq!(parts(&[&both, &socket], false), [Part::Package, Part::Inner], "two drivers of one socket");
    }

    #[test]
    fn a_machine_without_them_says_what_it_has() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "hwmon0", &[("name", "coretemp")]);
        let absent = Hwmon::open(root.path(), false).err().unwrap();
        assert!(absent.why.ends_with("(drivers: coretemp)"), "{absent:?}");
    }
}
