//! Meters that are programs: one runs beside us and prints a line per figure, and a thread keeps the newest.
//!
//! Used for a configured meter at the plug and for Apple's sensors (through `macmon pipe`). A program that ends is started
//! again after a pause; until it prints, and once its figure is older than [`STALE_S`], the reading is missing. What it says on
//! its error output is kept, so that it can be told. Invariant: once the meter is dropped, no program is started any more.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::energy::meters::{Absent, Meter, Rail, Reading};

/// A figure older than this says nothing of now, in seconds.
pub const STALE_S: f64 = 5.0;
/// Between two starts of a program that ended.
const PAUSE: Duration = Duration::from_secs(1);
/// How often somebody who waits for a figure looks.
const LOOK: Duration = Duration::from_millis(50);
/// Characters kept of what a program says of its trouble.
const MOST_SAID: usize = 200;

/// Takes a line apart into one figure per rail; none if the line is not a figure.
pub type Parse = fn(&str) -> Option<Vec<f64>>;

/// A program's figures in watts.
pub struct Piped {
    rails: Vec<Rail>,
    name: String,
    shared: Arc<Shared>,
}

struct Shared {
    newest: Mutex<Option<(Instant, Vec<f64>)>>,
    program: Mutex<Program>,
    changed: Condvar,
}

#[derive(Default)]
struct Program {
    child: Option<Child>,
    /// How its last run ended.
    ended: Option<String>,
    /// The last line that was no figure, on either output.
    said: String,
    stop: bool,
}

