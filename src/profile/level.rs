//! One level of concurrency: a closed loop of n questions, the books of their joules, and the window that balances them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::asker::{Asked, Asker, Trouble};
use super::charge::{Meters, Pool};
use super::metered::Began;
use super::pick::Item;
use super::record::window::{Balance, Window};
use super::record::{Line, Record};
use super::run::{ATTEMPTS, End, Energy, Plan, Run, Seen, backoff, modelled, put, record};
use crate::clock::{self, Instant};
use crate::energy::attribution::Span;
use crate::energy::books::{Books, Settled};

/// How often what has ended is settled and the watts are shown.
const TICK: Duration = Duration::from_millis(500);

/// Answers in a row without joules after which a budget of joules ends the run: longer than any pool of short answers.
const BLIND: u32 = 50;
/// Attempts in a row that fail, beside one for each stream, before a backend that can be reached is given up; and they must
/// be of different questions, because one question may fail for ever where all others are answered.
const GIVE_UP: u32 = ATTEMPTS + 1;

/// A question in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into the plan's items.
    pub item: usize,
    /// Which repetition.
    pub repeat: u32,
    /// Attempts that failed.
    pub attempts: u32,
    /// It was left as failed by an earlier run.
    pub failed: bool,
}

type Asking<'p> = Pin<Box<dyn Future<Output = (u64, Place, Asked)> + 'p>>;

/// A level at work.
pub struct Level<'p> {
    items: &'p [Item],
    streams: u32,
    budget: (Option<f64>, Option<Duration>),
    keep_logprobs: bool,
    queue: VecDeque<Place>,
    running: FuturesUnordered<Asking<'p>>,
    books: Option<(Books, Meters)>,
    /// Ended and not yet settled, by the books's id.
    waiting: BTreeMap<u64, Record>,
    pool: Pool,
    began: Option<Began>,
    opened_s: f64,
    answers: u32,
    /// Attempts in a row that failed.
    failures: u32,
    /// The questions that they were of, item and repeat, without those that are known to fail.
    failing: BTreeSet<(usize, u32)>,
    not_before: Instant,
    ids: u64,
}

impl<'p> Level<'p> {
    /// Opens the books; the first question is asked by [`Level::ask_all`].
    pub fn open(run: &Run<'_>, plan: &'p Plan, streams: u32, queue: VecDeque<Place>) -> Self {
        let books = match run.energy {
            Energy::Metered(metered) => Some((metered.open(), Meters::of(metered))),
            Energy::Modelled(_) => None,
        };
        let began = match run.energy {
            Energy::Metered(metered) => Some(metered.began()),
            Energy::Modelled(_) => None,
        };
        Self {
            items: &plan.items,
            streams,
            budget: (plan.joules, plan.time),
            keep_logprobs: plan.keep_logprobs,
            queue,
            running: FuturesUnordered::new(),
            opened_s: books.as_ref().map_or(0.0, |(books, _)| books.settled_s()),
            books,
            waiting: BTreeMap::new(),
            pool: Pool::default(),
            began,
            answers: 0,
            failures: 0,
            failing: BTreeSet::new(),
            not_before: clock::now(),
            ids: 0,
        }
    }

    /// Asks until nothing is left or something ends the run.
    pub async fn ask_all(&mut self, run: &mut Run<'p>, seen: &mut Seen, began: Instant) -> Result<End, String> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = run.stop.clone();
        loop {
            if let Some(which) = self.used_up(seen, began) {
                return Ok(End::Budget(which));
            }
            self.launch(run);
            if self.running.is_empty() && self.queue.is_empty() {
                return Ok(End::Done);
            }
            tokio::select! {
                biased;
                Some((id, place, asked)) = self.running.next() => {
                    if let Some(end) = self.heard(run, seen, (id, place), asked)? {
                        return Ok(end);
                    }
                }
                _ = stop.wait_for(|stop| *stop) => return Ok(End::Stopped),
                () = tokio::time::sleep_until(self.not_before), if self.not_before > clock::now() => {}
                _ = tick.tick() => {
                    self.settle(run, seen)?;
                    if let Energy::Metered(metered) = run.energy {
                        seen.watts = metered.watts();
                        seen.away = metered.away();
                    }
                    (run.tell)(seen);
                }
            }
        }
    }

    /// Gives up what still runs, settles the rest and writes the window.
    pub async fn close(&mut self, run: &mut Run<'p>, seen: &mut Seen) -> Result<(), String> {
        self.running.clear();
        let (Energy::Metered(metered), Some((books, meters))) = (run.energy, &mut self.books) else { return Ok(()) };
        for id in 0..self.ids {
            if !self.waiting.contains_key(&id) {
                books.forget(id);
            }
        }
        let settled = metered.closed(books).await;
        let mut records = charge(&mut self.waiting, &mut self.pool, settled, meters);
        records.extend(self.pool.close(meters));
        // What the meters did not reach in time has no figure, but it has an answer.
        records.extend(std::mem::take(&mut self.waiting).into_values());
        let balances = books.balance().iter().zip(&meters.names).map(|(balance, name)| {
            let withheld = self.pool.withheld().get(name).copied().unwrap_or(0.0);
            (name.clone(), Balance { delta: balance.delta, unattributed: balance.unattributed, withheld })
        });
        let seen_by = self.began.as_ref().map(|began| metered.window(began)).unwrap_or_default();
        let window = Window {
            at: clock::rfc3339(),
            streams: self.streams,
            seconds: books.settled_s() - self.opened_s,
            answers: self.answers + u32::try_from(records.len()).unwrap_or(0),
            rails: balances.collect(),
            ..seen_by
        };
        for record in records {
            put(run, seen, record)?;
        }
        run.log.put(&Line::Window(window))
    }

