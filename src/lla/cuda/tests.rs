//! The kernels' own source under emulation against the double-precision oracle, and under the vendor's compiler where
//! that is installed. Nothing here needs a device; nothing here shows how fast one would be.
#![allow(unsafe_code, reason = "loads what the C++ compiler made of the kernels")]
#![allow(clippy::disallowed_methods, reason = "where the run-time compiler is, is told by the environment")]
#![allow(clippy::print_stderr, reason = "a skipped test says why")]

#[path = "../../../tests/support/cuda/compiler.rs"]
mod compiler;
#[path = "../../../tests/support/cuda/emulated.rs"]
mod emulated;
#[path = "../../../tests/support/cuda/emulator.rs"]
mod emulator;
#[path = "../../../tests/support/cuda/host.rs"]
mod host;
