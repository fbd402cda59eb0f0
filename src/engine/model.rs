//! A loaded model: weights in the kernels' format and steps over them.
//!
//! Invariants: logits depend on the tokens in the cache and those given, not on how they were cut into calls; a failed
//! call leaves the cache as it was; nothing here samples, tokenises or waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use crate::config::attention::Attention as Setting;
use crate::engine::arch::Arch;
use crate::engine::attention;
use crate::engine::cache::{KvCache, bytes_for};
use crate::engine::forward::step;
use crate::engine::gguf;
use crate::engine::metadata::Metadata;
use crate::engine::pieces::{Run, pieces};
use crate::engine::rope::Rope;
use crate::engine::scratch::Scratch;
use crate::engine::types::{EngineError, clamp};
use crate::engine::weights::Weights;
use crate::lla::pool::{Panicked, Pool};
use crate::lla::ridge::Ridge;
use crate::lla::simd::Level;

/// A model ready to run. Shared between threads; one forward pass runs at a time.
pub struct Model {
    pub(in crate::engine) metadata: Metadata,
    pub(in crate::engine) arch: Arch,
    pub(in crate::engine) weights: Weights,
    pub(in crate::engine) rope: Rope,
    /// Ridges of each layer that does not attend by softmax alone.
    pub(in crate::engine) ridges: Vec<Option<Ridge>>,
    pub(in crate::engine) context: usize,
    pub(in crate::engine) level: Level,
    pub(in crate::engine) pool: Pool,
    pub(in crate::engine) scratch: Mutex<Scratch>,
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
}
