//! Keys and values of sequences that have ended, kept for prompts that begin the same, as long as memory allows.
//!
//! Invariant: [`Wish::finds`] alone decides what may be used again. Another caller's words must not be guessed from how fast
//! a prompt is read, so only openings, which are the same for everybody, are shared between owners.

use crate::engine::cache::KvCache;

/// Sequences kept at most: looking for a common beginning stays far below the cost of a step.
const MOST_KEPT: usize = 256;

/// Tokens that were run, and whose they are.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Tokens in a cache, in order.
    pub tokens: Vec<u32>,
    /// See [`Job::owner`](crate::engine::types::Job).
    pub owner: Option<u64>,
}

/// A prompt that looks for a beginning of its own in what was run before.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// The prompt.
    pub prompt: &'a [u32],
    /// Whose it is.
    pub owner: Option<u64>,
    /// Beginnings that are the same for everybody.
    pub openings: &'a [Vec<u32>],
}

impl Wish<'_> {
    /// How many of these tokens, run for `owner`, the prompt may use.
    pub fn finds(&self, tokens: &[u32], owner: Option<u64>) -> usize {
        let equal = shared(tokens, self.prompt);
        if owner.is_some() && owner == self.owner {
            return equal;
        }
        equal.min(self.openings.iter().map(|opening| shared(opening, self.prompt)).max().unwrap_or(0))
    }

    /// The longest usable beginning among those kept.
    pub fn longest(&self, prefixes: &Prefixes) -> usize {
        prefixes.kept.iter().map(|kept| self.finds(&kept.held.tokens, kept.held.owner)).max().unwrap_or(0)
    }
}

/// Caches of ended sequences.
#[derive(Default)]
pub struct Prefixes {
    /// Least recently used first.
    kept: Vec<Kept>,
}

struct Kept {
    held: Held,
    cache: KvCache,
}

impl Prefixes {
    /// The one with the longest usable beginning, and its length; it becomes the most recently used.
    pub fn best(&mut self, wish: &Wish) -> Option<(&KvCache, usize)> {
        let lengths = self.kept.iter().map(|kept| wish.finds(&kept.held.tokens, kept.held.owner));
        let (at, length) = lengths.enumerate().max_by_key(|(_, length)| *length).filter(|(_, length)| *length > 0)?;
        let kept = self.kept.remove(at);
        self.kept.push(kept);
        self.kept.last().map(|kept| (&kept.cache, length))
    }

    /// Takes the most recently used out.
    pub fn take_newest(&mut self) -> Option<(Held, KvCache)> {
        self.kept.pop().map(|kept| (kept.held, kept.cache))
    }

    /// Keeps a sequence; those it continues are forgotten, since it serves for them.
    pub fn keep(&mut self, held: Held, cache: KvCache) {
        let covered = |kept: &Kept| {
            kept.held.owner == held.owner && shared(&kept.held.tokens, &held.tokens) == kept.held.tokens.len()
        };
        self.kept.retain(|kept| !covered(kept));
        if self.kept.len() >= MOST_KEPT {
            self.forget_oldest();
        }
        self.kept.push(Kept { held, cache });
    }

    /// Forgets the least recently used; `false` when there is none.
    pub fn forget_oldest(&mut self) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        self.kept.remove(0);
        true
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.kept.clear();
    }

    /// Sequences kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Bytes they hold.
    pub fn bytes(&self) -> usize {
        self.kept.iter().map(|kept| kept.cache.bytes()).sum()
    }
}

/// Length of the common beginning.
pub fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}
