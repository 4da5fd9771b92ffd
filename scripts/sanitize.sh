#!/usr/bin/env bash
# Builds one sanitizer tree and runs what it is for:
#   scripts/sanitize.sh asan [SECONDS]   ASan and UBSan: all C++ tests, then each fuzzer for SECONDS (60)
#   scripts/sanitize.sh tsan             ThreadSanitizer: the tests labelled tsan
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-}
case $preset in
  asan)
    scripts/bootstrap.sh check
    scripts/build.sh --preset asan
    export UBSAN_OPTIONS=print_stacktrace=1
    ctest --test-dir build-asan --output-on-failure --parallel 2
    for fuzzer in build-asan/fuzz/*_fuzzer; do
      name=$(basename "$fuzzer")
      seeds=$(find tests -type d -path "*/corpus/$name" | head -n 1)
      corpus=build-asan/corpus/$name
      mkdir -p "$corpus"
      echo "== $name, ${2:-60} s"
      "$fuzzer" -max_total_time="${2:-60}" -timeout=10 -rss_limit_mb=3000 -print_final_stats=0 -verbosity=0 \
        -artifact_prefix="build-asan/$name-" "$corpus" ${seeds:+"$seeds"}
    done
    ;;
  tsan)
    scripts/build.sh --preset tsan tests_labelled_tsan
    export TSAN_OPTIONS="suppressions=$PWD/tests/server/tsan.supp"
    ctest --test-dir build-tsan --output-on-failure --label-regex tsan
    ;;
  *)
    sed -n '2,4p' "$0" >&2
    exit 2
    ;;
esac
