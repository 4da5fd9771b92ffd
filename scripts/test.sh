#!/usr/bin/env bash
# Sets up, builds and runs every test that needs no GPU.
#   scripts/test.sh            C++ tests, and the off-the-shelf Python client against a real server
#   scripts/test.sh --oracle   only the live comparison with Hugging Face transformers and tokenizers
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-}
case $mode in
  '' | --oracle) ;;
  *) sed -n '2,5p' "$0" >&2; exit 2 ;;
esac
passed=0 failed=0
run() {
  echo "== $*"
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $*"; fi
}
if [ "$mode" = --oracle ]; then
  scripts/bootstrap.sh oracle
  scripts/build.sh
  for oracle in scripts/*oracle.py; do run .deps/venv/bin/python "$oracle" --build build; done
else
  scripts/bootstrap.sh test solver
  scripts/build.sh
  ctest --test-dir build --output-on-failure --parallel 2 && status=0 || status=$?
  [ "$status" = 0 ] && passed=1 || failed=1
  for client in tests/server/*_test.py; do
    [ -e "$client" ] || continue
    run .deps/venv/bin/python "$client" --server-binary build/bin/moesaic-server --model models/wordnet-moe
  done
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
