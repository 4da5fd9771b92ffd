#!/usr/bin/env bash
# Builds everything, or the targets named: scripts/build.sh [--preset release|debug|asan|tsan|cuda] [TARGET...]
# Binaries land in build/bin (release) or build-PRESET/bin.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=release
if [ "${1:-}" = --preset ]; then
  preset=${2:?--preset needs a name}
  shift 2
fi
scripts/bootstrap.sh
dir=build
[ "$preset" = release ] || dir=build-$preset
if [ ! -f "$dir/build.ninja" ]; then
  mkdir -p "$dir"
  cmake --preset "$preset" >"$dir/configure.log" 2>&1 || { tail -n 20 "$dir/configure.log" >&2; exit 1; }
fi
export NINJA_STATUS='[%f/%t %es] '
if [ $# -gt 0 ]; then
  exec ninja -C "$dir" "$@"
fi
exec ninja -C "$dir"
