//! Learning from judged answers, for policies with a `[bandit]` section: feedback and the checks of cascades move what each
//! backend's P(correct) is taken to be.
//!
//! Invariants: nothing here runs in a request but a look at a snapshot and a few hundred multiplications; only answers of
//! such policies teach; a frozen bandit changes nothing; a score counts once, and another one for the same answer takes
//! its place; what is kept is bounded and holds no text; the file is replaced whole or not at all, and a damaged one is
//! put aside. Beside the request path, fed by the journal's writer and `/v1/feedback`.

mod file;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use crate::classify::domain::{DOMAINS, Domain, Posterior};
use crate::clock::{self, Instant};
use crate::journal::{Outcome, Record};
use crate::policy::Policy;
use crate::policy::types::Signals;
use crate::predict::arm::{Arm, Features, features};

pub use file::{Kept, Point, read, write};

/// What was learned reaches the disk this often, and when the gateway ends.
const SAVE: Duration = Duration::from_secs(30);
/// Answers that a score may still come for; the oldest is forgotten, and its score is then kept in the journal alone.
const WAITING: usize = 10_000;
/// A check's word counts so much of a person's: it is a model's guess of what a person would say.
const CHECK: f64 = 0.25;
/// A point to go back to is set where the last one is so old.
const POINT_MS: u64 = 3_600_000;
/// Points kept, oldest first out.
const POINTS: usize = 8;

/// By backend name.
pub type Arms = BTreeMap<String, Arm>;

/// What a gateway has learned from judgements.
pub struct Bandit {
    path: Option<PathBuf>,
    /// What decisions see.
    arms: ArcSwap<Arms>,
    inner: Mutex<Inner>,
}

struct Inner {
    kept: Kept,
    waiting: HashMap<String, Judged>,
    order: VecDeque<String>,
    saved: Instant,
    changed: bool,
}

/// An answer that a score may come for.
struct Judged {
    backend: Arc<str>,
    x: Features,
    prior: f64,
    score: Option<f64>,
}

/// Where it is kept: beside the journal, with its name in front.
pub fn path(journal: &Path) -> PathBuf {
    let mut name = journal.file_name().unwrap_or_default().to_owned();
    name.push(".bandit.json");
    journal.with_file_name(name)
}

impl Bandit {
    /// Reads what earlier runs learned. Without a journal nothing is learned: nobody could say from what.
    pub fn open(journal: Option<&Path>) -> Self {
        let path = journal.map(path);
        let kept = path.as_deref().map_or_else(|| Ok(Kept::default()), read).unwrap_or_else(|why| {
            tracing::warn!(why, "what judgements taught is put aside; learning starts anew");
            path.iter().for_each(|path| drop(std::fs::rename(path, path.with_extension("bad"))));
            Kept::default()
        });
        let inner =
            Inner { waiting: HashMap::new(), order: VecDeque::new(), saved: clock::now(), changed: false, kept };
        Self { path, arms: ArcSwap::from_pointee(inner.kept.arms.clone()), inner: Mutex::new(inner) }
    }

    /// Puts what was learned beside the signals of a policy that asks for it.
    pub fn inform(&self, policy: &Policy, signals: &mut Signals) {
        if policy.bandit.is_none() {
            return;
        }
        let arms = self.arms.load();
        let unknown = Arm::default();
        for c in &mut signals.candidates {
            let arm = arms.get(&*c.backend).unwrap_or(&unknown);
            c.learned = Some(arm.learned(&features(&signals.posterior, c.chance.mean)));
        }
    }

    /// Takes one written entry. Called by the journal's writer.
    pub fn take(&self, record: &Record) {
        let complete = record.outcome == Outcome::Ok && matches!(record.endpoint, "chat" | "completions");
        if !complete || record.alternatives.iter().all(|a| a.prior.is_none()) {
            return;
        }
        let mut inner = self.lock();
        if let Some((backend, confidence)) = checked(record)
            && let Some(judged) = judged(record, backend)
        {
            inner.teach(&judged, confidence, CHECK);
        }
        if let Some(judged) = record.backend.as_deref().and_then(|backend| judged(record, backend)) {
            inner.wait(record.decision_id.clone(), judged);
        }
        self.settle(inner);
    }

    /// An answer was scored by its client, who may have scored it before.
    pub fn scored(&self, decision: &str, score: f64) {
        let mut inner = self.lock();
        inner.score(decision, score);
        self.settle(inner);
    }

    /// Stops learning, or goes on. What is known stays in force; `freeze` in the policy also stops its draws.
    pub fn freeze(&self, frozen: bool) -> Value {
        let mut inner = self.lock();
        inner.kept.frozen = frozen;
        self.save(&mut inner);
        facts(&inner.kept)
    }

