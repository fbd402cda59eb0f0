//! The memories under comparison behind one forward and one backward. Softmax, LLA and the learned probe are the crate's
//! kernel; the two linear ones are `linear`'s.

use wattroute::lla::Shape;
use wattroute::lla::backward::{self as kernel, Saved};
use wattroute::lla::pool::Pool;
use wattroute::lla::ridge::{Rho, Ridge};
use wattroute::lla::simd::Level;

use crate::linear::{DeltaTape, Head, LinearTape, delta, delta_back, linear, linear_back};
use crate::tasks::Batch;

/// Smallest ridge a solve is done with; the learned one may drift towards zero, where single precision ends.
pub const LEAST_RIDGE: f32 = 1e-3;

/// What remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Softmax,
    Lla,
    Projection,
    Linear,
    Delta,
}

/// How the kernel is called.
pub struct Machine {
    pub pool: Pool,
    pub level: Level,
    /// Relative residual at which a solve ends.
    pub tolerance: f32,
}

/// `sequences * length` rows of `heads * dim` numbers each (`steps`: of `heads`), and a ridge per head.
pub struct Inputs<'a> {
    pub batch: &'a Batch,
    pub heads: usize,
    pub dim: usize,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub rho: &'a [f32],
    pub steps: &'a [f32],
    pub ridges: &'a [f32],
}

/// Gradients of [`Inputs`]; empty where the memory has no such input.
#[derive(Default)]
pub struct Grads {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub rho: Vec<f32>,
    pub steps: Vec<f32>,
    pub ridges: Vec<f32>,
}

/// What the backward pass wants to know again.
pub enum Tape {
    Kernel(Saved),
    Linear(Vec<LinearTape>),
    Delta(Vec<DeltaTape>),
}

pub type Failed = Box<dyn std::error::Error>;

/// Attention of the whole batch.
pub fn forward(machine: &Machine, memory: Memory, inputs: &Inputs) -> Result<(Vec<f32>, Tape), Failed> {
    let mut out = vec![0.0; inputs.v.len()];
    let tape = match memory {
        Memory::Linear => Tape::Linear(heads(inputs, &mut out, |size, _, [q, k, v]| linear(size, &q, &k, &v))),
        Memory::Delta => Tape::Delta(heads(inputs, &mut out, |size, at, [q, k, v]| {
            delta(size, &q, &k, &v, &take(inputs, inputs.steps, at, 1))
        })),
        Memory::Softmax | Memory::Lla | Memory::Projection => {
            let ridge = ridge(machine, inputs)?;
            let batch = batch(memory, inputs, &ridge);
            Tape::Kernel(kernel::forward(&machine.pool, machine.level, &batch, &mut out)?)
        }
    };
    Ok((out, tape))
}

/// Gradients for `grad`, that of the output.
pub fn backward(
    machine: &Machine,
    memory: Memory,
    inputs: &Inputs,
    tape: &Tape,
    grad: &[f32],
) -> Result<Grads, Failed> {
    let zeros = || vec![0.0; inputs.q.len()];
    let mut grads = Grads::default();
    if let Tape::Kernel(saved) = tape {
        let ridge = ridge(machine, inputs)?;
        let batch = batch(memory, inputs, &ridge);
        let all = kernel::backward(&machine.pool, machine.level, &batch, saved, grad)?;
        return Ok(Grads {
            q: all.queries,
            k: all.keys,
            v: all.values,
            rho: all.rho,
            // Below the floor the ridge does not move the output.
            ridges: all
                .lambda
                .iter()
                .zip(inputs.ridges)
                .map(|(g, r)| if *r < LEAST_RIDGE { 0.0 } else { *g })
                .collect(),
            ..grads
        });
    }
    (grads.q, grads.k, grads.v) = (zeros(), zeros(), zeros());
    grads.steps = vec![0.0; inputs.steps.len()];
    for (index, at) in places(inputs).enumerate() {
        let of = |x: &[f32]| take(inputs, x, at, inputs.dim);
        let part = of(grad);
        let [q, k, v] = match tape {
            Tape::Linear(tapes) => linear_back(size(inputs), &tapes[index], &of(inputs.v), &part),
            Tape::Delta(tapes) => {
                let steps = take(inputs, inputs.steps, at, 1);
                let (all, slopes) = delta_back(size(inputs), &tapes[index], &of(inputs.q), &steps, &part);
                put(inputs, &slopes, at, &mut grads.steps);
                all
            }
            Tape::Kernel(_) => continue,
        };
        put(inputs, &q, at, &mut grads.q);
        put(inputs, &k, at, &mut grads.k);
        put(inputs, &v, at, &mut grads.v);
    }
    Ok(grads)
}

fn ridge(machine: &Machine, inputs: &Inputs) -> Result<Ridge, Failed> {
    let ridges = inputs.ridges.iter().map(|r| r.max(LEAST_RIDGE)).collect();
    Ok(Ridge::new(ridges)?.with_tolerance(machine.tolerance)?)
}

fn batch<'a>(memory: Memory, inputs: &Inputs<'a>, ridge: &'a Ridge) -> kernel::Batch<'a> {
    kernel::Batch {
        shape: Shape { heads: inputs.heads, kv_heads: inputs.heads, dim: inputs.dim, value_dim: inputs.dim },
        sequences: inputs.batch.sequences,
        scale: (inputs.dim as f32).sqrt().recip(),
        queries: inputs.q,
        keys: inputs.k,
        values: inputs.v,
        rho: match memory {
            Memory::Lla => Rho::Solve(ridge),
            Memory::Projection => Rho::Projection(inputs.rho),
            _ => Rho::Zero,
        },
    }
}

/// A sequence and a head.
type At = (usize, usize);

fn places(inputs: &Inputs) -> impl Iterator<Item = At> {
    let heads = inputs.heads;
    (0..inputs.batch.sequences).flat_map(move |s| (0..heads).map(move |h| (s, h)))
}

fn size(inputs: &Inputs) -> Head {
    Head { length: inputs.batch.length, dk: inputs.dim, dv: inputs.dim }
}

/// Runs one head after another, each on contiguous rows.
fn heads<T>(inputs: &Inputs, out: &mut [f32], one: impl Fn(Head, At, [Vec<f32>; 3]) -> (Vec<f32>, T)) -> Vec<T> {
    let mut tapes = Vec::new();
    for at in places(inputs) {
        let (part, tape) =
            one(size(inputs), at, [inputs.q, inputs.k, inputs.v].map(|x| take(inputs, x, at, inputs.dim)));
        put(inputs, &part, at, out);
        tapes.push(tape);
    }
    tapes
}

/// One head of one sequence, as contiguous rows.
fn take(inputs: &Inputs, x: &[f32], (sequence, head): At, dim: usize) -> Vec<f32> {
    let (length, stride) = (inputs.batch.length, inputs.heads * dim);
    let rows = x[sequence * length * stride..(sequence + 1) * length * stride].chunks_exact(stride);
    rows.flat_map(|row| &row[head * dim..(head + 1) * dim]).copied().collect()
}

/// Puts it back.
fn put(inputs: &Inputs, part: &[f32], (sequence, head): At, x: &mut [f32]) {
    let length = inputs.batch.length;
    let dim = part.len() / length;
    let stride = inputs.heads * dim;
    let rows = x[sequence * length * stride..(sequence + 1) * length * stride].chunks_exact_mut(stride);
    for (row, part) in rows.zip(part.chunks_exact(dim)) {
        row[head * dim..(head + 1) * dim].copy_from_slice(part);
    }
}
