//! A call on the device: checked, laid out in device memory, launched, read back.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::lla::AttendError;
use crate::lla::cuda::cost::Done;
use crate::lla::cuda::layout::{self, Job, Params, Work};
use crate::lla::cuda::machine::{CudaError, Machine, Memory};
use crate::lla::cuda::source::{Family, Math};
use crate::lla::cuda::steps::{Group, Kind, Sizes, Steps};
use crate::lla::cuda::{Attention, Store};
use crate::lla::report::Report;
use crate::lla::ridge::Rho;

/// A call whose input lies on the device. It can run any number of times; the stores it reads cannot change meanwhile.
#[derive(Debug)]
pub struct Prepared<'a> {
    machine: Arc<dyn Machine>,
    steps: Steps,
    jobs: Vec<Done>,
    tables: Memory,
    work_at: u64,
    // Outputs, then iterations.
    results: Memory,
    outputs: usize,
    scratch: Memory,
    // Queries, corrections and ridges: only their addresses are used.
    _inputs: Memory,
    _stores: PhantomData<&'a Store>,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(
        machine: &Arc<dyn Machine>,
        math: Option<Math>,
        jobs: &[Attention<'a>],
    ) -> Result<Self, CudaError> {
        let sizes = jobs.iter().enumerate().map(|(i, job)| check(machine, i, job)).collect::<Result<Vec<_>, _>>()?;
        let facts = machine.facts();
        let mut steps = Steps::default();
        let mut left: Vec<(&Attention, &Sizes)> = jobs.iter().zip(&sizes).filter(|(_, s)| s.tokens > 0).collect();
        while let Some((first, _)) = left.first().copied() {
            let alike = |job: &Attention| job.shape == first.shape && job.store.precision() == first.store.precision();
            let (same, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(job, _)| alike(job));
            let same = same.into_iter().map(|(_, sizes)| sizes.clone()).collect();
            let variant = first.store.variant(Family::Moments, Math::F32);
            steps.add(&Group { shape: first.shape, variant, facts: &facts, math, jobs: same })?;
            left = others;
        }
        for step in &steps.list {
            machine.load(step.launch.variant)?;
        }
        let inputs = Inputs::of(jobs, &sizes);
        let memory = Memory::new(machine, inputs.numbers.len() * size_of::<f32>())?;
        machine.upload(memory.address(), &layout::bytes(&inputs.numbers))?;
        let rows: usize = jobs.iter().zip(&sizes).map(|(job, s)| s.tokens * job.shape.heads).sum();
        let outputs: usize = jobs.iter().zip(&sizes).map(|(j, s)| s.tokens * j.shape.heads * j.shape.value_dim).sum();
        let results = Memory::new(machine, (outputs + rows) * size_of::<f32>())?;
        let iterations_at = results.address() + (outputs * size_of::<f32>()) as u64;
        let table = inputs.table(jobs, &sizes, memory.address(), results.address(), iterations_at)?;
        let tables = Memory::new(machine, size_of_val(table.as_slice()) + size_of_val(steps.work.as_slice()))?;
        let work_at = tables.address() + size_of_val(table.as_slice()) as u64;
        machine.upload(tables.address(), &layout::bytes(&table))?;
        machine.upload(work_at, &layout::bytes(&steps.work))?;
        let scratch = Memory::new(machine, (steps.partial + steps.merged) * size_of::<f32>())?;
        let done =
            |(job, sizes): (&Attention, Sizes)| Done { sizes, shape: job.shape, precision: job.store.precision() };
        let jobs = jobs.iter().zip(sizes).map(done).collect();
        let machine = machine.clone();
        Ok(Self {
            machine,
            steps,
            jobs,
            tables,
            work_at,
            results,
            outputs,
            scratch,
            _inputs: memory,
            _stores: PhantomData,
        })
    }

    /// Runs all kernels and waits for them.
    pub fn run(&self) -> Result<(), CudaError> {
        self.start()?;
        self.finish()
    }

    /// Waits for all that was started on the device. Dropping a call waits too.
    pub fn finish(&self) -> Result<(), CudaError> {
        self.machine.finish()
    }

    /// Starts all kernels without waiting; the input is read and the output written until [`Prepared::finish`].
    pub fn start(&self) -> Result<(), CudaError> {
        let narrow = |n: usize| u32::try_from(n).map_err(|_| CudaError::TooMany("heads"));
        for step in &self.steps.list {
            let params = Params {
                jobs: self.tables.address(),
                work: self.work_at + (step.work * size_of::<Work>()) as u64,
                partial: self.scratch.address(),
                merged: self.scratch.address() + (self.steps.partial * size_of::<f32>()) as u64,
                heads: narrow(step.shape.heads)?,
                kv_heads: narrow(step.shape.kv_heads)?,
                unused: [0; 2],
            };
            self.machine.launch(&step.launch, &params)?;
        }
        Ok(())
    }

    /// Numbers of output: the jobs' one after another, `tokens * heads * value_dim` each.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Reads the output of the last run, and what it did.
    pub fn read(&self, out: &mut [f32]) -> Result<Report, CudaError> {
        if out.len() != self.outputs {
            return Err(AttendError::Shape("outputs").into());
        }
        let rows: usize = self.jobs.iter().map(|job| job.sizes.tokens * job.shape.heads).sum();
        let mut bytes = vec![0; (self.outputs + rows) * size_of::<f32>()];
        self.machine.download(self.results.address(), &mut bytes)?;
        let (numbers, counts) = bytes.split_at(self.outputs * size_of::<f32>());
        let four = |four: &[u8]| four.try_into().unwrap_or_default();
        for (place, bytes) in out.iter_mut().zip(numbers.chunks_exact(size_of::<f32>())) {
            *place = f32::from_ne_bytes(four(bytes));
        }
        let counts: Vec<i32> = counts.chunks_exact(size_of::<i32>()).map(|b| i32::from_ne_bytes(four(b))).collect();
        let mut counts = counts.as_slice();
        let mut report = Report::default();
        for job in &self.jobs {
            let (mine, others) = counts.split_at(job.sizes.tokens * job.shape.heads);
            report.merge(&job.report(mine));
            counts = others;
        }
        Ok(report)
    }
}

