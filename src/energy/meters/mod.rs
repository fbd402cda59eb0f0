//! What can be read on this machine: one [`Meter`] per source, each with its rails, and why the others are not there.
//!
//! A meter reads; it never waits, divides or attributes. Invariant: a rail that could not be read says [`Reading::Missing`],
//! never 0. Every meter takes the folder or command it reads as an argument, so that tests give it recorded ones.

pub mod battery;
pub mod figure;
pub mod heat;
pub mod hwmon;
pub mod nvml;
pub mod piped;
pub mod process;
pub mod processor;
pub mod rapl;
pub mod wall;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::energy::Basis;

/// What a rail feeds. Parts add up; a whole contains them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// One GPU with its memory.
    Gpu,
    /// One processor package with its cores.
    Package,
    /// Main memory.
    Dram,
    /// The whole machine behind its battery or platform sensor.
    Machine,
    /// The whole machine at the plug, losses included.
    Wall,
    /// Contained in another rail; shown, never added.
    Inner,
}

/// One source of joules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rail {
    /// Unique name, `meter/rail`, such as `rapl/package-0`.
    pub name: String,
    /// The device as it names itself; may be empty.
    pub device: String,
    /// What it feeds.
    pub part: Part,
    /// Where its joules come from.
    pub basis: Basis,
    /// Relative uncertainty if stated, as half the range over the middle.
    pub uncertainty: Option<f64>,
    /// How often the hardware renews the figure, in seconds.
    pub renewed_s: f64,
    /// Power cap in W, where the device has one.
    pub cap_w: Option<f64>,
}

/// What a rail said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// A counter in joules that never falls: the meter has taken wraparounds out.
    Joules(f64),
    /// Power now, in watts.
    Watts(f64),
    /// Nothing could be read.
    Missing,
}

/// A source that can be read. Reading must take well under a millisecond and must not block.
pub trait Meter: Send {
    /// Rails, in the order of [`Meter::read`].
    fn rails(&self) -> &[Rail];
    /// Reads every rail; `out` is cleared and gets as many readings as there are rails.
    fn read(&mut self, out: &mut Vec<Reading>);
    /// Why nothing can be read at the moment, where the meter knows more than that.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// A source that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// The meter's name: `nvml`, `rapl`, `hwmon`, `battery`, `wall`.
    pub meter: &'static str,
    /// What was looked for and what came back.
    pub why: String,
    /// What would change that, if anything would.
    pub fix: Option<String>,
}

/// All that was found.
#[derive(Default)]
pub struct Found {
    /// Meters that can be read.
    pub meters: Vec<Box<dyn Meter>>,
    /// Those that cannot, with reasons.
    pub absent: Vec<Absent>,
}

impl Found {
    fn add<M: Meter + 'static>(&mut self, found: Result<M, Absent>) {
        match found {
            Ok(meter) => self.meters.push(Box::new(meter)),
            Err(absent) => self.absent.push(absent),
        }
    }

    /// Rails of all meters, in the order they are read.
    pub fn rails(&self) -> Vec<Rail> {
        self.meters.iter().flat_map(|m| m.rails().iter().cloned()).collect()
    }
}

/// Where to look. The defaults are this machine's; tests give trees of their own.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of powercap zones.
    pub powercap: PathBuf,
    /// The folder of hardware monitors.
    pub hwmon: PathBuf,
    /// The folder of power supplies.
    pub supplies: PathBuf,
    /// The folder of the process table.
    pub proc: PathBuf,
    /// A configured meter at the plug.
    pub wall: Option<crate::config::checked::Wall>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            powercap: PathBuf::from("/sys/class/powercap"),
            hwmon: PathBuf::from("/sys/class/hwmon"),
            supplies: PathBuf::from("/sys/class/power_supply"),
            proc: PathBuf::from("/proc"),
            wall: None,
        }
    }
}

impl Places {
    /// Where this configuration says that meters are.
    pub fn of(energy: &crate::config::checked::Energy) -> Self {
        let class = energy.sysfs.join("class");
        let (powercap, hwmon, supplies) = (class.join("powercap"), class.join("hwmon"), class.join("power_supply"));
        Self { powercap, hwmon, supplies, wall: energy.wall.clone(), ..Self::default() }
    }
}

/// Looks for every kind of meter. The estimator over processor time comes last and is always there on Linux.
pub fn discover(places: &Places) -> Found {
    let mut found = Found::default();
    if let Some(source) = &places.wall {
        found.add(wall::Wall::open(source));
    }
    found.add(nvml::Nvml::open());
    let rapl = rapl::Rapl::open(&places.powercap);
    let packages = rapl.as_ref().is_ok_and(|rapl| rapl.rails().iter().any(|rail| rail.part == Part::Package));
    found.absent.extend(rapl.as_ref().ok().and_then(|rapl| rapl.refused().cloned()));
    found.add(rapl);
    found.add(hwmon::Hwmon::open(&places.hwmon, packages));
    found.add(battery::Battery::open(&places.supplies));
    #[cfg(target_os = "macos")]
    found.add(piped::macmon());
    found.add(processor::Processor::open(&places.proc));
    found
}

