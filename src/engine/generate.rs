//! The engine's thread: runs many streams together, one step after another, and sends what they produce.
//!
//! A step gives every stream that speaks its token and reads a piece of the prompts that wait (see `plan`), so the weights
//! are read once for all. Invariants: a stream's tokens do not depend on which others run beside it; one whose receiver
//! is gone leaves before the next step; a step that fails ends only the stream to blame, and after a panic every stream
//! of the step is run once by itself to find it; a panic outside a step ends all streams, and the engine goes on with
//! empty caches; a slow reader never holds the thread, because its channel has room for the whole answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock;
use crate::engine::cache::KvCache;
use crate::engine::model::Model;
use crate::engine::pieces::Run;
use crate::engine::plan::{Pace, kept, share};
use crate::engine::prefixes::{Held, Prefixes, shared};
use crate::engine::queue::Queue;
use crate::engine::sequence::{Sequence, Ticket};
#[cfg(test)]
use crate::engine::tests;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::types::{Done, EngineError, Event, KvUse};
use crate::lla::simd::Level;

/// What the thread owns.
pub struct Worker {
    /// Weights.
    pub model: Model,
    /// Ids to bytes.
    pub tokenizer: Arc<Tokenizer>,
    /// Jobs.
    pub queue: Arc<Queue<Ticket>>,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
    /// Beginnings of prompts that are the same for everybody.
    pub openings: Vec<Vec<u32>>,
    /// How much goes into a step.
    pub pace: Pace,
    /// Bytes that all caches together may hold; at least one whole context.
    pub kv_bound: usize,
    /// Where the use of that memory is reported.
    pub report: Arc<Mutex<KvUse>>,
    /// Streams at work, in order of admission.
    pub running: Vec<Sequence>,
    /// Caches of streams that have ended.
    pub prefixes: Prefixes,
    /// Prompt tokens that came from a cache.
    pub reused: u64,
}

/// What became of a stream in a step.
enum Fate {
    Goes,
    /// Nobody reads any more.
    Left,
    Ends(Done),
    Fails(EngineError),
}

impl Worker {
    /// Runs until the queue is closed.
    pub fn run(mut self) {
        while !self.queue.closed() {
            if catch_unwind(AssertUnwindSafe(|| self.turn())).is_err() {
                self.prefixes.clear();
                for sequence in std::mem::take(&mut self.running) {
                    self.queue.done();
                    sequence.send(Err(bug()));
                }
            }
        }
    }

    /// One turn: admits what waits, lets go who left, and runs a step.
    pub fn turn(&mut self) {
        if self.running.is_empty() {
            self.tell();
            let Some(ticket) = self.queue.wait() else { return };
            self.admit(ticket);
        }
        while let Some(ticket) = self.queue.take(&|ticket| self.fits(ticket)) {
            self.admit(ticket);
        }
        self.settle(&mut |sequence| if sequence.wanted() { Fate::Goes } else { Fate::Left });
        #[cfg(test)]
        self.running.iter().for_each(|sequence| tests::trip_between(&sequence.ticket));
        self.step();
        self.tell();
    }

    /// Whether the memory that is not promised to running streams is enough for one more.
    fn fits(&self, ticket: &Ticket) -> bool {
        self.promised() + self.model.cache_bytes(ticket.tokens()) <= self.kv_bound
    }

    fn promised(&self) -> usize {
        self.running.iter().map(|sequence| sequence.reserved).sum()
    }

