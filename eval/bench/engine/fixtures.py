"""Log-probabilities that llama.cpp gives for a tiny model of every architecture, for the engine's tests.

    python fixtures.py > tests/fixtures/llama_cpp.json

Needs `pip install xllamacpp numpy`; the models come from `engine-speed - 0 tiny ARCHITECTURE`, with seeded random weights.
"""

import argparse
import hashlib
import json
import subprocess
import tempfile

import llamacpp

# Long enough to leave the window of the sliding layers, which is 5.
TOKENS = [5, 77, 286, 12, 256, 260, 101, 9, 9, 33, 280, 1, 0, 64, 250, 199, 42, 7, 270, 88, 15, 285, 2, 31]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="target/release/examples/engine-speed")
    args = parser.parse_args()
    rows = []
    for architecture in ("llama", "qwen2", "qwen3", "gemma3"):
        made = subprocess.run([args.program, "-", "0", "tiny", architecture], capture_output=True, check=True)
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(made.stdout)
            file.flush()
            llama = llamacpp.Llama(file.name, 1, context=256)
            logprobs, _ = llama.score(TOKENS)
            greedy, tops = llama.greedy(TOKENS, 16)
        rows.append(
            {
                "architecture": architecture,
                "sha256": hashlib.sha256(made.stdout).hexdigest(),
                "logprobs": [round(x, 5) for x in logprobs],
                "greedy": greedy,
                "margins": [round(a[1] - b[1], 4) for a, b in tops],
            }
        )
    print(json.dumps({"llama_cpp_build": llamacpp.version(), "tokens": TOKENS, "models": rows}, indent=1))


if __name__ == "__main__":
    main()
