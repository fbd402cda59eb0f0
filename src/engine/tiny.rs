//! Tiny GGUF files with random weights, for tests of everything above the arithmetic.
//!
//! A file has a working byte-level BPE vocabulary (256 bytes, a few dozen merges, three chat tokens), so that the whole
//! engine can run on it in milliseconds; what it says is noise, the same noise for the same seed.

use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::engine::arch::NAMES;
use crate::engine::dtype::Dtype;

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Tiny {
    /// `llama`, `qwen2`, `qwen3` or `gemma3`.
    pub architecture: &'static str,
    /// Element type of the matrices; norms and biases are single precision. K types need a `width` of 256.
    pub dtype: GgmlDType,
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream; the feed-forward part has twice as many.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Values per head; 0 is `width / heads`.
    pub dim: usize,
    /// Window in tokens.
    pub context: u32,
    /// Tokens that sliding layers see; every second layer slides. Only for `gemma3`.
    pub sliding: u32,
    /// Whether `output.weight` is missing and the embedding serves.
    pub tied: bool,
    /// Whether there are RoPE frequency factors.
    pub factors: bool,
    /// Seed of the weights.
    pub seed: u64,
}

impl Tiny {
    /// Two layers of width 64 with four heads over two key-value heads.
    pub fn new(architecture: &'static str, dtype: GgmlDType) -> Self {
        let (layers, width, heads, kv_heads) = (2, 64, 4, 2);
        let (context, tied, factors, seed) = (256, true, false, 1);
        Self { architecture, dtype, layers, width, heads, kv_heads, dim: 0, context, sliding: 5, tied, factors, seed }
    }

    /// The model of an architecture that is compared with another program: with all its peculiarities, in single
    /// precision. `None` for an architecture that is not supported.
    pub fn for_comparison(architecture: &str) -> Option<Self> {
        let architecture = NAMES.into_iter().find(|name| *name == architecture)?;
        let odd = matches!(architecture, "qwen3" | "gemma3");
        let (layers, dim) = if odd { (4, 32) } else { (3, 0) };
        Some(Self { layers, dim, tied: architecture != "qwen2", ..Self::new(architecture, GgmlDType::F32) })
    }

    fn head_dim(&self) -> usize {
        if self.dim == 0 { self.width / self.heads } else { self.dim }
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, self.bytes().map_err(std::io::Error::other)?)
    }

    /// The file's bytes.
    pub fn bytes(&self) -> candle_core::Result<Vec<u8>> {
        let (tensors, pairs) = (self.tensors()?, self.pairs());
        let mut out = Vec::new();
        out.extend(b"GGUF");
        out.extend(3_u32.to_le_bytes());
        out.extend((tensors.len() as u64).to_le_bytes());
        out.extend((pairs.len() as u64).to_le_bytes());
        for (key, value) in &pairs {
            text(&mut out, key);
            value.put(&mut out);
        }
        let mut offset = 0_u64;
        for tensor in &tensors {
            text(&mut out, &tensor.name);
            out.extend(u32::try_from(tensor.dims.len()).unwrap_or(0).to_le_bytes());
            tensor.dims.iter().for_each(|d| out.extend((*d as u64).to_le_bytes()));
            out.extend(Dtype(tensor.dtype).code().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.raw.len().next_multiple_of(32) as u64;
        }
        for tensor in &tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&tensor.raw);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        Ok(out)
    }

    fn tensors(&self) -> candle_core::Result<Vec<Raw>> {
        let mut maker = Maker { random: fastrand::Rng::with_seed(self.seed), dtype: self.dtype, all: Vec::new() };
        let (width, inner, vocabulary) = (self.width, self.width * 2, tokens().len());
        let (q, kv) = (self.head_dim() * self.heads, self.head_dim() * self.kv_heads);
        maker.matrix("token_embd.weight", width, vocabulary)?;
        maker.vector("output_norm.weight", width, 1.0);
        if !self.tied {
            maker.matrix("output.weight", width, vocabulary)?;
        }
        if self.factors {
            maker.vector("rope_freqs.weight", self.head_dim() / 2, 1.5);
        }
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            maker.vector(&name("attn_norm.weight"), width, 1.0);
            maker.vector(&name("ffn_norm.weight"), width, 1.0);
            if matches!(self.architecture, "qwen3" | "gemma3") {
                maker.vector(&name("attn_q_norm.weight"), self.head_dim(), 1.0);
                maker.vector(&name("attn_k_norm.weight"), self.head_dim(), 1.0);
            }
            if self.architecture == "gemma3" {
                maker.vector(&name("post_attention_norm.weight"), width, 1.0);
                maker.vector(&name("post_ffw_norm.weight"), width, 1.0);
            }
            for (part, columns, rows) in [
                ("attn_q", width, q),
                ("attn_k", width, kv),
                ("attn_v", width, kv),
                ("attn_output", q, width),
                ("ffn_gate", width, inner),
                ("ffn_up", width, inner),
                ("ffn_down", inner, width),
            ] {
                maker.matrix(&name(&format!("{part}.weight")), columns, rows)?;
                if self.architecture == "qwen2" && ["attn_q", "attn_k", "attn_v"].contains(&part) {
                    maker.vector(&name(&format!("{part}.bias")), rows, 0.0);
                }
            }
        }
        Ok(maker.all)
    }

    fn pairs(&self) -> Vec<(String, Pair)> {
        let (tokens, merges) = (tokens(), merges());
        let first_special = tokens.len() - SPECIAL.len();
        let kinds = (0..tokens.len()).map(|i| if i < first_special { 1 } else { 3 }).collect();
        let own = |key: &str| format!("{}.{key}", self.architecture);
        let number = |n: usize| Pair::Number(u32::try_from(n).unwrap_or(0));
        let tokenizer = |key: &str| format!("tokenizer.ggml.{key}");
        let mut pairs = vec![
            ("general.architecture".into(), Pair::Text(self.architecture.into())),
            ("general.name".into(), Pair::Text("tiny".into())),
            (own("block_count"), number(self.layers)),
            (own("context_length"), Pair::Number(self.context)),
            (own("embedding_length"), number(self.width)),
            (own("feed_forward_length"), number(self.width * 2)),
            (own("attention.head_count"), number(self.heads)),
            (own("attention.head_count_kv"), number(self.kv_heads)),
            (own("attention.layer_norm_rms_epsilon"), Pair::Float(1e-5)),
            (own("rope.freq_base"), Pair::Float(if self.architecture == "gemma3" { 1e6 } else { 1e4 })),
            (tokenizer("model"), Pair::Text("gpt2".into())),
            (
                tokenizer("pre"),
                Pair::Text(if self.architecture.starts_with("qwen") { "qwen2" } else { "smollm" }.into()),
            ),
            (tokenizer("tokens"), Pair::Texts(tokens)),
            (tokenizer("token_type"), Pair::Kinds(kinds)),
            (tokenizer("merges"), Pair::Texts(merges)),
            (tokenizer("bos_token_id"), number(first_special)),
            (tokenizer("eos_token_id"), number(first_special + 2)),
            (tokenizer("add_bos_token"), Pair::Bool(false)),
            ("tokenizer.chat_template".into(), Pair::Text(CHATML.into())),
        ];
        if self.dim != 0 {
            pairs.push((own("attention.key_length"), number(self.dim)));
            pairs.push((own("attention.value_length"), number(self.dim)));
        }
        if self.architecture == "gemma3" {
            pairs.push((own("attention.sliding_window"), Pair::Number(self.sliding)));
            pairs.push((own("attention.sliding_window_pattern"), Pair::Number(2)));
        }
        pairs
    }
}

