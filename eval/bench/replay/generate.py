#!/usr/bin/env python3
"""A large outcome table out of real ones: questions of a table, drawn with replacement, arriving as in a real trace.

    python3 eval/bench/replay/generate.py --rows 10000000 --out big.jsonl.gz
    wattroute replay --outcomes big.jsonl.gz --weak Llama-3.1-8B-Instruct --strong gemini-1.5-pro

Without --text a row holds the question's key in place of its words (folds still keep one question together); with it, the
words and the options, about 1 kB a row. The same seed gives the same file. Needs nothing but Python.
"""

import argparse
import gzip
import json
import pathlib
import random
import shutil

HERE = pathlib.Path(__file__).resolve().parents[3] / "eval/data/routing"


def gaps(path):
    """Milliseconds between arrivals of a trace with a column `arrival_ms`; without a trace, Poisson at 5.5 per second."""
    if path is None:
        rng = random.Random(7)
        return [rng.expovariate(5.5) * 1000.0 for _ in range(20000)]
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as f:
        at = f.readline().strip().split(",").index("arrival_ms")
        times = [float(line.split(",")[at]) for line in f]
    return [max(0.0, b - a) for a, b in zip(times, times[1:])]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--table", type=pathlib.Path, default=HERE / "mmlu_pro.jsonl.gz")
    p.add_argument("--trace", type=pathlib.Path, help="CSV with arrival_ms, plain or gzip")
    p.add_argument("--rows", type=int, required=True)
    p.add_argument("--out", type=pathlib.Path, required=True, help="NAME.jsonl or NAME.jsonl.gz")
    p.add_argument("--text", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    tails = []
    with gzip.open(a.table, "rt") as f:
        for line in f:
            row = json.loads(line)
            keep = {k: row[k] for k in ("domain", "ok", "score", "out_chars") if k in row}
            keep["prompt"] = row["prompt"] if a.text else row["id"]
            if a.text and "options" in row:
                keep["options"] = row["options"]
            if not a.text:
                keep["in_tokens"] = (len(row["prompt"]) + len("".join(row.get("options", [])))) // 4
            tails.append(json.dumps(keep, separators=(",", ":"), ensure_ascii=False)[1:])
    between = gaps(a.trace)
    rng = random.Random(a.seed)
    opened = (lambda: gzip.open(a.out, "wt", compresslevel=1)) if a.out.suffix == ".gz" else (lambda: open(a.out, "w"))
    at = 0.0
    with opened() as out:
        for start in range(0, a.rows, 10000):
            lines = []
            for i in range(start, min(start + 10000, a.rows)):
                at += between[i % len(between)]
                lines.append('{"id":"%d","arrival_ms":%d,%s\n' % (i, at, rng.choice(tails)))
            out.write("".join(lines))
    name = a.out.name.removesuffix(".gz").removesuffix(".jsonl")
    source = a.table.name.removesuffix(".gz").removesuffix(".jsonl")
    shutil.copy(a.table.with_name(source + ".models.json"), a.out.with_name(name + ".models.json"))


if __name__ == "__main__":
    main()
