//! The forward pass once more, as plainly as it can be written: the oracle of the engine's tests.
//!
//! Shares no code with the engine: candle reads and dequantises the file, everything is single precision, attention is
//! recomputed for every position, nothing is cached, repacked or threaded.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};

/// Weights by name, dequantised, and the numbers that the arithmetic needs.
pub struct Oracle {
    tensors: HashMap<String, Vec<f32>>,
    neox: bool,
    gemma: bool,
    window: usize,
    layers: usize,
    width: usize,
    inner: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
}

impl Oracle {
    pub fn load(path: &Path) -> Self {
        let mut file = File::open(path).unwrap();
        let content = Content::read(&mut file).unwrap();
        let name = content.metadata["general.architecture"].to_string().unwrap().clone();
        let size = |key: &str| match &content.metadata[&format!("{name}.{key}")] {
            Value::U32(n) => *n as usize,
            other => panic!("{other:?}"),
        };
        let mut tensors = HashMap::new();
        for tensor in content.tensor_infos.keys() {
            let values = content.tensor(&mut file, tensor, &Device::Cpu).unwrap();
            let values = values.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            tensors.insert(tensor.clone(), values);
        }
        let heads = size("attention.head_count");
        let window = content.metadata.get(&format!("{name}.attention.sliding_window"));
        let shape = content.tensor_infos["blk.0.attn_q.weight"].shape.dims();
        Self {
            neox: name != "llama",
            gemma: name == "gemma3",
            window: window.map_or(usize::MAX, |w| w.to_u32().unwrap() as usize),
            dim: shape[0] / heads,
            layers: size("block_count"),
            width: size("embedding_length"),
            inner: size("feed_forward_length"),
            heads,
            kv_heads: size("attention.head_count_kv"),
            tensors,
        }
    }

