#!/usr/bin/env python3
"""Joins two outcome tables into the log of this example: MMLU-Pro and GSM8K by Llama-3.1-8B-Instruct and Gemini 1.5 Pro.

    python3 make.py FOLDER

FOLDER holds mmlu_pro and zeroeval_gsm as NAME.jsonl.gz with NAME.models.json. Questions and options are left out; their length is
kept as tokens (characters over 4), and the answers' lengths as published.
"""

import gzip
import json
import pathlib
import sys

TABLES = {
    "mmlu_pro": ("meta-llama/Meta-Llama-3.1-8B-Instruct", "google/gemini-1.5-pro-002"),
    "zeroeval_gsm": ("Meta-Llama-3.1-8B-Instruct", "gemini-1.5-pro"),
}
FOLDER, HERE = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent

rows = []
for name, wanted in TABLES.items():
    about = json.loads((FOLDER / f"{name}.models.json").read_text())
    places = [[m["id"] for m in about["models"]].index(model) for model in wanted]
    with gzip.open(FOLDER / f"{name}.jsonl.gz", "rt") as lines:
        for row in map(json.loads, lines):
            text = row["prompt"] + "".join(f"\nA. {o}" for o in row.get("options") or [])
            rows.append(
                {
                    "id": row["id"],
                    "domain": "grade school maths" if name == "zeroeval_gsm" else row["domain"],
                    "in_tokens": [len(text) // 4] * 2,
                    "ok": [row["ok"][at] for at in places],
                    "out_chars": [row["out_chars"][at] for at in places],
                }
            )

with open(HERE / "log.jsonl.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
    for row in rows:
        out.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
models = {
    "dataset": "MMLU-Pro test (12,032) and GSM8K test (1,319), one row a question",
    "source": "TIGER-AI-Lab/MMLU-Pro f418b11 and WildEval/ZeroEval 8c1485e",
    "licence": "Apache-2.0",
    "models": [
        {"id": "Llama-3.1-8B-Instruct", "role": "weak", "kind": "open", "params_b": 8},
        {"id": "gemini-1.5-pro", "role": "strong", "kind": "cloud", "params_b": None},
    ],
}
(HERE / "log.models.json").write_text(json.dumps(models, indent=1) + "\n")
print(len(rows), "rows")
