"""wattroute's embedded engine beside llama.cpp: same file, same threads, same run. Writes JSON.

    python compare.py MODEL.gguf [--threads 2] [--out result.json] [--program target/release/examples/engine-speed]
    python compare.py MODEL.gguf --greedy 64 [--prompts N] ...
    python compare.py MODEL.gguf --perplexity TEXT... [--window 512] ...

Needs `pip install xllamacpp numpy` (a build of llama.cpp). Speed: passes alternate between the two programs, so that a change of
the machine's clock meets both; the best pass counts, all are written down. Greedy: continuations are compared token by token.
Perplexity: both score the same tokens, cut into windows without a common past.
"""

import argparse
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import llamacpp

CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = [
    "The capital of France is",
    CHAT.format("Name three primary colours."),
    CHAT.format("Write a Python function that adds two numbers."),
    CHAT.format("Why is the sky blue? Answer in two sentences."),
    "Once upon a time there was a fox who",
    "1, 2, 3, 4, 5, 6, 7, 8,",
    CHAT.format("Translate to French: The house is small and the garden is large."),
    "def fibonacci(n):\n",
    CHAT.format("What is 17 + 25?"),
    CHAT.format("Write a haiku about the sea."),
    "The three laws of motion, stated by Isaac Newton, are",
    "SELECT name, count(*) FROM orders",
    CHAT.format("List five animals that live in the forest, one per line."),
    CHAT.format("Explain what a hash table is to a ten-year-old."),
    "Dear Sir or Madam,\n\nI am writing to",
    "fn main() {\n    let numbers = vec![1, 2, 3];\n",
    CHAT.format("Which is heavier, a kilogram of iron or a kilogram of feathers?"),
    CHAT.format("Summarise: The meeting was moved from Monday to Thursday because the hall was being painted."),
    "In 1969, the first human beings",
    CHAT.format("Give me a recipe for pancakes with three ingredients."),
]


def ours(program, model, threads, *rest, lines=""):
    done = subprocess.run([program, model, str(threads), *map(str, rest)], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def greedy(llama, args):
    """How many tokens agree before the first difference, and how close llama.cpp's own choice was there.

    Beside it, how often llama.cpp agrees with itself when it reads the prompt token by token: the same products, added in
    another order.
    """
    prompts = [llama.tokens(text) for text in PROMPTS[: args.prompts]]
    lines = "".join(json.dumps(p) + "\n" for p in prompts)
    mine = ours(args.program, args.model, args.threads, "greedy", args.greedy, lines=lines)
    rows = []
    for text, prompt, answer in zip(PROMPTS, prompts, mine):
        theirs, tops = llama.greedy(prompt, args.greedy)
        got = answer["tokens"]
        same = next((i for i, (a, b) in enumerate(zip(theirs, got)) if a != b), args.greedy)
        again, _ = llama.greedy(prompt, args.greedy, one_by_one=True)
        row = {"prompt": text, "prompt_tokens": len(prompt), "same": same, "llama_cpp_as_itself": theirs == again}
        if same < args.greedy:
            first, second = tops[same]
            row["parted"] = {"llama_cpp_top2": tops[same], "margin": first[1] - second[1], "wattroute": got[same]}
        rows.append(row)
    whole = sum(row["same"] == args.greedy for row in rows)
    margins = [row["parted"]["margin"] for row in rows if "parted" in row]
    return {
        "tokens": args.greedy,
        "prompts": len(rows),
        "equal_to_the_end": whole,
        "llama_cpp_equal_to_itself": sum(row["llama_cpp_as_itself"] for row in rows),
        "largest_margin_where_parted": max(margins, default=0.0),
        "rows": rows,
    }


def perplexity(llama, args):
    windows = []
    for path in args.perplexity:
        tokens = llama.tokens(Path(path).read_text(), special=False)
        windows += [tokens[i : i + args.window] for i in range(0, len(tokens), args.window)]
    windows = [w for w in windows if len(w) >= 32][: args.windows or None]
    lines = "".join(json.dumps(w) + "\n" for w in windows)
    mine = ours(args.program, args.model, args.threads, "perplexity", "-", lines=lines)
    theirs = [llama.score(w) for w in windows]
    a = [x for w in mine for x in w["logprobs"]]
    b = [x for scores, _ in theirs for x in scores]
    exact = {}
    if args.exact:
        answers = ours(args.program, args.exact, args.threads, "perplexity", "-", lines=lines)
        e = [x for w in answers for x in w["logprobs"]]
        mean = lambda v: sum(abs(x - y) for x, y in zip(v, e)) / len(e)
        exact = {"mean_abs_difference_from_exact": {"wattroute": mean(a), "llama_cpp": mean(b)}, "exact": math.exp(-sum(e) / len(e))}
    best = [x == y for w, (_, t) in zip(mine, theirs) for x, y in zip(w["best"], t)]
    apart = [abs(x - y) for x, y in zip(a, b)]
    ours_ppl, theirs_ppl = (math.exp(-sum(v) / len(v)) for v in (a, b))
    return {
        "texts": [Path(p).name for p in args.perplexity],
        "window": args.window,
        "predictions": len(a),
        "wattroute": ours_ppl,
        "llama_cpp": theirs_ppl,
        "relative_difference": ours_ppl / theirs_ppl - 1,
        "mean_abs_difference_of_logprobs": sum(apart) / len(apart),
        "largest_difference_of_logprobs": max(apart),
        "same_best_token": sum(best) / len(best),
        **exact,
    }


def speed(llama, args):
    prompt = [i * 7919 % 30000 + 300 for i in range(args.prompt)]
    passes = []
    for _ in range(args.passes):
        theirs = llama.speed(prompt, args.decode)
        mine = ours(args.program, args.model, args.threads, "speed", args.prompt, args.decode, 1)[0]
        passes.append({"llama_cpp": theirs, "wattroute": mine})
    result = {"prompt_tokens": args.prompt, "decode_tokens": args.decode}
    for what in ("prefill_tok_s", "decode_tok_s"):
        best = {who: max(p[who][what] for p in passes) for who in ("wattroute", "llama_cpp")}
        result[what] = {**best, "ratio": best["wattroute"] / best["llama_cpp"]}
    return {**result, "passes": passes}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", help="JSON file; what other runs wrote there stays")
    parser.add_argument("--program", default="target/release/examples/engine-speed")
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--decode", type=int, default=48)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--greedy", type=int, default=0, help="tokens to compare greedily")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--perplexity", nargs="+", default=[], metavar="TEXT")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--exact", help="the same weights in F32 (requantise.py), to see how far each is from exact products")
    parser.add_argument("--windows", type=int, default=0, help="use only the first so many")
    args = parser.parse_args()
    llama = llamacpp.Llama(args.model, args.threads)
    out = Path(args.out) if args.out else None
    result = json.loads(out.read_text()) if out and out.exists() else {}
    sha256 = hashlib.sha256(Path(args.model).read_bytes()).hexdigest()
    result.update({"model": Path(args.model).name, "sha256": sha256, "threads": args.threads, "llama_cpp_build": llamacpp.version()})
    if args.greedy:
        result["greedy"] = greedy(llama, args)
    if args.perplexity:
        result["perplexity"] = perplexity(llama, args)
    if not args.greedy and not args.perplexity:
        result["speed"] = speed(llama, args)
    text = json.dumps(result, indent=1)
    if out:
        out.write_text(text + "\n")
        result.get("greedy", {}).pop("rows", None)
        result.get("speed", {}).pop("passes", None)
        text = json.dumps(result)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
