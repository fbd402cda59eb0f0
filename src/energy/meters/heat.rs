//! How warm processors and GPUs are. For records alone: no joule depends on it, but a warm machine draws more for the same work.

use std::collections::BTreeMap;
use std::path::Path;

use super::{entries, number, nvml, word};

/// Drivers whose first temperature is that of a package or a GPU.
const DRIVERS: [&str; 6] = ["amdgpu", "coretemp", "i915", "k10temp", "xe", "zenpower"];
/// Thousandths of a degree.
const MILLI: f64 = 1e-3;

/// Degrees Celsius by sensor: the hardware monitors under `hwmon`, and NVIDIA's GPUs. Empty where there are none.
pub fn celsius(hwmon: &Path) -> BTreeMap<String, f64> {
    let monitors = entries(hwmon).into_iter().filter_map(|monitor| {
        let driver = word(&monitor.join("name")).filter(|driver| DRIVERS.contains(&driver.as_str()))?;
        let degrees = number(&monitor.join("temp1_input"))? * MILLI;
        let id = monitor.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Some((format!("{driver}/{id}"), degrees))
    });
    monitors.chain(nvml::celsius()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_and_gpus_have_a_temperature_and_disks_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for (id, driver, milli) in
            [("hwmon0", "k10temp", "61250"), ("hwmon1", "nvme", "40000"), ("hwmon2", "amdgpu", "")]
        {
            let monitor = folder.path().join(id);
            std::fs::create_dir(&monitor).unwrap();
            std::fs::write(monitor.join("name"), format!("{driver}\n")).unwrap();
            std::fs::write(monitor.join("temp1_input"), milli).unwrap();
        }
        let monitors: Vec<(String, f64)> =
            celsius(folder.path()).into_iter().filter(|(name, _)| name.contains('/')).collect();
        assert_eq!(monitors, [("k10temp/hwmon0".to_owned(), 61.25)]);
    }
}
