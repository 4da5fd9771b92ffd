#!/usr/bin/env bash
# Compiles the CUDA backend for the architectures named (default 90a): scripts/build_cuda.sh '80;89;90a'
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/bootstrap.sh
export PATH=$PATH:/usr/local/cuda/bin
cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES="${1:-90a}" >/dev/null
cmake --build build-cuda --target moesaic_cuda
