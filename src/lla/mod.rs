//! The attention kernel: grouped-query, causal, on plain slices; nothing else in the crate knows how attention is done.
//!
//! [`attend`] is one call per layer. Today it is exact softmax attention, computed in one pass over tiles of keys and
//! values that are loaded once for all query heads of a group (online softmax, single-precision sums). The inside is
//! laid out for local linear attention, of which softmax is the limit of infinite ridge: a pass gathers *moments* of the
//! keys and values under the softmax weights, a provider turns them into a correction vector *rho* per query (softmax:
//! zero, so only the value moment is gathered), and *apply* writes the output. See `softmax` for the three places.
//!
//! Defined outputs for odd input: a query that sees no key gives zeros; a score of minus infinity weighs nothing; a
//! score that is NaN or plus infinity gives NaN for its row. A NaN or infinite *value* gives NaN for every row of the
//! block of queries that reads its tile, since its weight of zero would not silence it.
//!
//! Never here: HTTP, candle, files, clocks.

pub mod pool;
pub mod reference;
pub mod simd;
mod softmax;
mod tile;

use half::f16;

use crate::lla::pool::{Panicked, Pool, Shards};
use crate::lla::simd::Level;

/// Rows (query heads x tokens) that share a pass over the keys, about: enough to pay for laying out the tile.
const ROWS_PER_PASS: usize = 96;
/// Below this many multiplications a call runs on the caller alone: waking a worker would take longer.
const ALONE: usize = 40_000;

/// How heads are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Query heads; a multiple of `kv_heads`. Query heads `g * h` to `g * h + g - 1` read key-value head `h`.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Values per head.
    pub dim: usize,
}

/// Rows of keys or values: one row of `kv_heads * dim` numbers per position.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Half precision, as the cache keeps them.
    Half(&'a [f16]),
    /// Single precision.
    Full(&'a [f32]),
}

impl Rows<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Half(rows) => rows.len(),
            Self::Full(rows) => rows.len(),
        }
    }
}

/// One layer's attention for a run of consecutive tokens.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Heads.
    pub shape: Shape,
    /// Factor on every score, usually `1 / sqrt(dim)`.
    pub scale: f32,
    /// Queries after position encoding: `tokens * heads * dim`.
    pub queries: &'a [f32],
    /// Position of the first query; query `i` sees the keys at positions `0..=first + i` that exist.
    pub first: usize,
    /// Keys after position encoding, position 0 first.
    pub keys: Rows<'a>,
    /// Values; as many rows as there are keys.
    pub values: Rows<'a>,
}