    fn times(&self, name: &str, x: &[f32], rows: usize) -> Vec<f32> {
        let weights = &self.tensors[&format!("{name}.weight")];
        let row = |r: usize| &weights[r * x.len()..(r + 1) * x.len()];
        let mut y: Vec<f32> = (0..rows).map(|r| row(r).iter().zip(x).map(|(w, x)| w * x).sum()).collect();
        if let Some(bias) = self.tensors.get(&format!("{name}.bias")) {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        y
    }

    fn norm(&self, name: &str, x: &[f32]) -> Vec<f32> {
        let Some(weight) = self.tensors.get(&format!("{name}.weight")) else { return x.to_vec() };
        let mut out = Vec::new();
        for part in x.chunks(weight.len()) {
            let mean = part.iter().map(|v| v * v).sum::<f32>() / part.len() as f32;
            out.extend(part.iter().zip(weight).map(|(v, w)| v / (mean + 1e-5).sqrt() * w));
        }
        out
    }

    fn turn(&self, x: &mut [f32], position: usize, slides: bool) {
        let dim = self.dim;
        let factors = self.tensors.get("rope_freqs.weight");
        let base = if self.gemma && !slides { 1e6_f32 } else { 1e4 };
        for head in x.chunks_mut(dim) {
            for i in 0..dim / 2 {
                let speed = base.powf(-2.0 * i as f32 / dim as f32);
                let angle = position as f32 * speed / factors.map_or(1.0, |f| f[i]);
                let (a, b) = if self.neox { (i, i + dim / 2) } else { (2 * i, 2 * i + 1) };
                let (p, q) = (head[a], head[b]);
                head[a] = p * angle.cos() - q * angle.sin();
                head[b] = p * angle.sin() + q * angle.cos();
            }
        }
    }

    /// Logits at every position.
    pub fn logits(&self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let (dim, group) = (self.dim, self.heads / self.kv_heads);
        let embedding = &self.tensors["token_embd.weight"];
        let embed = |t: &u32| embedding[*t as usize * self.width..(*t as usize + 1) * self.width].to_vec();
        let mut streams: Vec<Vec<f32>> = tokens.iter().map(embed).collect();
        let size = if self.gemma { (self.width as f32).sqrt() } else { 1.0 };
        streams.iter_mut().flatten().for_each(|x| *x *= size);
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            let slides = self.gemma && layer % 2 == 0;
            for (position, x) in streams.iter_mut().enumerate() {
                let h = self.norm(&name("attn_norm"), x);
                let mut q = self.times(&name("attn_q"), &h, self.heads * dim);
                let mut k = self.times(&name("attn_k"), &h, self.kv_heads * dim);
                values.push(self.times(&name("attn_v"), &h, self.kv_heads * dim));
                q = self.norm(&name("attn_q_norm"), &q);
                k = self.norm(&name("attn_k_norm"), &k);
                self.turn(&mut q, position, slides);
                self.turn(&mut k, position, slides);
                keys.push(k);
                let mut attended = Vec::new();
                for (head, q) in q.chunks(dim).enumerate() {
                    let from = head / group * dim;
                    let dot = |k: &Vec<f32>| k[from..from + dim].iter().zip(q).map(|(k, q)| k * q).sum::<f32>();
                    let mut scores: Vec<f32> = keys.iter().map(|k| (dot(k) / (dim as f32).sqrt()).exp()).collect();
                    if slides {
                        let hidden = scores.len().saturating_sub(self.window);
                        scores[..hidden].fill(0.0);
                    }
                    let total: f32 = scores.iter().sum();
                    let mean = |d: usize| scores.iter().zip(&values).map(|(s, v)| s * v[from + d]).sum::<f32>() / total;
                    attended.extend((0..dim).map(mean));
                }
                let add = self.times(&name("attn_output"), &attended, self.width);
                let add = self.norm(&name("post_attention_norm"), &add);
                x.iter_mut().zip(add).for_each(|(x, a)| *x += a);
                let h = self.norm(&name("ffn_norm"), x);
                let gate = self.times(&name("ffn_gate"), &h, self.inner);
                let up = self.times(&name("ffn_up"), &h, self.inner);
                let silu = |g: f32| g / (1.0 + (-g).exp());
                let cube = |g: f32| (2.0 / std::f32::consts::PI).sqrt() * (g + 0.044715 * g * g * g);
                let gelu = |g: f32| 0.5 * g * (1.0 + cube(g).tanh());
                let active = |g: f32| if self.gemma { gelu(g) } else { silu(g) };
                let both: Vec<f32> = gate.iter().zip(up).map(|(g, u)| active(*g) * u).collect();
                let add = self.times(&name("ffn_down"), &both, self.width);
                let add = self.norm(&name("post_ffw_norm"), &add);
                x.iter_mut().zip(add).for_each(|(x, a)| *x += a);
            }
        }
        let head = if self.tensors.contains_key("output.weight") { "output" } else { "token_embd" };
        let rows = embedding.len() / self.width;
        streams.iter().map(|x| self.times(head, &self.norm("output_norm", x), rows)).collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::GgmlDType;

    use super::*;
    use crate::engine::model::Model;
    use crate::engine::tiny::Tiny;
    use crate::engine::types::EngineError;
    use crate::lla::simd::Level;

    const TOKENS: [u32; 24] =
        [5, 77, 286, 12, 256, 260, 101, 9, 9, 33, 280, 1, 0, 64, 250, 199, 42, 7, 270, 88, 15, 285, 2, 31];

    /// Single-precision weights: what is left is the half-precision cache (measured: at most 0.007).
    const EXACT: f32 = 0.015;
    /// Activations of 8 bits per block of 32 (measured: at most 0.16); a wrong kernel is beyond 2.
    const QUANTISED: f32 = 0.3;

    fn model(tiny: Tiny, level: Level) -> (Model, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        tiny.write(&path).unwrap();
        (Model::load_at(&path, 0, 2, level).unwrap(), folder)
    }

    fn run(model: &Model, pieces: &[&[u32]]) -> Vec<f32> {
        let (mut cache, mut logits) = (model.new_cache(), Vec::new());
        for piece in pieces {
            model.forward(&mut cache, piece, &mut logits).unwrap();
        }
        logits
    }

    /// Largest difference, in units of the oracle's own spread.
    fn difference(got: &[f32], want: &[f32]) -> f32 {
        assert_eq!(got.len(), want.len());
        let mean = want.iter().sum::<f32>() / want.len() as f32;
        let spread = (want.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / want.len() as f32).sqrt();
        got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max) / spread
    }

    fn check(tiny: Tiny, tolerance: f32) {
        for level in Level::all().into_iter().filter(|l| l.runs_here()) {
            let (model, folder) = model(tiny, level);
            let want = Oracle::load(&folder.path().join("tiny.gguf")).logits(&TOKENS);
            for n in [1, 2, 9, TOKENS.len()] {
                let apart = difference(&run(&model, &[&TOKENS[..n]]), &want[n - 1]);
                assert!(apart < tolerance, "{tiny:?} {level:?} after {n} tokens: {apart}");
            }
        }
    }

    #[test]
    fn llama_in_single_precision_equals_the_oracle() {
        let llama = Tiny::new("llama", GgmlDType::F32);
        check(llama, EXACT);
        check(Tiny { tied: false, factors: true, seed: 2, ..llama }, EXACT);
        check(Tiny { heads: 4, kv_heads: 4, seed: 3, ..llama }, EXACT);
        check(Tiny { heads: 8, kv_heads: 1, width: 96, layers: 3, seed: 4, ..llama }, EXACT);
    }

    #[test]
    fn qwen2_in_single_precision_equals_the_oracle() {
        let qwen2 = Tiny::new("qwen2", GgmlDType::F32);
        check(qwen2, EXACT);
        check(Tiny { tied: false, heads: 4, kv_heads: 1, seed: 5, ..qwen2 }, EXACT);
    }