/// Both ends of what a program says.
type Pipes = (Option<ChildStdout>, Option<ChildStderr>);

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
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let shared = Arc::new(Shared { newest: Mutex::new(None), program: Mutex::default(), changed: Condvar::new() });
        let first = shared.begin(&mut command).map_err(|e| Absent {
            meter,
            why: format!("{program}: {e}"),
            fix: Some(format!("install {program}, or name it with its folder")),
        })?;
        let piped = Self { rails, name: program.to_owned(), shared: shared.clone() };
        std::thread::Builder::new()
            .name(format!("meter {meter}"))
            .spawn(move || serve(&shared, first, &mut command, parse))
            .map_err(|e| Absent { meter, why: format!("its thread did not start: {e}"), fix: None })?;
        Ok(piped)
    }

    /// Waits for the first figure, at most so long. Blocks.
    ///
    /// # Errors
    /// None came: how the program ended, or what it printed instead.
    pub fn first(&self, patience: Duration) -> Result<(), String> {
        let until = clock::now() + patience;
        let mut program = self.shared.program();
        loop {
            if self.shared.newest().is_some() {
                return Ok(());
            }
            if let Some(ended) = &program.ended {
                return Err(format!("{} {ended}{}", self.name, program.quoted()));
            }
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                let waited_s = patience.as_secs_f64();
                return Err(format!("{} printed no number of watts in {waited_s:.0} s{}", self.name, program.quoted()));
            }
            let waited = self.shared.changed.wait_timeout(program, left.min(LOOK));
            (program, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn fresh(&self) -> Option<Vec<f64>> {
        let newest = self.shared.newest();
        let (at, watts) = newest.as_ref()?;
        (clock::now().duration_since(*at).as_secs_f64() <= STALE_S).then(|| watts.clone())
    }
}

impl Meter for Piped {
    fn rails(&self) -> &[Rail] {
        &self.rails
    }

    fn read(&mut self, out: &mut Vec<Reading>) {
        out.clear();
        let fresh = self.fresh().unwrap_or_default();
        for index in 0..self.rails.len() {
            out.push(fresh.get(index).map_or(Reading::Missing, |w| Reading::Watts(*w)));
        }
    }

    fn trouble(&self) -> Option<String> {
        if self.fresh().is_some() {
            return None;
        }
        let program = self.shared.program();
        let what = program.ended.as_deref().unwrap_or("prints no new figure");
        Some(format!("{} {what}{}", self.name, program.quoted()))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let mut program = self.shared.program();
        program.stop = true;
        // Its end closes the pipe, which ends the thread.
        let child = program.child.take();
        drop(program);
        self.shared.changed.notify_all();
        if let Some(child) = child {
            end(child);
        }
    }
}

/// Ends a program with whatever it started: that would hold the pipe open and go on for ever.
fn end(mut child: Child) {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process_group};
        // The group is the child's own, and its number is not given away before the wait below.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The thread: reads what the program prints, and starts it again when it has ended.
fn serve(shared: &Arc<Shared>, first: Option<Pipes>, command: &mut Command, parse: Parse) {
    let mut pipes = first;
    loop {
        if let Some((figures, errors)) = pipes.take() {
            let own = shared.clone();
            let errors = errors.and_then(|pipe| {
                std::thread::Builder::new().name("meter errors".to_owned()).spawn(move || own.listen(pipe)).ok()
            });
            for line in figures.map(BufReader::new).into_iter().flat_map(|pipe| pipe.lines().map_while(Result::ok)) {
                match parse(&line) {
                    Some(watts) => *shared.newest() = Some((clock::now(), watts)),
                    None => shared.said(&line),
                }
                shared.changed.notify_all();
            }
            // What it said at its end belongs to the reason.
            let _ = errors.map(std::thread::JoinHandle::join);
            shared.ended();
        }
        if shared.pause() {
            return;
        }
        pipes = shared.begin(command).ok().flatten();
    }
}

impl Shared {
    fn newest(&self) -> MutexGuard<'_, Option<(Instant, Vec<f64>)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn program(&self) -> MutexGuard<'_, Program> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the program, unless it is to stop: under the lock, so that who stops it finds it or prevents it.
    fn begin(&self, command: &mut Command) -> std::io::Result<Option<Pipes>> {
        let mut program = self.program();
        if program.stop {
            return Ok(None);
        }
        let mut child = command.spawn()?;
        let pipes = (child.stdout.take(), child.stderr.take());
        program.child = Some(child);
        Ok(Some(pipes))
    }

    fn ended(&self) {
        let mut program = self.program();
        let status = program.child.take().and_then(|mut child| child.wait().ok());
        program.ended = Some(status.map_or("has ended".to_owned(), |status| format!("has ended ({status})")));
        self.changed.notify_all();
    }

    /// Until the program may be started again; true: it is to stop.
    fn pause(&self) -> bool {
        let (until, mut program) = (clock::now() + PAUSE, self.program());
        while !program.stop {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                return false;
            }
            (program, _) = self.changed.wait_timeout(program, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    fn said(&self, line: &str) {
        if !line.trim().is_empty() {
            self.program().said = line.trim().chars().take(MOST_SAID).collect();
        }
    }

    /// Reads an error output to its end, whatever is in it, and keeps its last words.
    fn listen(&self, mut pipe: impl Read) {
        let mut room = [0; 4096];
        while let Some(read) = pipe.read(&mut room).ok().filter(|n| *n > 0) {
            let text = String::from_utf8_lossy(room.get(..read).unwrap_or_default()).into_owned();
            text.lines().for_each(|line| self.said(line));
        }
    }
}

impl Program {
    /// What it said, to be put behind a reason.
    fn quoted(&self) -> String {
        if self.said.is_empty() { String::new() } else { format!(": {}", self.said) }
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
    use crate::energy::Basis;
    use crate::energy::meters::Part;

    fn shell(script: &str) -> Piped {
        let rail = Rail {
            name: "wall/plug".to_owned(),
            device: String::new(),
            part: Part::Wall,
            basis: Basis::Power,
            uncertainty: None,
            renewed_s: 1.0,
            cap_w: None,
        };
        Piped::start("wall", vec![rail], "sh", &["-c".to_owned(), script.to_owned()], watts).unwrap()
    }

    #[test]
    fn a_program_without_figures_is_told_with_its_own_words() {
        let patience = Duration::from_secs(20);
        let failed = shell("echo no plug found >&2; exit 3").first(patience).unwrap_err();
        assert_eq!(failed, "sh has ended (exit status: 3): no plug found");
        let nonsense = shell("echo hello; exec sleep 60").first(Duration::from_millis(1500)).unwrap_err();
        assert!(nonsense.starts_with("sh printed no number of watts in "), "{nonsense}");
        assert!(nonsense.ends_with(": hello"), "{nonsense}");
        let fine = shell("echo warming up >&2; echo 12.5; exec sleep 60");
        assert_eq!(fine.first(patience), Ok(()));
        assert_eq!(fine.trouble(), None);
    }

    #[test]
    fn what_a_program_started_ends_with_it() {
        let meter = shell("sleep 600 & echo 12.5; wait");
        assert_eq!(meter.first(Duration::from_secs(20)), Ok(()));
        let shared = Arc::downgrade(&meter.shared);
        drop(meter);
        // Whoever still holds the pipe keeps the thread that reads it.
        let until = clock::now() + Duration::from_secs(20);
        while shared.strong_count() > 0 && clock::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(shared.strong_count(), 0);
    }

    #[test]
    fn a_meter_that_is_dropped_while_its_program_rests_starts_it_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let starts = folder.path().join("starts");
        let meter = shell(&format!("echo begun >> {}", starts.display()));
        assert!(meter.first(Duration::from_secs(20)).unwrap_err().contains("has ended"));
        let shared = Arc::downgrade(&meter.shared);
        drop(meter);
        // The thread holds the last of it; it ends at once instead of after its pause.
        let until = clock::now() + Duration::from_secs(20);
        while shared.strong_count() > 0 && clock::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(shared.strong_count(), 0);
        let begun = std::fs::read_to_string(&starts).unwrap().lines().count();
        assert!(begun <= 2, "{begun}");
    }

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
