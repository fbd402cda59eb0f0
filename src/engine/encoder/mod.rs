//! Sentence vectors by all-MiniLM-L6-v2: a BERT of six layers on the engine's 8-bit kernels.
//!
//! Text to 384 numbers of unit length: WordPiece, the layers, the mean over the tokens (Reimers and Gurevych 2019,
//! arXiv 1908.10084, section 3). A text's vector does not depend on what else is encoded beside it. Blocks the thread that
//! calls it for milliseconds: never call it from a runtime's thread.

mod forward;
mod pieces;
mod tensors;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rayon::prelude::*;

use crate::engine::encoder::pieces::Pieces;
use crate::engine::encoder::tensors::Tensors;
use crate::engine::packed::Packed;
use crate::engine::types::EngineError;
use crate::lla::pool::Pool;
use crate::lla::simd::Level;

/// Numbers of a vector.
pub const WIDTH: usize = 384;
/// Layers.
const LAYERS: usize = 6;
/// Attention heads, of 32 numbers each.
const HEADS: usize = 12;
/// Width of the feed-forward part.
const INNER: usize = 1536;
/// Tokens looked at, as the model was trained; of a longer text the beginning.
pub const MOST_TOKENS: usize = 128;
/// Rows that go through the layers together.
const BATCH_ROWS: usize = 512;
/// The file has 91 MB; a much larger one is another model.
const MOST_BYTES: u64 = 200 << 20;

/// The encoder. One caller at a time works; others wait.
pub struct Encoder {
    pieces: Pieces,
    /// One row per piece.
    words: Vec<f32>,
    /// Positions with the one segment's vector added.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    pool: Pool,
    level: Level,
}

/// A layer norm.
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// A linear step with its bias.
struct Linear {
    weights: Packed,
    bias: Vec<f32>,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    joined: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

impl Encoder {
    /// Loads `model.safetensors` of all-MiniLM-L6-v2; `threads` 0 is one per core. Takes a fraction of a second.
    pub fn load(path: &Path, threads: usize) -> Result<Self, EngineError> {
        let fail = |why: String| EngineError::Load(format!("{}: {why}", path.display()));
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|e| fail(e.to_string()))?;
        file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
        Self::parse(&bytes, threads).map_err(fail)
    }

    fn parse(bytes: &[u8], threads: usize) -> Result<Self, String> {
        let tensors = Tensors::read(bytes)?;
        let pieces = Pieces::shipped()?;
        let words = tensors.floats("embeddings.word_embeddings.weight", &[pieces.count(), WIDTH])?;
        let mut positions = tensors.floats("embeddings.position_embeddings.weight", &[512, WIDTH])?;
        let segments = tensors.floats("embeddings.token_type_embeddings.weight", &[2, WIDTH])?;
        for row in positions.chunks_exact_mut(WIDTH) {
            row.iter_mut().zip(&segments).for_each(|(p, s)| *p += s);
        }
        let norm = tensors.norm("embeddings.LayerNorm")?;
        let layers = (0..LAYERS).into_par_iter().map(|at| Layer::read(&tensors, at)).collect::<Result<_, _>>()?;
        Ok(Self { pieces, words, positions, norm, layers, pool: Pool::new(threads), level: Level::detect() })
    }

    /// The vectors of texts, in order. A text without any piece gets the vector of the empty text.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EngineError> {
        let all: Vec<Vec<u32>> = texts.iter().map(|text| self.pieces.of(text)).collect();
        let mut out = Vec::with_capacity(texts.len());
        let mut from = 0;
        while from < all.len() {
            let (mut to, mut rows) = (from, 0);
            while let Some(tokens) = all.get(to).filter(|t| to == from || rows + t.len() <= BATCH_ROWS) {
                rows += tokens.len();
                to += 1;
            }
            out.extend(self.batch(all.get(from..to).unwrap_or(&[]))?);
            from = to;
        }
        Ok(out)
    }

    /// Its whole words of the letters a to z, as the vocabulary has them: frequent ones first, single letters before all.
    pub fn vocabulary(&self) -> &[String] {
        self.pieces.words()
    }

    /// How many tokens a text has for the encoder, at most [`MOST_TOKENS`].
    pub fn tokens(&self, text: &str) -> usize {
        self.pieces.of(text).len()
    }
}

impl Layer {
    fn read(tensors: &Tensors, at: usize) -> Result<Self, String> {
        let name = |part: &str| format!("encoder.layer.{at}.{part}");
        let linear = |part: &str, rows, columns| tensors.linear(&name(part), rows, columns);
        Ok(Self {
            query: linear("attention.self.query", WIDTH, WIDTH)?,
            key: linear("attention.self.key", WIDTH, WIDTH)?,
            value: linear("attention.self.value", WIDTH, WIDTH)?,
            joined: linear("attention.output.dense", WIDTH, WIDTH)?,
            attention_norm: tensors.norm(&name("attention.output.LayerNorm"))?,
            up: linear("intermediate.dense", INNER, WIDTH)?,
            down: linear("output.dense", WIDTH, INNER)?,
            norm: tensors.norm(&name("output.LayerNorm"))?,
        })
    }
}
