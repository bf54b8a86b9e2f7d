#!/bin/sh
# `make bench`: sgemm's rate, then the program beside it. With MODEL, a folder of
# GPT-2 small's shape (scripts/fidelity.py --make-random gpt2-small), the program
# is timed on that and its share of sgemm's rate is shown; without, on the demo's
# model. THREADS, PROMPTS and DISK (a folder on a real disk) are optional.
# scripts/bench_peers.py compares with other programs.
set -eu
build=$1
threads=${THREADS:-$(nproc)}
python=${PYTHON:-python3}

"$build/tests/bench/bench_sgemm" auto "$threads"
echo
set -- --h5lens "$build/h5lens" --threads "$threads" --skip-peers
[ -n "${DISK:-}" ] && set -- "$@" --disk "$DISK"
if [ -n "${MODEL:-}" ]; then
	exec "$python" scripts/bench_peers.py --model "$MODEL" --prompts "${PROMPTS:-1024}" "$@"
fi
exec "$python" scripts/bench_peers.py --model experiments/demo-gpt2 \
	--prompts "${PROMPTS:-8192}" --cache-prompts "${PROMPTS:-2048}" "$@"
