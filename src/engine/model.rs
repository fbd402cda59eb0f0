//! A loaded model: weights in the kernels' format and the forward pass over them.
//!
//! Invariants: logits depend on the tokens in the cache and those given, not on how they were cut into calls; a failed
//! call leaves the cache as it was; nothing here samples, tokenises or waits.
#![allow(unsafe_code, reason = "tasks write disjoint rows; each block says why it is sound")]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use crate::config::attention::Attention as Setting;
use crate::engine::acts::Acts;
use crate::engine::arch::Arch;
use crate::engine::attention;
use crate::engine::cache::{KvCache, bytes_for};
use crate::engine::gguf;
use crate::engine::matmul::{Product, matmul};
use crate::engine::metadata::Metadata;
use crate::engine::packed::Packed;
use crate::engine::pointwise::{gated, norm, norm_parts};
use crate::engine::rope::Rope;
use crate::engine::scratch::Scratch;
use crate::engine::types::{EngineError, clamp};
use crate::engine::weights::{Layer, Weights};
use crate::lla::pool::{Panicked, Pool, Shards};
use crate::lla::ridge::{Rho, Ridge};
use crate::lla::simd::Level;
use crate::lla::{AttendError, Attention, attend};

/// Tokens that go through all layers together; the activations of one piece stay in the second-level cache.
const PIECE_TOKENS: usize = 128;

/// One sequence's part in a step.
pub struct Run<'a> {
    /// Keys and values of what was run before; those of `tokens` are added.
    pub cache: &'a mut KvCache,
    /// What to run; at least one token, and room for all in the cache.
    pub tokens: &'a [u32],
    /// Where the logits of the last token go, if they are wanted: `vocab_size` values.
    pub logits: Option<&'a mut Vec<f32>>,
}

