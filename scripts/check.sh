#!/usr/bin/env bash
# What must hold before a commit: layers, format, and clang-tidy on the changed files.
# --all: clang-tidy on every file; --no-tidy: without it.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 scripts/check_layers.py
scripts/format.sh --check
[ "${1:-}" != --no-tidy ] || exit 0
base=$(git merge-base HEAD '@{upstream}' 2>/dev/null || git rev-parse --verify --quiet HEAD~1 || git rev-parse HEAD)
if [ "${1:-}" = --all ]; then
  mapfile -t files < <(git ls-files '*.cc')
else
  mapfile -t files < <(git diff --name-only --diff-filter=d "${MOESAIC_TIDY_BASE:-$base}" -- '*.cc')
fi
if [ ${#files[@]} -gt 0 ]; then
  [ -f build/compile_commands.json ] || scripts/build.sh
  printf '%s\0' "${files[@]}" | xargs -0 -n 4 -P "$(nproc)" clang-tidy-14 -p build --quiet --warnings-as-errors='*' 2>&1 |
    { grep -vE '^[0-9]+ warnings? generated|^Suppressed|^Use -header-filter' || true; } | tee build/tidy.log
  ! grep -qE 'error:|warning:' build/tidy.log || { echo "check: clang-tidy found something"; exit 1; }
fi
echo "check: layers, format and ${#files[@]} files by clang-tidy are fine"
