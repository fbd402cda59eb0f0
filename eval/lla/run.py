"""The study of local linear attention, whole or in parts; resumable: what `results/` already holds is not run again.

    python3 eval/lla/run.py [--parts regression,recall,train,curve,eviction,figures] [--model MODEL.gguf] [--budget SECONDS]

Builds the programs with cargo and a virtual environment under `target/`, runs what is missing on one thread, writes one JSON
file per part into `results/`, draws the figures. To run a part anew, delete its file. `--budget` ends early, between cells.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = HERE / "results"
PACKAGES = ["numpy==2.4.*", "matplotlib==3.11.*", "gguf==0.19.*", "tokenizers==0.23.*"]
PARTS = ["regression", "recall", "train", "curve", "eviction", "figures"]

SEEDS = {"recall": [1, 2, 3, 4, 5], "regression": [1, 2, 3]}
TUNING_SEED = 100
RECALL_ARMS = ["softmax", "softmax gain=true", "lla", "lla gain=true", "projection gain=true", "linear", "delta"]
REGRESSION_ARMS = ["softmax", "lla", "projection", "linear", "delta"]
RECALL_RATES = ["0.003", "0.01", "0.03"]
REGRESSION_RATES = ["0.001", "0.003", "0.01", "0.03"]


def regression_cells():
    """Name and arguments of every cell: dimension, segment, noise, draws, draws for tuning, seed."""
    table = [(8, 64, 0, 16, 4), (16, 128, 0, 12, 4), (32, 256, 0, 8, 3), (64, 512, 0, 4, 2)]
    noisy = [(16, s, 0.1, 8, 3) for s in (64, 128, 256, 512)] + [(8, 64, 0.1, 16, 4)]
    return [(f"d={d} S={s} noise={e}", ["regression", d, s, e, n, t, 11]) for d, s, e, n, t in table + noisy]


def recall_cells():
    """Name and arguments: stored pairs, factor on the inverse temperature, noise of the query, trials, seed."""
    settings = [(t, e) for t in (1, 0.5) for e in (0, 0.5)]
    sizes = [(64, 40), (512, 40), (4096, 15)]
    return [(f"n={n} temperature={t} noise={e}", ["recall", n, t, e, k, 5]) for n, k in sizes for t, e in settings]


def train_cells(done):
    """Rates are chosen on a seed of their own, per memory; then every seed is trained with the chosen one."""
    tuning, final = [], []
    for task, arms, rates, variants in (
        ("recall", RECALL_ARMS, RECALL_RATES, ["dim=8", "dim=16"]),
        ("regression", REGRESSION_ARMS, REGRESSION_RATES, ["vector=16", "vector=8"]),
    ):
        for arm in arms:
            steps = "steps=1000" if task == "recall" else "steps=1500"
            base = ["train", task, *arm.split(), variants[0], steps]
            trials = [(f"tune {task} {arm} rate={r}", [*base, f"rate={r}", f"seed={TUNING_SEED}"]) for r in rates]
            tuning += trials
            if not all(name in done for name, _ in trials):
                continue
            best = min(rates, key=lambda r: trained_loss(done[f"tune {task} {arm} rate={r}"]))
            for variant in variants:
                for seed in SEEDS[task]:
                    base = ["train", task, *arm.split(), variant, steps, f"rate={best}", f"seed={seed}"]
                    final.append((f"{task} {variant} {arm} seed={seed}", base))
    return tuning, final


def trained_loss(cell):
    """Mean loss over the settings that training drew from."""
    losses = [p["loss"] for p in cell["points"] if cell["part"] != "associative_recall" or p["setting"] <= 64]
    return sum(losses) / len(losses)


class Store:
    """One part's results: cell name to result, in one file that is rewritten after every cell."""

    def __init__(self, part):
        self.path = RESULTS / f"{part}.json"
        self.cells = json.loads(self.path.read_text()) if self.path.exists() else {}

    def put(self, name, result):
        self.cells[name] = result
        RESULTS.mkdir(exist_ok=True)
        lines = [f" {json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in self.cells.items()]
        part = self.path.with_suffix(".part")
        part.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        part.replace(self.path)


def rounded(value):
    """Six digits are more than any of these figures has."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return {k: rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


def run_cells(store, cells, program, deadline):
    """Runs what is missing; False if time ran out."""
    missing = [cell for cell in cells if cell[0] not in store.cells]
    started = time.monotonic()
    for index, (name, arguments) in enumerate(missing):
        if time.monotonic() > deadline:
            print(f"out of time with {len(missing) - index} cells to go", file=sys.stderr)
            return False
        arguments = [str(a) for a in arguments]
        done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        result = rounded(json.loads(done.stdout))
        result["command"] = " ".join(["lla-study", *arguments])
        store.put(name, result)
        spent = time.monotonic() - started
        left = spent / (index + 1) * (len(missing) - index - 1)
        print(f"{store.path.stem}: {index + 1} of {len(missing)}, {left:.0f} s left; {name}", file=sys.stderr)
    return True


def environment():
    """The interpreter of the study's own virtual environment, made if it is not there."""
    folder = ROOT / "target" / "lla-venv"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        (folder / "complete").touch()
    return python


def build(example):
    subprocess.run(["cargo", "build", "--release", "--example", example], cwd=ROOT, check=True)
    return ROOT / "target" / "release" / "examples" / example


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--model", help="SmolLM2-135M-Instruct Q4_1 as GGUF; the parts curve and eviction need it")
    parser.add_argument("--qk-norm-model", help="a GGUF model that norms queries and keys; the part curve repeats its table on it")
    parser.add_argument("--program", help="a built lla-study; else cargo builds it")
    parser.add_argument("--engine", help="a built engine-speed; else cargo builds it")
    parser.add_argument("--python", help="an interpreter with the packages; else a virtual environment is made")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds after which no further cell is begun")
    args = parser.parse_args()
    deadline = time.monotonic() + args.budget
    parts = args.parts.split(",")
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    if {"regression", "recall", "train"} & set(parts):
        program = args.program or build("lla-study")
    if "regression" in parts:
        run_cells(Store("regression"), regression_cells(), program, deadline)
    if "recall" in parts:
        run_cells(Store("recall"), recall_cells(), program, deadline)
    if "train" in parts:
        store = Store("train")
        if run_cells(store, train_cells(store.cells)[0], program, deadline):
            run_cells(store, train_cells(store.cells)[1], program, deadline)
    rest = {"curve": "curve.py", "eviction": "eviction.py", "figures": "figures.py"}
    for part in [p for p in rest if p in parts]:
        python = args.python or environment()
        command = [python, HERE / rest[part]]
        if part != "figures":
            if not args.model:
                print(f"{part}: no --model given, skipped", file=sys.stderr)
                continue
            command += ["--model", args.model]
        if part == "curve":
            command += ["--engine", args.engine or build("engine-speed"), "--budget", str(deadline - time.monotonic())]
            command += ["--qk-norm-model", args.qk_norm_model] if args.qk_norm_model else []
        subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
