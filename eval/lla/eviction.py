"""Eviction of cached keys: can LLA's correction make up for what was thrown away, with summaries that fit a cache?

A model's attention over 1500 tokens is recomputed from 4 first and 256 last keys (the kept set S). The correction moves the
kept average along its own Jacobian towards an estimate of the full mean key:  o = vbar_S + G_S (C_S + lambda I)^-1 (kbar - kbar_S).
Estimates that a cache can maintain as keys leave it: one Gaussian of all evicted keys, or one mean (with or without a diagonal
variance) per block of evicted keys. Beside it the plain use of the same memory: the block's mean key and mean value as one
weighted token, and as many more kept keys. The last family keeps every evicted key in one to four bits per
number and drops its value: the mean key is then nearly right, and LLA regresses the values. Beside it both in few bits. Numbers are |o - o_full| / |o_full| per (head, query).
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np

from smol import Model

HERE = Path(__file__).resolve().parent
CONTEXT, SINKS, RECENT = 1500, 4, 256
QUERIES = [1444, 1452, 1460, 1468, 1476, 1484, 1492, 1499]
RIDGES = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
BLOCK = 64
GROUP = 32
# Bits per number of evicted keys and values.
CODES = [(1, 1), (2, 1), (2, 2), (3, 1), (4, 1), (4, 2), (4, 4)]
TEXTS = {"austen": ["austen"], "mixed": ["lighthouse", "salt", "jargon"]}


def collect(model, names):
    """Queries, keys and values of all layers for the first tokens of the texts, one after another."""
    text = "\n\n".join((HERE / "texts" / f"{name}.txt").read_text().strip() for name in names)
    ids = model.encode(text)[:CONTEXT]
    assert len(ids) == CONTEXT, f"{names}: only {len(ids)} tokens"
    seen = []

    def attend(_, q, k, v):
        group = q.shape[1] // k.shape[1]
        out = np.empty_like(q)
        mask = np.triu(np.full((len(q), len(q)), -np.inf, np.float32), 1)
        for h in range(q.shape[1]):
            scores = q[:, h] @ k[:, h // group].T / np.float32(np.sqrt(q.shape[2])) + mask
            p = np.exp(scores - scores.max(1, keepdims=True))
            out[:, h] = (p / p.sum(1, keepdims=True)) @ v[:, h // group]
        seen.append((q[QUERIES].astype(float), k.astype(float), v.astype(float)))
        return out

    model.run(ids, attend, logits=False)
    return seen


def mean(weights, rows):
    return weights @ rows / weights.sum()


class Evicted:
    """Summaries of the keys that left one head's cache; `log` weights are relative to the score of the query."""

    def __init__(self, keys, values, scale):
        self.scale = scale
        starts = range(0, len(keys), BLOCK)
        self.count = np.array([len(keys[s : s + BLOCK]) for s in starts], float)
        self.key = np.array([keys[s : s + BLOCK].mean(0) for s in starts])
        self.value = np.array([values[s : s + BLOCK].mean(0) for s in starts])
        self.variance = np.array([keys[s : s + BLOCK].var(0) for s in starts])
        self.total, self.centre, self.covariance = len(keys), keys.mean(0), np.cov(keys.T, bias=True)

    def gaussian(self, q):
        """Log of the evicted weight and the evicted mean key, were all evicted keys one Gaussian."""
        spread = self.scale * self.covariance @ q
        log = np.log(self.total) + self.scale * q @ self.centre + self.scale * q @ spread / 2
        return np.array([log]), np.array([self.centre + spread])

    def blocks(self, q):
        """The same per block, without variance."""
        return np.log(self.count) + self.scale * self.key @ q, self.key

    def wide_blocks(self, q):
        """The same per block, with a diagonal variance."""
        spread = self.scale * self.variance * q
        return np.log(self.count) + self.scale * self.key @ q + self.scale * spread @ q / 2, self.key + spread


def quantise(rows, bits):
    """Rows as `bits` per number keep them, by column: levels between the column's extremes, or for one bit the means of
    the halves below and above the column's mean."""
    if bits == 1:
        upper = rows > rows.mean(0)
        high = np.where(upper, rows, 0).sum(0) / np.maximum(upper.sum(0), 1)
        low = np.where(upper, 0, rows).sum(0) / np.maximum((~upper).sum(0), 1)
        return np.where(upper, high, low)
    low, step = rows.min(0), np.maximum(np.ptp(rows, axis=0), 1e-9) / (2**bits - 1)
    return low + np.round((rows - low) / step) * step


def quantise_keys(keys, bits):
    """By channel in blocks of tokens: a key's outliers sit in few channels."""
    return np.concatenate([quantise(keys[s : s + BLOCK], bits) for s in range(0, len(keys), BLOCK)])


def quantise_values(values, bits):
    """By token in groups of channels. (By channel, like keys, the errors are two to three times as large.)"""
    groups = [quantise(values[:, c : c + GROUP].T, bits).T for c in range(0, values.shape[1], GROUP)]
    return np.concatenate(groups, axis=1)


