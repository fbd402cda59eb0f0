#!/usr/bin/env bash
# Measures the shipped tables on this machine: leave it alone meanwhile.
#
#   MODELS=FOLDER eval/tables/measured/make.sh [LIMIT]
#
# FOLDER (an absolute path) holds smollm2.gguf, qwen2.5-coder-0.5b.gguf and qwen2.5-coder-1.5b.gguf. LIMIT questions of mmlu-pro, gsm8k and cruxeval are
# asked of each model, all strata in turn (default 240). WATTROUTE names another binary. A run that is cut goes on where it
# stopped: start the script again. On two cores with AVX-512, estimated from the engine's speeds: SmolLM2-135M 4 minutes, with
# local linear attention 10, Qwen2.5-Coder-0.5B 5, 1.5B 13.
set -euo pipefail
cd "$(dirname "$0")/../../.."
limit=${1:-240}
models=${MODELS:?a folder with the GGUF files}
program=$(realpath "${WATTROUTE:-target/release/wattroute}")
work=${WORK:-eval/tables/measured/.work}
mkdir -p "$work"
cat > "$work/wattroute.toml" <<TOML
[backends.smollm2-135m]
place = "local"
kind = "embedded"
model = "$models/smollm2.gguf"

[backends.qwen-half]
place = "local"
kind = "embedded"
model = "$models/qwen2.5-coder-0.5b.gguf"

[backends.qwen-more]
place = "local"
kind = "embedded"
model = "$models/qwen2.5-coder-1.5b.gguf"
TOML

# measure BACKEND NAME FILE [more]
measure() {
    local backend=$1 name=$2 file=$3
    shift 3
    echo "== $name -> $file"
    (cd "$work" && time "$program" --config wattroute.toml profile --backend "local/$backend" --model-name "$name" \
        --suite mmlu-pro --suite gsm8k --suite cruxeval --limit "$limit" --out "$file" "$@")
    cp "$work/$file" "eval/tables/measured/$file"
}

measure smollm2-135m SmolLM2-135M-Instruct smollm2-135m.json
measure smollm2-135m SmolLM2-135M-Instruct smollm2-135m@lla-300.json --lambda 300
measure qwen-half Qwen2.5-Coder-0.5B-Instruct qwen2.5-coder-0.5b.json
measure qwen-more Qwen2.5-Coder-1.5B-Instruct qwen2.5-coder-1.5b.json
