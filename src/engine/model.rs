//! A loaded model: weights in the kernels' format and the forward pass over them.

use std::path::Path;

use crate::engine::cache::KvCache;
use crate::engine::gguf;
use crate::engine::metadata::Metadata;
use crate::engine::types::EngineError;

/// A model ready to run. Shared between threads; one forward pass runs at a time.
pub struct Model {
    metadata: Metadata,
    architecture: String,
    vocab_size: usize,
    context: usize,
}

impl Model {
    /// Loads a GGUF file. `context` is the window to allow in tokens (0: the file's own; never more than that);
    /// `threads` of 0 is one per core. Blocks for as long as the file takes to read and repack.
    pub fn load(path: &Path, context: u32, threads: usize) -> Result<Self, EngineError> {
        let _ = (gguf::precheck(path)?, context, threads);
        Err(EngineError::Load("the forward pass is not in this build".into()))
    }

    /// Runs `tokens` after those in `cache` and leaves the logits of the last one in `logits` (`vocab_size` values).
    pub fn forward(&self, cache: &mut KvCache, tokens: &[u32], logits: &mut Vec<f32>) -> Result<(), EngineError> {
        let _ = (cache, tokens, logits);
        Err(EngineError::Step("the forward pass is not in this build".into()))
    }

    /// An empty cache for one sequence.
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(0, 0, self.context)
    }

    /// Tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Window in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// `llama` or `qwen2`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The header's pairs, tokenizer included.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}