/// Numbers of all jobs in one list, and where each job's begin.
struct Inputs {
    numbers: Vec<f32>,
    /// Per job: queries, correction, ridges.
    at: Vec<[usize; 3]>,
}

impl Inputs {
    fn of(jobs: &[Attention], sizes: &[Sizes]) -> Self {
        let mut inputs = Self { numbers: Vec::new(), at: Vec::new() };
        for (job, sizes) in jobs.iter().zip(sizes) {
            let mut put = |list: &[f32]| {
                let at = inputs.numbers.len();
                inputs.numbers.extend_from_slice(list);
                // Vector loads want 16 bytes.
                inputs.numbers.resize(inputs.numbers.len().next_multiple_of(4), 0.0);
                at
            };
            let queries = put(job.queries);
            let rho = match job.rho {
                Rho::Projection(rho) => put(rho),
                Rho::Zero | Rho::Solve(_) => 0,
            };
            let lambda = match &sizes.kind {
                Kind::Solve(lambda) => put(lambda),
                Kind::Projected => put(&vec![f32::INFINITY; job.shape.heads]),
            };
            inputs.at.push([queries, rho, lambda]);
        }
        inputs
    }

    fn table(
        &self,
        jobs: &[Attention],
        sizes: &[Sizes],
        base: u64,
        out: u64,
        iterations: u64,
    ) -> Result<Vec<Job>, CudaError> {
        let narrow = |n: usize| u32::try_from(n).map_err(|_| CudaError::TooMany("positions"));
        let (mut rows, mut outputs, mut table) = (0, 0, Vec::new());
        for ((job, sizes), at) in jobs.iter().zip(sizes).zip(&self.at) {
            let address = |index: usize| base + (index * size_of::<f32>()) as u64;
            let (tolerance, most, radius) = match job.rho {
                Rho::Solve(ridge) => (ridge.tolerance(), ridge.most_iterations(), ridge.radius()),
                Rho::Zero | Rho::Projection(_) => (1.0, 0, f32::INFINITY),
            };
            let [queries, rho, lambda] = at.map(address);
            table.push(Job {
                queries,
                rho,
                lambda,
                out: out + (outputs * size_of::<f32>()) as u64,
                iterations: iterations + (rows * size_of::<i32>()) as u64,
                first: narrow(job.first)?,
                tokens: narrow(sizes.tokens)?,
                window: u32::try_from(sizes.window.unwrap_or(usize::MAX)).unwrap_or(u32::MAX),
                scale: job.scale * std::f32::consts::LOG2_E,
                tolerance: tolerance * tolerance,
                most: narrow(most.min(job.store.len() + 1))?,
                radius,
                ..job.store.job().unwrap_or_default()
            });
            rows += sizes.tokens * job.shape.heads;
            outputs += sizes.tokens * job.shape.heads * job.shape.value_dim;
        }
        Ok(table)
    }
}

/// Sizes of a job whose parts fit.
fn check(machine: &Arc<dyn Machine>, index: usize, job: &Attention) -> Result<Sizes, CudaError> {
    job.shape.check()?;
    if !job.store.is_on(machine) {
        return Err(CudaError::Foreign);
    }
    if job.shape != job.store.shape() {
        return Err(AttendError::Shape("store").into());
    }
    let width = job.shape.heads * job.shape.dim;
    if !job.queries.len().is_multiple_of(width) {
        return Err(AttendError::Shape("queries").into());
    }
    if !job.scale.is_finite() {
        return Err(AttendError::Scale.into());
    }
    let (tokens, held) = (job.queries.len() / width, job.store.len());
    let end = job.first.saturating_add(tokens);
    if tokens > 0 && held == 0 {
        return Err(AttendError::Empty.into());
    }
    if tokens > 0 && end > held {
        return Err(AttendError::Overlong { end, held }.into());
    }
    let softmax = || Kind::Solve(vec![f32::INFINITY; job.shape.heads]);
    let kind = match job.rho {
        // A window of 0 sees nothing: the softmax kernels write zeros.
        _ if job.window == Some(0) => softmax(),
        Rho::Zero => softmax(),
        Rho::Projection(rho) if rho.len() != job.queries.len() => return Err(AttendError::Shape("projections").into()),
        Rho::Projection(_) => Kind::Projected,
        Rho::Solve(ridge) => {
            ridge.check(job.shape.heads)?;
            Kind::Solve((0..job.shape.heads).map(|head| ridge.lambda(head)).collect())
        }
    };
    Ok(Sizes { index, tokens, first: job.first, window: job.window, kind })
}
