//! A [`Machine`] that is the host: kernels compiled by its C++ compiler, blocks run by `tests/support/cuda/emulator.h`.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use libloading::Library;

use crate::lla::cuda::Device;
use crate::lla::cuda::layout::Params;
use crate::lla::cuda::machine::{CudaError, Facts, Launch, Machine};
use crate::lla::cuda::source::{Math, Variant};

/// Bytes around every allocation: NaN to who reads them, and checked for who writes them.
const GUARD: usize = 4096;
const POISON: u8 = 0xff;

/// The host posing as a device.
pub struct Emulator {
    facts: Facts,
    compiler: &'static str,
    seed: u64,
    libraries: Mutex<HashMap<Variant, Arc<Library>>>,
    /// Address to length.
    memory: Mutex<BTreeMap<u64, usize>>,
}

/// A device under emulation with so many multiprocessors; fibers run in an order drawn from the seed. `None`, with the
/// reason printed, where there is no C++ compiler.
pub fn device(processors: u32, seed: u64, math: Option<Math>) -> Option<Device> {
    let works = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
    let Some(compiler) = ["c++", "g++", "clang++"].into_iter().find(works) else {
        eprintln!("skipped: no C++ compiler to emulate the device with");
        return None;
    };
    let facts = Facts { name: "emulation".to_owned(), capability: (9, 0), processors, shared_bytes: 227 * 1024 };
    let machine = Emulator { facts, compiler, seed, libraries: Mutex::default(), memory: Mutex::default() };
    Some(Device { machine: Arc::new(machine), math })
}

impl Emulator {
    /// Compiles a variant, once per source. Tests of one process or of several may want the same at the same time: each
    /// writes a file of its own, and renaming decides whose stays.
    fn build(&self, variant: Variant) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let header = std::fs::read_to_string(root.join("tests/support/cuda/emulator.h")).unwrap();
        let mut text = header;
        for (name, value) in variant.defines() {
            text += &format!("#define {name} {value}\n");
        }
        for (name, part) in variant.parts() {
            text += &format!("#line 1 \"{name}\"\n{part}\n");
        }
        let mut hash = DefaultHasher::new();
        (text.as_str(), self.compiler).hash(&mut hash);
        let folder = std::env::current_exe().unwrap().parent().unwrap().join("cuda-emulation");
        std::fs::create_dir_all(&folder).unwrap();
        let library = folder.join(format!("{:016x}.so", hash.finish()));
        if !library.exists() {
            static MADE: AtomicU32 = AtomicU32::new(0);
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let unique = format!("{:016x}-{}-{number}", hash.finish(), std::process::id());
            let (source, made) = (folder.join(format!("{unique}.cpp")), folder.join(format!("{unique}.tmp")));
            std::fs::write(&source, &text).unwrap();
            let flags = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-fno-stack-protector"];
            let out = Command::new(self.compiler).args(flags).arg(&source).arg("-o").arg(&made).output().unwrap();
            assert!(out.status.success(), "{variant:?}: {}", String::from_utf8_lossy(&out.stderr));
            std::fs::rename(&made, &library).unwrap();
            std::fs::remove_file(&source).unwrap();
        }
        library
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes + 2 * GUARD, 4096).unwrap()
    }

    /// A stretch must lie within one allocation.
    fn inside(&self, address: u64, bytes: usize) {
        let memory = self.memory.lock().unwrap();
        let (start, len) = memory.range(..=address).next_back().expect("an address that was never allocated");
        assert!(address + bytes as u64 <= start + *len as u64, "{bytes} bytes at {address:#x} are not all allocated");
    }
}

impl Machine for Emulator {
    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn load(&self, variant: Variant) -> Result<(), CudaError> {
        let mut libraries = self.libraries.lock().unwrap();
        libraries.entry(variant).or_insert_with(|| {
            // SAFETY: a library of our own kernels without initialisers.
            Arc::new(unsafe { Library::new(self.build(variant)) }.unwrap())
        });
        Ok(())
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        // SAFETY: the layout is not empty; the whole stretch is written before anyone reads it.
        let address = unsafe {
            let start = alloc(Self::layout(bytes));
            std::ptr::write_bytes(start, POISON, bytes + 2 * GUARD);
            start as u64 + GUARD as u64
        };
        self.memory.lock().unwrap().insert(address, bytes);
        Ok(address)
    }

    fn release(&self, address: u64) {
        let bytes = self.memory.lock().unwrap().remove(&address).expect("given back twice");
        let start = (address - GUARD as u64) as *mut u8;
        // SAFETY: `allocate` made the stretch with this layout and nothing else gives it back.
        let sound = unsafe {
            let all = std::slice::from_raw_parts(start, bytes + 2 * GUARD);
            let sound = all[..GUARD].iter().chain(&all[GUARD + bytes..]).all(|b| *b == POISON);
            dealloc(start, Self::layout(bytes));
            sound
        };
        if !sound && !std::thread::panicking() {
            panic!("a kernel wrote outside an allocation of {bytes} bytes");
        }
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), CudaError> {
        self.inside(to, from.len());
        // SAFETY: the stretch is allocated, by the line before; host slices cannot overlap it.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), CudaError> {
        self.inside(from, to.len());
        // SAFETY: as for `upload`.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError> {
        self.inside(to, bytes);
        self.inside(from, bytes);
        // SAFETY: both stretches are allocated.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn launch(&self, launch: &Launch, params: &Params) -> Result<(), CudaError> {
        type Kernel = unsafe extern "C" fn(*const Params, u32, u32, u32, u64, *mut std::ffi::c_char) -> i32;
        assert!(launch.shared <= self.facts.shared_bytes && launch.grid > 0);
        self.load(launch.variant)?;
        let libraries = self.libraries.lock().unwrap();
        let mut reason = [0; 256];
        // SAFETY: the emulation exports every kernel with this signature; the lock keeps launches apart.
        let sound = unsafe {
            let kernel = libraries[&launch.variant].get::<Kernel>(launch.kernel).unwrap();
            kernel(params, launch.grid, launch.threads, launch.shared, self.seed, reason.as_mut_ptr())
        };
        if sound == 1 {
            return Ok(());
        }
        // SAFETY: the emulation writes less than 256 bytes, the rest is zero.
        let reason = unsafe { CStr::from_ptr(reason.as_ptr()) }.to_string_lossy().into_owned();
        Err(CudaError::Driver { call: launch.kernel, reason })
    }

    fn finish(&self) -> Result<(), CudaError> {
        Ok(())
    }
}
