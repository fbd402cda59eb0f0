//! The forward pass: one piece of a step through every layer, and the logits at its ends.
//!
//! Invariant: a row's numbers depend on its own sequence alone, bit for bit, whatever other rows are beside it.
#![allow(unsafe_code, reason = "tasks write disjoint rows; each block says why it is sound")]

use crate::engine::acts::{Acts, Kinds};
use crate::engine::matmul::{Product, matmul};
use crate::engine::model::Model;
use crate::engine::packed::Packed;
use crate::engine::pieces::{Run, Span};
use crate::engine::pointwise::{gated, norm, norm_parts};
use crate::engine::scratch::Scratch;
use crate::engine::types::EngineError;
use crate::engine::weights::Layer;
use crate::lla::pool::{Panicked, Shards};
use crate::lla::ridge::Rho;
use crate::lla::{AttendError, Attention, attend};

impl Model {
    /// Embeds a piece, runs it through every layer, and computes the logits of the runs that end in it.
    pub(in crate::engine) fn piece(
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
        self.normed(&mut s.acts, &s.stream, &layer.attention_norm, Kinds::of(&layer.qkv)).map_err(step)?;
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
        s.acts.reset(attended.len() / width, width, Kinds::of([&layer.output]));
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
        self.normed(&mut s.acts, &s.stream, &layer.inner_norm, Kinds::of(&layer.gate_up))?;
        let [gate, up] = &layer.gate_up;
        let mut products = [
            Product { weights: gate, out: &mut s.gate, stride: inner, add: false },
            Product { weights: up, out: &mut s.up, stride: inner, add: false },
        ];
        matmul(pool, level, &s.acts, &mut products)?;
        let (gate, up) = (&s.gate, &s.up);
        s.acts.reset(gate.len() / inner, inner, Kinds::of([&layer.down]));
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
    fn normed(&self, acts: &mut Acts, stream: &[f32], weight: &[f32], kinds: Kinds) -> Result<(), Panicked> {
        let (width, level, epsilon) = (self.arch.width, self.level, self.arch.epsilon);
        acts.reset(stream.len() / width, width, kinds);
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
        let weights = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        self.normed(&mut s.acts, &s.last, &self.weights.norm, Kinds::of([weights]))?;
        s.logits.resize(wanted.len() * vocabulary, 0.0);
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

/// A step that a panic ended.
pub fn step(panicked: Panicked) -> EngineError {
    EngineError::Step(panicked.to_string())
}
