//! A loaded model: weights in the kernels' format and the forward pass over them.
//!
//! Invariants: logits depend on the tokens in the cache and those given, not on how they were cut into calls; a failed
//! call leaves the cache as it was; nothing here samples, tokenises or waits.
#![allow(unsafe_code, reason = "tasks write disjoint rows; each block says why it is sound")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::engine::acts::Acts;
use crate::engine::arch::Arch;
use crate::engine::cache::KvCache;
use crate::engine::gguf;
use crate::engine::matmul::{Product, matmul};
use crate::engine::metadata::Metadata;
use crate::engine::pointwise::{gated, norm};
use crate::engine::rope::Rope;
use crate::engine::scratch::Scratch;
use crate::engine::types::EngineError;
use crate::engine::weights::{Layer, Weights};
use crate::lla::pool::{Panicked, Pool, Shards};
use crate::lla::ridge::Rho;
use crate::lla::simd::Level;
use crate::lla::store::Store;
use crate::lla::{AttendError, Attention, attend};

/// Tokens that go through all layers together; the activations of one piece stay in the second-level cache.
const PIECE_TOKENS: usize = 128;

/// A model ready to run. Shared between threads; one forward pass runs at a time.
pub struct Model {
    metadata: Metadata,
    arch: Arch,
    weights: Weights,
    rope: Rope,
    context: usize,
    level: Level,
    pool: Pool,
    scratch: Mutex<Scratch>,
}

impl Model {
    /// Loads a GGUF file. `context` is the window to allow in tokens (0: the file's own; never more than that);
    /// `threads` of 0 is one per core. Blocks for as long as the file takes to read and repack.
    pub fn load(path: &Path, context: u32, threads: usize) -> Result<Self, EngineError> {
        Self::load_at(path, context, threads, Level::detect())
    }

