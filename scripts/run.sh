#!/usr/bin/env bash
# Sets up, builds and serves a model over gRPC.
#   scripts/run.sh [SERVER FLAGS]      serves models/wordnet-moe (or --model FOLDER) until interrupted
#   scripts/run.sh --once "PROMPT"     answers one prompt over gRPC and exits
set -euo pipefail
cd "$(dirname "$0")/.."
once=0 prompt=
if [ "${1:-}" = --once ]; then
  once=1 prompt=${2:?--once needs a prompt}
  shift 2
fi
scripts/build.sh moesaic-server moesaic-cli | { grep --line-buffered -v '^ninja: ' || true; } >&2
model=(--model models/wordnet-moe)
for flag in "$@"; do case $flag in --model | --model=*) model=() ;; esac; done
if [ "$once" = 0 ]; then
  exec build/bin/moesaic-server "${model[@]}" "$@"
fi
work=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" || true; }
  rm -rf "$work"
}
trap finish EXIT
build/bin/moesaic-server "${model[@]}" --grpc-port 0 --metrics-port 0 --port-file "$work/ports" "$@" 2>"$work/log" &
server=$!
until [ -s "$work/ports" ]; do
  kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; server=; exit 1; }
  sleep 0.02
done
port=$(sed -n 's/^grpc=//p' "$work/ports")
build/bin/moesaic-cli generate --address "127.0.0.1:$port" "$prompt"
