//! How many tokens of which prompts go into the next step. Pure: times come in as numbers.
//!
//! Every stream that speaks gets its token in every step, so the length of a step is the longest wait between two tokens.
//! Prompts fill what is left of a set time, by their measured cost. Where a prompt is cut never changes an answer: cuts
//! lie at multiples of [`ALIGN`], and no piece is shorter, because kernels may sum a handful of rows in another order
//! than many.

use std::time::Duration;

/// Prompts are cut at multiples of this many tokens, and a rest is at least as long.
pub const ALIGN: usize = 8;
/// Prompt tokens of a step before any was measured: little even for a large model.
const FIRST_CHUNK: usize = 2 * ALIGN;
/// Prompt tokens of a step at most: more would not be any more efficient.
const MOST_CHUNK: usize = 512;
/// Part of the time that a step aims at; the rest is for what could not be foreseen.
const AIM: f64 = 0.7;
/// Weight of the newest step in a running mean.
const NEWEST: f64 = 0.3;
/// What stays of a step's lateness after each later one.
const REMEMBERED: f64 = 0.8;
/// Lateness is taken to be at most this, so that one step that the machine forgot does not stop a prompt.
const LATEST: f64 = 4.0;

/// What a step costs, and how long it may take.
///
/// A step is foreseen to take what one without prompts takes, and a time for each token of a prompt: the running mean or
/// the newest, whichever is more. Tokens cost more the further a prompt is read, and machines have other work: by how much
/// steps have been late of late, the next one is made shorter.
#[derive(Clone, Debug)]
pub struct Pace {
    budget_s: f64,
    /// Running mean of steps that read no prompt.
    base_s: f64,
    /// Running mean of what a prompt's token adds.
    token_s: Option<f64>,
    /// What it added in the newest step.
    newest_s: f64,
    /// How many times as long as foreseen steps have taken, at least 1.
    late: f64,
    /// Prompt tokens of the last chunk.
    last: usize,
}

impl Pace {
    /// Steps that read a prompt should take `budget` at most.
    pub fn new(budget: Duration) -> Self {
        Self { budget_s: budget.as_secs_f64(), base_s: 0.0, token_s: None, newest_s: 0.0, late: 1.0, last: FIRST_CHUNK }
    }