/// The same for a model that runs in this process: where no sensor reads the processor, its own time stands for it rather
/// than the whole machine's, which other programs share.
pub fn discover_own(places: &Places) -> Found {
    let mut found = discover(places);
    let sensed = found.rails().iter().any(|r| r.part == Part::Package && r.basis < Basis::Utilisation);
    let guess = found.meters.iter().position(|m| m.rails().iter().all(|r| r.basis == Basis::Utilisation));
    if let (false, Some(guess), Ok(own)) = (sensed, guess, process::Process::open(&places.proc))
        && let Some(place) = found.meters.get_mut(guess)
    {
        *place = Box::new(own);
    }
    found
}

/// Which rails make up the machine's total without counting a joule twice: the plug if there is one; else the parts with a
/// sensor, the estimator standing in for a package that has none; else the machine's own sensor.
pub fn total_of(rails: &[Rail]) -> Vec<usize> {
    let with = |wanted: &dyn Fn(&Rail) -> bool| -> Vec<usize> {
        rails.iter().enumerate().filter(|(_, r)| wanted(r)).map(|(i, _)| i).collect()
    };
    let wall = with(&|r| r.part == Part::Wall);
    if let Some(first) = wall.first() {
        return vec![*first];
    }
    let sensed_package = rails.iter().any(|r| r.part == Part::Package && r.basis < Basis::Utilisation);
    let machine = with(&|r| r.part == Part::Machine);
    if !sensed_package && let Some(first) = machine.first() {
        return vec![*first];
    }
    with(&|r| match r.part {
        Part::Gpu | Part::Dram => true,
        Part::Package => !sensed_package || r.basis < Basis::Utilisation,
        Part::Machine | Part::Wall | Part::Inner => false,
    })
}

/// A file's first number.
fn number(path: &Path) -> Option<f64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok().filter(|x: &f64| x.is_finite())
}

/// A file's text without its end of line.
fn word(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Entries of a folder, sorted by name; empty if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|e| e.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod sysfs {
    use std::path::{Path, PathBuf};

    /// A device's folder in a made-up tree of the kernel's, with its files.
    pub fn device(root: &Path, id: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = root.join(id);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rail(part: Part, basis: Basis) -> Rail {
        Rail {
            name: format!("{part:?}"),
            device: String::new(),
            part,
            basis,
            uncertainty: None,
            renewed_s: 0.0,
            cap_w: None,
        }
    }

    #[test]
    fn no_joule_is_counted_twice() {
        let guess = rail(Part::Package, Basis::Utilisation);
        let package = rail(Part::Package, Basis::Counter);
        let dram = rail(Part::Dram, Basis::Counter);
        let gpu = rail(Part::Gpu, Basis::Counter);
        let machine = rail(Part::Machine, Basis::Power);
        let wall = rail(Part::Wall, Basis::Power);
        let inner = rail(Part::Inner, Basis::Counter);
        for (rails, want) in [
            (vec![guess.clone()], vec![0]),
            (vec![gpu.clone(), guess.clone()], vec![0, 1]),
            (vec![package.clone(), inner, dram, guess.clone()], vec![0, 2]),
            (vec![package.clone(), package.clone(), gpu.clone()], vec![0, 1, 2]),
            (vec![package.clone(), machine.clone()], vec![0]),
            (vec![gpu, machine, guess], vec![1]),
            (vec![package, wall], vec![1]),
            (vec![], vec![]),
        ] {
            assert_eq!(total_of(&rails), want, "{rails:?}");
        }
    }

    #[test]
    fn a_package_that_two_drivers_report_is_in_the_total_once() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let zone = [("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "1000")];
        sysfs::device(&at("powercap"), "intel-rapl:0", &zone);
        let socket = [("name", "zenergy"), ("energy1_label", "Esocket0"), ("energy1_input", "77")];
        sysfs::device(&at("hwmon"), "hwmon0", &socket);
        let apu = [("name", "amdgpu"), ("in1_label", "vddnb"), ("power1_average", "15000000")];
        sysfs::device(&at("hwmon"), "hwmon1", &apu);
        let places =
            Places { powercap: at("powercap"), hwmon: at("hwmon"), supplies: at("none"), proc: at("none"), wall: None };
        let total = |places: &Places| -> Vec<String> {
            // A GPU of this machine's own is none of these.
            let rails: Vec<Rail> =
                discover(places).rails().into_iter().filter(|r| !r.name.starts_with("nvml")).collect();
            total_of(&rails).into_iter().map(|i| rails[i].name.clone()).collect()
        };
        assert_eq!(total(&places), ["rapl/package-0"]);
        let without = Places { powercap: at("none"), ..places };
        assert_eq!(total(&without), ["zenergy/Esocket0"]);
    }

    #[test]
    fn an_empty_machine_has_reasons_for_every_meter() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("nothing");
        let places = Places {
            powercap: nowhere.clone(),
            hwmon: nowhere.clone(),
            supplies: nowhere.clone(),
            proc: nowhere,
            wall: None,
        };
        let found = discover(&places);
        let absent: Vec<_> = found.absent.iter().map(|a| a.meter).collect();
        assert!(absent.ends_with(&["rapl", "hwmon", "battery", "processor"]), "{absent:?}");
        assert!(found.absent.iter().all(|a| !a.why.is_empty()));
    }
}
