"""Perplexity of a model trained with softmax attention when every head attends by local linear attention instead.

The engine scores the first 512 tokens of each text in `texts/` for every ridge (no bound on the corrections), all layers and
heads; differences are paired by token. Resumable: results/curve.json holds a cell per model and ridge.
"""

import argparse
import hashlib
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize

from smol import byte_level

HERE = Path(__file__).resolve().parent
TEXTS = ["lighthouse", "salt", "austen", "jargon"]
RIDGES = ["inf", "10000", "1000", "300", "100", "30", "10", "1"]
WINDOW = 512


def by_score(text, tokens, scores):
    """Token ids as SentencePiece merges them: the neighbours whose union scores best, again and again."""
    ids = {token: i for i, token in enumerate(tokens)}
    out = []
    for line in text.replace(" ", "\u2581").splitlines(keepends=True):
        parts = list(line)
        while True:
            unions = [(scores[ids[a + b]], -i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ids]
            if not unions:
                break
            at = -max(unions)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        for part in parts:
            out += [ids[part]] if part in ids else [ids[f"<0x{byte:02X}>"] for byte in part.encode()]
    return out


def encode(path, texts):
    """First tokens of each text, and the model's name for itself."""
    fields = GGUFReader(path).fields
    field = lambda name: fields[name].contents()
    tokens = field("tokenizer.ggml.tokens")
    if field("tokenizer.ggml.model") == "llama":
        scores, start = field("tokenizer.ggml.scores"), field("tokenizer.ggml.bos_token_id")
        all_ids = [[start, *by_score(text, tokens, scores)] for text in texts]
    else:
        tokenizer = byte_level(tokens, field("tokenizer.ggml.merges"))
        all_ids = [tokenizer.encode(text).ids for text in texts]
    assert all(len(ids) >= WINDOW for ids in all_ids), "a text is too short"
    return [ids[:WINDOW] for ids in all_ids], field("general.name")


def gains(path):
    """Of a model that norms queries and keys: lengths the learned gains give them, layer by layer, and how gains correlate."""
    named = {t.name: t for t in GGUFReader(path).tensors if "attn_q_norm" in t.name or "attn_k_norm" in t.name}
    weight = lambda i, which: dequantize(named[f"blk.{i}.attn_{which}_norm.weight"].data, named[f"blk.{i}.attn_{which}_norm.weight"].tensor_type)
    pairs = [(weight(i, "q"), weight(i, "k")) for i in range(len(named) // 2)]
    return {
        "query_length": [round(float(np.linalg.norm(q)), 1) for q, _ in pairs],
        "key_length": [round(float(np.linalg.norm(k)), 1) for _, k in pairs],
        "gain_correlation": [round(float(np.corrcoef(q, k)[0, 1]), 2) for q, k in pairs],
    }


def score(engine, model, windows, ridge):
    """Negative log-likelihood of every token but the first of each window."""
    command = [engine, model, "1", "perplexity", "-", "--lambda", ridge]
    lines = "".join(json.dumps(w) + "\n" for w in windows)
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
    rows = [json.loads(line)["logprobs"] for line in done.stdout.splitlines()]
    assert [len(r) for r in rows] == [WINDOW - 1] * len(windows)
    return -np.array(rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--qk-norm-model")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--budget", type=float, default=1e9)
    args = parser.parse_args()
    deadline = time.monotonic() + args.budget
    path = HERE / "results" / "curve.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    # Longer than any window; SentencePiece merging is slow in Python.
    texts = [(HERE / "texts" / f"{name}.txt").read_text().strip()[:3500] for name in TEXTS]
    for kind, model in (("softmax", args.model), ("softmax, QK-norm", args.qk_norm_model)):
        if model and kind != "softmax" and "gains" not in result.get(kind, {}):
            result.setdefault(kind, {"ridges": {}})["gains"] = gains(model)
            path.write_text(json.dumps(result) + "\n")
        if not model or all(ridge in result.get(kind, {}).get("ridges", {}) for ridge in RIDGES):
            continue
        windows, name = encode(model, texts)
        sha = hashlib.sha256(Path(model).read_bytes()).hexdigest()
        about = {"model": name, "sha256": sha, "texts": TEXTS, "window": WINDOW}
        result[kind] = {**result.get(kind, {}), **about}
        cells = result[kind].setdefault("ridges", {})
        for ridge in [r for r in RIDGES if r not in cells]:
            if time.monotonic() > deadline:
                print("curve: out of time", file=sys.stderr)
                return 0
            started = time.monotonic()
            nll = score(args.engine, model, windows, ridge)
            cell = {"perplexity": math.exp(nll.mean()), "by_text": dict(zip(TEXTS, np.exp(nll.mean(1)).tolist())), "predictions": nll.size}
            if ridge == "inf":
                cell["nll"] = [[round(x, 4) for x in row] for row in nll.tolist()]
            else:
                change = (nll - np.array(cells["inf"]["nll"])).ravel()
                cell |= {"change": change.mean(), "change_se": change.std(ddof=1) / math.sqrt(change.size)}
            cell["seconds"] = round(time.monotonic() - started, 1)
            cells[ridge] = cell
            path.write_text(json.dumps(result) + "\n")
            print(f"curve, {name}, ridge {ridge}: perplexity {cell['perplexity']:.3f}, {cell['seconds']} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
