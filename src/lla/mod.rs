//! The attention kernel: grouped-query, causal, on plain slices; nothing else in the crate knows how attention is done.
//!
//! [`attend`] is one call per layer, for any number of sequences. Softmax attention, local linear attention and learned
//! probes are one kernel: a pass gathers *moments* of the keys and values under the softmax weights, a provider
//! ([`Rho`](ridge::Rho)) turns them into a correction vector per query, and *apply* writes
//! `vbar - G rho = sum p_j (1 - rho.(k_j - kbar)) v_j`. Softmax is the correction zero, and takes a path of its own.
//!
//! Defined outputs for odd input: a query that sees no key (a window of 0) gives zeros; a score of minus infinity weighs
//! nothing; a score that is NaN or plus infinity gives NaN for its row. A NaN or infinite *value* gives NaN for every row
//! of the block of queries that reads its tile, since its weight of zero would not silence it.
//!
//! Never here: HTTP, candle, files, clocks.

pub mod backward;
pub mod cuda;
pub mod pool;
pub mod reference;
pub mod report;
pub mod ridge;
pub mod simd;
mod softmax;
pub mod store;
mod tile;

use crate::lla::pool::{Panicked, Pool, Shards};
use crate::lla::report::Report;
use crate::lla::ridge::Rho;
use crate::lla::simd::Level;
use crate::lla::store::{Precision, Store};

/// Rows (query heads x tokens) that share a pass over the keys, about: enough to pay for laying out the tile.
const ROWS_PER_PASS: usize = 96;
/// Below this many multiplications a call runs on the caller alone: waking a worker would take longer.
const ALONE: usize = 40_000;
/// Largest number of values per head, and of heads: beyond it a file is damaged, and sizes below cannot overflow.
const MOST: usize = 1 << 16;

/// How heads are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Query heads; a multiple of `kv_heads`. Query heads `g * h` to `g * h + g - 1` read key-value head `h`.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Numbers per query and key.
    pub dim: usize,
    /// Numbers per value.
    pub value_dim: usize,
}

impl Shape {
    /// Query heads per key-value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// Whether the numbers can be those of a kernel: none zero, none absurd, heads a multiple of key-value heads.
    pub fn check(&self) -> Result<(), AttendError> {
        let all = [self.heads, self.kv_heads, self.dim, self.value_dim];
        let sane = all.iter().all(|n| (1..=MOST).contains(n)) && self.heads.is_multiple_of(self.kv_heads);
        if sane { Ok(()) } else { Err(AttendError::Shape("heads")) }
    }
}

/// One sequence's run of consecutive tokens in one layer.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Heads; the store's.
    pub shape: Shape,
    /// Factor on every score, usually `1 / sqrt(dim)`.
    pub scale: f32,
    /// Queries after position encoding: `tokens * heads * dim`.
    pub queries: &'a [f32],
    /// Position of the first query; query `i` sees the keys at positions `0..=first + i`, which the store must hold.
    pub first: usize,
    /// Keys and values of the sequence so far, those of the run included.
    pub store: &'a Store,
    /// What corrects the average.
    pub rho: Rho<'a>,
    /// How many of the latest keys a query sees, its own included; all if `None`.
    pub window: Option<usize>,
}