    /// Back to the last point, or to nothing learned; what came since is forgotten.
    pub fn roll_back(&self) -> Value {
        let mut inner = self.lock();
        inner.kept.roll_back();
        inner.waiting.clear();
        inner.order.clear();
        self.arms.store(Arc::new(inner.kept.arms.clone()));
        self.save(&mut inner);
        facts(&inner.kept)
    }

    /// For the admin page.
    pub fn facts(&self) -> Value {
        facts(&self.lock().kept)
    }

    /// Writes what is not on disk yet: for the end of a gateway.
    pub fn keep(&self) {
        let mut inner = self.lock();
        if inner.changed {
            self.save(&mut inner);
        }
    }

    /// What changed is in force at once, and on disk now and then.
    fn settle(&self, mut inner: MutexGuard<'_, Inner>) {
        if !inner.changed {
            return;
        }
        self.arms.store(Arc::new(inner.kept.arms.clone()));
        if clock::now().duration_since(inner.saved) >= SAVE {
            self.save(&mut inner);
        }
    }

    fn save(&self, inner: &mut Inner) {
        inner.saved = clock::now();
        let Some(path) = &self.path else { return };
        inner.changed = write(path, &inner.kept)
            .inspect_err(|why| {
                tracing::warn!(why, "what judgements taught could not be written; it is tried again");
            })
            .is_err();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wait(&mut self, decision: String, judged: Judged) {
        if self.order.len() >= WAITING
            && let Some(oldest) = self.order.pop_front()
        {
            self.waiting.remove(&oldest);
        }
        self.order.push_back(decision.clone());
        self.waiting.insert(decision, judged);
    }

    fn score(&mut self, decision: &str, score: f64) {
        let Some(mut judged) = self.waiting.remove(decision) else { return };
        if !self.kept.frozen {
            match judged.score.replace(score) {
                None => self.teach(&judged, score, 1.0),
                Some(before) if before != score => {
                    let arm = self.kept.arms.entry(judged.backend.to_string()).or_default();
                    arm.change(&judged.x, score - before);
                    self.changed = true;
                }
                Some(_) => {}
            }
        }
        self.waiting.insert(decision.to_owned(), judged);
    }

    fn teach(&mut self, judged: &Judged, reward: f64, weight: f64) {
        if self.kept.frozen {
            return;
        }
        self.kept.mark(clock::unix_ms());
        let arm = self.kept.arms.entry(judged.backend.to_string()).or_default();
        arm.take(&judged.x, reward - judged.prior, weight);
        self.changed = true;
    }
}

impl Kept {
    /// Sets a point to go back to, if the last one is old.
    fn mark(&mut self, now_ms: u64) {
        if self.points.last().is_some_and(|p| now_ms.saturating_sub(p.at_ms) < POINT_MS) {
            return;
        }
        if self.points.len() >= POINTS {
            self.points.remove(0);
        }
        self.points.push(Point { at_ms: now_ms, arms: self.arms.clone() });
    }

    /// Back to the last point, which is used up.
    pub fn roll_back(&mut self) {
        self.arms = self.points.pop().map(|point| point.arms).unwrap_or_default();
    }
}

/// For people and programs: what is known of every backend, and how far back one can go.
pub fn facts(kept: &Kept) -> Value {
    let of = |arm: &Arm| {
        let at = |domain: Domain| {
            let mut one = [0.0; DOMAINS];
            one.iter_mut().skip(domain.index()).take(1).for_each(|p| *p = 1.0);
            arm.learned(&features(&Posterior(one), 0.5))
        };
        let widest = Arm::default().learned(&features(&Posterior::none(), 0.5)).width;
        let known = Domain::all().map(|d| (d, at(d))).filter(|(_, l)| l.width < 0.8 * widest);
        let domains: BTreeMap<&str, Value> =
            known.map(|(d, l)| (d.name(), json!({ "shift": l.shift, "width": l.width }))).collect();
        json!({ "judgements": arm.n, "domains": domains })
    };
    let arms: BTreeMap<&String, Value> = kept.arms.iter().map(|(name, arm)| (name, of(arm))).collect();
    let points: Vec<u64> = kept.points.iter().map(|p| p.at_ms).collect();
    json!({ "frozen": kept.frozen, "backends": arms, "points_unix_ms": points })
}

/// What an answer of this backend teaches, once somebody says what it was worth.
fn judged(record: &Record, backend: &str) -> Option<Judged> {
    let seen = record.alternatives.iter().find(|a| *a.backend == *backend)?;
    let prior = seen.prior?;
    let x = features(&record.posterior?, prior);
    Some(Judged { backend: Arc::clone(&seen.backend), x, prior, score: None })
}

/// The local backend whose answer was checked, and P(it was right).
fn checked(record: &Record) -> Option<(&str, f64)> {
    let confidence = record.confidence.filter(|_| record.verdict.is_some())?;
    let local = record.alternatives.iter().find(|a| a.eligible && a.why_not.is_none())?;
    Some((&local.backend, confidence))
}
