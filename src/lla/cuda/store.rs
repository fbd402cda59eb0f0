//! Keys and values of one layer of one sequence in device memory, rows of a head together.

use std::sync::Arc;

use crate::lla::cuda::layout::{self, Job, Params};
use crate::lla::cuda::machine::{CudaError, Launch, Machine, Memory};
use crate::lla::cuda::source::{Family, Math, Variant};
use crate::lla::store::Precision;
use crate::lla::{AttendError, Shape};

/// Threads per block of the `append` kernel.
const THREADS: usize = 256;
/// Positions a store has room for at first.
const FIRST_ROOM: usize = 256;

/// The device's counterpart of [`lla::store::Store`](crate::lla::store::Store): grows by doubling, bounded by its owner.
#[derive(Debug)]
pub struct Store {
    machine: Arc<dyn Machine>,
    shape: Shape,
    precision: Precision,
    /// Keys of all heads, then values of all heads.
    memory: Option<Memory>,
    room: usize,
    len: usize,
}

impl Store {
    pub(super) fn new(machine: Arc<dyn Machine>, shape: Shape, precision: Precision) -> Result<Self, CudaError> {
        shape.check()?;
        for width in [shape.dim, shape.value_dim] {
            if width == 0 || width > 128 || !width.is_multiple_of(8) {
                return Err(CudaError::Width(width));
            }
        }
        Ok(Self { machine, shape, precision, memory: None, room: 0, len: 0 })
    }

    /// Shape it was made for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How numbers are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of device memory, spare room included.
    pub fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, Memory::bytes)
    }

    /// Forgets the positions from `len` on; keeps the memory.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Adds positions at the end: `tokens * kv_heads * dim` numbers of keys (after position encoding) and
    /// `tokens * kv_heads * value_dim` of values, position by position. On an error nothing changes.
    pub fn append(&mut self, keys: &[f32], values: &[f32]) -> Result<(), CudaError> {
        let Shape { kv_heads, dim, value_dim, .. } = self.shape;
        let tokens = keys.len() / (kv_heads * dim);
        if keys.len() != tokens * kv_heads * dim || values.len() != tokens * kv_heads * value_dim {
            return Err(AttendError::Shape("keys and values").into());
        }
        if tokens == 0 {
            return Ok(());
        }
        let end = u32::try_from(self.len + tokens).map_err(|_| CudaError::TooMany("positions"))?;
        self.reserve(end as usize)?;
        let variant = self.variant(Family::Append, Math::F32);
        self.machine.load(variant)?;
        let numbers = layout::bytes(&[keys, values].concat());
        let before = numbers.len().next_multiple_of(16);
        let staging = Memory::new(&self.machine, before + size_of::<Job>())?;
        let job_at = staging.address() + before as u64;
        let narrow = |n: usize| u32::try_from(n).map_err(|_| CudaError::TooMany("positions"));
        let job = Job {
            queries: staging.address(),
            first: narrow(self.len)?,
            tokens: narrow(tokens)?,
            ..self.job().unwrap_or_default()
        };
        self.machine.upload(staging.address(), &numbers)?;
        self.machine.upload(job_at, &layout::bytes(&[job]))?;
        let grid = narrow((keys.len() + values.len()).div_ceil(THREADS))?;
        let launch = Launch { variant, kernel: "append", grid, threads: narrow(THREADS)?, shared: 0 };
        let params = Params { jobs: job_at, kv_heads: narrow(kv_heads)?, ..Params::default() };
        self.machine.launch(&launch, &params)?;
        // The staging memory goes when this returns.
        self.machine.finish()?;
        self.len += tokens;
        Ok(())
    }

    /// What the kernels are compiled for.
    pub(super) fn variant(&self, family: Family, math: Math) -> Variant {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (dim, value_dim, group) =
            (narrow(self.shape.dim), narrow(self.shape.value_dim), narrow(self.shape.group()));
        Variant { family, dim, value_dim, half: self.precision == Precision::Half, group, math }.canonical()
    }

    /// Where keys and values are, and how far apart heads; none while nothing was appended.
    pub(super) fn job(&self) -> Option<Job> {
        let memory = self.memory.as_ref()?;
        let keys = memory.address();
        let values = keys + (self.shape.kv_heads * self.room * self.shape.dim * self.width()) as u64;
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(Job { keys, values, stride: narrow(self.room), held: narrow(self.len), ..Job::default() })
    }

    /// Whether it lives on this machine.
    pub(super) fn is_on(&self, machine: &Arc<dyn Machine>) -> bool {
        Arc::ptr_eq(&self.machine, machine)
    }

    fn width(&self) -> usize {
        match self.precision {
            Precision::Half => 2,
            Precision::Full => 4,
        }
    }

    /// Makes room for `positions`, moving what is held.
    fn reserve(&mut self, positions: usize) -> Result<(), CudaError> {
        if positions <= self.room {
            return Ok(());
        }
        let Shape { kv_heads, dim, value_dim, .. } = self.shape;
        let room = positions.max(self.room * 2).max(FIRST_ROOM);
        let memory = Memory::new(&self.machine, kv_heads * room * (dim + value_dim) * self.width())?;
        let moved = Self { machine: self.machine.clone(), memory: Some(memory), room, ..*self };
        if let (Some(old), Some(new)) = (self.job(), moved.job()) {
            for head in 0..kv_heads {
                for (from, to, row) in [(old.keys, new.keys, dim), (old.values, new.values, value_dim)] {
                    let row = row * self.width();
                    let (from, to) = (from + (head * self.room * row) as u64, to + (head * room * row) as u64);
                    self.machine.copy(to, from, self.len * row)?;
                }
            }
            self.machine.finish()?;
        }
        *self = moved;
        Ok(())
    }
}