/// Why [`attend`] could not run. Nothing was written then, except after a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttendError {
    /// Slices do not fit the shape.
    #[error("attention: the {0} do not fit the shape")]
    Shape(&'static str),
    /// The scale is not a finite number.
    #[error("attention: the scale is not a finite number")]
    Scale,
    /// There are queries but no key.
    #[error("attention: there are no keys")]
    Empty,
    /// The run reaches past the keys.
    #[error("attention: the run ends at position {end}, but only {held} keys are held")]
    Overlong {
        /// Positions the run needs.
        end: usize,
        /// Positions held.
        held: usize,
    },
    /// This build cannot correct the average that way.
    #[error("attention: a finite ridge or a projection is not supported")]
    Unsupported,
    /// A kernel panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// Attention of every query of every job over the keys it sees, in one parallel region. `out` is the jobs' outputs one
/// after another, `tokens * heads * value_dim` numbers each.
pub fn attend(pool: &Pool, level: Level, jobs: &[Attention], out: &mut [f32]) -> Result<Report, AttendError> {
    let (tasks, work) = plan(jobs, out.len())?;
    let out = Shards::new(out);
    let run = |index: usize| {
        if let Some((job, task)) = tasks.get(index).and_then(|task| Some((jobs.get(task.job)?, task))) {
            softmax::block(level, job, task, &out);
        }
    };
    if work < ALONE {
        (0..tasks.len()).for_each(run)
    } else {
        pool.run(tasks.len(), &run)?
    }
    Ok(jobs.iter().map(cost).fold(Report::default(), |mut sum, one| {
        sum.merge(&one);
        sum
    }))
}

/// One unit of work: a key-value head's query heads for some tokens of a job.
struct Task {
    job: usize,
    kv_head: usize,
    tokens: std::ops::Range<usize>,
    /// Where the job's output starts.
    start: usize,
}

/// The tasks of all jobs, longest first, and about how many multiplications they are.
fn plan(jobs: &[Attention], out: usize) -> Result<(Vec<Task>, usize), AttendError> {
    let (mut tasks, mut work, mut start) = (Vec::new(), 0, 0_usize);
    for (index, job) in jobs.iter().enumerate() {
        let tokens = check(job)?;
        let Shape { heads, kv_heads, dim, value_dim } = job.shape;
        let block = (ROWS_PER_PASS / job.shape.group()).clamp(1, tokens.max(1));
        for kv_head in 0..kv_heads {
            for from in (0..tokens).step_by(block) {
                tasks.push(Task { job: index, kv_head, tokens: from..tokens.min(from + block), start });
            }
        }
        work += tokens * (job.first + tokens) * heads * (dim + value_dim) / 2;
        start = start.saturating_add(tokens * heads * value_dim);
    }
    if start != out {
        return Err(AttendError::Shape("outputs"));
    }
    // Later tokens see more keys; longest first keeps all threads busy to the end.
    tasks.sort_by_key(|t| std::cmp::Reverse(jobs.get(t.job).map_or(0, |j| t.tokens.len() * (j.first + t.tokens.end))));
    Ok((tasks, work))
}

/// Tokens of a job whose parts fit.
fn check(job: &Attention) -> Result<usize, AttendError> {
    job.shape.check()?;
    if job.shape != job.store.shape() {
        return Err(AttendError::Shape("store"));
    }
    let width = job.shape.heads * job.shape.dim;
    if !job.queries.len().is_multiple_of(width) {
        return Err(AttendError::Shape("queries"));
    }
    if !job.scale.is_finite() {
        return Err(AttendError::Scale);
    }
    let (tokens, held) = (job.queries.len() / width, job.store.len());
    let end = job.first.saturating_add(tokens);
    if tokens > 0 && held == 0 {
        return Err(AttendError::Empty);
    }
    if end > held && tokens > 0 {
        return Err(AttendError::Overlong { end, held });
    }
    match job.rho {
        Rho::Zero => {}
        Rho::Projection(rho) if rho.len() != job.queries.len() => return Err(AttendError::Shape("projections")),
        Rho::Projection(_) => return Err(AttendError::Unsupported),
        Rho::Solve(ridge) => {
            ridge.check(job.shape.heads)?;
            if (0..job.shape.heads).any(|head| ridge.lambda(head).is_finite()) {
                return Err(AttendError::Unsupported);
            }
        }
    }
    Ok(tokens)
}

/// What a job costs on paper; see [`Report`].
fn cost(job: &Attention) -> Report {
    let Shape { heads, kv_heads, dim, value_dim } = job.shape;
    let tokens = job.queries.len() / (heads * dim);
    let visible = (0..tokens).map(|i| (job.first + i + 1).min(job.window.unwrap_or(usize::MAX))).sum::<usize>();
    let bytes = match job.store.precision() {
        Precision::Half => 2,
        Precision::Full => 4,
    };
    Report {
        rows: (tokens * heads) as u64,
        flops: (2 * visible * heads * (dim + value_dim)) as u64,
        kv_bytes: (visible * kv_heads * (dim + value_dim) * bytes) as u64,
        ..Report::default()
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        queries: Vec<f32>,
        first: usize,
        store: Store,
    }

    fn case(shape: Shape, precision: Precision, tokens: usize, keys: usize, first: usize) -> Case {
        let mut random = fastrand::Rng::with_seed((tokens * 131 + keys) as u64);
        let mut draw = |n: usize| (0..n).map(|_| random.f32() * 4.0 - 2.0).collect::<Vec<f32>>();
        let mut store = Store::new(shape, precision);
        store.append(&draw(keys * shape.kv_heads * shape.dim), &draw(keys * shape.kv_heads * shape.value_dim)).unwrap();
        Case { queries: draw(tokens * shape.heads * shape.dim), first, store }
    }

    impl Case {
        fn job(&self) -> Attention<'_> {
            Attention {
                shape: self.store.shape(),
                scale: 0.5,
                queries: &self.queries,
                first: self.first,
                store: &self.store,
                rho: Rho::Zero,
                window: None,
            }
        }

        fn outputs(&self) -> usize {
            self.queries.len() / self.store.shape().dim * self.store.shape().value_dim
        }

        fn run(&self, pool: &Pool, level: Level, window: Option<usize>) -> Vec<f32> {
            let mut out = vec![f32::NAN; self.outputs()];
            attend(pool, level, &[Attention { window, ..self.job() }], &mut out).unwrap();
            out
        }

        fn check(&self, window: Option<usize>) {
            let pool = Pool::new(2);
            let want = reference::attention::attend(&Attention { window, ..self.job() });
            for level in levels() {
                for (i, (got, want)) in self.run(&pool, level, window).iter().zip(&want).enumerate() {
                    let error = (f64::from(*got) - want).abs();
                    assert!(error < 2e-5, "{level:?} {:?} at {i}: {got} for {want}", self.store.shape());
                }
            }
        }
    }

    fn levels() -> impl Iterator<Item = Level> {
        Level::all().into_iter().filter(|level| level.runs_here())
    }

    const SMALL: Shape = Shape { heads: 6, kv_heads: 2, dim: 20, value_dim: 20 };
    const SMOL: Shape = Shape { heads: 9, kv_heads: 3, dim: 64, value_dim: 64 };
    const RUNS: [(usize, usize, usize); 6] =
        [(1, 1, 0), (1, 63, 62), (1, 200, 199), (5, 5, 0), (70, 130, 60), (33, 97, 64)];

    #[test]
    fn every_level_agrees_with_double_precision() {
        let wide = Shape { heads: 2, kv_heads: 2, dim: 128, value_dim: 128 };
        let uneven = Shape { heads: 8, kv_heads: 1, dim: 3, value_dim: 17 };
        for shape in [SMALL, SMOL, Shape { heads: 14, kv_heads: 2, ..SMOL }, wide, uneven] {
            for (tokens, keys, first) in RUNS {
                case(shape, Precision::Full, tokens, keys, first).check(None);
                case(shape, Precision::Half, tokens, keys, first).check(None);
            }
        }
    }

    #[test]
    fn a_window_hides_what_is_older() {
        for (tokens, keys, first) in RUNS {
            for window in [1, 2, 15, 16, 64, 100, usize::MAX] {
                case(SMALL, Precision::Full, tokens, keys, first).check(Some(window));
            }
            let none = case(SMALL, Precision::Full, tokens, keys, first);
            assert!(none.run(&Pool::new(1), Level::detect(), Some(0)).iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn jobs_together_give_what_each_gives_alone() {
        let pool = Pool::new(2);
        let cases = [
            case(SMOL, Precision::Half, 1, 300, 299),
            case(SMALL, Precision::Full, 40, 90, 50),
            case(SMALL, Precision::Full, 1, 7, 6),
            case(SMOL, Precision::Full, 3, 64, 60),
        ];
        let jobs: Vec<Attention> = cases.iter().map(Case::job).collect();
        let mut out = vec![f32::NAN; cases.iter().map(Case::outputs).sum()];
        let report = attend(&pool, Level::detect(), &jobs, &mut out).unwrap();
        let alone: Vec<f32> = cases.iter().flat_map(|c| c.run(&pool, Level::detect(), None)).collect();
        assert_eq!(out, alone);
        assert_eq!(report.rows, 9 + 40 * 6 + 6 + 3 * 9);
        let single = attend(&pool, Level::detect(), &jobs[..1], &mut vec![0.0; cases[0].outputs()]).unwrap();
        assert_eq!((single.flops, single.kv_bytes), (4 * 300 * 64 * 9, 4 * 300 * 64 * 3));
    }

    #[test]
    fn keys_before_the_first_query_are_seen_and_later_ones_are_not() {
        // 10 keys, queries at 3..6: the keys 6.. are never seen, whatever they hold.
        let seen = case(SMALL, Precision::Full, 3, 10, 3);
        let want = seen.run(&Pool::new(1), Level::detect(), None);
        let mut other = Store::new(SMALL, Precision::Full);
        other.copy_prefix(&seen.store, 6).unwrap();
        other.append(&[7.0; 160], &[9.0; 160]).unwrap();
        assert_eq!(Case { store: other, ..seen }.run(&Pool::new(1), Level::detect(), None), want);
    }

    #[test]
    fn odd_input_has_defined_output() {
        let pool = Pool::new(1);
        for level in levels() {
            let mut nan = case(SMALL, Precision::Full, 2, 2, 0);
            nan.queries[SMALL.heads * SMALL.dim] = f32::NAN;
            let out = nan.run(&pool, level, None);
            let (good, bad) = out.split_at(SMALL.heads * SMALL.dim);
            assert!(good.iter().all(|x| x.is_finite()), "a NaN query spoils its own row only");
            assert!(bad[..SMALL.dim].iter().all(|x| x.is_nan()) && bad[SMALL.dim..].iter().all(|x| x.is_finite()));

            let mut huge = Store::new(SMALL, Precision::Full);
            huge.append(&[-1e30; 120], &[1.0; 120]).unwrap();
            let huge = Case { queries: vec![1e30; 120], first: 2, store: huge };
            assert!(huge.run(&pool, level, None).iter().all(|x| *x == 0.0), "minus infinity weighs nothing");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let good = case(SMALL, Precision::Full, 2, 4, 2);
        let mut out = vec![0.0; good.outputs()];
        let mut error = |job: Attention| attend(&Pool::new(1), Level::Portable, &[job], &mut out).unwrap_err();
        let shape = |shape: Shape| Attention { shape, ..good.job() };
        for bad in [Shape { heads: 0, ..SMALL }, Shape { heads: 5, ..SMALL }, Shape { dim: usize::MAX, ..SMALL }] {
            assert_eq!(error(shape(bad)), AttendError::Shape("heads"));
        }
        assert_eq!(error(shape(Shape { dim: 10, ..SMALL })), AttendError::Shape("store"));
        assert_eq!(error(Attention { queries: &good.queries[1..], ..good.job() }), AttendError::Shape("queries"));
        assert_eq!(error(Attention { queries: &good.queries[..120], ..good.job() }), AttendError::Shape("outputs"));
        assert_eq!(error(Attention { scale: f32::NAN, ..good.job() }), AttendError::Scale);
        assert_eq!(error(Attention { first: 3, ..good.job() }), AttendError::Overlong { end: 5, held: 4 });
        assert!(matches!(error(Attention { first: usize::MAX, ..good.job() }), AttendError::Overlong { .. }));
        let empty = Store::new(SMALL, Precision::Full);
        assert_eq!(error(Attention { store: &empty, ..good.job() }), AttendError::Empty);
        assert_eq!(error(Attention { rho: Rho::Projection(&[0.0]), ..good.job() }), AttendError::Shape("projections"));
        let ridge = ridge::Ridge::new(vec![1.0; 4]).unwrap();
        assert_eq!(error(Attention { rho: Rho::Solve(&ridge), ..good.job() }), AttendError::Shape("ridges"));
    }
}