    /// As [`Model::load`], with the kernels of one instruction set (used to compare them).
    pub fn load_at(path: &Path, context: u32, threads: usize, level: Level) -> Result<Self, EngineError> {
        if !level.runs_here() {
            return Err(EngineError::Load(format!("this machine has no {level:?} instructions")));
        }
        let load = || {
            let header = gguf::precheck(path)?;
            let pool = Pool::new(threads);
            let in_file = |e: EngineError| match e {
                EngineError::Load(why) => EngineError::Load(format!("{}: {why}", path.display())),
                other => other,
            };
            let arch = Arch::read(&header).map_err(in_file)?;
            let weights = Weights::read(path, &header, &arch, &pool).map_err(in_file)?;
            let rope = Rope::new(&arch, &weights.rope_factors);
            let window = if context == 0 { arch.context } else { arch.context.min(context as usize) };
            let metadata = header.metadata;
            Ok(Self { metadata, arch, weights, rope, context: window, level, pool, scratch: Mutex::default() })
        };
        // A file that gets through the checks and still trips the reader must not end the process.
        catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| {
            Err(EngineError::Load(format!("{}: the file could not be read; fetch it again", path.display())))
        })
    }

    /// Runs `tokens` after those in `cache` and leaves the logits of the last one in `logits` (`vocab_size` values).
    pub fn forward(&self, cache: &mut KvCache, tokens: &[u32], logits: &mut Vec<f32>) -> Result<(), EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::Step("no tokens to run".into()));
        }
        if let Some(token) = tokens.iter().find(|t| **t as usize >= self.arch.vocabulary) {
            return Err(EngineError::Step(format!("token {token} is outside the vocabulary")));
        }
        if !cache.fits(self.arch.layers, self.arch.heads) {
            return Err(EngineError::Step("the cache belongs to another model".into()));
        }
        let before = cache.len();
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || {
            for piece in tokens.chunks(PIECE_TOKENS) {
                self.piece(cache, piece, &mut scratch)?;
            }
            self.logits(&mut scratch, logits)
        };
        let done = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(step(Panicked)));
        if done.is_err() {
            cache.truncate(before);
        }
        done
    }

    /// An empty cache for one sequence.
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(self.arch.layers, self.arch.heads, self.context)
    }

    /// Tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.arch.vocabulary
    }

    /// Window in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// `llama` or `qwen2`.
    pub fn architecture(&self) -> &str {
        &self.arch.name
    }

    /// The header's pairs, tokenizer included.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Bytes of the weights in memory.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Threads of the kernels, the caller included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Instruction set of the kernels.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Embeds a piece and runs it through every layer.
    fn piece(&self, cache: &mut KvCache, tokens: &[u32], s: &mut Scratch) -> Result<(), EngineError> {
        let (arch, first) = (&self.arch, cache.len());
        if !cache.extend(tokens.len()) {
            let input = u32::try_from(first + tokens.len()).unwrap_or(u32::MAX);
            return Err(EngineError::Context { input, context: u32::try_from(cache.context()).unwrap_or(u32::MAX) });
        }
        s.stream.clear();
        for token in tokens {
            self.weights.embedding.row(*token as usize, &mut s.row);
            s.stream.extend(s.row.iter().take(arch.width));
        }
        s.turns.resize_with(tokens.len().max(s.turns.len()), Vec::new);
        for (i, turns) in s.turns.iter_mut().enumerate().take(tokens.len()) {
            self.rope.at(first + i, turns);
        }
        for (buffer, width) in [
            (&mut s.queries, arch.q_width()),
            (&mut s.attended, arch.q_width()),
            (&mut s.keys, arch.kv_width()),
            (&mut s.values, arch.kv_width()),
            (&mut s.gate, arch.inner),
            (&mut s.up, arch.inner),
        ] {
            buffer.resize(tokens.len() * width, 0.0);
        }
        for (layer, store) in self.weights.layers.iter().zip(&mut cache.layers) {
            self.attention(layer, s, first, store)?;
            self.feed_forward(layer, s).map_err(step)?;
        }
        Ok(())
    }

    fn attention(&self, layer: &Layer, s: &mut Scratch, first: usize, store: &mut Store) -> Result<(), EngineError> {
        let (arch, pool, level) = (&self.arch, &self.pool, self.level);
        self.normed(&mut s.acts, &s.stream, &layer.attention_norm).map_err(step)?;
        let [wq, wk, wv] = &layer.qkv;
        let mut products = [
            Product { weights: wq, out: &mut s.queries, stride: arch.q_width(), add: false },
            Product { weights: wk, out: &mut s.keys, stride: arch.kv_width(), add: false },
            Product { weights: wv, out: &mut s.values, stride: arch.kv_width(), add: false },
        ];
        matmul(pool, level, &s.acts, &mut products).map_err(step)?;
        self.place(layer, s).map_err(step)?;
        let failed = |e: AttendError| EngineError::Step(e.to_string());
        store.append(&s.keys, &s.values).map_err(failed)?;
        #[expect(clippy::cast_precision_loss, reason = "a head has at most 1024 values")]
        let scale = 1.0 / (arch.heads.dim as f32).sqrt();
        let job =
            Attention { shape: arch.heads, scale, queries: &s.queries, first, store, rho: Rho::Zero, window: None };
        attend(pool, level, &[job], &mut s.attended).map_err(failed)?;
        let (attended, width) = (&s.attended, arch.q_width());
        s.acts.reset(attended.len() / width, width);
        let copy = |row: usize, out: &mut [f32]| {
            out.iter_mut().zip(attended.iter().skip(row * width)).for_each(|(o, a)| *o = *a);
        };
        s.acts.fill(pool, level, width, &copy).map_err(step)?;
        let product = Product { weights: &layer.output, out: &mut s.stream, stride: arch.width, add: true };
        matmul(pool, level, &s.acts, &mut [product]).map_err(step)
    }

    /// Adds biases and turns queries and keys by their positions.
    fn place(&self, layer: &Layer, s: &mut Scratch) -> Result<(), Panicked> {
        let (q_width, kv_width) = (self.arch.q_width(), self.arch.kv_width());
        let tokens = s.queries.len() / q_width;
        let [bq, bk, bv] = &layer.qkv_bias;
        let turns = &s.turns;
        let (q, k, v) = (Shards::new(&mut s.queries), Shards::new(&mut s.keys), Shards::new(&mut s.values));
        self.pool.run(tokens, &|token| {
            // SAFETY: every token is one task and has its own row in all three buffers.
            let (q, k, v) = unsafe {
                (
                    q.range(token * q_width, q_width),
                    k.range(token * kv_width, kv_width),
                    v.range(token * kv_width, kv_width),
                )
            };
            for (row, bias) in [(&mut *q, bq), (&mut *k, bk), (&mut *v, bv)] {
                row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
            }
            if let Some(turns) = turns.get(token) {
                self.rope.turn(q, turns);
                self.rope.turn(k, turns);
            }
        })
    }

    fn feed_forward(&self, layer: &Layer, s: &mut Scratch) -> Result<(), Panicked> {
        let (pool, level, inner) = (&self.pool, self.level, self.arch.inner);
        self.normed(&mut s.acts, &s.stream, &layer.inner_norm)?;
        let [gate, up] = &layer.gate_up;
        let mut products = [
            Product { weights: gate, out: &mut s.gate, stride: inner, add: false },
            Product { weights: up, out: &mut s.up, stride: inner, add: false },
        ];
        matmul(pool, level, &s.acts, &mut products)?;
        let (gate, up) = (&s.gate, &s.up);
        s.acts.reset(gate.len() / inner, inner);
        let activate = |row: usize, out: &mut [f32]| {
            let part = row * inner..(row + 1) * inner;
            if let (Some(g), Some(u)) = (gate.get(part.clone()), up.get(part)) {
                gated(level, g, u, out);
            }
        };
        s.acts.fill(pool, level, inner, &activate)?;
        let product = Product { weights: &layer.down, out: &mut s.stream, stride: self.arch.width, add: true };
        matmul(pool, level, &s.acts, &mut [product])
    }

    /// The norm of every row of `stream`, quantised.
    fn normed(&self, acts: &mut Acts, stream: &[f32], weight: &[f32]) -> Result<(), Panicked> {
        let (width, level, epsilon) = (self.arch.width, self.level, self.arch.epsilon);
        acts.reset(stream.len() / width, width);
        let fill = |row: usize, out: &mut [f32]| {
            if let Some(x) = stream.get(row * width..(row + 1) * width) {
                norm(level, x, weight, epsilon, out);
            }
        };
        acts.fill(&self.pool, level, width, &fill)
    }

    /// Logits of the last row of the stream.
    fn logits(&self, s: &mut Scratch, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        let last = s.stream.len().saturating_sub(self.arch.width);
        let row = s.stream.get(last..).unwrap_or(&[]);
        if !row.iter().all(|x| x.is_finite()) {
            return Err(EngineError::Step("the model's numbers overflowed; its file may be damaged".into()));
        }
        self.normed(&mut s.acts, row, &self.weights.norm).map_err(step)?;
        logits.resize(self.arch.vocabulary, 0.0);
        let weights = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        let product = Product { weights, out: logits, stride: self.arch.vocabulary, add: false };
        matmul(&self.pool, self.level, &s.acts, &mut [product]).map_err(step)
    }
}

fn step(panicked: Panicked) -> EngineError {
    EngineError::Step(panicked.to_string())
}
