#!/usr/bin/env bash
# Names the system packages whose shared libraries the binaries given need.
set -euo pipefail
ldd "$@" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u | while read -r library; do
  # Debian lists files by the path the package was built with, which may be under /usr or not.
  dpkg-query -S "$(realpath "$library")" 2>/dev/null || dpkg-query -S "${library#/usr}" 2>/dev/null || dpkg-query -S "/usr$library" 2>/dev/null ||
    { echo "runtime_packages: no package has $library" >&2; exit 1; }
done | cut -d: -f1 | sort -u
