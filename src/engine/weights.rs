//! All weights of a model, read from the file and repacked, matrix by matrix.
//!
//! Memory: the packed matrices (about the file's size) and one buffer of a few megabytes. Every tensor of the file must
//! be one that the forward pass uses: a file with more is of a variant that we would compute wrongly.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;

use crate::engine::arch::Arch;
use crate::engine::gguf::{Header, Place};
use crate::engine::packed::{Packed, ROWS};
use crate::engine::repack;
use crate::engine::types::EngineError;
use crate::lla::pool::{Pool, Shards};

/// Bytes of a matrix read at a time, about.
const READ_BYTES: usize = 8 << 20;

/// Weights of one transformer block.
pub struct Layer {
    /// RMS norm before attention.
    pub attention_norm: Vec<f32>,
    /// Query, key and value projections.
    pub qkv: [Packed; 3],
    /// Their biases; empty where there are none.
    pub qkv_bias: [Vec<f32>; 3],
    /// RMS norms of each head's queries and keys; empty where there are none.
    pub head_norms: [Vec<f32>; 2],
    /// Projection of the attention's output.
    pub output: Packed,
    /// RMS norm of what attention adds; empty where there is none.
    pub attention_post_norm: Vec<f32>,
    /// RMS norm before the feed-forward part.
    pub inner_norm: Vec<f32>,
    /// Gate and up projections.
    pub gate_up: [Packed; 2],
    /// Down projection.
    pub down: Packed,
    /// RMS norm of what the feed-forward part adds; empty where there is none.
    pub inner_post_norm: Vec<f32>,
}

/// Weights of a model.
pub struct Weights {
    /// Token embedding; also the output matrix where `head` is `None`.
    pub embedding: Packed,
    /// Transformer blocks.
    pub layers: Vec<Layer>,
    /// RMS norm before the output matrix.
    pub norm: Vec<f32>,
    /// Output matrix, unless it is the embedding.
    pub head: Option<Packed>,
    /// Factors that divide the turning frequencies; empty where there are none.
    pub rope_factors: Vec<f32>,
}

impl Weights {
    /// Reads every tensor.
    pub fn read(path: &Path, header: &Header, arch: &Arch, pool: &Pool) -> Result<Self, EngineError> {
        let file = File::open(path).map_err(|e| EngineError::Load(format!("{}: {e}", path.display())))?;
        let mut reader = Reader { file, header, pool, used: BTreeSet::new() };
        let mut layers = Vec::new();
        for index in 0..arch.layers {
            layers.push(reader.layer(index, arch)?);
        }
        let weights = Self {
            embedding: reader.matrix("token_embd.weight", arch.width, arch.vocabulary)?,
            layers,
            norm: reader.vector("output_norm.weight", arch.width)?,
            head: match header.tensors.contains_key("output.weight") {
                true => Some(reader.matrix("output.weight", arch.width, arch.vocabulary)?),
                false => None,
            },
            rope_factors: reader.optional("rope_freqs.weight", arch.rotated / 2)?,
        };
        if weights.rope_factors.iter().any(|f| !f.is_finite() || *f <= 0.0) {
            return Err(EngineError::Load("tensor rope_freqs.weight has a factor that is not positive".into()));
        }
        match header.tensors.keys().find(|name| !reader.used.contains(name.as_str())) {
            Some(name) => Err(EngineError::Load(format!(
                "tensor {name} is unknown to architecture {}: this variant is not supported",
                arch.name
            ))),
            None => Ok(weights),
        }
    }

    /// Bytes of all matrices in memory.
    pub fn bytes(&self) -> usize {
        let layer =
            |l: &Layer| l.qkv.iter().chain(&l.gate_up).chain([&l.output, &l.down]).map(Packed::bytes).sum::<usize>();
        self.embedding.bytes()
            + self.head.as_ref().map_or(0, Packed::bytes)
            + self.layers.iter().map(layer).sum::<usize>()
    }
}

struct Reader<'a> {
    file: File,
    header: &'a Header,
    pool: &'a Pool,
    used: BTreeSet<String>,
}

