//! What the metadata of a supported architecture means: sizes, position encoding, and the tensors that must be there.

use crate::engine::gguf::Header;
use crate::engine::metadata::{Metadata, Value};
use crate::engine::types::EngineError;
use crate::engine::vocabulary::clip;
use crate::lla::Shape;

/// Which pairs of a head's values the position encoding turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Neighbours (2i, 2i + 1); `llama` files have their weights permuted for this.
    Neighbours,
    /// Halves (i, i + n/2), as in GPT-NeoX; all others.
    Halves,
}

/// What the feed-forward part does to its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// x * Phi(x), by the usual approximation with a hyperbolic tangent; `gemma3`.
    Gelu,
}

/// Layers that see only the latest tokens, with a position encoding of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sliding {
    /// Tokens that a token sees, its own included.
    pub window: usize,
    /// One layer in so many sees everything: the last of each run.
    pub every: usize,
    /// Base of the turning frequencies.
    pub base: f32,
}

/// Sizes and constants of a model.
#[derive(Clone, Debug)]
pub struct Arch {
    /// One of [`NAMES`].
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
    /// What positions are divided by before they turn (linear scaling), outside sliding layers.
    pub stretch: f32,
    /// How they are paired.
    pub pairs: Pairs,
    /// Layers with a sliding window, if there are any.
    pub sliding: Option<Sliding>,
    /// Factor on every attention score.
    pub scale: f32,
    /// Whether queries and keys are normalised per head before they are turned.
    pub head_norms: bool,
    /// Whether what a layer's two parts give is normalised before it is added to the stream.
    pub post_norms: bool,
    /// Factor on the embedding.
    pub embedding_scale: f32,
    /// Activation of the feed-forward part.
    pub activation: Activation,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
}

/// Architectures that can run.
pub const NAMES: [&str; 4] = ["llama", "qwen2", "qwen3", "gemma3"];

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
        if !NAMES.contains(&name) {
            return refuse(format!("architecture {} is not supported ({} are)", clip(name), NAMES.join(", ")));
        }
        let gemma = name == "gemma3";
        let size = |key: &str| metadata.size(&format!("{name}.{key}"));
        let optional = |key: &str, default| match metadata.get(&format!("{name}.{key}")) {
            None => Ok(default),
            Some(_) => size(key),
        };
        let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
        let layers = size("block_count")?;
        let dim = optional("attention.key_length", if gemma { 256 } else { width / heads })?;
        let sliding = Sliding {
            window: optional("attention.sliding_window", 1024)?,
            every: optional("attention.sliding_window_pattern", 6)?,
            base: positive(metadata, &format!("{name}.rope.freq_base_swa"), Some(10_000.0))?,
        };
        let arch = Self {
            name: name.to_owned(),
            layers,
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
            base: positive(metadata, &format!("{name}.rope.freq_base"), Some(if gemma { 1e6 } else { 10_000.0 }))?,
            stretch: stretch(metadata, name)?,
            pairs: if name == "llama" { Pairs::Neighbours } else { Pairs::Halves },
            sliding: gemma.then_some(sliding),
            // The largest gemma3 (62 layers) scales by the width per head, all other models by the head's own.
            scale: if gemma && layers == 62 { root(width / heads).recip() } else { root(dim).recip() },
            head_norms: matches!(name, "qwen3" | "gemma3"),
            post_norms: gemma,
            embedding_scale: if gemma { root(width) } else { 1.0 },
            activation: if gemma { Activation::Gelu } else { Activation::Silu },
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
        let slides = if self.sliding.is_none() { "attention.sliding_window" } else { "final_logit_softcapping" };
        for key in ["expert_count", slides] {
            let key = format!("{name}.{key}");
            if metadata.u32(&key).is_some_and(|n| n > 0) || metadata.f32(&key).is_some_and(|n| n > 0.0) {
                return refuse(format!("{key} is set: such models are not supported"));
            }
        }
        Ok(())
    }

    /// How many of the latest tokens a layer sees; all if `None`.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let sliding = self.sliding?;
        (!(layer + 1).is_multiple_of(sliding.every)).then_some(sliding.window)
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

/// Square root of a size.
#[expect(clippy::cast_precision_loss, reason = "sizes of a layer are far below 2^24")]
fn root(n: usize) -> f32 {
    (n as f32).sqrt()
}

/// What positions are divided by: the factor of linear scaling, which only `gemma3` files use.
fn stretch(metadata: &Metadata, name: &str) -> Result<f32, EngineError> {
    let key = |part: &str| format!("{name}.rope.{part}");
    let factor = positive(metadata, &key("scaling.factor"), positive(metadata, &key("scale_linear"), Some(1.0)).ok())?;
    match metadata.text(&key("scaling.type")) {
        Some("linear") => Ok(factor),
        None if name == "gemma3" => Ok(factor),
        None | Some("none") if factor == 1.0 => Ok(1.0),
        None | Some("none") => refuse("linear RoPE scaling without its type is not supported".into()),
        Some(other) => refuse(format!("RoPE scaling of type {} is not supported", clip(other))),
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
