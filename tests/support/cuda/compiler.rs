//! Every variant under the vendor's run-time compiler, where it is installed: no device is needed for that.

use std::path::PathBuf;

use crate::lla::cuda::nvrtc::Compiler;
use crate::lla::cuda::source::{Family, Math, Variant};

/// Folder of the run-time compiler's library, for machines without a toolkit.
const FOLDER: &str = "WATTROUTE_NVRTC";

fn compiler() -> Option<Compiler> {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from);
    match Compiler::open(folder.as_deref()) {
        Ok(compiler) => Some(compiler),
        Err(reason) => {
            eprintln!("skipped: no run-time compiler ({reason}); {FOLDER} may name its folder");
            None
        }
    }
}

/// What one kernel needs of a thread.
struct Needs {
    registers: u32,
    /// Bytes of local memory: arrays and spilled registers.
    frame: u32,
}

/// Reads the notes on resources in an image of machine code: entries of (kind, symbol, value) in `.nv.info`.
fn needs(image: &[u8]) -> Vec<Needs> {
    let u16_at = |at: usize| u16::from_le_bytes(image[at..at + 2].try_into().unwrap()) as usize;
    let u32_at = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize;
    assert_eq!(&image[..4], b"\x7fELF");
    let (table, each, count, names) = (u64_at(40), u16_at(58), u16_at(60), u16_at(62));
    let section =
        |i: usize| (u32_at(table + i * each) as usize, u64_at(table + i * each + 24), u64_at(table + i * each + 32));
    let text = section(names).1;
    let mut kernels = std::collections::BTreeMap::<u32, Needs>::new();
    for i in 0..count {
        let (name, start, len) = section(i);
        let name = image[text + name..].split(|b| *b == 0).next().unwrap();
        if name != b".nv.info" {
            continue;
        }
        let mut at = start;
        while at + 4 <= start + len {
            let (format, kind, size) = (image[at], image[at + 1], u16_at(at + 2));
            if format == 4 && size == 8 {
                let entry = kernels.entry(u32_at(at + 4)).or_insert(Needs { registers: 0, frame: 0 });
                match kind {
                    0x2f => entry.registers = u32_at(at + 8),
                    0x11 => entry.frame = u32_at(at + 8),
                    _ => {}
                }
            }
            at += 4 + if format == 4 { size } else { 0 };
        }
    }
    kernels.into_values().filter(|needs| needs.registers > 0).collect()
}

#[test]
fn every_variant_compiles_and_fits_the_registers() {
    let Some(compiler) = compiler() else { return };
    eprintln!("run-time compiler {:?}", compiler.version());
    let maths = [Math::F32, Math::Tf32, Math::Tf32x3, Math::Bf16];
    let families = [
        Family::Append,
        Family::Softmax,
        Family::Projected,
        Family::Moments,
        Family::Solve,
        Family::PrefillSoftmax,
        Family::PrefillProjected,
        Family::PrefillLla,
    ];
    let mut variants = std::collections::HashSet::new();
    for (math, family) in maths.into_iter().flat_map(|math| families.map(|family| (math, family))) {
        let prefill = matches!(family, Family::PrefillSoftmax | Family::PrefillProjected | Family::PrefillLla);
        if prefill && math == Math::Bf16 {
            continue;
        }
        let mut add = |capability, width, half, group| {
            let variant = Variant { family, dim: width, value_dim: width, half, group, math };
            variants.insert((capability, variant.canonical()));
        };
        add((9, 0), 64, true, 3);
        add((9, 0), 128, true, 4);
        if matches!(math, Math::Tf32 | Math::Bf16) {
            add((8, 0), 64, true, 3);
            add((9, 0), 64, false, 1);
            add((9, 0), 24, true, 9);
        }
    }
    for (capability, variant) in variants {
        let image = compiler.compile(variant, capability).unwrap_or_else(|log| panic!("{variant:?}: {log}")).image;
        let all = needs(&image);
        assert!(!all.is_empty(), "{variant:?}: no note on registers");
        for needs in all {
            eprintln!("{capability:?} {variant:?}: {} registers, {} bytes of frame", needs.registers, needs.frame);
            assert!(needs.registers <= 255);
            // The yardstick and the probe at 128 spill some; the rest must not.
            let may_spill = variant.family == Family::PrefillProjected || variant.math == Math::F32;
            assert!(may_spill || needs.frame <= 64, "{variant:?} keeps {} bytes in local memory", needs.frame);
        }
    }
}

#[test]
fn a_wrong_source_is_an_error_with_the_log() {
    let Some(compiler) = compiler() else { return };
    let variant = Variant { family: Family::Softmax, dim: 64, value_dim: 64, half: true, group: 1, math: Math::F32 };
    let error = compiler.compile(variant, (1, 0)).err().unwrap();
    assert!(error.contains("error") && error.len() > 10, "{error}");
}
