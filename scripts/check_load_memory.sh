#!/usr/bin/env bash
# Loads a generated checkpoint of SIZE MiB (default 2300, in both expert layouts) and checks that the
# peak memory, file pages included, stays near the packed model's.
#   scripts/check_load_memory.sh [SIZE]
set -euo pipefail
cd "$(dirname "$0")/.."
MOESAIC_LOAD_TEST_MIB="${1:-2300}" exec build/tests/model_load_memory_test
