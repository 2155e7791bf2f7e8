#!/usr/bin/env bash
# Everything that only a GPU can tell, in at most 8 minutes: tests marked `gpu`, benchmarks as JSON lines, a profiled update.
#   tools/gpu_check.sh [FOLDER]     # default: gpu_check; PYTHON=... chooses the interpreter
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu_check}
python=${PYTHON:-python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"  # this checkout, installed or not
mkdir -p "$out"
"$python" - <<'EOF' || exit 2
import sys, torch
if not torch.cuda.is_available():
    sys.exit("gpu_check: PyTorch sees no GPU here (torch.cuda.is_available() is False)")
print(torch.cuda.get_device_name(), "torch", torch.__version__)
EOF
status=0
# SECONDS FILE COMMAND...: rows come as they are measured, so that what is cut off is there so far.
run() {
    local most=$1 file=$2
    shift 2
    echo "== $file, at most $most s"
    timeout -k 5 "$most" "$@" | tee "$out/$file"
    local code=${PIPESTATUS[0]}
    [ "$code" = 0 ] && return
    echo "$file: status $code (124: cut off after $most s)"
    status=1
}
memory() {
    run "$1" "$2" "$python" tools/bench/memory.py --device cuda --dtype bfloat16 --json --kinds fct memo "${@:3}"
}
frozen() {
    run "$1" "$2" "$python" tools/bench/frozen.py --device cuda --json "${@:3}"
}
small=(--width 256 --layers 4 --heads 8 --hidden 1024)
large=(--width 768 --layers 8 --heads 24 --hidden 3072)
trained=(--train 4096x16 16384x4)
acted=(--act 1024 8192 32768 --environments 32)
low=habitat_baselines.rl.precision=bfloat16
# Files, not the folder: collecting all tests takes longer than these.
mapfile -t files < <(grep -rl --include='*.py' 'mark\.gpu' tests)
run 100 tests.txt "$python" -m pytest -q --durations=5 -m gpu "${files[@]}"
memory 60 small.jsonl "${small[@]}" "${trained[@]}" "${acted[@]}"
memory 60 small_recorded.jsonl "${small[@]}" "${trained[@]}" --act none --compile --cuda-graphs
memory 40 small_compiled.jsonl "${small[@]}" --train none "${acted[@]}" --compile-acting
memory 30 large.jsonl "${large[@]}" "${trained[@]}" --act none
memory 60 large_recorded.jsonl "${large[@]}" "${trained[@]}" --act none --compile --cuda-graphs
frozen 30 frozen_bfloat16.jsonl "$low"
frozen 40 frozen_compiled.jsonl "$low" habitat_baselines.rl.memory.compile_acting=true
# What one update of a whole training is spent on, after two to warm up: profile.txt and a trace beside it.
captured=habitat_baselines.profiling
rm -rf "$out/run"
run 60 training.txt "$python" -m memo_habitat.cli.main train --config-name=dark_key_to_door --out "$out/run" "$low" \
    habitat_baselines.total_num_steps=-1 habitat_baselines.num_updates=3 \
    "$captured.capture_start_step=2" "$captured.num_steps_to_capture=1"
cp "$out"/run/profile/0.txt "$out/profile.txt" && mv "$out"/run/profile/0.trace.json.gz "$out" || status=1
exit $status