    /// Begins a job. Kept caches make room, the least recently used first; the one that serves this job goes last, into it.
    fn admit(&mut self, ticket: Ticket) {
        let reserved = self.model.cache_bytes(ticket.tokens());
        let room = self.kv_bound.saturating_sub(self.promised() + reserved);
        let mut sequence = Sequence::new(ticket, self.model.new_cache(), reserved);
        let best = self.prefixes.best(&sequence.wish(&self.openings)).map(|(_, length)| length);
        while self.prefixes.bytes() > room && self.prefixes.len() > usize::from(best.is_some()) {
            self.prefixes.forget_oldest();
        }
        if self.prefixes.bytes() > room
            && let Some((mut held, mut cache)) = self.prefixes.take_newest()
        {
            let length = kept(best.unwrap_or(0), sequence.ticket.prompt.len());
            held.tokens.truncate(length);
            cache.truncate(length);
            sequence.reused = Some(length);
            (sequence.held.tokens, sequence.cache) = (held.tokens, cache);
            self.reused += length as u64;
        }
        sequence.cache.allow(sequence.ticket.tokens());
        self.running.push(sequence);
    }

    /// Copies the longest usable beginning of a stream's prompt from another cache. This comes just before the first piece is
    /// read, so that it may come from a stream that has read the same words by then.
    fn look_up(&mut self, at: usize) {
        let Some(sequence) = self.running.get(at).filter(|sequence| sequence.reused.is_none()) else { return };
        let wish = sequence.wish(&self.openings);
        let others = self.running.iter().enumerate().filter(|(other, _)| *other != at);
        let running = others.map(|(_, other)| (wish.finds(&other.held.tokens, other.held.owner), &other.cache));
        let (mut length, mut source) =
            running.max_by_key(|(length, _)| *length).map_or((0, None), |(l, c)| (l, Some(c)));
        if wish.longest(&self.prefixes) > length
            && let Some((cache, longer)) = self.prefixes.best(&wish)
        {
            (length, source) = (longer, Some(cache));
        }
        let length = kept(length, wish.prompt.len());
        let mut cache = self.model.new_cache();
        cache.allow(sequence.ticket.tokens());
        if let Some(source) = source {
            cache.copy_prefix(source, length);
        }
        let tokens = wish.prompt.iter().take(length).copied().collect();
        self.reused += length as u64;
        if let Some(sequence) = self.running.get_mut(at) {
            (sequence.cache, sequence.held.tokens, sequence.reused) = (cache, tokens, Some(length));
        }
    }

    /// Whether a stream does better to wait: one before it is about to read a longer beginning that both have.
    fn follows(&self, at: usize) -> bool {
        let Some(sequence) = self.running.get(at).filter(|sequence| sequence.reused.is_none()) else { return false };
        let wish = sequence.wish(&self.openings);
        let usable = |tokens, owner| kept(wish.finds(tokens, owner), wish.prompt.len());
        let before = || self.running.iter().take(at);
        let now = before().map(|other| usable(&other.held.tokens, other.held.owner)).max().unwrap_or(0);
        let now = now.max(kept(wish.longest(&self.prefixes), wish.prompt.len()));
        before().filter(|other| other.left() > 0).any(|other| usable(&other.ticket.prompt, other.ticket.owner) > now)
    }

    fn step(&mut self) {
        let prompts = self.readers();
        let left: Vec<usize> = prompts.iter().filter_map(|at| self.running.get(*at)).map(Sequence::left).collect();
        let mut takes = vec![0; self.running.len()];
        let chunk = if left.is_empty() { 0 } else { self.pace.chunk() };
        for (at, share) in prompts.iter().zip(share(chunk, &left)) {
            if let Some(take) = takes.get_mut(*at) {
                *take = share;
            }
        }
        let read: usize = takes.iter().sum();
        for (sequence, take) in self.running.iter_mut().zip(takes) {
            sequence.feed(take);
        }
        let began = clock::now();
        let mut results = self.forward().into_iter();
        let (level, table, ends) = (self.model.level(), Arc::clone(&self.tokenizer), self.ends.clone());
        self.settle(&mut |sequence| {
            if sequence.next.is_empty() {
                return Fate::Goes;
            }
            if let Some(Some(error)) = results.next() {
                return Fate::Fails(error);
            }
            catch_unwind(AssertUnwindSafe(|| after(sequence, level, &table, &ends)))
                .unwrap_or_else(|_| Fate::Fails(bug()))
        });
        self.pace.saw(read, (clock::now() - began).as_secs_f64());
    }