    /// Prompt tokens for the next step. Never more than twice as many as before.
    pub fn chunk(&mut self) -> usize {
        let Some(mean_s) = self.token_s else { return FIRST_CHUNK };
        let room_s = (self.budget_s * AIM / self.late - self.base_s).max(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, then is clamped")]
        let fit = (room_s / mean_s.max(self.newest_s)) as usize;
        let chunk = fit.min(self.last * 2) / ALIGN * ALIGN;
        self.last = chunk.clamp(ALIGN, MOST_CHUNK);
        self.last
    }

    /// A step that read `tokens` of prompts took `seconds`.
    pub fn saw(&mut self, tokens: usize, seconds: f64) {
        let mean = |old: f64, new: f64| old + NEWEST * (new - old);
        if tokens == 0 {
            self.base_s = if self.base_s > 0.0 { mean(self.base_s, seconds) } else { seconds };
        }
        // Few tokens cost what reading the weights costs, which says nothing about many.
        if tokens < ALIGN || seconds <= 0.0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a step has at most some hundred tokens")]
        let tokens = tokens as f64;
        if let Some(mean_s) = self.token_s {
            let foreseen = self.base_s + tokens * mean_s.max(self.newest_s);
            self.late = (seconds / foreseen).min(LATEST).max(1.0 + (self.late - 1.0) * REMEMBERED);
        }
        let cost = (seconds - self.base_s).max(seconds / LATEST) / tokens;
        self.newest_s = cost;
        self.token_s = Some(self.token_s.map_or(cost, |old| mean(old, cost)));
    }
}

/// Divides a chunk among prompts that have `left` tokens to go, in order of arrival. The oldest gets half, so that it
/// always moves on; the rest goes to those with the least left, so that a short prompt does not wait for a long one,
/// however small the chunk.
pub fn share(chunk: usize, left: &[usize]) -> Vec<usize> {
    // One piece for the oldest, and the longest rest that cannot be cut for another.
    let chunk = if left.len() > 1 { chunk.max(3 * ALIGN) } else { chunk };
    let mut takes = vec![0; left.len()];
    let (Some(oldest), Some(first)) = (left.first(), takes.first_mut()) else { return takes };
    let half = if left.len() > 1 { chunk / 2 } else { chunk };
    *first = piece(*oldest, half).max(least(*oldest));
    let mut room = chunk.saturating_sub(*first);
    let mut order: Vec<usize> = (1..left.len()).collect();
    order.sort_by_key(|at| left.get(*at));
    order.push(0);
    for at in order {
        if let (Some(left), Some(take)) = (left.get(at), takes.get_mut(at)) {
            let more = piece(left - *take, room);
            *take += more;
            room -= more;
        }
    }
    takes
}

/// How much of a cached beginning of `common` tokens is used for a prompt of `len`: up to a cut, with a rest to run.
pub fn kept(common: usize, len: usize) -> usize {
    common.min(len.saturating_sub(ALIGN)) / ALIGN * ALIGN
}

/// The longest piece of at most `room` tokens after which the rest is not too short.
fn piece(left: usize, room: usize) -> usize {
    if left <= room { left } else { room.min(left.saturating_sub(ALIGN)) / ALIGN * ALIGN }
}

/// The shortest piece.
fn least(left: usize) -> usize {
    if left < 2 * ALIGN { left } else { ALIGN }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chunk_takes_the_time_it_may() {
        let mut pace = Pace::new(Duration::from_millis(100));
        assert_eq!(pace.chunk(), FIRST_CHUNK);
        // What the streams that speak take is not the prompt's.
        (0..30).for_each(|_| pace.saw(0, 0.006));
        for _ in 0..30 {
            let tokens = pace.chunk();
            pace.saw(tokens, 0.006 + tokens as f64 * 0.001);
        }
        assert!((56..=64).contains(&pace.chunk()));
        // The machine gets three times slower: the next chunk is a third already, and takes less than it may.
        pace.saw(64, 64.0 * 0.003);
        assert!(pace.chunk() <= 16);
        // One quick step does not make up for it.
        pace.saw(16, 16.0 * 0.0001);
        assert!(pace.chunk() <= 32);
        // However slow, a prompt moves on.
        pace.saw(16, 1000.0);
        assert_eq!(pace.chunk(), ALIGN);
        // Growth is careful.
        (0..100).for_each(|_| pace.saw(16, 1e-6));
        assert_eq!((pace.chunk(), pace.chunk()), (2 * ALIGN, 4 * ALIGN));
        assert_eq!((0..9).map(|_| pace.chunk()).last(), Some(MOST_CHUNK));
    }

    #[test]
    fn steps_keep_the_time_where_tokens_cost_ever_more_and_a_machine_is_busy() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut pace = Pace::new(Duration::from_millis(100));
        let mut long = Vec::new();
        for prompt in 0..40 {
            (0..20).for_each(|_| pace.saw(0, 0.010));
            let mut read = 0;
            while read < 2000 {
                let tokens = pace.chunk();
                // Attention adds as much again within a thousand tokens; up to a third comes and goes with other work.
                let cost = 0.0006 * (1.0 + read as f64 / 1000.0) * (1.0 + random.f64() / 3.0);
                let seconds = 0.010 + tokens as f64 * cost;
                pace.saw(tokens, seconds);
                read += tokens;
                if prompt > 0 {
                    long.push(seconds);
                }
            }
        }
        long.sort_by(f64::total_cmp);
        let (median, p99) = (long[long.len() / 2], long[long.len() * 99 / 100]);
        assert!(p99 <= 0.1, "{p99} s at the 99th percentile");
        assert!(median > 0.04, "steps of {median} s make little of the time");
    }

    #[test]
    fn few_tokens_say_nothing_about_many() {
        let mut pace = Pace::new(Duration::from_millis(100));
        pace.saw(1, 0.05);
        assert_eq!(pace.chunk(), FIRST_CHUNK);
    }

    #[test]
    fn a_short_prompt_passes_a_long_one_that_still_moves() {
        assert_eq!(share(64, &[1000, 20]), [40, 20]);
        assert_eq!(share(64, &[1000, 500, 20]), [32, 8, 20]);
        assert_eq!(share(64, &[10, 1000]), [10, 48]);
        assert_eq!(share(64, &[1000]), [64]);
        assert_eq!(share(8, &[12, 5]), [12, 5]);
        assert_eq!(share(8, &[1000, 500, 7]), [8, 8, 7]);
        assert_eq!(share(8, &[1000, 12]), [8, 12]);
        assert!(share(8, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn shares_are_whole_pieces(chunk in ALIGN..600, left in prop::collection::vec(1_usize..2000, 1..9)) {
            let takes = share(chunk, &left);
            prop_assert!(takes[0] > 0);
            prop_assert!(takes.iter().sum::<usize>() < chunk.max(3 * ALIGN) + 2 * ALIGN);
            let shortest = (1..left.len()).min_by_key(|at| left[*at]);
            prop_assert!(takes[0] == left[0] || shortest.is_none_or(|at| takes[at] > 0), "a short one waits: {takes:?}");
            for (take, left) in takes.iter().zip(&left) {
                prop_assert!(take == left || *take == 0 || (take % ALIGN == 0 && left - take >= ALIGN));
            }
            prop_assert!(takes == left || takes.iter().sum::<usize>() + 3 * ALIGN > chunk, "room was left: {takes:?}");
        }

        #[test]
        fn a_kept_beginning_ends_at_a_cut(common in 0_usize..100, len in 1_usize..100) {
            let common = common.min(len);
            let kept = kept(common, len);
            prop_assert!(kept <= common && kept.is_multiple_of(ALIGN) && (kept == 0 || len - kept >= ALIGN));
        }
    }
}
