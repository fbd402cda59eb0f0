//! What the metadata of a supported architecture means: sizes, position encoding, and the tensors that must be there.

use crate::engine::gguf::Header;
use crate::engine::metadata::{Metadata, Value};
use crate::engine::types::EngineError;
use crate::lla::Shape;

/// Which pairs of a head's values the position encoding turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Neighbours (2i, 2i + 1); `llama` files have their weights permuted for this.
    Neighbours,
    /// Halves (i, i + n/2), as in GPT-NeoX; `qwen2`.
    Halves,
}

/// Sizes and constants of a model.
#[derive(Clone, Debug)]
pub struct Arch {
    /// `llama` or `qwen2`.
    pub name: String,
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward part.
    pub inner: usize,
    /// Heads.
    pub heads: Shape,
    /// Window the model was made for, in tokens.
    pub context: usize,
    /// Epsilon of the RMS norms.
    pub epsilon: f32,
    /// Values per head that are turned by position.
    pub rotated: usize,
    /// Base of the turning frequencies.
    pub base: f32,
    /// How they are paired.
    pub pairs: Pairs,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
}

fn refuse<T>(why: String) -> Result<T, EngineError> {
    Err(EngineError::Load(why))
}

impl Arch {
    /// Reads and checks a header's architecture.
    pub fn read(header: &Header) -> Result<Self, EngineError> {
        let metadata = &header.metadata;
        let Some(name) = metadata.text("general.architecture") else {
            return refuse("metadata key general.architecture is missing: this GGUF file is not a model".into());
        };
        let pairs = match name {
            "llama" => Pairs::Neighbours,
            "qwen2" => Pairs::Halves,
            other => return refuse(format!("architecture {other} is not supported (llama and qwen2 are)")),
        };
        let size = |key: &str| metadata.size(&format!("{name}.{key}"));
        let optional = |key: &str, default| match metadata.get(&format!("{name}.{key}")) {
            None => Ok(default),
            Some(_) => size(key),
        };
        let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
        let dim = optional("attention.key_length", width / heads)?;
        let arch = Self {
            name: name.to_owned(),
            layers: size("block_count")?,
            width,
            inner: size("feed_forward_length")?,
            heads: Shape {
                heads,
                kv_heads: optional("attention.head_count_kv", heads)?,
                dim,
                value_dim: optional("attention.value_length", dim)?,
            },
            context: size("context_length")?,
            epsilon: positive(metadata, &format!("{name}.attention.layer_norm_rms_epsilon"), None)?,
            rotated: optional("rope.dimension_count", dim)?,
            base: positive(metadata, &format!("{name}.rope.freq_base"), Some(10_000.0))?,
            pairs,
            vocabulary: vocabulary(header)?,
        };
        arch.check(metadata)?;
        Ok(arch)
    }

    fn check(&self, metadata: &Metadata) -> Result<(), EngineError> {
        let name = &self.name;
        let Shape { heads, kv_heads, dim, value_dim } = self.heads;
        if !heads.is_multiple_of(kv_heads) || dim == 0 || !dim.is_multiple_of(2) || dim > 1024 {
            return refuse(format!(
                "{name}: {heads} heads of {dim} values over {kv_heads} key-value heads do not divide"
            ));
        }
        if self.rotated > dim || !self.rotated.is_multiple_of(2) {
            return refuse(format!("{name}.rope.dimension_count is {}, with {dim} values per head", self.rotated));
        }
        if value_dim != dim {
            return refuse(format!("{name}: keys of {dim} values and values of {value_dim} are not supported"));
        }
        for key in ["expert_count", "attention.sliding_window"] {
            if metadata.u32(&format!("{name}.{key}")).is_some_and(|n| n > 0) {
                return refuse(format!("{name}.{key} is set: such models are not supported"));
            }
        }
        match metadata.text(&format!("{name}.rope.scaling.type")) {
            None | Some("none") => {}
            Some(other) => return refuse(format!("RoPE scaling of type {other} is not supported")),
        }
        if metadata.f32(&format!("{name}.rope.scale_linear")).is_some_and(|s| s != 1.0) {
            return refuse("linear RoPE scaling is not supported".into());
        }
        Ok(())
    }

    /// Values per row of the key-value cache.
    pub fn kv_width(&self) -> usize {
        self.heads.kv_heads * self.heads.dim
    }

    /// Values per token of the queries.
    pub fn q_width(&self) -> usize {
        self.heads.heads * self.heads.dim
    }
}

/// A required or defaulted positive float.
fn positive(metadata: &Metadata, key: &str, default: Option<f32>) -> Result<f32, EngineError> {
    match (metadata.f32(key), default) {
        (Some(x), _) if x.is_finite() && x > 0.0 => Ok(x),
        (None, Some(x)) if metadata.get(key).is_none() => Ok(x),
        _ => refuse(format!("metadata key {key} is missing or not a positive number")),
    }
}

/// Rows of the embedding, which must be what the tokenizer's list says if there is one.
fn vocabulary(header: &Header) -> Result<usize, EngineError> {
    let rows = match header.tensors.get("token_embd.weight").map(|t| t.dims.as_slice()) {
        Some(&[_, rows]) => rows,
        _ => return refuse("tensor token_embd.weight is missing or not a matrix".into()),
    };
    match header.metadata.get("tokenizer.ggml.tokens") {
        Some(Value::Texts(tokens)) if tokens.len() != rows => {
            refuse(format!("the tokenizer has {} tokens but the embedding {rows} rows", tokens.len()))
        }
        _ => Ok(rows),
    }
}
