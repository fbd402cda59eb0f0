//! The run-time compiler, found and called without any toolkit at build time.
//!
//! The library is looked for where the caller says, then under its usual names; what is missing is a reason, never a
//! panic. Kernels become machine code for the device at hand, so that a newer compiler works with an older driver.
#![allow(unsafe_code, reason = "calls into a C library; each block argues its pointers")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::Library;

use crate::lla::cuda::source::Variant;

/// Major versions looked for, newest first.
const MAJORS: [&str; 4] = ["13", "12", "11.2", "11"];
/// Folders of an installed toolkit, beside the system's search path.
const FOLDERS: [&str; 3] = ["/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib", "/opt/cuda/lib64"];

/// The compiler's library, loaded for good.
pub struct Compiler {
    library: &'static Library,
    version: (i32, i32),
}

type Program = *mut c_void;

/// Machine code, and what the compiler said.
pub struct Compiled {
    /// An image the driver loads.
    pub image: Vec<u8>,
}

impl Compiler {
    /// Finds the library: in `folder` if one is given, else in the usual places. The error lists what was tried.
    pub fn open(folder: Option<&Path>) -> Result<Self, String> {
        let mut tried = Vec::new();
        for name in candidates(folder) {
            // SAFETY: loading the vendor's library runs its initialisers, which set up its own state only.
            match unsafe { Library::new(&name) } {
                Ok(library) => return Self::checked(Box::leak(Box::new(library)), &name),
                Err(error) => tried.push(why(&error)),
            }
        }
        tried.dedup();
        Err(tried.join("; "))
    }

    fn checked(library: &'static Library, name: &Path) -> Result<Self, String> {
        let mut compiler = Self { library, version: (0, 0) };
        let (mut major, mut minor): (c_int, c_int) = (0, 0);
        // SAFETY: the signature is the library's own; both pointers live through the call.
        let code = unsafe {
            let call = compiler.call::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int>("nvrtcVersion")?;
            call(&raw mut major, &raw mut minor)
        };
        if code != 0 {
            return Err(format!("nvrtcVersion: error {code}"));
        }
        compiler.version = (major, minor);
        if let Some(folder) = name.parent().filter(|folder| folder.is_absolute()) {
            // The compiler asks the system for this one by name and would not find it beside itself.
            let builtins = folder.join(format!("libnvrtc-builtins.so.{major}.{minor}"));
            // SAFETY: as above. Without it the first compilation fails with a message that says so.
            if let Ok(library) = unsafe { Library::new(builtins) } {
                Box::leak(Box::new(library));
            }
        }
        Ok(compiler)
    }

    /// Version, major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Machine code of a variant for a compute capability; the error is the compiler's log.
    pub fn compile(&self, variant: Variant, capability: (u32, u32)) -> Result<Compiled, String> {
        let text = |s: String| CString::new(s).map_err(|_| "a zero byte in the source".to_owned());
        let source = text(variant.source())?;
        let mut options = vec![format!("--gpu-architecture=sm_{}{}", capability.0, capability.1)];
        options.extend(["--std=c++17", "--fmad=true"].map(str::to_owned));
        options.extend(variant.defines().iter().map(|(name, value)| format!("-D{name}={value}")));
        let options = options.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let program = self.program(&source)?;
        let result = self.build(program, &options);
        // SAFETY: `program` was made by `nvrtcCreateProgram` and is not used again.
        let _ = self.call::<unsafe extern "C" fn(*mut Program) -> c_int>("nvrtcDestroyProgram").map(|destroy| unsafe {
            let mut program = program;
            destroy(&raw mut program)
        });
        result
    }

    fn program(&self, source: &CStr) -> Result<Program, String> {
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        let create = self.call::<Create>("nvrtcCreateProgram")?;
        let mut program: Program = std::ptr::null_mut();
        let name = c"attention.cu";
        // SAFETY: both strings end in zero and live through the call; no headers are passed.
        let code =
            unsafe { create(&raw mut program, source.as_ptr(), name.as_ptr(), 0, std::ptr::null(), std::ptr::null()) };
        if code == 0 { Ok(program) } else { Err(format!("nvrtcCreateProgram: error {code}")) }
    }

    fn build(&self, program: Program, options: &[CString]) -> Result<Compiled, String> {
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).map_err(|_| "too many options".to_owned())?;
        let compile =
            self.call::<unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int>("nvrtcCompileProgram")?;
        // SAFETY: `program` is live, `pointers` has `count` strings that end in zero.
        let code = unsafe { compile(program, count, pointers.as_ptr()) };
        let log = self.bytes(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog").unwrap_or_default();
        let log = String::from_utf8_lossy(&log).trim_end_matches(['\0', '\n']).to_owned();
        if code != 0 {
            return Err(format!("error {code}: {log}"));
        }
        Ok(Compiled { image: self.bytes(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN")? })
    }

    /// One of the program's outputs: asks for its size, then for it.
    fn bytes(&self, program: Program, size: &str, get: &str) -> Result<Vec<u8>, String> {
        let ask = self.call::<unsafe extern "C" fn(Program, *mut usize) -> c_int>(size)?;
        let fetch = self.call::<unsafe extern "C" fn(Program, *mut c_char) -> c_int>(get)?;
        let mut bytes = 0;
        // SAFETY: `program` is live; the size is written through a live pointer.
        let code = unsafe { ask(program, &raw mut bytes) };
        let mut list = vec![0_u8; bytes];
        // SAFETY: the library writes as many bytes as it said before.
        if code != 0 || unsafe { fetch(program, list.as_mut_ptr().cast()) } != 0 {
            return Err(format!("{get} failed"));
        }
        Ok(list)
    }

    fn call<T: Copy>(&self, name: &str) -> Result<T, String> {
        // SAFETY: the callers name the signature that the library documents for the symbol.
        unsafe { self.library.get::<T>(name.as_bytes()) }.map(|symbol| *symbol).map_err(|error| error.to_string())
    }
}

/// An error of the loader with what the system said: the outer text alone is "dlopen failed".
pub(super) fn why(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn candidates(folder: Option<&Path>) -> Vec<PathBuf> {
    let mut names: Vec<String> = Vec::new();
    if cfg!(windows) {
        names.extend(["nvrtc64_130_0.dll", "nvrtc64_120_0.dll", "nvrtc64_112_0.dll"].map(str::to_owned));
    } else {
        names.extend(MAJORS.iter().map(|major| format!("libnvrtc.so.{major}")));
        names.push("libnvrtc.so".to_owned());
    }
    let folders = FOLDERS.iter().map(Path::new).filter(|_| folder.is_none() && cfg!(unix));
    let inside = folder.into_iter().chain(folders).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    let plain = names.iter().map(PathBuf::from).filter(|_| folder.is_none());
    plain.chain(inside).collect()
}