/// Why [`attend`] could not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttendError {
    /// Slices do not fit the shape.
    #[error("attention: the {0} do not fit the shape")]
    Shape(&'static str),
    /// A kernel panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// Attention of every query over the keys it sees, into `out` (laid out like the queries).
pub fn attend(pool: &Pool, level: Level, job: &Attention, out: &mut [f32]) -> Result<(), AttendError> {
    let (tokens, keys) = check(job, out.len())?;
    let group = job.shape.heads / job.shape.kv_heads;
    let block = (ROWS_PER_PASS / group).clamp(1, tokens.max(1));
    let blocks = tokens.div_ceil(block);
    let tasks = blocks * job.shape.kv_heads;
    let out = Shards::new(out);
    // Later blocks see more keys; longest first keeps both threads busy to the end.
    let work = |task: usize| {
        let first = (blocks - 1 - task / job.shape.kv_heads) * block;
        softmax::block(level, job, task % job.shape.kv_heads, first..tokens.min(first + block), &out);
    };
    if tokens * keys * job.shape.heads * job.shape.dim < ALONE {
        (0..tasks).for_each(work);
        return Ok(());
    }
    Ok(pool.run(tasks, &work)?)
}

/// Tokens and keys of a job whose slices fit.
fn check(job: &Attention, out: usize) -> Result<(usize, usize), AttendError> {
    let Shape { heads, kv_heads, dim } = job.shape;
    if heads == 0 || kv_heads == 0 || dim == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(AttendError::Shape("heads"));
    }
    let width = heads.checked_mul(dim).ok_or(AttendError::Shape("heads"))?;
    if !job.queries.len().is_multiple_of(width) || job.queries.len() != out {
        return Err(AttendError::Shape("queries"));
    }
    if !job.keys.len().is_multiple_of(kv_heads * dim) || job.keys.len() != job.values.len() {
        return Err(AttendError::Shape("keys and values"));
    }
    Ok((job.queries.len() / width, job.keys.len() / (kv_heads * dim)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        shape: Shape,
        queries: Vec<f32>,
        keys: Vec<f32>,
        values: Vec<f32>,
        first: usize,
    }

    fn case(shape: Shape, tokens: usize, keys: usize, first: usize) -> Case {
        let mut random = fastrand::Rng::with_seed((tokens * 131 + keys) as u64);
        let mut draw = |n: usize| (0..n).map(|_| random.f32() * 4.0 - 2.0).collect::<Vec<f32>>();
        let width = shape.kv_heads * shape.dim;
        Case {
            shape,
            queries: draw(tokens * shape.heads * shape.dim),
            keys: draw(keys * width),
            values: draw(keys * width),
            first,
        }
    }

    impl Case {
        fn job(&self) -> Attention<'_> {
            Attention {
                shape: self.shape,
                scale: 0.5,
                queries: &self.queries,
                first: self.first,
                keys: Rows::Full(&self.keys),
                values: Rows::Full(&self.values),
            }
        }

        fn check(&self) {
            let pool = Pool::new(2);
            let want = reference::softmax(&self.job());
            for level in Level::all().into_iter().filter(|l| l.runs_here()) {
                let mut out = vec![f32::NAN; self.queries.len()];
                attend(&pool, level, &self.job(), &mut out).unwrap();
                for (i, (got, want)) in out.iter().zip(&want).enumerate() {
                    let error = (f64::from(*got) - want).abs();
                    assert!(error < 2e-5, "{level:?} {:?} at {i}: {got} for {want}", self.shape);
                }
            }
        }
    }

    const SMALL: Shape = Shape { heads: 6, kv_heads: 2, dim: 20 };
    const SMOL: Shape = Shape { heads: 9, kv_heads: 3, dim: 64 };

    #[test]
    fn every_level_agrees_with_double_precision() {
        for shape in [SMALL, SMOL, Shape { heads: 14, kv_heads: 2, dim: 64 }, Shape { heads: 2, kv_heads: 2, dim: 128 }]
        {
            for (tokens, keys, first) in [(1, 1, 0), (1, 63, 62), (1, 200, 199), (5, 5, 0), (70, 130, 60), (33, 97, 64)]
            {
                case(shape, tokens, keys, first).check();
            }
        }
    }

    #[test]
    fn keys_before_the_first_query_are_seen_and_later_ones_are_not() {
        // 10 keys, queries at 3..6: the keys 6.. are never seen, whatever they hold.
        let mut seen = case(SMALL, 3, 10, 3);
        let want = reference::softmax(&seen.job());
        let width = SMALL.kv_heads * SMALL.dim;
        seen.keys[6 * width..].fill(7.0);
        seen.values[6 * width..].fill(9.0);
        assert_eq!(reference::softmax(&seen.job()), want);
        seen.check();
    }

    #[test]
    fn half_precision_rows_are_read() {
        let full = case(SMOL, 3, 90, 87);
        let half = |v: &[f32]| v.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>();
        let (keys, values) = (half(&full.keys), half(&full.values));
        let job = Attention { keys: Rows::Half(&keys), values: Rows::Half(&values), ..full.job() };
        let want = reference::softmax(&job);
        let mut out = vec![0.0; full.queries.len()];
        attend(&Pool::new(1), Level::detect(), &job, &mut out).unwrap();
        assert!(out.iter().zip(&want).all(|(g, w)| (f64::from(*g) - w).abs() < 2e-5));
    }

    #[test]
    fn odd_input_has_defined_output() {
        let pool = Pool::new(1);
        for level in Level::all().into_iter().filter(|l| l.runs_here()) {
            let none = case(SMALL, 2, 0, 0);
            let mut out = vec![f32::NAN; none.queries.len()];
            attend(&pool, level, &none.job(), &mut out).unwrap();
            assert!(out.iter().all(|x| *x == 0.0), "no keys");

            let mut nan = case(SMALL, 2, 2, 0);
            nan.queries[SMALL.heads * SMALL.dim] = f32::NAN;
            attend(&pool, level, &nan.job(), &mut out).unwrap();
            let (good, bad) = out.split_at(SMALL.heads * SMALL.dim);
            assert!(good.iter().all(|x| x.is_finite()), "a NaN query spoils its own row only");
            assert!(bad[..SMALL.dim].iter().all(|x| x.is_nan()) && bad[SMALL.dim..].iter().all(|x| x.is_finite()));

            let mut huge = case(SMALL, 1, 3, 2);
            huge.queries.fill(1e30);
            huge.keys.fill(-1e30);
            let mut row = vec![f32::NAN; huge.queries.len()];
            attend(&pool, level, &huge.job(), &mut row).unwrap();
            assert!(row.iter().all(|x| *x == 0.0), "all scores are minus infinity: nothing weighs anything");
        }
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let good = case(SMALL, 2, 4, 2);
        let pool = Pool::new(1);
        let mut out = vec![0.0; good.queries.len()];
        let no_heads = Attention { shape: Shape { heads: 0, ..SMALL }, ..good.job() };
        assert_eq!(attend(&pool, Level::Portable, &no_heads, &mut out), Err(AttendError::Shape("heads")));
        let uneven = Attention { shape: Shape { heads: 5, ..SMALL }, ..good.job() };
        assert_eq!(attend(&pool, Level::Portable, &uneven, &mut out), Err(AttendError::Shape("heads")));
        assert_eq!(attend(&pool, Level::Portable, &good.job(), &mut [0.0]), Err(AttendError::Shape("queries")));
        let short = Attention { values: Rows::Full(&good.values[1..]), ..good.job() };
        assert_eq!(attend(&pool, Level::Portable, &short, &mut out), Err(AttendError::Shape("keys and values")));
    }
}
