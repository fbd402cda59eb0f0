//! The driver's side of [`Machine`]: the first device, its primary context, its default stream.
//!
//! The driver's bindings load the library on first use and panic when it is not there, so [`Driver::open`] looks for the
//! library and for every symbol used here before it touches them.
#![allow(unsafe_code, reason = "calls into the driver; each block argues its handles and sizes")]

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use libloading::Library;

use crate::lla::cuda::layout::Params;
use crate::lla::cuda::machine::{CudaError, Facts, Launch, Machine};
use crate::lla::cuda::nvrtc::{Compiler, why};
use crate::lla::cuda::source::Variant;
use crate::lla::cuda::{Missing, Options};

/// Names of the driver's library.
const LIBRARIES: [&str; 3] = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"];
/// What is called in it.
const SYMBOLS: [&str; 21] = [
    "cuInit",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuMemcpyDtoD_v2",
    "cuGetErrorName",
    "cuGetErrorString",
];

/// The first device.
pub struct Driver {
    facts: Facts,
    device: sys::CUdevice,
    context: sys::CUcontext,
    compiler: Compiler,
    modules: Mutex<HashMap<Variant, Module>>,
}

/// A loaded image; its functions live as long as the driver's process does, or until the device is dropped.
#[derive(Clone, Copy)]
struct Module(sys::CUmodule);

// SAFETY: the handles may be used from any thread once the context is current there, which `enter` sees to.
unsafe impl Send for Driver {}
// SAFETY: as above; the driver locks its own state, the map of modules has a lock here.
unsafe impl Sync for Driver {}

impl Driver {
    /// Finds driver, compiler and device, in this order.
    pub fn open(options: &Options) -> Result<Self, Missing> {
        probe().map_err(Missing::Driver)?;
        let compiler = Compiler::open(options.nvrtc.as_deref()).map_err(Missing::Compiler)?;
        let device = first_device().map_err(Missing::Device)?;
        let facts = facts(device).map_err(|e| Missing::Device(words(e)))?;
        if facts.capability < (7, 0) {
            return Err(Missing::Old { name: facts.name, capability: facts.capability });
        }
        // SAFETY: `device` came from the driver; the context is released in `drop`.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(|e| Missing::Device(words(e)))?;
        Ok(Self { facts, device, context, compiler, modules: Mutex::default() })
    }

    /// Makes the context this thread's.
    fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the context is held until `drop`.
        unsafe { result::ctx::set_current(self.context) }.map_err(refused("cuCtxSetCurrent"))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // What fails here has nobody left to be told.
        let _ = self.enter();
        let modules = self.modules.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, module) in modules.drain() {
            // SAFETY: the module was loaded in this context and no launch can follow.
            let _ = unsafe { result::module::unload(module.0) };
        }
        // SAFETY: pairs with the retain of `open`.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

impl Machine for Driver {
    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn load(&self, variant: Variant) -> Result<(), CudaError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if modules.contains_key(&variant) {
            return Ok(());
        }
        self.enter()?;
        let compiled = self.compiler.compile(variant, self.facts.capability).map_err(CudaError::Compile)?;
        // SAFETY: the image is a whole one, by the compiler; the driver copies it.
        let module = unsafe { result::module::load_data(compiled.image.as_ptr().cast()) };
        modules.insert(variant, Module(module.map_err(refused("cuModuleLoadData"))?));
        Ok(())
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.enter()?;
        // SAFETY: no requirement beyond a current context.
        unsafe { result::malloc_sync(bytes) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::Memory(bytes),
            _ => refused("cuMemAlloc")(error),
        })
    }

    fn release(&self, address: u64) {
        if self.enter().is_ok() {
            // SAFETY: the address came from `allocate` and is given back once, by `Memory`'s drop. A failure here is
            // that of an earlier launch, which its own `finish` reports.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: callers pass a stretch of memory of theirs at least as long as the slice.
        unsafe { result::memcpy_htod_sync(to, from) }.map_err(refused("cuMemcpyHtoD"))
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: as for `upload`.
        unsafe { result::memcpy_dtoh_sync(to, from) }.map_err(refused("cuMemcpyDtoH"))
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: as for `upload`, on both sides.
        unsafe { result::memcpy_dtod_sync(to, from, bytes) }.map_err(refused("cuMemcpyDtoD"))
    }

    fn launch(&self, launch: &Launch, params: &Params) -> Result<(), CudaError> {
        self.load(launch.variant)?;
        self.enter()?;
        let modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(module) = modules.get(&launch.variant) else {
            return Err(CudaError::Compile("no module".to_owned()));
        };
        let name = CString::new(launch.kernel).map_err(|_| CudaError::Compile("a kernel's name".to_owned()))?;
        let mut params = *params;
        let mut arguments = [(&raw mut params).cast::<c_void>()];
        // SAFETY: the module is loaded; the kernel takes exactly one `Params` by value, which the driver copies before it
        // returns; the addresses in it are those of memory that outlives the launch: freeing waits for the device.
        unsafe {
            let function = result::module::get_function(module.0, name).map_err(refused("cuModuleGetFunction"))?;
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let shared = i32::try_from(launch.shared).map_err(|_| CudaError::TooMany("bytes of shared memory"))?;
            result::function::set_function_attribute(function, attribute, shared)
                .map_err(refused("cuFuncSetAttribute"))?;
            let (grid, threads) = ((launch.grid, 1, 1), (launch.threads, 1, 1));
            result::launch_kernel(function, grid, threads, launch.shared, std::ptr::null_mut(), &mut arguments)
                .map_err(refused("cuLaunchKernel"))
        }
    }

    fn finish(&self) -> Result<(), CudaError> {
        self.enter()?;
        result::ctx::synchronize().map_err(refused("cuCtxSynchronize"))
    }
}

/// Whether the driver's library is there with all that is called in it.
fn probe() -> Result<(), String> {
    let mut tried = Vec::new();
    for name in LIBRARIES {
        // SAFETY: loading the driver's library sets up its own state only.
        match unsafe { Library::new(name) } {
            Ok(library) => {
                let lacks = |symbol: &&str| {
                    // SAFETY: the symbol is only looked up, not called.
                    unsafe { library.get::<*const c_void>(symbol.as_bytes()) }.is_err()
                };
                return match SYMBOLS.iter().find(|symbol| lacks(symbol)) {
                    None => Ok(()),
                    Some(symbol) => Err(format!("{name} has no {symbol}")),
                };
            }
            Err(error) => tried.push(why(&error)),
        }
    }
    Err(tried.join("; "))
}

fn first_device() -> Result<sys::CUdevice, String> {
    result::init().map_err(words)?;
    if result::device::get_count().map_err(words)? < 1 {
        return Err("the driver knows of none".to_owned());
    }
    result::device::get(0).map_err(words)
}

fn facts(device: sys::CUdevice) -> Result<Facts, DriverError> {
    use sys::CUdevice_attribute as Attribute;
    // SAFETY: `device` came from the driver.
    let ask = |attribute| unsafe { result::device::get_attribute(device, attribute) }.map(|n| n.unsigned_abs());
    Ok(Facts {
        name: result::device::get_name(device)?,
        capability: (
            ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        processors: ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
    })
}

fn words(error: DriverError) -> String {
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{name}: {text}")
}

fn refused(call: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Driver { call, reason: words(error) }
}
