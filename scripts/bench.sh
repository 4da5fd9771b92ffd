#!/usr/bin/env bash
# Runs a benchmark against its peers: scripts/bench.sh NAME [FLAGS]; `scripts/bench.sh NAME --help` lists its flags.
#   cpu_moe    prefill and decode of a 691M-parameter model, against llama.cpp and transformers
#   cpu_tier   decode with 9 GiB of experts in less memory, against llama.cpp's mmap; needs root (control groups)
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-}
[ -n "$name" ] && [ -f "benchmarks/$name/run.py" ] || { sed -n '2,4p' "$0" >&2; exit 2; }
shift
scripts/bootstrap.sh bench
scripts/build.sh moesaic-server moesaic-bench limit_probe
exec .deps/venv/bin/python "benchmarks/$name/run.py" "$@"