/// A model ready to run. Shared between threads; one forward pass runs at a time.
pub struct Model {
    metadata: Metadata,
    arch: Arch,
    weights: Weights,
    rope: Rope,
    /// Ridges of each layer that does not attend by softmax alone.
    ridges: Vec<Option<Ridge>>,
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
            Ok(Self {
                metadata,
                arch,
                weights,
                rope,
                ridges: Vec::new(),
                context: window,
                level,
                pool,
                scratch: Mutex::default(),
            })
        };
        // A file that gets through the checks and still trips the reader must not end the process.
        catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| {
            Err(EngineError::Load(format!("{}: the file could not be read; fetch it again", path.display())))
        })
    }

    /// The same model attending in another way; refused where the setting does not fit its layers and heads.
    pub fn with_attention(mut self, setting: &Setting) -> Result<Self, EngineError> {
        self.ridges = attention::ridges(setting, self.arch.layers, self.arch.heads.heads)?;
        let smallest = setting.smallest();
        if smallest < attention::SAFE_LAMBDA {
            warn!(lambda = smallest, model = self.arch.name, "{}", attention::WHY);
        }
        Ok(self)
    }

    /// Runs `tokens` after those in `cache` and leaves the logits of the last one in `logits` (`vocab_size` values).
    pub fn forward(&self, cache: &mut KvCache, tokens: &[u32], logits: &mut Vec<f32>) -> Result<(), EngineError> {
        let error = self.step(&mut [Run { cache, tokens, logits: Some(logits) }])?.pop().flatten();
        error.map_or(Ok(()), Err)
    }

    /// Runs several sequences together, so that the weights are read once for all. The results say which runs failed, in
    /// order; an error is a failure of the whole step. What failed leaves its cache as it was. A run's results are the
    /// same, bit for bit, whatever runs beside it.
    pub fn step(&self, runs: &mut [Run]) -> Result<Vec<Option<EngineError>>, EngineError> {
        let mut errors: Vec<Option<EngineError>> = runs.iter().map(|run| self.refuses(run)).collect();
        let before: Vec<usize> = runs.iter().map(|run| run.cache.len()).collect();
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let all = || {
            for piece in pieces(runs, &errors) {
                self.piece(runs, &piece, &mut errors, &mut scratch)?;
            }
            Ok(())
        };
        let done = catch_unwind(AssertUnwindSafe(all)).unwrap_or_else(|_| Err(step(Panicked)));
        for ((run, error), before) in runs.iter_mut().zip(&errors).zip(before) {
            if done.is_err() || error.is_some() {
                run.cache.truncate(before);
            }
        }
        done.map(|()| errors)
    }

    /// Bytes that the cache of a sequence of `tokens` takes at most.
    pub fn cache_bytes(&self, tokens: usize) -> usize {
        bytes_for(self.arch.layers, self.arch.heads, tokens)
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

    /// Its name, one of `arch::NAMES`.
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

    /// Why a run cannot be part of a step.
    fn refuses(&self, run: &Run) -> Option<EngineError> {
        if run.tokens.is_empty() {
            return Some(EngineError::Step("no tokens to run".into()));
        }
        if let Some(token) = run.tokens.iter().find(|t| **t as usize >= self.arch.vocabulary) {
            return Some(EngineError::Step(format!("token {token} is outside the vocabulary")));
        }
        if !run.cache.fits(self.arch.layers, self.arch.heads) {
            return Some(EngineError::Step("the cache belongs to another model".into()));
        }
        let (input, context) = (run.cache.len() + run.tokens.len(), run.cache.context());
        (input > context).then(|| EngineError::Context { input: clamp(input), context: clamp(context) })
    }

    /// Embeds a piece, runs it through every layer, and computes the logits of the runs that end in it.
    fn piece(
        &self,
        runs: &mut [Run],
        piece: &[Span],
        errors: &mut [Option<EngineError>],
        s: &mut Scratch,
    ) -> Result<(), EngineError> {
        self.embed(runs, piece, s);
        for (index, layer) in self.weights.layers.iter().enumerate() {
            self.attention(index, layer, runs, piece, s)?;
            self.feed_forward(layer, s).map_err(step)?;
        }
        self.logits(runs, piece, errors, s).map_err(step)
    }

    /// Rows and positions of a piece's tokens; makes room for them in the caches and the working memory.
    fn embed(&self, runs: &mut [Run], piece: &[Span], s: &mut Scratch) {
        let arch = &self.arch;
        let rows: usize = piece.iter().map(|span| span.tokens.len()).sum();
        s.stream.clear();
        s.turns.resize_with(rows.max(s.turns.len()), Vec::new);
        let mut turns = s.turns.iter_mut();
        for span in piece {
            let Some(run) = runs.get_mut(span.run) else { continue };
            for token in run.tokens.get(span.tokens.clone()).unwrap_or(&[]) {
                self.weights.embedding.row(*token as usize, &mut s.row);
                s.stream.extend(s.row.iter().take(arch.width).map(|x| x * arch.embedding_scale));
            }
            run.cache.extend(span.tokens.len());
            for position in span.first..span.first + span.tokens.len() {
                if let Some(turns) = turns.next() {
                    self.rope.at(position, turns);
                }
            }
        }
        for (buffer, width) in [
            (&mut s.queries, arch.q_width()),
            (&mut s.attended, arch.q_width()),
            (&mut s.keys, arch.kv_width()),
            (&mut s.values, arch.kv_width()),
            (&mut s.gate, arch.inner),
            (&mut s.up, arch.inner),
        ] {
            buffer.resize(rows * width, 0.0);
        }
    }

    fn attention(
        &self,
        index: usize,
        layer: &Layer,
        runs: &mut [Run],
        piece: &[Span],
        s: &mut Scratch,
    ) -> Result<(), EngineError> {
        let (arch, pool, level) = (&self.arch, &self.pool, self.level);
        self.normed(&mut s.acts, &s.stream, &layer.attention_norm).map_err(step)?;
        let [wq, wk, wv] = &layer.qkv;
        let mut products = [
            Product { weights: wq, out: &mut s.queries, stride: arch.q_width(), add: false },
            Product { weights: wk, out: &mut s.keys, stride: arch.kv_width(), add: false },
            Product { weights: wv, out: &mut s.values, stride: arch.kv_width(), add: false },
        ];
        matmul(pool, level, &s.acts, &mut products).map_err(step)?;
        self.place(index, layer, s).map_err(step)?;
        self.attend(index, runs, piece, s)?;
        let (attended, width) = (&s.attended, arch.q_width());
        s.acts.reset(attended.len() / width, width);
        let copy = |row: usize, out: &mut [f32]| {
            out.iter_mut().zip(attended.iter().skip(row * width)).for_each(|(o, a)| *o = *a);
        };
        s.acts.fill(pool, level, width, &copy).map_err(step)?;
        self.join(&layer.output, &layer.attention_post_norm, s).map_err(step)
    }

    /// Adds biases, and turns queries and keys by their positions.
    fn place(&self, index: usize, layer: &Layer, s: &mut Scratch) -> Result<(), Panicked> {
        let sliding = self.arch.window(index).is_some();
        let (q_width, kv_width) = (self.arch.q_width(), self.arch.kv_width());
        let tokens = s.queries.len() / q_width;
        let [bq, bk, bv] = &layer.qkv_bias;
        let ([nq, nk], epsilon) = (&layer.head_norms, self.arch.epsilon);
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
            norm_parts(q, nq, epsilon);
            norm_parts(k, nk, epsilon);
            if let Some(turns) = turns.get(token) {
                self.rope.turn(q, turns, sliding);
                self.rope.turn(k, turns, sliding);
            }
        })
    }

    /// Puts keys and values into the caches, and attends, every run over its own.
    fn attend(&self, index: usize, runs: &mut [Run], piece: &[Span], s: &mut Scratch) -> Result<(), EngineError> {
        let (shape, q_width, kv_width) = (self.arch.heads, self.arch.q_width(), self.arch.kv_width());
        let failed = |e: AttendError| EngineError::Step(e.to_string());
        for span in piece {
            let part = span.rows.start * kv_width..span.rows.end * kv_width;
            let store = runs.get_mut(span.run).and_then(|run| run.cache.layers.get_mut(index));
            if let (Some(store), Some(keys), Some(values)) = (store, s.keys.get(part.clone()), s.values.get(part)) {
                store.append(keys, values).map_err(failed)?;
            }
        }
        let (scale, window) = (self.arch.scale, self.arch.window(index));
        let rho = self.ridges.get(index).and_then(Option::as_ref).map_or(Rho::Zero, Rho::Solve);
        let job = |span: &Span| {
            let store = runs.get(span.run)?.cache.layers.get(index)?;
            let queries = s.queries.get(span.rows.start * q_width..span.rows.end * q_width)?;
            Some(Attention { shape, scale, queries, first: span.first, store, rho, window })
        };
        let jobs: Vec<Attention> = piece.iter().filter_map(job).collect();
        attend(&self.pool, self.level, &jobs, &mut s.attended).map(drop).map_err(failed)
    }

    fn feed_forward(&self, layer: &Layer, s: &mut Scratch) -> Result<(), Panicked> {
        let (pool, level, inner, activation) = (&self.pool, self.level, self.arch.inner, self.arch.activation);
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
                gated(level, activation, g, u, out);
            }
        };
        s.acts.fill(pool, level, inner, &activate)?;
        self.join(&layer.down, &layer.inner_post_norm, s)
    }

    /// Adds the product of the activations to the stream, normalised first where the architecture does that.
    fn join(&self, weights: &Packed, after: &[f32], s: &mut Scratch) -> Result<(), Panicked> {
        let (pool, level, width) = (&self.pool, self.level, self.arch.width);
        if after.is_empty() {
            let product = Product { weights, out: &mut s.stream, stride: width, add: true };
            return matmul(pool, level, &s.acts, &mut [product]);
        }
        s.branch.resize(s.stream.len(), 0.0);
        let product = Product { weights, out: &mut s.branch, stride: width, add: false };
        matmul(pool, level, &s.acts, &mut [product])?;
        norm_parts(&mut s.branch, after, self.arch.epsilon);
        s.stream.iter_mut().zip(&s.branch).for_each(|(x, b)| *x += b);
        Ok(())
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

    /// Logits of the runs that end in this piece and want them; a run whose numbers overflowed fails.
    fn logits(
        &self,
        runs: &mut [Run],
        piece: &[Span],
        errors: &mut [Option<EngineError>],
        s: &mut Scratch,
    ) -> Result<(), Panicked> {
        let (width, vocabulary) = (self.arch.width, self.arch.vocabulary);
        s.last.clear();
        let mut wanted: Vec<usize> = Vec::new();
        for span in piece {
            let Some(run) = runs.get(span.run).filter(|run| span.tokens.end == run.tokens.len()) else { continue };
            let row = s.stream.get((span.rows.end - 1) * width..span.rows.end * width).unwrap_or(&[]);
            if !row.iter().all(|x| x.is_finite())
                && let Some(error) = errors.get_mut(span.run)
            {
                let why = "the model's numbers overflowed; its file may be damaged";
                *error = Some(EngineError::Step(why.into()));
            } else if run.logits.is_some() {
                s.last.extend_from_slice(row);
                wanted.push(span.run);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.normed(&mut s.acts, &s.last, &self.weights.norm)?;
        s.logits.resize(wanted.len() * vocabulary, 0.0);
        let weights = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        let product = Product { weights, out: &mut s.logits, stride: vocabulary, add: false };
        matmul(&self.pool, self.level, &s.acts, &mut [product])?;
        for (run, row) in wanted.into_iter().zip(s.logits.chunks_exact(vocabulary)) {
            if let Some(logits) = runs.get_mut(run).and_then(|run| run.logits.as_deref_mut()) {
                logits.clear();
                logits.extend_from_slice(row);
            }
        }
        Ok(())
    }
}

/// Tokens of one run in a piece.
struct Span {
    /// Index of the run.
    run: usize,
    /// Which of its tokens.
    tokens: Range<usize>,
    /// Where they are among the piece's rows.
    rows: Range<usize>,
    /// Position of the first.
    first: usize,
}

/// Cuts what can run into pieces of at most [`PIECE_TOKENS`], in each of which a run has one part.
fn pieces(runs: &[Run], errors: &[Option<EngineError>]) -> Vec<Vec<Span>> {
    let (mut pieces, mut piece, mut room) = (Vec::new(), Vec::new(), PIECE_TOKENS);
    for (index, (run, _)) in runs.iter().zip(errors).enumerate().filter(|(_, (_, error))| error.is_none()) {
        let mut from = 0;
        while from < run.tokens.len() {
            let to = run.tokens.len().min(from + room);
            let row = PIECE_TOKENS - room;
            piece.push(Span {
                run: index,
                tokens: from..to,
                rows: row..row + to - from,
                first: run.cache.len() + from,
            });
            room -= to - from;
            from = to;
            if room == 0 {
                pieces.push(std::mem::take(&mut piece));
                room = PIECE_TOKENS;
            }
        }
    }
    pieces.push(piece);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

fn step(panicked: Panicked) -> EngineError {
    EngineError::Step(panicked.to_string())
}
