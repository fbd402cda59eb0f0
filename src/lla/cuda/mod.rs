//! Attention on a CUDA device: the kernels of `kernels/`, compiled when first needed by the run-time compiler.
//!
//! Nothing of CUDA is needed to build, and nothing to run on a machine without it: [`Device::open`] looks for the driver's
//! library, the compiler's library and a device, and says which is [`Missing`]. With them, [`Device::attend`] takes the
//! same jobs as [`lla::attend`](crate::lla::attend), with keys and values in a [`Store`] of the device's memory.
//!
//! Which kernel runs: up to four tokens per job are decode (split over keys, merged), more are prefill (blocks of 64
//! rows). An infinite ridge takes the softmax kernels, so it is softmax bit for bit; a finite one takes, in decode, one
//! pass over the keys for both covariances on tensor cores and conjugate gradients on the small matrix, in prefill
//! conjugate gradients without the matrix. Guards are those of the processor's kernels: smallest ridge from the keys'
//! size (here their mean square under the weights), ridge raised for far queries, rows out of range fall back to softmax.
//!
//! State of the proof: the kernels compile for compute capability 8.0 and 9.0 with the vendor's compiler, and run in the
//! tests under an emulation of blocks, warps and tensor cores. They have not run on a device yet. See README.md here.
//!
//! Never here: HTTP, files, clocks, the environment.

mod call;
mod cost;
mod driver;
mod layout;
mod machine;
pub mod nvrtc;
mod plan;
pub mod source;
mod steps;
mod store;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::lla::cuda::driver::Driver;
use crate::lla::cuda::machine::Machine;
use crate::lla::cuda::source::Math;
use crate::lla::report::Report;
use crate::lla::ridge::Rho;
use crate::lla::store::Precision;
use crate::lla::{self, Shape};

pub use call::Prepared;
pub use machine::CudaError;
pub use store::Store;

/// Where to look, and choices that are otherwise made by the input.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folder of the run-time compiler's library; the usual places if `None`.
    pub nvrtc: Option<PathBuf>,
    /// Arithmetic of tiles; by the ridge if `None`.
    pub math: Option<Math>,
}

/// Why there is no device to compute on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The driver's library, or a function in it.
    #[error("no CUDA driver: {0}")]
    Driver(String),
    /// The run-time compiler's library.
    #[error("no CUDA run-time compiler: {0}")]
    Compiler(String),
    /// A device the driver can use.
    #[error("no CUDA device: {0}")]
    Device(String),
    /// A device the kernels can use.
    #[error("{name} has compute capability {}.{}, the kernels need 7.0", capability.0, capability.1)]
    Old {
        /// Name by its maker.
        name: String,
        /// Major and minor.
        capability: (u32, u32),
    },
}

/// One sequence's run of consecutive tokens in one layer; see [`lla::Attention`](crate::lla::Attention).
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Heads; the store's.
    pub shape: Shape,
    /// Factor on every score.
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

/// A device with its compiled kernels. Calls may come from any thread.
#[derive(Clone)]
pub struct Device {
    machine: Arc<dyn Machine>,
    math: Option<Math>,
}

impl Device {
    /// The first device, with everything else by default.
    pub fn open() -> Result<Self, Missing> {
        Self::open_with(&Options::default())
    }

    /// The first device.
    pub fn open_with(options: &Options) -> Result<Self, Missing> {
        Ok(Self { machine: Arc::new(Driver::open(options)?), math: options.math })
    }

    /// Name by its maker.
    pub fn name(&self) -> String {
        self.machine.facts().name
    }

    /// An empty store in the device's memory. Heads must have a multiple of 8 numbers, 128 at most.
    pub fn store(&self, shape: Shape, precision: Precision) -> Result<Store, CudaError> {
        Store::new(self.machine.clone(), shape, precision)
    }

    /// The device's copy of a store in the host's memory.
    pub fn upload(&self, host: &lla::store::Store) -> Result<Store, CudaError> {
        let mut store = self.store(host.shape(), host.precision())?;
        let heads = host.shape().kv_heads;
        let rows = |row: &dyn Fn(usize, usize) -> Vec<f32>| -> Vec<f32> {
            (0..host.len() * heads).flat_map(|i| row(i % heads, i / heads)).collect()
        };
        store.append(&rows(&|head, at| host.key(head, at)), &rows(&|head, at| host.value(head, at)))?;
        Ok(store)
    }

    /// Checks a call and puts its input on the device.
    pub fn prepare<'a>(&self, jobs: &[Attention<'a>]) -> Result<Prepared<'a>, CudaError> {
        Prepared::new(&self.machine, self.math, jobs)
    }

    /// Attention of every query of every job over the keys it sees. `out` is the jobs' outputs one after another,
    /// `tokens * heads * value_dim` numbers each. Nothing is written on an error.
    pub fn attend(&self, jobs: &[Attention], out: &mut [f32]) -> Result<Report, CudaError> {
        let call = self.prepare(jobs)?;
        if out.len() != call.outputs() {
            return Err(lla::AttendError::Shape("outputs").into());
        }
        call.run()?;
        call.read(out)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Device({})", self.name())
    }
}

impl fmt::Debug for dyn Machine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Machine({})", self.facts().name)
    }
}

#[cfg(test)]
mod tests;
