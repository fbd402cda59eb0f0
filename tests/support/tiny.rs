//! A small generated GGUF model: right in form, random in content, never done on its own accord.
//!
//! It speaks in bytes: one token per byte, and the marks of ChatML. Its output matrix keeps the marks improbable, so
//! that an answer ends at its token limit and nowhere else.

use std::path::{Path, PathBuf};

/// Width of the residual stream: one head of it is 32 wide.
const WIDTH: usize = 128;
const HEADS: usize = 4;
const LAYERS: usize = 8;
const INNER: usize = 512;
/// Window in tokens.
pub const CONTEXT: u32 = 16_384;
const MARKS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Writes the model into a folder, as `tiny.gguf`.
pub fn write(folder: &Path) -> PathBuf {
    let path = folder.join("tiny.gguf");
    std::fs::write(&path, bytes()).unwrap();
    path
}

/// The file.
pub fn bytes() -> Vec<u8> {
    let mut file = Gguf::default();
    file.text("general.architecture", "llama");
    file.text("general.name", "tiny");
    for (key, value) in [
        ("block_count", LAYERS),
        ("embedding_length", WIDTH),
        ("feed_forward_length", INNER),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", HEADS / 2),
        ("context_length", CONTEXT as usize),
        ("rope.dimension_count", WIDTH / HEADS),
    ] {
        file.number(&format!("llama.{key}"), u32::try_from(value).unwrap());
    }
    file.float("llama.attention.layer_norm_rms_epsilon", 1e-5);
    file.text("tokenizer.ggml.model", "gpt2");
    file.text("tokenizer.ggml.pre", "gpt-2");
    let tokens: Vec<String> = letters().map(String::from).chain(MARKS.map(str::to_owned)).collect();
    file.texts("tokenizer.ggml.tokens", &tokens);
    file.numbers("tokenizer.ggml.token_type", &[vec![1; 256], vec![3; 3]].concat());
    file.texts("tokenizer.ggml.merges", &[]);
    file.number("tokenizer.ggml.bos_token_id", 256);
    file.number("tokenizer.ggml.eos_token_id", 258);
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = |n: usize, scale: f32| (0..n).map(|_| (random.f32() - 0.5) * scale).collect::<Vec<_>>();
    let kv = WIDTH / 2;
    // The first value of every state is large, so that the marks' rows can be pushed down by it.
    let mut embedding = noise(tokens.len() * WIDTH, 2.0);
    embedding.chunks_mut(WIDTH).for_each(|row| row[0] = 8.0);
    let mut head = noise(tokens.len() * WIDTH, 2.0);
    for (token, row) in head.chunks_mut(WIDTH).enumerate() {
        // Printable ASCII is likely, marks are not, and bytes that break characters are rare.
        row[0] = if token >= 256 {
            -20.0
        } else if (32..127).contains(&token) {
            0.5
        } else {
            -1.0
        };
    }
    file.tensor("token_embd.weight", &[WIDTH, tokens.len()], &embedding);
    file.tensor("output.weight", &[WIDTH, tokens.len()], &head);
    file.tensor("output_norm.weight", &[WIDTH], &[1.0; WIDTH]);
    for layer in 0..LAYERS {
        for (part, dims) in [
            ("attn_q", [WIDTH, WIDTH]),
            ("attn_k", [WIDTH, kv]),
            ("attn_v", [WIDTH, kv]),
            ("attn_output", [WIDTH, WIDTH]),
            ("ffn_gate", [WIDTH, INNER]),
            ("ffn_up", [WIDTH, INNER]),
            ("ffn_down", [INNER, WIDTH]),
        ] {
            file.tensor(&format!("blk.{layer}.{part}.weight"), &dims, &noise(dims[0] * dims[1], 0.1));
        }
        for part in ["attn_norm", "ffn_norm"] {
            file.tensor(&format!("blk.{layer}.{part}.weight"), &[WIDTH], &[1.0; WIDTH]);
        }
    }
    file.finish()
}

/// Byte-level BPE's printable letter of each byte.
fn letters() -> impl Iterator<Item = char> {
    let mut next = 255;
    (0_u32..256).map(move |byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from_u32(byte).unwrap(),
        _ => {
            next += 1;
            char::from_u32(next).unwrap()
        }
    })
}

/// A GGUF file of version 3 in the making.
#[derive(Default)]
struct Gguf {
    keys: u64,
    metadata: Vec<u8>,
    tensors: u64,
    places: Vec<u8>,
    data: Vec<u8>,
}

const ALIGNMENT: usize = 32;

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Gguf {
    fn key(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.keys += 1;
        string(&mut self.metadata, key);
        self.metadata.extend(kind.to_le_bytes());
        &mut self.metadata
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, 4).extend(value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.key(key, 6).extend(value.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        string(self.key(key, 8), value);
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        let out = self.key(key, 9);
        out.extend(8_u32.to_le_bytes());
        out.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| string(out, value));
    }

    fn numbers(&mut self, key: &str, values: &[i32]) {
        let out = self.key(key, 9);
        out.extend(5_u32.to_le_bytes());
        out.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    }

    /// A tensor of 32-bit floats; the first size is the fastest.
    fn tensor(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        assert_eq!(values.len(), dims.iter().product::<usize>());
        self.tensors += 1;
        string(&mut self.places, name);
        self.places.extend(u32::try_from(dims.len()).unwrap().to_le_bytes());
        dims.iter().for_each(|dim| self.places.extend((*dim as u64).to_le_bytes()));
        self.places.extend(0_u32.to_le_bytes());
        self.places.extend((self.data.len() as u64).to_le_bytes());
        values.iter().for_each(|value| self.data.extend(value.to_le_bytes()));
        self.data.resize(self.data.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn finish(self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend(self.tensors.to_le_bytes());
        out.extend(self.keys.to_le_bytes());
        out.extend(self.metadata);
        out.extend(self.places);
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend(self.data);
        out
    }
}