def memory(dim):
    """Bits per evicted token and key-value head, two half-precision numbers per scale included."""
    key = lambda bits: dim * bits + 32 * dim / BLOCK
    value = lambda bits: dim * bits + 32 * dim / GROUP
    found = {f"keys in {k} bits, values in {v}": key(k) + value(v) for k, v in CODES}
    found |= {f"LLA, keys in {k} bits": key(k) for k, _ in CODES}
    found |= {"LLA, block means": 16 * dim / BLOCK, "LLA, block means and variances": 32 * dim / BLOCK}
    return found | {"block means as tokens": 32 * dim / BLOCK, "kept": 32 * dim}


def full_mean(scores, keys, log, means):
    """Mean key of kept and summarised keys together."""
    most = max(scores.max(), log.max())
    weights = np.concatenate([np.exp(scores - most), np.exp(log - most)])
    return mean(weights, np.concatenate([keys, means]))


def probe(q, keys, values, quantised, scale):
    """Relative errors of every method for one head and query; `keys` are those the query sees."""
    scores = scale * keys @ q
    p = np.exp(scores - scores.max())
    p /= p.sum()
    truth = p @ values
    error = lambda o: np.linalg.norm(o - truth) / np.linalg.norm(truth)
    n = len(keys)
    kept = np.r_[0:SINKS, n - RECENT : n]
    gone = np.arange(SINKS, n - RECENT)
    evicted = Evicted(keys[gone], values[gone], scale)
    s, k, v = scores[kept], keys[kept], values[kept]
    w = np.exp(s - s.max())
    kb, vb = mean(w, k), mean(w, v)
    found = {"kept only": error(vb)}
    # As many more recent keys as mean keys and mean values of the blocks cost.
    more = len(evicted.count)
    wider = np.r_[0:SINKS, n - RECENT - more : n]
    found["kept only, memory of block means"] = error(mean(np.exp(scores[wider] - s.max()), values[wider]))
    log, _ = evicted.blocks(q)
    most = max(s.max(), log.max())
    tokens = np.concatenate([np.exp(s - most), np.exp(log - most)])
    found["block means as tokens"] = error(mean(tokens, np.concatenate([v, evicted.value])))
    u = (k - kb) * (w / w.sum())[:, None]
    eigen, basis = np.linalg.eigh(u.T @ (k - kb))
    cross = (v - vb).T @ u @ basis
    targets = {
        "LLA, true mean key": p @ keys,
        "LLA, one Gaussian": full_mean(s, k, *evicted.gaussian(q)),
        "LLA, block means": full_mean(s, k, *evicted.blocks(q)),
        "LLA, block means and variances": full_mean(s, k, *evicted.wide_blocks(q)),
    }
    for bits, value_bits in CODES:
        rough, rough_values = quantised["keys", bits], quantised["values", value_bits]
        log = scale * rough @ q
        most = max(s.max(), log.max())
        weights = np.concatenate([np.exp(s - most), np.exp(log - most)])
        found[f"keys in {bits} bits, values in {value_bits}"] = error(mean(weights, np.concatenate([v, rough_values])))
        targets[f"LLA, keys in {bits} bits"] = mean(weights, np.concatenate([k, rough]))
    for name, target in targets.items():
        move = basis.T @ (target - kb)
        for ridge in RIDGES:
            found[f"{name}, ridge {ridge:g}"] = error(vb + cross @ (move / (np.maximum(eigen, 0) + ridge)))
    return found


def summary(rows, heads):
    """Mean with a 95 % interval from 1000 resamplings of heads, median, 95th percentile."""
    rows = rows.reshape(heads, -1)
    random = np.random.default_rng(0)
    means = rows.mean(1)[random.integers(0, heads, (1000, heads))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "mean": rows.mean(), "low95": low, "high95": high, "median": np.median(rows), "p95": np.percentile(rows, 95),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    path = HERE / "results" / "eviction.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    model = Model(args.model)
    for text, names in TEXTS.items():
        if text in result:
            continue
        started, found = time.monotonic(), {}
        for q, k, v in collect(model, names):
            for head in range(q.shape[1]):
                of = head // (q.shape[1] // k.shape[1])
                cut = {("keys", b): quantise_keys(k[SINKS:, of], b) for b in {c[0] for c in CODES}}
                cut |= {("values", b): quantise_values(v[SINKS:, of], b) for b in {c[1] for c in CODES}}
                for row, position in enumerate(QUERIES):
                    seen, gone = slice(0, position + 1), position + 1 - RECENT - SINKS
                    rough = {code: rows[:gone] for code, rows in cut.items()}
                    for name, error in probe(q[row, head], k[seen, of], v[seen, of], rough, q.shape[2] ** -0.5).items():
                        found.setdefault(name, []).append(error)
        heads = model.layers * model.heads
        result[text] = {
            "part": "eviction", "model_sha256": hashlib.sha256(Path(args.model).read_bytes()).hexdigest(),
            "context": CONTEXT, "sinks": SINKS, "recent": RECENT, "block": BLOCK, "queries": QUERIES, "heads": heads,
            "bits_per_evicted_token": memory(model.dim), "seconds": round(time.monotonic() - started, 1),
            "errors": {name: {k: float(f"{v:.4g}") for k, v in summary(np.array(e), heads).items()} for name, e in found.items()},
        }
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"eviction, {text}: {result[text]['seconds']} s")


if __name__ == "__main__":
    main()
