//! RAPL counters through the powercap tree: every package, its memory, and the platform where it has a zone.
//!
//! A zone's counter runs to `max_energy_range_uj` and starts again at 0; [`Rapl`] adds up the differences, so that its
//! readings never fall. The kernel lets only root read counters by default, and that is said with the file's name.

use std::path::{Path, PathBuf};

use crate::energy::Basis;
use crate::energy::meters::{Absent, Meter, Part, Rail, Reading, entries, number, word};

/// The counters are renewed about every millisecond.
const RENEWED_S: f64 = 0.001;
const JOULES_PER_MICROJOULE: f64 = 1e-6;

/// All readable zones.
pub struct Rapl {
    rails: Vec<Rail>,
    zones: Vec<Zone>,
}

struct Zone {
    counter: PathBuf,
    range_uj: f64,
    last_uj: Option<f64>,
    joules: f64,
}

impl Rapl {
    /// Opens every zone under `folder`.
    ///
    /// # Errors
    /// Says whether there is no zone at all or which file may not be read and how to allow it.
    pub fn open(folder: &Path) -> Result<Self, Absent> {
        let absent = |why: String, fix: Option<String>| Absent { meter: "rapl", why, fix };
        let mut meter = Self { rails: Vec::new(), zones: Vec::new() };
        let mut refused = None;
        // A control type's own folder has no counter; the memory-mapped twin of a package would count it twice.
        for zone in entries(folder) {
            let id = zone.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if !id.contains(':') || id.starts_with("intel-rapl-mmio") {
                continue;
            }
            let counter = zone.join("energy_uj");
            match std::fs::read_to_string(&counter) {
                Ok(_) => meter.add(&zone, &id, counter),
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => refused = Some(counter),
                Err(_) => {}
            }
        }
        if !meter.zones.is_empty() {
            return Ok(meter);
        }
        Err(match refused {
            Some(file) => absent(
                format!("{}: only root may read it", file.display()),
                Some(format!(
                    "sudo chmod a+r {}/*/energy_uj (until the next boot; a udev rule keeps it)",
                    folder.display()
                )),
            ),
            None => absent(format!("no zone under {} (usual in a virtual machine)", folder.display()), None),
        })
    }

    fn add(&mut self, zone: &Path, id: &str, counter: PathBuf) {
        let Some(name) = word(&zone.join("name")) else { return };
        let part = if name.starts_with("package") {
            Part::Package
        } else if name == "dram" {
            Part::Dram
        } else if name == "psys" {
            Part::Machine
        } else {
            Part::Inner
        };
        // Zones within a package repeat their names, so the package's number is added: intel-rapl:1:0 is in package 1.
        let socket = id.split(':').nth(1).unwrap_or("0");
        let rail = if name.starts_with("package") { name.clone() } else { format!("{name}-{socket}") };
        self.rails.push(Rail {
            name: format!("rapl/{rail}"),
            device: name,
            part,
            basis: Basis::Counter,
            uncertainty: None,
            renewed_s: RENEWED_S,
            cap_w: number(&zone.join("constraint_0_power_limit_uw")).map(|uw| uw * 1e-6),
        });
        let range_uj = number(&zone.join("max_energy_range_uj")).unwrap_or(0.0);
        self.zones.push(Zone { counter, range_uj, last_uj: None, joules: 0.0 });
    }
}

impl Meter for Rapl {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        out.clear();
        out.extend(self.zones.iter_mut().map(|zone| match number(&zone.counter) {
            Some(now) => Reading::Joules(zone.advance(now)),
            None => Reading::Missing,
        }));
    }
}

impl Zone {
    /// Joules since the first reading.
    fn advance(&mut self, now_uj: f64) -> f64 {
        let step = match self.last_uj {
            None => 0.0,
            Some(last) if now_uj >= last => now_uj - last,
            // It ran over. With no range stated the part before the wrap is lost rather than guessed.
            Some(last) if self.range_uj >= last => self.range_uj - last + now_uj,
            Some(_) => now_uj,
        };
        self.last_uj = Some(now_uj);
        self.joules += step * JOULES_PER_MICROJOULE;
        self.joules
    }
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::device;
    use super::*;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let full = "262143328850";
        device(root.path(), "intel-rapl", &[("enabled", "1")]);
        for (id, name) in [
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:1:0", "dram"),
            ("intel-rapl:2", "psys"),
            ("intel-rapl-mmio:0", "package-0"),
        ] {
            device(root.path(), id, &[("name", name), ("energy_uj", "1000000\n"), ("max_energy_range_uj", full)]);
        }
        root
    }

    #[test]
    fn every_socket_and_its_memory_are_rails_and_twins_are_not() {
        let root = tree();
        let meter = Rapl::open(root.path()).unwrap();
        let rails: Vec<_> = meter.rails().iter().map(|r| (r.name.as_str(), r.part)).collect();
        assert_eq!(
            rails,
            [
                ("rapl/package-0", Part::Package),
                ("rapl/core-0", Part::Inner),
                ("rapl/dram-0", Part::Dram),
                ("rapl/package-1", Part::Package),
                ("rapl/dram-1", Part::Dram),
                ("rapl/psys-2", Part::Machine),
            ]
        );
    }

    #[test]
    fn a_counter_that_runs_over_never_falls() {
        let root = tree();
        let file = root.path().join("intel-rapl:0/energy_uj");
        let mut meter = Rapl::open(root.path()).unwrap();
        let mut out = Vec::new();
        let mut read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            meter.read(&mut out);
            out[0]
        };
        assert_eq!(read("262143000000"), Reading::Joules(0.0));
        let Reading::Joules(over) = read("1671150") else { panic!("missing") };
        assert!((over - 2.0).abs() < 1e-9, "{over}");
        let Reading::Joules(on) = read("3671150") else { panic!("missing") };
        assert!((on - 4.0).abs() < 1e-9, "{on}");
        assert_eq!(read("torn"), Reading::Missing);
        // What happened while the file could not be read is counted once it can.
        assert_eq!(read("4671150"), Reading::Joules(on + 1.0));
    }

    #[test]
    fn a_file_that_may_not_be_read_is_named_with_what_allows_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tree();
        for id in entries(root.path()) {
            let file = id.join("energy_uj");
            if file.exists() {
                std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o000)).unwrap();
            }
        }
        // Root reads everything; then there is nothing to be refused.
        match Rapl::open(root.path()) {
            Err(absent) => {
                assert!(absent.why.contains("energy_uj: only root may read it"), "{absent:?}");
                assert!(absent.fix.unwrap().starts_with("sudo chmod a+r "));
            }
            Ok(meter) => assert_eq!(meter.rails().len(), 6),
        }
        let none = Rapl::open(&root.path().join("missing")).err().unwrap();
        assert!(none.why.starts_with("no zone under "), "{none:?}");
    }
}
