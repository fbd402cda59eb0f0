//! A laptop's battery while it discharges: then its power is the whole machine's.
//!
//! On mains the figure is the charger's business and tells nothing, so it is [`Reading::Missing`].

use std::path::{Path, PathBuf};

use crate::energy::Basis;
use crate::energy::meters::{Absent, Meter, Part, Rail, Reading, entries, number, word};

/// Fuel gauges renew their figures about once a second, many more slowly.
const RENEWED_S: f64 = 1.0;
/// Fuel gauges are good to a few percent; an assumption.
const UNCERTAINTY: f64 = 0.05;
const MICRO: f64 = 1e-6;

/// All batteries, as one rail: they feed the same machine.
pub struct Battery {
    rails: [Rail; 1],
    supplies: Vec<PathBuf>,
}

impl Battery {
    /// Opens the batteries under `folder`.
    ///
    /// # Errors
    /// There is none that states power, or current and voltage.
    pub fn open(folder: &Path) -> Result<Self, Absent> {
        let supplies: Vec<PathBuf> = entries(folder)
            .into_iter()
            .filter(|s| word(&s.join("type")).is_some_and(|t| t == "Battery"))
            // A mouse has a battery too; its scope says so.
            .filter(|s| word(&s.join("scope")).is_none_or(|scope| scope != "Device"))
            .filter(|s| watts(s).is_some())
            .collect();
        if supplies.is_empty() {
            let why = format!("no battery that states its power under {}", folder.display());
            return Err(Absent { meter: "battery", why, fix: None });
        }
        let name = |s: &PathBuf| word(&s.join("model_name")).unwrap_or_default();
        let rail = Rail {
            name: "battery/discharge".to_owned(),
            device: supplies.iter().map(name).collect::<Vec<_>>().join(" + "),
            part: Part::Machine,
            basis: Basis::Power,
            uncertainty: Some(UNCERTAINTY),
            renewed_s: RENEWED_S,
            cap_w: None,
        };
        Ok(Self { rails: [rail], supplies })
    }
}

impl Meter for Battery {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        out.clear();
        let discharging = |s: &&PathBuf| word(&s.join("status")).is_some_and(|status| status == "Discharging");
        let each: Vec<Option<f64>> = self.supplies.iter().filter(discharging).map(|s| watts(s)).collect();
        let sum: Option<f64> = each.iter().copied().sum();
        out.push(sum.filter(|_| !each.is_empty()).map_or(Reading::Missing, Reading::Watts));
    }
}

/// Power as stated, else current times voltage; drivers differ in the sign while discharging.
fn watts(supply: &Path) -> Option<f64> {
    let micro = |file: &str| number(&supply.join(file)).map(|x| x.abs() * MICRO);
    micro("power_now").or_else(|| Some(micro("current_now")? * micro("voltage_now")?))
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::device;
    use super::*;

    #[test]
    fn power_is_known_only_while_the_battery_discharges() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "AC", &[("type", "Mains"), ("online", "1")]);
        device(root.path(), "mouse", &[("type", "Battery"), ("scope", "Device"), ("power_now", "1")]);
        let one = device(
            root.path(),
            "BAT0",
            &[("type", "Battery"), ("status", "Discharging"), ("current_now", "-1500000"), ("voltage_now", "12000000")],
        );
        let mut meter = Battery::open(root.path()).unwrap();
        let mut out = Vec::new();
        meter.read(&mut out);
        assert_eq!(out, [Reading::Watts(18.0)]);
        std::fs::write(one.join("status"), "Charging").unwrap();
        meter.read(&mut out);
        assert_eq!(out, [Reading::Missing]);
        device(root.path(), "BAT1", &[("type", "Battery"), ("status", "Discharging"), ("power_now", "7000000")]);
        std::fs::write(one.join("status"), "Discharging").unwrap();
        let mut both = Battery::open(root.path()).unwrap();
        both.read(&mut out);
        assert_eq!(out, [Reading::Watts(25.0)]);
        assert!(Battery::open(&root.path().join("none")).is_err());
    }
}
