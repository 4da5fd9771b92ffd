#!/usr/bin/env bash
# Formats the C++ and CUDA sources in place; --check only says which files differ.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/bootstrap.sh check
mode=(-i)
[ "${1:-}" != --check ] || mode=(--dry-run --Werror)
git ls-files -z '*.h' '*.cc' '*.cu' '*.cuh' | xargs -0 clang-format-14 "${mode[@]}"