    #[test]
    fn qwen3_with_norms_per_head_equals_the_oracle() {
        let qwen3 = Tiny::new("qwen3", GgmlDType::F32);
        check(qwen3, EXACT);
        check(Tiny { dim: 32, tied: false, heads: 4, kv_heads: 1, seed: 6, ..qwen3 }, EXACT);
    }

    #[test]
    fn gemma3_with_sliding_layers_equals_the_oracle() {
        let gemma3 = Tiny { dim: 16, layers: 4, ..Tiny::new("gemma3", GgmlDType::F32) };
        check(gemma3, EXACT);
        check(Tiny { dim: 32, sliding: 3, kv_heads: 1, seed: 7, ..gemma3 }, EXACT);
    }

    #[test]
    fn quantised_types_stay_close_to_the_oracle() {
        for architecture in ["llama", "qwen2", "qwen3"] {
            for dtype in [
                GgmlDType::F16,
                GgmlDType::BF16,
                GgmlDType::Q8_0,
                GgmlDType::Q5_0,
                GgmlDType::Q5_1,
                GgmlDType::Q4_0,
                GgmlDType::Q4_1,
            ] {
                check(Tiny::new(architecture, dtype), QUANTISED);
            }
        }
        for dtype in [GgmlDType::Q2K, GgmlDType::Q3K, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K] {
            check(Tiny { width: 256, ..Tiny::new("llama", dtype) }, QUANTISED);
        }
    }

    #[test]
    fn how_a_prompt_is_cut_makes_no_difference() {
        for tiny in [Tiny::new("llama", GgmlDType::F32), Tiny::new("qwen2", GgmlDType::Q4_1)] {
            let (model, _folder) = model(tiny, Level::detect());
            let whole = run(&model, &[&TOKENS]);
            let single: Vec<&[u32]> = TOKENS.chunks(1).collect();
            for pieces in [single, vec![&TOKENS[..1], &TOKENS[1..]], TOKENS.chunks(7).collect()] {
                assert!(difference(&run(&model, &pieces), &whole) < EXACT);
            }
        }
    }

    #[test]
    fn a_prompt_longer_than_a_piece_is_run_in_pieces() {
        let tiny = Tiny { context: 512, ..Tiny::new("llama", GgmlDType::F32) };
        let (model, folder) = model(tiny, Level::detect());
        let tokens: Vec<u32> = (0..300).map(|i| i * 7 % 256).collect();
        let want = Oracle::load(&folder.path().join("tiny.gguf")).logits(&tokens);
        assert!(difference(&run(&model, &[&tokens]), &want[299]) < EXACT);
    }

    #[test]
    fn a_truncated_cache_goes_on_from_there() {
        let (model, _folder) = model(Tiny::new("llama", GgmlDType::F32), Level::detect());
        let want = run(&model, &[&TOKENS]);
        let (mut cache, mut logits) = (model.new_cache(), Vec::new());
        model.forward(&mut cache, &TOKENS[..10], &mut logits).unwrap();
        model.forward(&mut cache, &[1, 2, 3], &mut logits).unwrap();
        cache.truncate(10);
        model.forward(&mut cache, &TOKENS[10..], &mut logits).unwrap();
        assert!(difference(&logits, &want) < EXACT);
        cache.clear();
        assert!(cache.is_empty());
        model.forward(&mut cache, &TOKENS, &mut logits).unwrap();
        assert!(difference(&logits, &want) < EXACT);
    }

    #[test]
    fn what_cannot_run_is_an_error_and_leaves_the_cache_alone() {
        let (model, _folder) = model(Tiny { context: 16, ..Tiny::new("llama", GgmlDType::Q8_0) }, Level::detect());
        let (mut cache, mut logits) = (model.new_cache(), Vec::new());
        model.forward(&mut cache, &TOKENS[..10], &mut logits).unwrap();
        assert!(matches!(model.forward(&mut cache, &[], &mut logits), Err(EngineError::Step(_))));
        assert!(matches!(model.forward(&mut cache, &[u32::MAX], &mut logits), Err(EngineError::Step(_))));
        let error = model.forward(&mut cache, &TOKENS[..7], &mut logits).unwrap_err();
        assert!(matches!(error, EngineError::Context { input: 17, context: 16 }), "{error}");
        assert_eq!(cache.len(), 10);
        model.forward(&mut cache, &TOKENS[..6], &mut logits).unwrap();
        let (other, _folder) = self::model(Tiny { layers: 3, ..Tiny::new("llama", GgmlDType::Q8_0) }, Level::detect());
        assert!(matches!(other.forward(&mut cache, &[1], &mut logits), Err(EngineError::Step(_))));
    }
}
