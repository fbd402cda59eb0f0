#!/usr/bin/env python3
"""A large log out of real ones: questions of a table, drawn with replacement, arriving as in a real trace.

    python3 eval/bench/replay/generate.py --rows 10000000 --out big.jsonl.gz
    wattroute replay --outcomes big.jsonl.gz --weak Llama-3.1-8B-Instruct --strong gemini-1.5-pro

--as outcomes (the default): an outcome table. Without --text a row holds the question's key in place of its words (folds still keep
one question together); with it, the words and the options. --as chat: a log of conversations with words and without labels, each
prompt filled up to 1 kB with other questions. --as csv: arrivals and tokens alone. The same seed gives the same file. Needs nothing
but Python.
"""

import argparse
import gzip
import json
import pathlib
import random
import shutil

HERE = pathlib.Path(__file__).resolve().parents[3] / "eval/data/routing"
PROMPT_BYTES = 1000


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


def words(row):
    return row["prompt"] + "".join("\n%s. %s" % pair for pair in zip("ABCDEFGHIJKLMNOP", row.get("options", [])))


def tails(rows, kind, text):
    """What follows key and arrival in a line: one for each row of the table."""
    dumps = lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if kind == "csv":
        return ["%d,%d" % (len(words(r)) // 4, max(1, r["out_chars"][0] // 4)) for r in rows]
    if kind == "outcomes":
        kept = []
        for row in rows:
            keep = {k: row[k] for k in ("domain", "ok", "score", "out_chars") if k in row}
            keep["prompt"] = row["prompt"] if text else row["id"]
            if text and "options" in row:
                keep["options"] = row["options"]
            if not text:
                keep["in_tokens"] = (len(row["prompt"]) + len("".join(row.get("options", [])))) // 4
            kept.append(dumps(keep)[1:])
        return kept
    rng, all_words, kept = random.Random(5), [words(r) for r in rows], []
    for prompt in all_words:
        while len(prompt.encode()) < PROMPT_BYTES:
            prompt += "\n\n" + rng.choice(all_words)
        prompt = prompt.encode()[:PROMPT_BYTES].decode(errors="ignore")
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 200}
        kept.append(dumps({"messages": [{"role": "user", "content": prompt}], "usage": usage})[1:])
    return kept


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--table", type=pathlib.Path, default=HERE / "mmlu_pro.jsonl.gz")
    p.add_argument("--trace", type=pathlib.Path, help="CSV with arrival_ms, plain or gzip")
    p.add_argument("--rows", type=int, required=True)
    p.add_argument("--out", type=pathlib.Path, required=True, help="plain, or gzip if it ends in .gz")
    p.add_argument("--as", dest="kind", choices=["outcomes", "chat", "csv"], default="outcomes")
    p.add_argument("--text", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    with gzip.open(a.table, "rt") as f:
        ends = tails([json.loads(line) for line in f], a.kind, a.text)
    shape = {"outcomes": '{"id":"%d","arrival_ms":%d,%s\n', "chat": '{"id":"%d","created":%d,%s\n', "csv": "%d,%s\n"}[a.kind]
    between = gaps(a.trace)
    rng = random.Random(a.seed)
    opened = (lambda: gzip.open(a.out, "wt", compresslevel=1)) if a.out.suffix == ".gz" else (lambda: open(a.out, "w"))
    at = 0.0
    with opened() as out:
        if a.kind == "csv":
            out.write("arrival_ms,in_tokens,out_tokens\n")
        for start in range(0, a.rows, 10000):
            lines = []
            for i in range(start, min(start + 10000, a.rows)):
                at += between[i % len(between)]
                line = {"outcomes": (i, at), "chat": (i, at / 1000.0), "csv": (at,)}[a.kind]
                lines.append(shape % (*line, rng.choice(ends)))
            out.write("".join(lines))
    if a.kind == "outcomes":
        name = a.out.name.removesuffix(".gz").removesuffix(".jsonl")
        source = a.table.name.removesuffix(".gz").removesuffix(".jsonl")
        shutil.copy(a.table.with_name(source + ".models.json"), a.out.with_name(name + ".models.json"))


if __name__ == "__main__":
    main()
