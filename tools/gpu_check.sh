#!/usr/bin/env bash
# Everything that only a GPU can tell, in a few minutes: tests marked `gpu`, then benchmarks as JSON lines.
#   tools/gpu_check.sh [FOLDER]     # default: gpu_check; PYTHON=... chooses the interpreter
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu_check}
python=${PYTHON:-python}
mkdir -p "$out"
"$python" - <<'EOF' || exit 2
import sys, torch
if not torch.cuda.is_available():
    sys.exit("gpu_check: PyTorch sees no GPU here (torch.cuda.is_available() is False)")
print(torch.cuda.get_device_name(), "torch", torch.__version__)
EOF
status=0
echo "== tests marked gpu"
"$python" -m pytest -q -m gpu tests | tee "$out/tests.txt" || status=1
bench() {
    name=$1
    shift
    echo "== memory, $name"
    "$python" tools/bench/memory.py --device cuda --dtype bfloat16 --json "$@" | tee "$out/$name.jsonl" || status=1
}
kinds=(--kinds fct memo)
small=(--width 256 --layers 4 --heads 8 --hidden 1024)
large=(--width 768 --layers 8 --heads 24 --hidden 3072)
bench small "${kinds[@]}" "${small[@]}" --train 4096x16 16384x4 --act 1024 8192 32768 --environments 32
bench large "${kinds[@]}" "${large[@]}" --train 4096x16 16384x4 --act 1024 8192 32768 --environments 32
echo "== frozen encoder, acting and update of extobjnav/hssd"
for precision in float32 bfloat16; do
    "$python" tools/bench/frozen.py --device cuda --json "habitat_baselines.rl.precision=$precision" |
        tee "$out/frozen_$precision.jsonl" || status=1
done
exit $status
