"""A Llama-type GGUF model in numpy, for looking inside: queries, keys and values of every layer. Not fast, not the engine."""

import numpy as np
from gguf import GGUFReader, dequantize
from tokenizers import Tokenizer, models, pre_tokenizers


def byte_level(tokens, merges):
    """The tokenizer of a GGUF file whose vocabulary is byte-level BPE with digits apart, as SmolLM2's is."""
    pairs = [tuple(m.split(" ")) for m in merges]
    made = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=pairs))
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return made


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        field = lambda name: reader.fields[name].contents()
        architecture = field("general.architecture")
        if architecture != "llama":
            raise SystemExit(f"{path}: {architecture} is not a Llama-type model")
        number = lambda name: field(f"{architecture}.{name}")
        self.layers = number("block_count")
        self.heads = number("attention.head_count")
        self.kv_heads = number("attention.head_count_kv")
        self.base = number("rope.freq_base")
        self.epsilon = number("attention.layer_norm_rms_epsilon")
        self.weights = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self.dim = self.weights["blk.0.attn_q.weight"].shape[0] // self.heads
        self.tokenizer = byte_level(field("tokenizer.ggml.tokens"), field("tokenizer.ggml.merges"))

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * self.weights[name]

    def rotate(self, x):
        """Rotary positions on neighbouring pairs, as GGUF stores Llama's heads; `x` is tokens x heads x dim."""
        angle = np.arange(len(x))[:, None] * self.base ** (-np.arange(0, self.dim, 2) / self.dim)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape).astype(np.float32)

    def run(self, ids, attend, logits=True):
        """Logits (tokens x vocabulary) of one sequence; `attend(layer, q, k, v)` gets tokens x heads x dim each."""
        w, n = self.weights, len(ids)
        x = w["token_embd.weight"][ids]
        for i in range(self.layers):
            part = lambda name: w[f"blk.{i}.{name}.weight"]
            h = self.norm(x, f"blk.{i}.attn_norm.weight")
            q = self.rotate((h @ part("attn_q").T).reshape(n, self.heads, self.dim))
            k = self.rotate((h @ part("attn_k").T).reshape(n, self.kv_heads, self.dim))
            v = (h @ part("attn_v").T).reshape(n, self.kv_heads, self.dim)
            x = x + attend(i, q, k, v).reshape(n, -1) @ part("attn_output").T
            h = self.norm(x, f"blk.{i}.ffn_norm.weight")
            gate = h @ part("ffn_gate").T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ part("ffn_up").T)) @ part("ffn_down").T
        if not logits:
            return None
        return self.norm(x, "output_norm.weight") @ w.get("output.weight", w["token_embd.weight"]).T


def softmax_weights(q, k):
    """Causal weights of one head, n x n, in double precision."""
    scores = q.astype(float) @ k.astype(float).T / np.sqrt(q.shape[1])
    scores[np.triu_indices(len(q), 1)] = -np.inf
    p = np.exp(scores - scores.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)
