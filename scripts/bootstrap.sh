#!/usr/bin/env bash
# Installs what the project builds and tests with: system packages (by apt, with sudo where needed) and a Python
# environment with pinned, hash-checked packages in .deps/.
#   scripts/bootstrap.sh            what scripts/build.sh needs
#   scripts/bootstrap.sh GROUP...   also: test (Python clients), oracle (transformers), bench (peers), solver (HiGHS), check, docker
# Does nothing, quickly, when what is asked for is already there.
set -euo pipefail
cd "$(dirname "$0")/.."

system_groups=(build) python_groups=()
for group in "$@"; do
  case $group in
    check | docker) system_groups+=("$group") ;;
    test | oracle | bench | solver) python_groups+=("$group") ;;
    *) sed -n '2,7p' "$0" >&2; echo "bootstrap: unknown group '$group'" >&2; exit 2 ;;
  esac
done
# Peers are built from source with the same packages.
mkdir -p .deps

fail() { echo "bootstrap: $*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -- "$@"
  else
    fail "installing packages needs root: run as root, install sudo, or install by hand: $*"
  fi
}

installed() { dpkg-query -W -f='${db:Status-Abbrev}\n' "$1" 2>/dev/null | grep -q '^ii'; }

install_system_packages() {
  command -v apt-get >/dev/null || fail "no apt-get here: Debian 12 and Ubuntu 24.04 are supported (scripts/packages.txt names the packages)"
  local missing=() group names name found updated=0
  for group in "${system_groups[@]}"; do
    while read -r _ names; do
      found=
      for name in $names; do installed "$name" && { found=1; break; }; done
      [ -n "$found" ] || missing+=("$names")
    done < <(grep "^$group " scripts/packages.txt)
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local choose=() names_of
  for names_of in "${missing[@]}"; do
    found=
    for attempt in 1 2; do
      for name in $names_of; do
        if apt-cache show "$name" >/dev/null 2>&1; then found=$name; break 2; fi
      done
      if [ "$updated" = 0 ]; then
        echo "bootstrap: reading package lists" >&2
        as_root apt-get -qq update || fail "apt-get update failed: is there a network, and do the apt sources answer?"
        updated=1
      fi
    done
    [ -n "$found" ] || fail "no package '${names_of// /\' or \'}' in the apt sources of this machine; Debian 12 and Ubuntu 24.04 have it"
    choose+=("$found")
  done
  echo "bootstrap: installing ${#choose[@]} system packages: ${choose[*]}" >&2
  local log=.deps/apt.log
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${choose[@]}" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    fail "apt-get could not install the packages above (whole output: $log)"
  fi
}

install_python_group() {
  local group=$1 lock=scripts/requirements/$1.txt
  # One environment: each group's lock file holds the smaller ones at the same versions.
  if [ ! -x .deps/venv/bin/pip ]; then
    python3 -m venv .deps/venv || fail "python3 -m venv failed: is python3-venv installed?"
  fi
  echo "bootstrap: installing Python packages of '$group' into .deps/venv" >&2
  local log=.deps/pip-$group.log
  if ! .deps/venv/bin/pip install --disable-pip-version-check --require-hashes --requirement "$lock" >"$log" 2>&1; then
    grep -E 'ERROR|error:' "$log" | tail -n 5 >&2
    fail "pip could not install $lock (whole output: $log); the lock files are for CPython 3.11 to 3.12 on x86-64"
  fi
}

# A stamp holds the hash of what it was made from, so that a changed list installs again.
stamp_matches() { [ -f ".deps/stamp-$1" ] && [ "$(<".deps/stamp-$1")" = "$2" ]; }

system_key="$(printf '%s\n' "${system_groups[@]}" | cat - scripts/packages.txt | sha256sum)"
system_stamp=system-$(IFS=-; echo "${system_groups[*]}")
if ! stamp_matches "$system_stamp" "$system_key"; then
  install_system_packages
  echo "$system_key" >".deps/stamp-$system_stamp"
fi
for group in "${python_groups[@]}"; do
  key=$(sha256sum <"scripts/requirements/$group.txt")
  if ! stamp_matches "$group" "$key"; then
    install_python_group "$group"
    echo "$key" >".deps/stamp-$group"
  fi
done
