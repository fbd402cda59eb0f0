//! Working memory of the forward pass, kept between calls so that a step allocates nothing.

use crate::engine::acts::Acts;

/// Working memory of a forward pass, one row per token.
#[derive(Default)]
pub struct Scratch {
    /// Quantised activations of the product under way.
    pub acts: Acts,
    /// The residual stream.
    pub stream: Vec<f32>,
    /// What a part of a layer adds to the stream, where it is normalised first.
    pub branch: Vec<f32>,
    /// Queries of a layer.
    pub queries: Vec<f32>,
    /// Keys of a layer, before they go into the cache.
    pub keys: Vec<f32>,
    /// Values of a layer.
    pub values: Vec<f32>,
    /// Attention's output.
    pub attended: Vec<f32>,
    /// Gate of the feed-forward part.
    pub gate: Vec<f32>,
    /// Its other half.
    pub up: Vec<f32>,
    /// One row of an embedding.
    pub row: Vec<f32>,
    /// Last rows of the runs whose logits are wanted.
    pub last: Vec<f32>,
    /// Their logits.
    pub logits: Vec<f32>,
    /// Sine and cosine of each position.
    pub turns: Vec<Vec<(f32, f32)>>,
}