    fn used_up(&self, seen: &Seen, began: Instant) -> Option<&'static str> {
        let (joules, time) = self.budget;
        if joules.is_some_and(|most| seen.joules >= most) {
            Some("the budget of joules is used up")
        } else if joules.is_some() && seen.blind >= BLIND {
            Some("the last answers have no joules, so that the budget of joules cannot be kept")
        } else if time.is_some_and(|most| clock::now() >= began + most) {
            Some("the budget of minutes is used up")
        } else {
            None
        }
    }

    fn launch(&mut self, run: &Run<'p>) {
        let room = usize::try_from(self.streams).unwrap_or(usize::MAX);
        while self.running.len() < room && clock::now() >= self.not_before {
            let Some(place) = self.queue.pop_front() else { return };
            let Some(item) = self.items.get(place.item) else { continue };
            let id = match (run.energy, &mut self.books) {
                (Energy::Metered(metered), Some((books, _))) => books.began(metered.at_s(clock::now())),
                _ => self.ids,
            };
            self.ids = id + 1;
            let asker: &'p Asker = run.asker;
            self.running.push(Box::pin(async move {
                (id, place, asker.ask(&item.question.text(), item.question.max_tokens()).await)
            }));
        }
    }

    /// An attempt has ended. What may pass is put back into the queue.
    fn heard(
        &mut self,
        run: &mut Run<'p>,
        seen: &mut Seen,
        at: (u64, Place),
        asked: Asked,
    ) -> Result<Option<End>, String> {
        let (id, mut place) = at;
        let Some(item) = self.items.get(place.item) else { return Ok(None) };
        let mut record = record(item, &place, self.streams, &asked, run.counter);
        if let Some(logprobs) = record.logprobs.as_mut().filter(|_| !self.keep_logprobs) {
            logprobs.values = None;
        }
        match (run.energy, &mut self.books) {
            (Energy::Metered(metered), Some((books, _))) => {
                let at_s = |instant: Instant| metered.at_s(instant);
                books.ended(id, span(&record, &asked, at_s));
                self.waiting.insert(id, record);
            }
            (Energy::Modelled(model), _) => {
                put(run, seen, modelled(record, model.as_ref()))?;
                run.log.sync(false)?;
            }
            (Energy::Metered(_), None) => {}
        }
        self.settle(run, seen)?;
        match asked.trouble {
            None | Some(Trouble::Refused(_)) => {
                self.failures = 0;
                self.failing.clear();
            }
            Some(Trouble::Fatal(why)) => return Ok(Some(End::Died(why))),
            Some(trouble) => {
                if self.has_died(&place, &trouble) {
                    return Ok(Some(End::Died(trouble.why().to_owned())));
                }
                self.not_before = clock::now() + backoff(self.failures.min(ATTEMPTS), trouble.after());
                place.attempts += 1;
                if place.attempts < ATTEMPTS {
                    self.queue.push_front(place);
                }
            }
        }
        Ok(None)
    }

    /// Counts a failed attempt; whether the backend is to be given up.
    fn has_died(&mut self, place: &Place, trouble: &Trouble) -> bool {
        self.failures += 1;
        if !place.failed {
            self.failing.insert((place.item, place.repeat));
        }
        // As many as run at a time fail together when a server goes away.
        let away = matches!(trouble, Trouble::Away(_)) && self.failures >= ATTEMPTS + self.streams - 1;
        away || (self.failing.len() > 1 && self.failures >= GIVE_UP + self.streams)
    }

    fn settle(&mut self, run: &mut Run<'p>, seen: &mut Seen) -> Result<(), String> {
        let (Energy::Metered(metered), Some((books, meters))) = (run.energy, &mut self.books) else { return Ok(()) };
        let settled = metered.settled(books);
        for record in charge(&mut self.waiting, &mut self.pool, settled, meters) {
            self.answers += 1;
            put(run, seen, record)?;
        }
        run.log.sync(false)
    }
}

fn charge(waiting: &mut BTreeMap<u64, Record>, pool: &mut Pool, settled: Vec<Settled>, meters: &Meters) -> Vec<Record> {
    let mut records = Vec::new();
    for one in settled {
        if let Some(record) = waiting.remove(&one.id) {
            records.extend(pool.take(record, one, meters));
        }
    }
    records
}

/// The attempt on the sampler's axis. Tokens that are not known count alike for all who ran beside it.
fn span(record: &Record, asked: &Asked, at_s: impl Fn(Instant) -> f64) -> Span {
    Span {
        start_s: at_s(asked.began),
        first_s: asked.heard.first.map(&at_s),
        end_s: at_s(asked.ended),
        input_tokens: record.tokens_in.map_or(0.0, f64::from),
        output_tokens: record.tokens_out.map_or(0.0, f64::from),
    }
}
