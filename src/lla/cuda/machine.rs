//! What runs the kernels: a device behind its driver, or in the tests an emulation of one.

use std::fmt;
use std::sync::Arc;

use crate::lla::AttendError;
use crate::lla::cuda::layout::Params;
use crate::lla::cuda::source::Variant;

/// Why a call on a device failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// The input is wrong, as for the processor's kernels.
    #[error(transparent)]
    Attend(#[from] AttendError),
    /// Heads of a width the kernels do not have.
    #[error("cuda: heads of {0} numbers; the kernels take multiples of 8 up to 128")]
    Width(usize),
    /// A store, or a prepared call, of another device.
    #[error("cuda: a store belongs to another device")]
    Foreign,
    /// Sizes beyond what the kernels count with.
    #[error("cuda: {0} are more than the kernels can count")]
    TooMany(&'static str),
    /// The device has no memory left.
    #[error("cuda: no memory for {0} bytes")]
    Memory(usize),
    /// A kernel did not compile.
    #[error("cuda: a kernel does not compile: {0}")]
    Compile(String),
    /// The driver refused.
    #[error("cuda: {call}: {reason}")]
    Driver {
        /// What was asked of it.
        call: &'static str,
        /// Its words.
        reason: String,
    },
}

/// What the plans need to know of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Name by its maker.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub processors: u32,
    /// Shared memory a block may ask for, bytes.
    pub shared_bytes: u32,
}

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What it was compiled from.
    pub variant: Variant,
    /// Its name.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: u32,
    /// Threads per block.
    pub threads: u32,
    /// Shared memory per block, bytes.
    pub shared: u32,
}

/// Memory, copies and launches. All addresses are the device's; everything happens in the order it is asked for.
pub trait Machine: Send + Sync {
    /// What is there.
    fn facts(&self) -> Facts;
    /// Compiles the kernels of a variant, if that is still to be done.
    fn load(&self, variant: Variant) -> Result<(), CudaError>;
    /// New memory, 256-byte aligned.
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError>;
    /// Gives memory back.
    fn release(&self, address: u64);
    /// Host to device.
    fn upload(&self, to: u64, from: &[u8]) -> Result<(), CudaError>;
    /// Device to host; waits for what was asked before.
    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), CudaError>;
    /// Device to device.
    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError>;
    /// Starts a kernel.
    fn launch(&self, launch: &Launch, params: &Params) -> Result<(), CudaError>;
    /// Waits until all is done.
    fn finish(&self) -> Result<(), CudaError>;
}

/// A stretch of device memory, given back when dropped.
pub struct Memory {
    machine: Arc<dyn Machine>,
    address: u64,
    bytes: usize,
}

impl Memory {
    /// New memory; its content is undefined.
    pub fn new(machine: &Arc<dyn Machine>, bytes: usize) -> Result<Self, CudaError> {
        let bytes = bytes.max(16);
        Ok(Self { machine: machine.clone(), address: machine.allocate(bytes)?, bytes })
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How long it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.machine.release(self.address);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Memory({:#x}, {} bytes)", self.address, self.bytes)
    }
}
