//! RAPL counters through the powercap tree: every package, its memory, and the platform where it has a zone.
//!
//! A zone's counter runs to `max_energy_range_uj` and starts again at 0; [`Rapl`] adds up the differences, so that its
//! readings never fall. The kernel lets only root read counters by default, and that is said with the file's name.

use std::path::{Path, PathBuf};

use crate::energy::Basis;
use crate::energy::meters::figure::Figure;
use crate::energy::meters::{Absent, Meter, Part, Rail, Reading, entries, number, word};

/// The counters are renewed about every millisecond.
const RENEWED_S: f64 = 0.001;
const JOULES_PER_MICROJOULE: f64 = 1e-6;

/// All readable zones.
pub struct Rapl {
    rails: Vec<Rail>,
    zones: Vec<Zone>,
    refused: Option<Absent>,
}

struct Zone {
    counter: Figure,
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
        Self::open_by(folder, |counter| std::fs::read_to_string(counter).map(drop))
    }

    /// Zones that may not be read where others may.
    pub fn refused(&self) -> Option<&Absent> {
        self.refused.as_ref()
    }

    fn open_by(folder: &Path, probe: impl Fn(&Path) -> std::io::Result<()>) -> Result<Self, Absent> {
        let mut meter = Self { rails: Vec::new(), zones: Vec::new(), refused: None };
        let mut refused = Vec::new();
        // A control type's own folder has no counter; the memory-mapped twin of a package would count it twice.
        for zone in entries(folder) {
            let id = zone.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if !id.contains(':') || id.starts_with("intel-rapl-mmio") {
                continue;
            }
            let counter = zone.join("energy_uj");
            match probe(&counter) {
                Ok(()) => meter.add(&zone, &id, counter),
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => refused.push(counter),
                Err(_) => {}
            }
        }
        let refused = refusal(&refused, folder);
        if !meter.zones.is_empty() {
            meter.refused = refused;
            return Ok(meter);
        }
        Err(refused.unwrap_or_else(|| Absent {
            meter: "rapl",
            why: format!("no zone under {} (usual in a virtual machine)", folder.display()),
            fix: None,
        }))
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
        self.zones.push(Zone { counter: Figure::of(counter), range_uj, last_uj: None, joules: 0.0 });
    }
}

impl Meter for Rapl {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        out.clear();
        out.extend(self.zones.iter_mut().map(|zone| match zone.counter.number() {
            Some(now) => Reading::Joules(zone.advance(now)),
            None => Reading::Missing,
        }));
    }
}

/// What to say of counters that this user may not read; none where there are none.
fn refusal(counters: &[PathBuf], folder: &Path) -> Option<Absent> {
    let first = counters.first()?;
    let others = match counters.len() {
        1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    Some(Absent {
        meter: "rapl",
        why: format!("{}: only root may read it{others}", first.display()),
        fix: Some(format!(
            "sudo chmod a+r {}/*/energy_uj (until the next boot; a udev rule keeps it)",
            folder.display()
        )),
    })
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
    fn what_only_root_may_read_is_named_with_what_allows_it() {
        let folder = Path::new("/sys/class/powercap");
        assert_eq!(refusal(&[], folder), None);
        let zone = |id: &str| folder.join(id).join("energy_uj");
        let one = refusal(&[zone("intel-rapl:0")], folder).unwrap();
        assert_eq!(one.why, "/sys/class/powercap/intel-rapl:0/energy_uj: only root may read it");
        assert!(one.fix.unwrap().starts_with("sudo chmod a+r /sys/class/powercap/*/energy_uj "));
        let two = refusal(&[zone("intel-rapl:0"), zone("intel-rapl:1")], folder).unwrap();
        assert!(two.why.ends_with("only root may read it (and 1 more)"), "{two:?}");
    }

    #[test]
    fn a_refused_zone_is_said_beside_the_readable_ones_too() {
        let root = tree();
        let denied = || Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        let some =
            Rapl::open_by(root.path(), |file| if file.ends_with("intel-rapl:1/energy_uj") { denied() } else { Ok(()) });
        let some = some.unwrap();
        assert_eq!(some.rails().len(), 5);
        assert!(some.refused().unwrap().why.contains("intel-rapl:1/energy_uj: only root may read it"));
        let none = Rapl::open_by(root.path(), |_| denied()).err().unwrap();
        assert!(none.why.ends_with("only root may read it (and 5 more)"), "{none:?}");
        assert!(Rapl::open(root.path()).unwrap().refused().is_none());
        let nothing = Rapl::open(&root.path().join("missing")).err().unwrap();
        assert!(nothing.why.starts_with("no zone under "), "{nothing:?}");
    }
}
