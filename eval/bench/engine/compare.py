"""wattroute's embedded engine beside llama.cpp: same file, same threads, same run. Writes JSON.

    python compare.py MODEL.gguf [--threads 2] [--out result.json] [--program target/release/examples/engine-speed]

Needs `pip install xllamacpp` (a build of llama.cpp). Three passes alternate between the two programs, so that a change of the
machine's clock meets both; the best pass counts, all are written down. Greedy continuations are compared token by token.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

PROMPTS = [
    "The capital of France is",
    "<|im_start|>user\nName three primary colours.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWrite a Python function that adds two numbers.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWhy is the sky blue? Answer in two sentences.<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time there was a fox who",
    "1, 2, 3, 4, 5, 6, 7, 8,",
    "<|im_start|>user\nTranslate to French: The house is small and the garden is large.<|im_end|>\n<|im_start|>assistant\n",
    "def fibonacci(n):\n",
]


class Llama:
    """llama.cpp in this process."""

    def __init__(self, model, threads):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.n_ctx = 4096
        params.n_parallel = 1
        params.warmup = True
        params.n_gpu_layers = 0
        self.server = xllamacpp.Server(params)
        self.version = getattr(xllamacpp, "__version__", "unknown")

    def complete(self, prompt, count):
        answer = self.server.handle_completions(
            {
                "prompt": prompt,
                "n_predict": count,
                "max_tokens": count,
                "temperature": 0.0,
                "top_k": 1,
                "cache_prompt": False,
                "ignore_eos": True,
                "return_tokens": True,
                "n_probs": 2,
                "logprobs": 2,
            }
        )
        return answer if isinstance(answer, dict) else json.loads(answer)

    def tokens(self, answer):
        content = answer["choices"][0]["logprobs"]["content"]
        return [c["id"] for c in content], [[(t["id"], t["logprob"]) for t in c["top_logprobs"]] for c in content]

    def speed(self, prompt, decode):
        tokens = [i * 7919 % 30000 + 300 for i in range(prompt)]
        answer = self.server.handle_completions(
            {"prompt": tokens, "max_tokens": decode, "temperature": 0.0, "top_k": 1, "cache_prompt": False, "ignore_eos": True}
        )
        answer = answer if isinstance(answer, dict) else json.loads(answer)
        timings = answer["timings"]
        return {"prefill_tok_s": timings["prompt_per_second"], "decode_tok_s": timings["predicted_per_second"]}


def ours(program, model, threads, *rest, lines=""):
    done = subprocess.run([program, model, str(threads), *map(str, rest)], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(llama, program, model, threads, count):
    """Greedy continuations: how many tokens agree before the first difference, and how close the choice was there."""
    rows = []
    for text in PROMPTS:
        prompt = tokenize(model, text)
        theirs, tops = llama.tokens(llama.complete(prompt, count))
        mine = ours(program, model, threads, "greedy", count, lines=json.dumps(prompt) + "\n")[0]["tokens"]
        same = next((i for i, (a, b) in enumerate(zip(theirs, mine)) if a != b), min(len(theirs), len(mine)))
        row = {"prompt": text, "prompt_tokens": len(prompt), "compared": count, "same": same}
        if same < count:
            row["at_difference"] = {"llama_cpp_top2": tops[same], "wattroute": mine[same]}
        rows.append(row)
    return rows


def tokenize(model, text):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if model not in TOKENIZERS:
        from gguf import GGUFReader

        fields = GGUFReader(model).fields
        tokens = fields["tokenizer.ggml.tokens"].contents()
        kinds = fields["tokenizer.ggml.token_type"].contents()
        merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
        bpe = models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
        made = Tokenizer(bpe)
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == 3])
        TOKENIZERS[model] = made
    return TOKENIZERS[model].encode(text).ids


TOKENIZERS = {}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out")
    parser.add_argument("--program", default="target/release/examples/engine-speed")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--greedy", type=int, default=0, help="tokens to compare greedily; 0 measures speed instead")
    args = parser.parse_args()
    llama = Llama(args.model, args.threads)
    result = {"model": Path(args.model).name, "sha256": hashlib.sha256(Path(args.model).read_bytes()).hexdigest(), "threads": args.threads}
    if args.greedy:
        result["greedy"] = compare(llama, args.program, args.model, args.threads, args.greedy)
    else:
        passes = []
        for _ in range(args.passes):
            theirs = llama.speed(args.prompt, args.decode)
            mine = ours(args.program, args.model, args.threads, "speed", args.prompt, args.decode, 1)[0]
            passes.append({"llama_cpp": theirs, "wattroute": mine})
        best = lambda who, what: max(p[who][what] for p in passes)
        for what in ("prefill_tok_s", "decode_tok_s"):
            result[what] = {"wattroute": best("wattroute", what), "llama_cpp": best("llama_cpp", what)}
            result[what]["ratio"] = result[what]["wattroute"] / result[what]["llama_cpp"]
        result.update({"prompt_tokens": args.prompt, "decode_tokens": args.decode, "llama_cpp_build": llama.version, "passes": passes})
    text = json.dumps(result, indent=1)
    if args.out:
        Path(args.out).write_text(text + "\n")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
