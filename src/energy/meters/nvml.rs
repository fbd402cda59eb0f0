//! NVIDIA GPUs through the management library, loaded at run time: every GPU a rail.
//!
//! The energy counter (Volta and later) is preferred to power. Only this file knows the library.

use nvml_wrapper::Nvml as Library;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;

use crate::energy::Basis;
use crate::energy::meters::{Absent, Meter, Part, Rail, Reading};

/// The counter is renewed about every 100 ms, and `power.draw` is a mean over up to a second on recent parts.
const COUNTER_RENEWED_S: f64 = 0.1;
const POWER_RENEWED_S: f64 = 1.0;
const MILLI: f64 = 1e-3;

/// All GPUs of the library.
pub struct Nvml {
    library: Library,
    rails: Vec<Rail>,
    gpus: Vec<Gpu>,
}

struct Gpu {
    index: u32,
    counter: bool,
    /// Millijoules at the first reading since the driver was loaded.
    first_mj: Option<u64>,
    /// Joules counted before that.
    base_j: f64,
    /// Joules counted in all.
    joules: f64,
}

impl Nvml {
    /// Loads the library and lists the GPUs.
    ///
    /// # Errors
    /// The library is not there, there is no GPU, or none tells energy or power.
    pub fn open() -> Result<Self, Absent> {
        let absent = |why: String, fix: Option<&str>| Absent { meter: "nvml", why, fix: fix.map(str::to_owned) };
        let library = Library::init().map_err(|e| {
            absent(format!("the NVIDIA library did not load: {e}"), Some("install NVIDIA's driver, if there is a GPU"))
        })?;
        let count = library.device_count().map_err(|e| absent(format!("GPUs could not be listed: {e}"), None))?;
        let driver = library.sys_driver_version().unwrap_or_default();
        let mut meter = Self { library, rails: Vec::new(), gpus: Vec::new() };
        for index in 0..count {
            meter.add(index, &driver);
        }
        if meter.gpus.is_empty() {
            return Err(absent(format!("{count} GPUs, none of which tells energy or power"), None));
        }
        Ok(meter)
    }

    fn add(&mut self, index: u32, driver: &str) {
        let Ok(device) = self.library.device_by_index(index) else { return };
        let counter = device.total_energy_consumption().is_ok();
        if !counter && device.power_usage().is_err() {
            return;
        }
        let name = device.name().unwrap_or_default();
        self.rails.push(Rail {
            name: format!("nvml/gpu-{index}"),
            device: format!("{name}, driver {driver}"),
            part: Part::Gpu,
            basis: if counter { Basis::Counter } else { Basis::Power },
            uncertainty: None,
            renewed_s: if counter { COUNTER_RENEWED_S } else { POWER_RENEWED_S },
            cap_w: device.enforced_power_limit().ok().map(|mw| f64::from(mw) * MILLI),
        });
        self.gpus.push(Gpu { index, counter, first_mj: None, base_j: 0.0, joules: 0.0 });
    }
}

impl Meter for Nvml {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        out.clear();
        for gpu in &mut self.gpus {
            // A GPU that fell off the bus is missing, and may come back.
            let device = self.library.device_by_index(gpu.index);
            out.push(match device {
                Err(_) => Reading::Missing,
                Ok(device) if gpu.counter => {
                    device.total_energy_consumption().map_or(Reading::Missing, |mj| gpu.count(mj))
                }
                Ok(device) => device.power_usage().map_or(Reading::Missing, |mw| Reading::Watts(f64::from(mw) * MILLI)),
            });
        }
    }
}

/// Temperature of every GPU, degrees Celsius; nothing without the library.
pub fn celsius() -> Vec<(String, f64)> {
    let Ok(library) = Library::init() else { return Vec::new() };
    let of = |index| library.device_by_index(index).and_then(|device| device.temperature(TemperatureSensor::Gpu));
    let gpus = 0..library.device_count().unwrap_or(0);
    gpus.filter_map(|index| Some((format!("nvml {index}"), f64::from(of(index).ok()?)))).collect()
}

impl Gpu {
    /// The counter starts at 0 when the driver is loaded anew; nothing counted so far is taken back.
    #[expect(clippy::cast_precision_loss, reason = "2^53 mJ are 9e12 J")]
    fn count(&mut self, now_mj: u64) -> Reading {
        let first = *self.first_mj.get_or_insert(now_mj);
        match now_mj.checked_sub(first) {
            Some(since) => self.joules = self.joules.max(self.base_j + since as f64 * MILLI),
            None => (self.first_mj, self.base_j) = (Some(now_mj), self.joules),
        }
        Reading::Joules(self.joules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_is_loaded_anew_takes_nothing_back() {
        let mut gpu = Gpu { index: 0, counter: true, first_mj: None, base_j: 0.0, joules: 0.0 };
        let said: Vec<_> = [5_000, 8_000, 1_000, 2_500].map(|mj| gpu.count(mj)).into();
        assert_eq!(said, [0.0, 3.0, 3.0, 4.5].map(Reading::Joules));
    }

    #[test]
    fn a_machine_without_the_library_says_so() {
        match Nvml::open() {
            Ok(meter) => assert!(!meter.rails().is_empty()),
            Err(absent) => assert!(!absent.why.is_empty() && absent.meter == "nvml"),
        }
    }
}
