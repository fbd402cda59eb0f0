//! The encoder's thread: one text at a time, one more may wait, and nobody waits longer than the budget.
//!
//! Invariants: a runtime's thread never encodes; a full queue refuses at once; a text whose asker has gone is passed over,
//! and one that was begun is finished and kept, so that the next asker finds it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Sorted;
use crate::cache::recent::{Kept, Key};
use crate::classify::domain::Posterior;
use crate::clock;
use crate::config::units::spell;
use crate::meter::{self, Encoder};

/// A text to its sentence vector; blocks.
pub type Vector = Box<dyn Fn(&str) -> Result<Vec<f32>, String> + Send>;
/// A text to its domains by both tiers; blocks.
type Sort = Box<dyn Fn(&str) -> Result<Posterior, String> + Send>;

/// Texts that may wait while one is encoded; one more is refused, and the fast tier decides.
const WAITING: usize = 1;
/// Bytes of a text that the encoder looks at, and more.
const LOOKED_AT: usize = 8 * 1024;

/// The second tier.
pub struct Second {
    jobs: SyncSender<Job>,
    /// It is asked where the fast tier's margin is less than this.
    pub below: f32,
    budget: Duration,
    /// Of all processors that it uses.
    watts: f64,
}

struct Job {
    text: String,
    key: Option<Key>,
    tell: oneshot::Sender<Sorted>,
}

impl Second {
    /// Starts the thread; it ends with this. `watts` are those of one busy logical processor.
    pub fn start(sort: Sort, (below, budget): (f32, Duration), watts: f64, kept: Option<Arc<Kept<Sorted>>>) -> Self {
        let (jobs, taken) = sync_channel(WAITING);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let watts = watts * f64::from(u32::try_from(threads).unwrap_or(1));
        let work = move || work(&taken, &sort, watts, kept.as_deref());
        if let Err(e) = std::thread::Builder::new().name("encoder".to_owned()).spawn(work) {
            tracing::warn!(error = %e.kind(), "the encoder's thread did not start: the fast tier decides");
        }
        Self { jobs, below, budget, watts }
    }

    /// Both tiers' answer, within the budget; else what the attempt is taken to have cost, J.
    pub async fn ask(&self, text: &str, key: Option<Key>) -> Result<Sorted, f64> {
        let Some(told) = self.offer(text, key) else {
            meter::encoder(Encoder::Busy);
            return Err(0.0);
        };
        let (result, answer) = match tokio::time::timeout(self.budget, told).await {
            Ok(Ok(sorted)) => (Encoder::Answered, Ok(sorted)),
            Ok(Err(_)) => (Encoder::Failed, Err(0.0)),
            // It goes on for a while: at least what it has had is this query's.
            Err(_) => (Encoder::Late, Err(self.budget.as_secs_f64() * self.watts)),
        };
        meter::encoder(result);
        answer
    }

    /// The same without a budget, on a thread that may block.
    pub fn ask_now(&self, text: &str) -> Option<Sorted> {
        self.offer(text, None)?.blocking_recv().ok()
    }

    /// In words, for people.
    pub fn about(&self) -> String {
        let asked = if self.below > 1.0 { "for every text" } else { "where it is not sure" };
        format!("the fast tier and the encoder {asked}, within {}", spell(self.budget))
    }

    fn offer(&self, text: &str, key: Option<Key>) -> Option<oneshot::Receiver<Sorted>> {
        let end = text.floor_char_boundary(LOOKED_AT);
        let (tell, told) = oneshot::channel();
        let job = Job { text: text.get(..end).unwrap_or_default().to_owned(), key, tell };
        match self.jobs.try_send(job) {
            Ok(()) => Some(told),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

fn work(jobs: &Receiver<Job>, sort: &Sort, watts: f64, kept: Option<&Kept<Sorted>>) {
    while let Ok(job) = jobs.recv() {
        if job.tell.is_closed() {
            continue;
        }
        let began = clock::now();
        match sort(&job.text) {
            Ok(posterior) => {
                let sorted = Sorted { posterior, tier: Some("encoder"), joules: 0.0 };
                if let (Some(kept), Some(key)) = (kept, job.key) {
                    kept.put(key, sorted);
                }
                let joules = clock::now().duration_since(began).as_secs_f64() * watts;
                // Nobody may be waiting any more; the next one finds it.
                let _ = job.tell.send(Sorted { joules, ..sorted });
            }
            Err(why) => tracing::warn!(why, "the encoder failed: the fast tier decides"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// An encoder that tells of each text it begins, and holds it until it is let go.
    fn held() -> (Second, Receiver<()>, std::sync::mpsc::Sender<()>, Arc<Kept<Sorted>>) {
        let (begin, begun) = channel::<()>();
        let (go, wait) = channel::<()>();
        let kept = Arc::new(Kept::new(10));
        let sort: Sort = Box::new(move |_| {
            begin.send(()).map_err(|e| e.to_string())?;
            wait.recv().map(|()| Posterior::none()).map_err(|e| e.to_string())
        });
        let second = Second::start(sort, (2.0, Duration::from_millis(20)), 1.0, Some(Arc::clone(&kept)));
        (second, begun, go, kept)
    }

    #[tokio::test]
    async fn under_load_the_third_is_refused_at_once_and_a_late_answer_is_kept() {
        let (second, begun, go, kept) = held();
        let key = kept.key("t", "a");
        let first = second.offer("a", Some(key)).unwrap();
        begun.recv().unwrap();
        let waits = second.offer("b", None).expect("one may wait");
        assert_eq!(second.ask("c", None).await.unwrap_err(), 0.0, "refused, and at no cost");
        drop(first);
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(waits.await.unwrap().tier, Some("encoder"));
        assert_eq!(kept.get(&key).unwrap().tier, Some("encoder"), "begun work is kept");
    }

    #[tokio::test]
    async fn a_text_whose_asker_has_gone_is_passed_over() {
        let (second, begun, go, kept) = held();
        let first = second.offer("a", None).unwrap();
        begun.recv().unwrap();
        let key = kept.key("t", "b");
        drop(second.offer("b", Some(key)).unwrap());
        go.send(()).unwrap();
        first.await.unwrap();
        let last = loop {
            match second.offer("c", None) {
                Some(told) => break told,
                None => tokio::task::yield_now().await,
            }
        };
        go.send(()).unwrap();
        last.await.unwrap();
        assert!(kept.get(&key).is_none(), "never begun");
    }
}
