//! Which kernels a call launches, and every block's part: from the jobs' sizes alone, without a device.

use std::ops::Range;

use crate::lla::Shape;
use crate::lla::cuda::layout::{WHOLE, Work};
use crate::lla::cuda::machine::{CudaError, Facts, Launch};
use crate::lla::cuda::plan::{self, DECODE_TOKENS, PREFILL_ROWS};
use crate::lla::cuda::source::{Family, Math, Variant};

/// Blocks of softmax decode that a multiprocessor runs at a time, about.
const SOFTMAX_BLOCKS: usize = 4;
/// Device memory that the moments of one batch of rows may take, floats (512 MiB).
const SCRATCH_FLOATS: usize = 128 << 20;

/// What corrects a job's average, by query head.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Softmax where `None` or an infinite ridge; a finite ridge is solved for.
    Solve(Vec<f32>),
    /// A given correction.
    Projected,
}

/// A job as the planning sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// Index in the call.
    pub index: usize,
    /// Tokens.
    pub tokens: usize,
    /// Position of the first.
    pub first: usize,
    /// Sliding window.
    pub window: Option<usize>,
    /// Correction.
    pub kind: Kind,
}

impl Sizes {
    fn is_softmax(&self, head: usize) -> bool {
        matches!(&self.kind, Kind::Solve(lambda) if lambda.get(head).is_none_or(|l| l.is_infinite()))
    }

    fn is_solved(&self, head: usize) -> bool {
        matches!(&self.kind, Kind::Solve(lambda) if lambda.get(head).is_some_and(|l| l.is_finite()))
    }

    fn sees(&self, token: usize) -> (usize, usize) {
        plan::visible(self.first + token, self.window)
    }
}

/// A launch and where its work begins in the list of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Kernel, grid, sizes.
    pub launch: Launch,
    /// Heads.
    pub shape: Shape,
    /// Index of its first block's work.
    pub work: usize,
}

/// All launches of a call in order.
#[derive(Debug, Default, PartialEq)]
pub struct Steps {
    /// Launches.
    pub list: Vec<Step>,
    /// Parts of all blocks.
    pub work: Vec<Work>,
    /// Floats of scratch for splits.
    pub partial: usize,
    /// Floats of scratch for rows.
    pub merged: usize,
}

/// Jobs that share shape and precision, and how to compile for them.
pub struct Group<'a> {
    /// Heads.
    pub shape: Shape,
    /// Widths and precision; family and arithmetic are put in here.
    pub variant: Variant,
    /// What is there.
    pub facts: &'a Facts,
    /// Arithmetic, if the caller chose it.
    pub math: Option<Math>,
    /// The jobs.
    pub jobs: Vec<Sizes>,
}

impl Steps {
    /// Plans a group's launches after those planned so far.
    pub fn add(&mut self, group: &Group) -> Result<(), CudaError> {
        self.decode(group, Family::Softmax)?;
        self.decode(group, Family::Projected)?;
        self.moments(group)?;
        self.prefill(group, Family::PrefillSoftmax, "prefill_softmax")?;
        self.prefill(group, Family::PrefillProjected, "prefill_projected")?;
        self.prefill(group, Family::PrefillLla, "prefill_lla")
    }

    /// Softmax weights, one block per split and some heads, then the merge of what was split.
    fn decode(&mut self, group: &Group, family: Family) -> Result<(), CudaError> {
        let variant = Variant { family, ..group.variant }.canonical();
        let (heads, each) = (group.shape.group(), plan::heads_per_block(variant));
        let takes = |job: &Sizes| (job.kind == Kind::Projected) == (family == Family::Projected);
        let jobs = || group.jobs.iter().filter(|job| job.tokens <= DECODE_TOKENS && takes(job));
        // Counted over all heads whatever their ridge, so that an infinite ridge is split as softmax is.
        let blocks = jobs().map(|job| job.tokens).sum::<usize>() * group.shape.kv_heads * heads.div_ceil(each);
        let wanted = group.facts.processors as usize * SOFTMAX_BLOCKS;
        let (mut work, mut merges, mut slot) = (Vec::new(), Vec::new(), 0);
        for job in jobs() {
            let writes = |head: usize| family == Family::Projected || job.is_softmax(head);
            for (token, head) in pairs(job.tokens, group.shape.heads).filter(|(_, h)| (h % heads).is_multiple_of(each))
            {
                let tile = head..(head + each).min(head / heads * heads + heads);
                if !tile.clone().any(writes) {
                    continue;
                }
                let (begin, end) = job.sees(token);
                let one = |head, begin, end, slot| block(job.index, head, token, begin, end, slot);
                let ranges = plan::ranges(begin, end, plan::splits(end - begin, blocks, wanted));
                if ranges.len() <= 1 {
                    work.push(Work { slot: WHOLE, ..one(head, begin, end, 0)? });
                    continue;
                }
                for h in tile.filter(|h| writes(*h)) {
                    merges.push(one(h, slot, ranges.len(), h - head)?);
                }
                for (begin, end) in ranges {
                    work.push(one(head, begin, end, slot)?);
                    slot += 1;
                }
            }
        }
        self.partial = self.partial.max(slot * each * plan::part(variant));
        self.push(group, variant, "decode_softmax", work, 1)?;
        self.push(group, variant, "merge_softmax", merges, 1)
    }