impl Reader<'_> {
    fn layer(&mut self, index: usize, arch: &Arch) -> Result<Layer, EngineError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, q, kv) = (arch.width, arch.q_width(), arch.kv_width());
        Ok(Layer {
            attention_norm: self.vector(&name("attn_norm.weight"), width)?,
            qkv: [
                self.matrix(&name("attn_q.weight"), width, q)?,
                self.matrix(&name("attn_k.weight"), width, kv)?,
                self.matrix(&name("attn_v.weight"), width, kv)?,
            ],
            qkv_bias: [
                self.optional(&name("attn_q.bias"), q)?,
                self.optional(&name("attn_k.bias"), kv)?,
                self.optional(&name("attn_v.bias"), kv)?,
            ],
            head_norms: [
                self.vector_if(arch.head_norms, &name("attn_q_norm.weight"), arch.heads.dim)?,
                self.vector_if(arch.head_norms, &name("attn_k_norm.weight"), arch.heads.dim)?,
            ],
            output: self.matrix(&name("attn_output.weight"), q, width)?,
            attention_post_norm: self.vector_if(arch.post_norms, &name("post_attention_norm.weight"), width)?,
            inner_norm: self.vector(&name("ffn_norm.weight"), width)?,
            gate_up: [
                self.matrix(&name("ffn_gate.weight"), width, arch.inner)?,
                self.matrix(&name("ffn_up.weight"), width, arch.inner)?,
            ],
            down: self.matrix(&name("ffn_down.weight"), arch.inner, width)?,
            inner_post_norm: self.vector_if(arch.post_norms, &name("post_ffw_norm.weight"), width)?,
        })
    }

    /// A tensor of exactly these sizes.
    fn place(&mut self, name: &str, dims: &[usize]) -> Result<Place, EngineError> {
        let Some(place) = self.header.tensors.get(name) else {
            return Err(EngineError::Load(format!("tensor {name} is missing")));
        };
        if place.dims != dims {
            return Err(EngineError::Load(format!("tensor {name} has sizes {:?}, expected {dims:?}", place.dims)));
        }
        self.used.insert(name.to_owned());
        Ok(place.clone())
    }

    fn bytes(&mut self, name: &str, start: u64, length: usize) -> Result<Vec<u8>, EngineError> {
        let mut read = || {
            self.file.seek(SeekFrom::Start(start))?;
            let mut buffer = vec![0; length];
            self.file.read_exact(&mut buffer)?;
            Ok(buffer)
        };
        read().map_err(|e: std::io::Error| EngineError::Load(format!("cannot read tensor {name}: {e}")))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, EngineError> {
        let place = self.place(name, &[length])?;
        let raw = self.bytes(name, place.start, usize::try_from(place.bytes).unwrap_or(usize::MAX))?;
        let values = repack::floats(place.dtype, &raw);
        values.map_err(|e| EngineError::Load(format!("cannot read tensor {name}: {e}")))
    }

    fn vector_if(&mut self, has: bool, name: &str, length: usize) -> Result<Vec<f32>, EngineError> {
        if has { self.vector(name, length) } else { Ok(Vec::new()) }
    }

    fn optional(&mut self, name: &str, length: usize) -> Result<Vec<f32>, EngineError> {
        if self.header.tensors.contains_key(name) { self.vector(name, length) } else { Ok(Vec::new()) }
    }

    /// Reads a matrix piece by piece and repacks each piece on all threads.
    fn matrix(&mut self, name: &str, columns: usize, rows: usize) -> Result<Packed, EngineError> {
        let place = self.place(name, &[columns, rows])?;
        let row_bytes = columns / place.dtype.block() * place.dtype.block_bytes();
        let Some(mut packed) = Packed::new(rows, columns, repack::format(place.dtype)) else {
            return Err(EngineError::Load(format!("tensor {name} is too large for this machine")));
        };
        let groups = packed.groups();
        let (group_bytes, stream) = packed.groups_mut();
        let shards = Shards::new(stream);
        let step = (READ_BYTES / (row_bytes * ROWS).max(1)).max(1);
        let mut start = place.start;
        for first in (0..groups).step_by(step) {
            let count = step.min(groups - first);
            let piece = row_bytes * (rows - first * ROWS).min(count * ROWS);
            let raw = self.bytes(name, start, piece)?;
            start += piece as u64;
            let problem = Mutex::new(None);
            let ran = self.pool.run(count, &|index| {
                let part = raw.chunks(row_bytes * ROWS).nth(index).unwrap_or(&[]);
                #[allow(unsafe_code, reason = "each task has its own group of rows")]
                // SAFETY: groups do not overlap and each index is run once.
                let group = unsafe { shards.range((first + index) * group_bytes, group_bytes) };
                if let Err(e) = repack::fill(place.dtype, part, columns, group)
                    && let Ok(mut slot) = problem.lock()
                {
                    *slot = Some(e);
                }
            });
            let problem = problem.into_inner().ok().flatten();
            if let Some(e) = problem.or(ran.err().map(|e| e.to_string())) {
                return Err(EngineError::Load(format!("cannot repack tensor {name}: {e}")));
            }
        }
        Ok(packed)
    }
}