    /// Streams that read their prompt in the next step, their cached beginnings in place.
    fn readers(&mut self) -> Vec<usize> {
        let mut readers = Vec::new();
        for at in 0..self.running.len() {
            if self.running.get(at).is_some_and(|sequence| sequence.left() > 0) && !self.follows(at) {
                self.look_up(at);
                readers.push(at);
            }
        }
        readers
    }

    /// Runs every stream's next tokens together. After a panic, each by itself: the one to blame fails alone.
    fn forward(&mut self) -> Vec<Option<EngineError>> {
        let mut active: Vec<&mut Sequence> = self.running.iter_mut().filter(|s| !s.next.is_empty()).collect();
        if let Ok(results) = together(&self.model, &mut active) {
            return results;
        }
        let alone = |sequence| match together(&self.model, &mut [sequence]) {
            Ok(mut results) => results.pop().flatten(),
            Err(error) => Some(error),
        };
        active.into_iter().map(alone).collect()
    }

    /// Asks every stream's fate; ends those that do not go on, and keeps the caches of those that did not fail.
    fn settle(&mut self, fate: &mut dyn FnMut(&mut Sequence) -> Fate) {
        let mut at = 0;
        while let Some(sequence) = self.running.get_mut(at) {
            let end = match fate(sequence) {
                Fate::Goes => {
                    at += 1;
                    continue;
                }
                Fate::Left => None,
                Fate::Ends(done) => Some(Ok(Event::Done(done))),
                Fate::Fails(error) => Some(Err(error)),
            };
            let mut sequence = self.running.remove(at);
            self.queue.done();
            if !matches!(end, Some(Err(_))) {
                self.keep(
                    std::mem::take(&mut sequence.held),
                    std::mem::replace(&mut sequence.cache, self.model.new_cache()),
                );
            }
            if let Some(event) = end {
                sequence.send(event);
            }
        }
    }

    /// Keeps what somebody may use again.
    fn keep(&mut self, mut held: Held, mut cache: KvCache) {
        if held.owner.is_none() {
            let opening = self.openings.iter().map(|opening| shared(opening, &held.tokens)).max();
            held.tokens.truncate(opening.unwrap_or(0));
            cache.truncate(held.tokens.len());
        }
        if !held.tokens.is_empty() {
            cache.shrink();
            self.prefixes.keep(held, cache);
        }
    }

    fn tell(&self) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.promised = self.promised();
        report.running = self.running.iter().map(|sequence| sequence.cache.bytes()).sum();
        report.kept = self.prefixes.bytes();
        report.prefixes = self.prefixes.len();
        report.reused_tokens = self.reused;
    }
}

/// Runs the streams' next tokens in one step. A failure of the whole step leaves the caches as they were.
fn together(model: &Model, active: &mut [&mut Sequence]) -> Result<Vec<Option<EngineError>>, EngineError> {
    let step = || {
        #[cfg(test)]
        active.iter().for_each(|sequence| tests::trip(&sequence.ticket));
        let mut runs: Vec<Run> = active.iter_mut().map(|sequence| sequence.as_run()).collect();
        model.step(&mut runs)
    };
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| Err(bug()))
}

/// What follows a step for one stream in it.
fn after(sequence: &mut Sequence, level: Level, table: &Tokenizer, ends: &[u32]) -> Fate {
    let speaks = sequence.speaks_next();
    sequence.ran();
    if !speaks {
        return Fate::Goes;
    }
    match sequence.speak(level, table, ends) {
        Ok(None) => Fate::Goes,
        Ok(Some(done)) => Fate::Ends(done),
        Err(error) => Fate::Fails(error),
    }
}

fn bug() -> EngineError {
    EngineError::Step("a bug in the engine stopped this answer".to_owned())
}
