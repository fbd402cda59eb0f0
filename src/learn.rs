//! Learning from the gateway's own traffic, beside the request path: the journal's writer hands over what it has written.
//!
//! Invariants: nothing here runs in a request; a frozen or switched off learner never changes a factor; the file is replaced whole
//! or not at all; joules are learned from meters that count or integrate power, never from a figure that a table gave.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::classify::domain::{Domain, Posterior};
use crate::clock::{self, Instant};
use crate::config::checked::Config;
use crate::config::energy::Learn;
use crate::energy::Basis;
use crate::journal::{Outcome, Record};
use crate::predict::Outlook;
use crate::predict::learn::{Answer, Estimates};
use crate::state::State;

/// What was learned reaches the disk this often, and when the gateway ends.
const SAVE: Duration = Duration::from_secs(30);
/// Version of the file.
const VERSION: u32 = 1;

/// What a gateway has learned of its backends.
pub struct Learning {
    mode: Learn,
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    estimates: BTreeMap<String, Estimates>,
    backends: Vec<Arc<Backend>>,
    saved: Instant,
    changed: bool,
}

/// The file beside the journal.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    backends: BTreeMap<String, Estimates>,
}

/// Where what was learned is kept. It begins with the journal's name: those files are no changes of a configuration.
pub fn file(journal: &Path) -> PathBuf {
    let mut name = journal.file_name().unwrap_or_default().to_owned();
    name.push(".learned.json");
    journal.with_file_name(name)
}

/// What an earlier run learned; nothing where there is no file.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn earlier(path: &Path) -> Result<BTreeMap<String, Estimates>, String> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(told(&e)),
    };
    let kept: Kept = serde_json::from_str(&text).map_err(|e| told(&e))?;
    if kept.version != VERSION {
        return Err(told(&format!("is version {}; this program reads version {VERSION}", kept.version)));
    }
    Ok(kept.backends)
}

impl Learning {
    /// Reads what earlier runs learned. Without a journal there is nothing to learn from.
    pub fn open(config: &Config) -> Self {
        let mode = if config.journal.enabled { config.learning } else { Learn::Off };
        let path = file(&config.journal.path);
        let estimates = if mode == Learn::Off { Ok(BTreeMap::new()) } else { earlier(&path) };
        let estimates = estimates.unwrap_or_else(|why| {
            tracing::warn!(why, "what was learned is lost; learning starts anew");
            BTreeMap::new()
        });
        let inner = Inner { estimates, backends: Vec::new(), saved: clock::now(), changed: false };
        Self { mode, path, inner: Mutex::new(inner) }
    }

    /// Puts what is known in force on these backends; those of a reload too.
    pub fn attach(&self, state: &State) {
        if self.mode == Learn::Off {
            return;
        }
        let mut inner = self.lock();
        inner.backends.clone_from(&state.backends);
        for backend in &state.backends {
            let Some(table) = &backend.outlook.table else { continue };
            let known = inner.estimates.get(&*backend.config.name).filter(|e| e.fits(table));
            match known {
                Some(estimates) => backend.outlook.factors.set(estimates),
                None if self.mode == Learn::On => {
                    inner.estimates.insert(backend.config.name.to_string(), Estimates::of(table));
                }
                None => {}
            }
        }
    }

    /// Takes one written entry. Called by the journal's writer.
    pub fn take(&self, record: &Record) {
        if self.mode != Learn::On {
            return;
        }
        let mut inner = self.lock();
        inner.take(record);
        if inner.changed && clock::now().duration_since(inner.saved) >= SAVE {
            self.save(&mut inner);
        }
    }

    /// Writes what is not on disk yet: for the end of a gateway.
    pub fn keep(&self) {
        let mut inner = self.lock();
        if inner.changed {
            self.save(&mut inner);
        }
    }

    /// For the admin page.
    pub fn facts(&self) -> Value {
        let inner = self.lock();
        json!({ "learning": self.mode.name(), "backends": told(&inner.estimates) })
    }

    fn save(&self, inner: &mut Inner) {
        inner.saved = clock::now();
        inner.changed = false;
        let kept = Kept { version: VERSION, backends: inner.estimates.clone() };
        let unfinished = self.path.with_extension("part");
        let written = serde_json::to_vec_pretty(&kept).map_err(std::io::Error::other).and_then(|text| {
            let mut file = std::fs::File::create(&unfinished)?;
            std::io::Write::write_all(&mut file, &text)?;
            file.sync_all()?;
            std::fs::rename(&unfinished, &self.path)
        });
        if let Err(e) = written {
            tracing::warn!(error = %e.kind(), "what was learned could not be written; it is tried again");
            inner.changed = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Learning {
    fn drop(&mut self) {
        self.keep();
    }
}

/// Factors of every backend, for people and programs.
pub fn told(estimates: &BTreeMap<String, Estimates>) -> Value {
    let of = |e: &Estimates| {
        let track = |t: &crate::predict::learn::Track| json!({ "factor": t.factor(), "n": t.n });
        let output: BTreeMap<&str, Value> =
            Domain::all().zip(&e.output).filter(|(_, t)| t.n > 0).map(|(d, t)| (d.name(), track(t))).collect();
        json!({ "table": e.table, "joules": track(&e.joules), "first_token": track(&e.first),
            "per_output_token": track(&e.rest), "output_tokens": output })
    };
    estimates.iter().map(|(name, e)| (name.clone(), of(e))).collect()
}

impl Inner {
    fn take(&mut self, record: &Record) {
        let complete = record.outcome == Outcome::Ok && record.attempts == 1;
        let Some(name) = record.backend.as_deref().filter(|_| complete) else { return };
        let Some(backend) = self.backends.iter().find(|b| *b.config.name == *name) else { return };
        let Some(estimates) = self.estimates.get_mut(name) else { return };
        let outlook = &backend.outlook;
        estimates.take(answer(record, outlook));
        if let Some((seen, expected, basis)) = joules(record, outlook) {
            estimates.take_joules(seen, expected, basis);
        }
        outlook.factors.set(estimates);
        self.changed = true;
    }
}

/// Joules that a meter saw, beside what the table expects of as many tokens.
fn joules(record: &Record, outlook: &Outlook) -> Option<(f64, f64, Basis)> {
    let seen = record.joules.filter(|_| record.metered)?;
    let (input, output) = (f64::from(record.input_tokens?), f64::from(record.output_tokens?));
    let posterior = record.posterior.unwrap_or_else(Posterior::none);
    Some((seen.mid?, outlook.tabled_joules(&posterior, input, output).mid?, seen.basis))
}

/// What an entry says of times and length, beside what the table expects.
fn answer(record: &Record, outlook: &Outlook) -> Answer {
    let domain = record.domain.parse::<Domain>().ok();
    let (input, output) = (record.input_tokens.map(f64::from), record.output_tokens.map(f64::from));
    // Of an answer in one piece the first byte is the last.
    let first_s = record.ttft_ms.map(|ms| ms / 1e3).filter(|_| record.stream);
    let rest_s = first_s.map(|first| record.total_ms / 1e3 - first);
    Answer {
        domain,
        output: output.zip(domain.and_then(|d| outlook.tabled_output(d))),
        first_s: first_s.zip(input.and_then(|i| outlook.first_s(i))),
        rest_s: rest_s.zip(output.and_then(|o| outlook.rest_s(o))),
    }
}
