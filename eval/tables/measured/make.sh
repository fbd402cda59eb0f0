#!/usr/bin/env bash
# Measures everything in this folder on this machine, and draws the report: leave the machine alone meanwhile.
#
#   MODELS=FOLDER eval/tables/measured/make.sh [LIMIT]
#
# FOLDER (an absolute path) holds smollm2.gguf, qwen2.5-coder-0.5b.gguf and qwen2.5-coder-1.5b.gguf. LIMIT questions of mmlu-pro, gsm8k and cruxeval are
# asked of each model, all strata in turn (default 300). WATTROUTE names another binary, WORK the folder of the records, ONLY the
# tables to make. A run that is cut goes on where it stopped: start the script again. The largest model comes first, because the
# gain in the tables of the others is counted against its answers. LLAMA names a Python that has the package xllamacpp: then the
# smaller Qwen is measured behind a llama.cpp server too, as an external backend, on 56 of the questions; without it that one table
# is left as it is. The table by queries at a time asks 48 questions at each level.
set -euo pipefail
cd "$(dirname "$0")/../../.."
limit=${1:-300}
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

[backends.qwen-served]
place = "local"
kind = "openai"
base_url = "http://127.0.0.1:8391/v1"
model = "qwen2.5-coder-0.5b"
TOML

# measure BACKEND NAME FILE LIMIT [more]
measure() {
    local backend=$1 name=$2 file=$3 limit=$4
    shift 4
    case " ${ONLY:-$file} " in *" $file "*) ;; *) return 0 ;; esac
    echo "== $name -> $file"
    (cd "$work" && time "$program" --config wattroute.toml profile --backend "local/$backend" --model-name "$name" \
        --suite mmlu-pro --suite gsm8k --suite cruxeval --limit "$limit" --out "$file" "$@")
    cp "$work/$file" "eval/tables/measured/$file"
}

measure qwen-more Qwen2.5-Coder-1.5B-Instruct qwen2.5-coder-1.5b.json "$limit"
against=(--baseline qwen2.5-coder-1.5b.records.jsonl)
measure qwen-half Qwen2.5-Coder-0.5B-Instruct qwen2.5-coder-0.5b.json "$limit" "${against[@]}"
measure smollm2-135m SmolLM2-135M-Instruct smollm2-135m.json "$limit" "${against[@]}"
measure smollm2-135m SmolLM2-135M-Instruct smollm2-135m@lla-300.json "$limit" "${against[@]}" --lambda 300
measure smollm2-135m SmolLM2-135M-Instruct smollm2-135m@streams.json 48 --streams 1,4,16

if [ -n "${LLAMA:-}" ]; then
    version=$("$LLAMA" -c 'import importlib.metadata as m; print(m.version("xllamacpp"))')
    "$LLAMA" eval/tables/measured/server.py "$models/qwen2.5-coder-0.5b.gguf" 8391 >"$work/server.log" 2>&1 &
    server=$!
    trap 'kill $server' EXIT
    for _ in $(seq 60); do curl -sf http://127.0.0.1:8391/health >/dev/null && break; sleep 0.5; done
    measure qwen-served Qwen2.5-Coder-0.5B-Instruct qwen2.5-coder-0.5b@llama.cpp.json 56 "${against[@]}" \
        --runtime "llama.cpp (xllamacpp $version)"
fi

# The record files lie beside the tables in the folder of the records: they give the dots and the calibration.
(cd "$work" && "$program" report --out report --tables \
    qwen2.5-coder-1.5b.json qwen2.5-coder-0.5b.json smollm2-135m.json smollm2-135m@lla-300.json)
cp "$work/report/report.html" "$work/report/report.png" "$work/report/report.json" eval/tables/measured/
