//! Damaged model files: an error that says what is wrong, never a panic.

use std::io::Cursor;

use candle_core::quantized::GgmlDType;

use crate::engine::gguf::{precheck, read};
use crate::engine::model::Model;
use crate::engine::tiny::Tiny;

fn tiny() -> Vec<u8> {
    Tiny::new("llama", GgmlDType::Q8_0).bytes().unwrap()
}

fn problem(bytes: &[u8]) -> String {
    read(Cursor::new(bytes), bytes.len() as u64).unwrap_err()
}

/// A header with one pair of this type and payload, and no tensors.
fn with_pair(key: &str, kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend((key.len() as u64).to_le_bytes());
    bytes.extend(key.as_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// A header with one tensor of these sizes, type and offset.
fn with_tensor(dims: &[u64], dtype: u32, offset: u64) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.push(b't');
    bytes.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|d| bytes.extend(d.to_le_bytes()));
    bytes.extend(dtype.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes.resize(256, 0);
    bytes
}

#[test]
fn a_good_file_is_read() {
    let bytes = tiny();
    let header = read(Cursor::new(&bytes), bytes.len() as u64).unwrap();
    assert_eq!(header.version, 3);
    assert_eq!(header.metadata.text("general.architecture"), Some("llama"));
    assert_eq!(header.metadata.u32("llama.block_count"), Some(2));
    assert_eq!(header.metadata.bool("tokenizer.ggml.add_bos_token"), Some(false));
    let tokens = header.metadata.texts("tokenizer.ggml.tokens").unwrap();
    assert_eq!(header.metadata.ints("tokenizer.ggml.token_type").unwrap().len(), tokens.len());
    let place = &header.tensors["token_embd.weight"];
    assert_eq!(place.dims, [64, tokens.len()]);
    assert_eq!(place.bytes, (tokens.len() * 64 / 32 * 34) as u64);
}

#[test]
fn a_file_cut_anywhere_is_an_error_that_says_so() {
    let bytes = tiny();
    for cut in (0..bytes.len() - 32).step_by(97).chain(0..200) {
        let why = problem(&bytes[..cut]);
        let says = ["truncated", "not a GGUF", "more than the file", "cannot read"];
        assert!(says.iter().any(|s| why.contains(s)), "cut at {cut}: {why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let why = precheck(&path).unwrap_err().to_string();
    assert!(why.contains("cut.gguf: truncated: tensor") && why.contains("wattroute models pull"), "{why}");
}

#[test]
fn a_flipped_byte_is_an_error_or_harmless() {
    let bytes = tiny();
    let header = 12_000.min(bytes.len());
    let mut random = fastrand::Rng::with_seed(17);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.gguf");
    for round in 0..4_000 {
        let mut broken = bytes.clone();
        for _ in 0..random.usize(1..4) {
            broken[random.usize(..header)] = random.u8(..);
        }
        let ok = read(Cursor::new(&broken), broken.len() as u64).is_ok();
        if ok && round % 20 == 0 {
            std::fs::write(&path, &broken).unwrap();
            if let Ok(model) = Model::load(&path, 0, 1) {
                let (mut cache, mut logits) = (model.new_cache(), Vec::new());
                let _ = model.forward(&mut cache, &[1, 2, 3], &mut logits);
            }
        }
    }
}

#[test]
fn hostile_headers_are_refused_by_name() {
    let number = |n: u32| n.to_le_bytes();
    for (bytes, words) in [
        (b"GGML".to_vec(), "does not begin with"),
        (b"GGUF\x01\0\0\0".to_vec(), "version 1"),
        (with_pair("general.alignment", 4, &number(0)), "general.alignment is 0"),
        (with_pair("general.alignment", 4, &number(48)), "general.alignment is 48"),
        (with_pair("general.alignment", 8, &3_u64.to_le_bytes()), "more than the file"),
        (with_pair("k", 99, &[0; 8]), "unknown type 99"),
        (with_pair("k", 7, &[2]), "2 is not a boolean"),
        (with_pair("k", 8, &u64::MAX.to_le_bytes()), "more than the file"),
        (with_pair("k", 9, &[number(9).as_slice(), &u64::MAX.to_le_bytes()].concat()), "more than the file"),
        (with_tensor(&[1 << 32, 1 << 32], 0, 0), "overflows"),
        (with_tensor(&[1 << 30, 1 << 30, 1], 0, 0), "ends at byte"),
        (with_tensor(&[1 << 62, 1], 0, 0), "overflows"),
        (with_tensor(&[0, 4], 0, 0), "do not divide"),
        (with_tensor(&[33, 4], 8, 0), "do not divide"),
        (with_tensor(&[32, 1], 0, 7), "not a multiple of 32"),
        (with_tensor(&[32, 1], 0, u64::MAX - 31), "overflows"),
        (with_tensor(&[1, 1, 1, 1, 1], 0, 0), "5 dimensions"),
        (with_tensor(&[], 0, 0), "0 dimensions"),
        (with_tensor(&[32, 1], 16, 0), "unsupported element type 16"),
    ] {
        let why = problem(&bytes);
        assert!(why.contains(words), "{words}: {why}");
    }
}

#[test]
fn arrays_nested_too_deep_are_refused() {
    let mut payload = Vec::new();
    for _ in 0..8 {
        payload.extend(9_u32.to_le_bytes());
        payload.extend(1_u64.to_le_bytes());
    }
    payload.extend([0; 64]);
    assert!(problem(&with_pair("k", 9, &payload)).contains("nests arrays"));
}

#[test]
fn models_of_another_kind_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.gguf");
    let good = tiny();
    for (from, to, words) in [
        ("llama", "gemma", "architecture gemma is not supported"),
        ("llama.block_count", "llama.block_coun_", "llama.block_count"),
        ("blk.1.ffn_up.weight", "blk.1.ffn_xx.weight", "blk.1.ffn_up.weight is missing"),
    ] {
        let mut bytes = good.clone();
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let why = Model::load(&path, 0, 1).err().unwrap().to_string();
        assert!(why.contains(words) && why.contains("other.gguf"), "{why}");
    }
}
