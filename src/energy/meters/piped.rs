//! Meters that are programs: one runs beside us and prints a line per figure, and a thread keeps the newest.
//!
//! Used for a configured meter at the plug and for Apple's sensors (through `macmon pipe`). A program that ends is started
//! again after a pause; until it prints, and once its figure is older than [`STALE_S`], the reading is missing.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::energy::meters::{Absent, Meter, Rail, Reading};

/// A figure older than this says nothing of now, in seconds.
pub const STALE_S: f64 = 5.0;
/// Between two starts of a program that ended.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes a line apart into one figure per rail; none if the line is not a figure.
pub type Parse = fn(&str) -> Option<Vec<f64>>;

/// A program's figures in watts.
pub struct Piped {
    rails: Vec<Rail>,
    shared: Arc<Shared>,
}

struct Shared {
    newest: Mutex<Option<(Instant, Vec<f64>)>>,
    child: Mutex<Option<Child>>,
    stop: AtomicBool,
}

impl Piped {
    /// Starts `program` with `arguments`; every line it prints goes through `parse`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(
        meter: &'static str,
        rails: Vec<Rail>,
        program: &str,
        arguments: &[String],
        parse: Parse,
    ) -> Result<Self, Absent> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let first = command.spawn().map_err(|e| Absent {
            meter,
            why: format!("{program}: {e}"),
            fix: Some(format!("install {program}, or name it with its folder")),
        })?;
        let shared =
            Arc::new(Shared { newest: Mutex::new(None), child: Mutex::new(None), stop: AtomicBool::new(false) });
        let own = shared.clone();
        std::thread::Builder::new()
            .name(format!("meter {meter}"))
            .spawn(move || own.serve(first, &mut command, parse))
            .map_err(|e| Absent { meter, why: format!("its thread did not start: {e}"), fix: None })?;
        Ok(Self { rails, shared })
    }
}

impl Meter for Piped {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        out.clear();
        let newest = self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = newest.as_ref().filter(|(at, _)| clock::now().duration_since(*at).as_secs_f64() <= STALE_S);
        for index in 0..self.rails.len() {
            out.push(fresh.and_then(|(_, w)| w.get(index)).map_or(Reading::Missing, |w| Reading::Watts(*w)));
        }
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Its end closes the pipe, which ends the thread.
        if let Some(mut child) = self.shared.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Shared {
    fn serve(&self, first: Child, command: &mut Command, parse: Parse) {
        let mut next = Some(first);
        while !self.stop.load(Ordering::Acquire) {
            if let Some(mut child) = next.take() {
                let lines = child.stdout.take();
                *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
                for line in lines.map(BufReader::new).into_iter().flat_map(|pipe| pipe.lines().map_while(Result::ok)) {
                    if let Some(watts) = parse(&line) {
                        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock::now(), watts));
                    }
                }
                if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    let _ = child.wait();
                }
            }
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(PAUSE);
            next = command.spawn().ok();
        }
    }
}

/// A line that is one number of watts, with or without its unit.
pub fn watts(line: &str) -> Option<Vec<f64>> {
    let text = line.trim().trim_end_matches(['W', 'w']).trim_end();
    text.parse().ok().filter(|w: &f64| w.is_finite() && *w >= 0.0).map(|w| vec![w])
}

/// A line of `macmon pipe`: processor, GPU, neural engine and memory, in the order of the rails made by `macmon`.
#[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "Apple's sensors; the line is tested everywhere"))]
pub fn apple(line: &str) -> Option<Vec<f64>> {
    let said: serde_json::Value = serde_json::from_str(line).ok()?;
    let figure = |key: &str| said.get(key).and_then(serde_json::Value::as_f64).filter(|w| w.is_finite() && *w >= 0.0);
    Some(vec![
        figure("cpu_power")? + figure("ane_power").unwrap_or(0.0),
        figure("gpu_power")?,
        figure("ram_power").unwrap_or(0.0),
    ])
}

/// Apple's sensors.
///
/// # Errors
/// `macmon` is not installed.
#[cfg(target_os = "macos")]
pub fn macmon() -> Result<Piped, Absent> {
    use crate::energy::Basis;
    use crate::energy::meters::Part;
    let rails = [("processor", Part::Package), ("gpu", Part::Gpu), ("memory", Part::Dram)].map(|(name, part)| Rail {
        name: format!("macmon/{name}"),
        device: "Apple silicon".to_owned(),
        part,
        basis: Basis::Power,
        uncertainty: None,
        renewed_s: 0.1,
        cap_w: None,
    });
    let arguments = ["pipe", "-i", "100"].map(str::to_owned);
    Piped::start("macmon", rails.to_vec(), "macmon", &arguments, apple)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_watts_or_nothing() {
        for (line, want) in
            [("12.5", Some(12.5)), (" 80 W ", Some(80.0)), ("-3", None), ("nan", None), ("", None), ("watts", None)]
        {
            assert_eq!(watts(line), want.map(|w| vec![w]), "{line:?}");
        }
        let line =
            r#"{"timestamp":"t","cpu_power":2.5,"gpu_power":0.5,"ane_power":0.25,"ram_power":0.75,"sys_power":9}"#;
        assert_eq!(apple(line), Some(vec![2.75, 0.5, 0.75]));
        assert_eq!(apple(r#"{"cpu_power":2.5}"#), None);
        assert_eq!(apple("{"), None);
    }
}