/// Control tokens, at the end of the vocabulary: end of text, start and end of a turn.
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/// Enough of a template for its family to be recognised.
const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
/// Words whose left-to-right merges are in the vocabulary (`Ġ` stands for a space before the word).
const WORDS: [&str; 8] = ["Ġthe", "Ġand", "ing", "Ġhello", "Ġworld", "user", "assistant", "system"];

/// The character that stands for a byte in a byte-level vocabulary.
pub(crate) fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !printable(*b)).count();
    u32::try_from(256 + before).ok().and_then(char::from_u32).unwrap_or(' ')
}

fn pieces() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for word in WORDS {
        let mut left = String::new();
        for letter in word.chars() {
            let pair = (left.clone(), letter.to_string());
            left.push(letter);
            if !pair.0.is_empty() && !all.contains(&pair) {
                all.push(pair);
            }
        }
    }
    all
}

fn merges() -> Vec<String> {
    pieces().into_iter().map(|(a, b)| format!("{a} {b}")).collect()
}

fn tokens() -> Vec<String> {
    let bytes = (0..=255).map(|b| byte_char(b).to_string());
    bytes.chain(pieces().into_iter().map(|(a, b)| a + &b)).chain(SPECIAL.map(String::from)).collect()
}

struct Raw {
    name: String,
    dims: Vec<usize>,
    dtype: GgmlDType,
    raw: Vec<u8>,
}

struct Maker {
    random: fastrand::Rng,
    dtype: GgmlDType,
    all: Vec<Raw>,
}

impl Maker {
    /// Uniform values whose sum over a row keeps the size of its input.
    fn matrix(&mut self, name: &str, columns: usize, rows: usize) -> candle_core::Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "columns are few")]
        let size = (3.0 / columns as f32).sqrt() * 2.0;
        let values: Vec<f32> = (0..rows * columns).map(|_| (self.random.f32() * 2.0 - 1.0) * size).collect();
        let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu)?;
        let raw = QTensor::quantize(&tensor, self.dtype)?.data()?.into_owned();
        self.all.push(Raw { name: name.into(), dims: vec![columns, rows], dtype: self.dtype, raw });
        Ok(())
    }

    fn vector(&mut self, name: &str, length: usize, middle: f32) {
        let value = |random: &mut fastrand::Rng| middle + (random.f32() * 2.0 - 1.0) * 0.3;
        let raw = (0..length).flat_map(|_| value(&mut self.random).to_le_bytes()).collect();
        self.all.push(Raw { name: name.into(), dims: vec![length], dtype: GgmlDType::F32, raw });
    }
}

enum Pair {
    Number(u32),
    Float(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Kinds(Vec<i32>),
}

impl Pair {
    fn put(&self, out: &mut Vec<u8>) {
        let mut head = |codes: &[u32]| codes.iter().for_each(|c| out.extend(c.to_le_bytes()));
        match self {
            Self::Number(n) => head(&[4, *n]),
            Self::Float(x) => head(&[6, x.to_bits()]),
            Self::Bool(b) => {
                head(&[7]);
                out.push(u8::from(*b));
            }
            Self::Text(t) => {
                head(&[8]);
                text(out, t);
            }
            Self::Texts(all) => {
                head(&[9, 8]);
                out.extend((all.len() as u64).to_le_bytes());
                all.iter().for_each(|t| text(out, t));
            }
            Self::Kinds(all) => {
                head(&[9, 5]);
                out.extend((all.len() as u64).to_le_bytes());
                all.iter().for_each(|k| out.extend(k.to_le_bytes()));
            }
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