    /// Second moments per split, their merge, the solve; in batches of rows that fit the scratch.
    fn moments(&mut self, group: &Group) -> Result<(), CudaError> {
        let jobs = || group.jobs.iter().filter(|job| job.tokens <= DECODE_TOKENS);
        let rows: Vec<_> = jobs()
            .flat_map(|job| pairs(job.tokens, group.shape.heads).map(move |(token, head)| (job, token, head)))
            .filter(|(job, _, head)| job.is_solved(*head))
            .collect();
        let variant = Variant { family: Family::Moments, math: group.moments_math(), ..group.variant };
        let solve = Variant { family: Family::Solve, ..group.variant }.canonical();
        let part = plan::part(variant);
        let blocks_at_once = if variant.dim.max(variant.value_dim) > 64 { 1 } else { 3 };
        let wanted = group.facts.processors as usize * blocks_at_once;
        let count = |job: &Sizes, token| {
            let (begin, end) = job.sees(token);
            plan::ranges(begin, end, plan::splits(end - begin, rows.len(), wanted))
        };
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let (mut work, mut merges, mut solves, mut slot) = (Vec::new(), Vec::new(), Vec::new(), 0);
            while let Some(((job, token, head), others)) = rest.split_first() {
                let ranges = count(job, *token);
                if !work.is_empty() && (slot + ranges.len() + solves.len() + 1) * part > SCRATCH_FLOATS {
                    break;
                }
                rest = others;
                let one = |begin, end, slot| block(job.index, *head, *token, begin, end, slot);
                merges.push(one(slot, ranges.len(), solves.len())?);
                solves.push(one(0, 0, solves.len())?);
                for (begin, end) in ranges {
                    work.push(one(begin, end, slot)?);
                    slot += 1;
                }
            }
            self.partial = self.partial.max(slot * part);
            self.merged = self.merged.max(solves.len() * part);
            self.push(group, variant, "decode_moments", work, 1)?;
            self.push(group, solve, "merge_moments", merges, group.shape.dim / 8)?;
            self.push(group, solve, "solve", solves, 1)?;
        }
        Ok(())
    }

    /// Blocks of rows, those that see most keys first.
    fn prefill(&mut self, group: &Group, family: Family, kernel: &'static str) -> Result<(), CudaError> {
        let heads = group.shape.group();
        let takes = |job: &Sizes, head: usize| match family {
            Family::PrefillProjected => job.kind == Kind::Projected,
            Family::PrefillLla => job.is_solved(head),
            _ => job.is_softmax(head),
        };
        let mut work = Vec::new();
        for job in group.jobs.iter().filter(|job| job.tokens > DECODE_TOKENS) {
            for kv_head in (0..group.shape.kv_heads).filter(|h| (h * heads..(h + 1) * heads).any(|h| takes(job, h))) {
                for row in (0..job.tokens * heads).step_by(PREFILL_ROWS) {
                    let last = (row + PREFILL_ROWS - 1).min(job.tokens * heads - 1);
                    let (begin, end) = (job.sees(row / heads).0, job.sees(last / heads).1);
                    work.push(block(job.index, kv_head, row, begin, end, 0)?);
                }
            }
        }
        work.sort_by_key(|w| std::cmp::Reverse(w.end - w.begin));
        let variant = Variant { family, math: group.prefill_math(family), ..group.variant };
        self.push(group, variant, kernel, work, 1)
    }

    fn push(
        &mut self,
        group: &Group,
        variant: Variant,
        kernel: &'static str,
        work: Vec<Work>,
        blocks_each: usize,
    ) -> Result<(), CudaError> {
        if work.is_empty() {
            return Ok(());
        }
        let grid = i32::try_from(work.len() * blocks_each).map_err(|_| CudaError::TooMany("blocks"))?.unsigned_abs();
        let size = plan::size(variant, kernel).ok_or(CudaError::TooMany("kernels"))?;
        let launch = Launch { variant, kernel, grid, threads: size.threads, shared: size.shared };
        self.list.push(Step { launch, shape: group.shape, work: self.work.len() });
        self.work.extend(work);
        Ok(())
    }
}

impl Group<'_> {
    /// Smallest finite ridge of the group.
    fn least(&self) -> f32 {
        let lambda = |job: &Sizes| match &job.kind {
            Kind::Solve(lambda) => lambda.iter().copied().fold(f32::INFINITY, f32::min),
            Kind::Projected => f32::INFINITY,
        };
        self.jobs.iter().map(lambda).fold(f32::INFINITY, f32::min)
    }

    /// Centred second moments bear bf16 operands down to lambda 1; below, tf32.
    fn moments_math(&self) -> Math {
        let wanted = self.math.unwrap_or(if self.least() >= 1.0 { Math::Bf16 } else { Math::Tf32 });
        if self.facts.capability < (8, 0) { Math::F32 } else { wanted }
    }

    /// Weights are found from scores in tf32 at least; a small ridge amplifies their error, so it gets twice the bits.
    fn prefill_math(&self, family: Family) -> Math {
        let small = family == Family::PrefillLla && self.least() < 1.0;
        let wanted = match self.math {
            Some(Math::Bf16) | None => {
                if small {
                    Math::Tf32x3
                } else {
                    Math::Tf32
                }
            }
            Some(math) => math,
        };
        if self.facts.capability < (8, 0) { Math::F32 } else { wanted }
    }
}

fn pairs(tokens: usize, heads: usize) -> impl Iterator<Item = (usize, usize)> {
    let tokens: Range<usize> = 0..tokens;
    tokens.flat_map(move |token| (0..heads).map(move |head| (token, head)))
}

fn block(job: usize, head: usize, row: usize, begin: usize, end: usize, slot: usize) -> Result<Work, CudaError> {
    let narrow = |n: usize| u32::try_from(n).map_err(|_| CudaError::TooMany("positions"));
    Ok(Work {
        job: narrow(job)?,
        head: narrow(head)?,
        row: narrow(row)?,
        begin: narrow(begin)?,
        end: narrow(end)?,
        slot: narrow(slot)?,
    })
}
