#!/usr/bin/env bash
# Sets up, builds and serves a model over gRPC.
#   scripts/run.sh [SERVER FLAGS]                   serves until interrupted
#   scripts/run.sh --once "PROMPT" [SERVER FLAGS]   answers one prompt over gRPC and exits
# The model is models/wordnet-moe unless --model, --config or MOESAIC_MODEL name another. `scripts/run.sh --server-help`
# lists the server's flags.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
usage() { sed -n '2,6p' "$0" >&2; }
once=0 prompt=
case ${1:-} in
  -h | --help) usage; exit 0 ;;
  --server-help) set -- --help ;;
  --once)
    case ${2:-} in
      '' | -*) usage; echo "run.sh: --once needs a prompt" >&2; exit 2 ;;
    esac
    once=1 prompt=$2
    shift 2
    ;;
  '' | -*) ;;
  *) usage; echo "run.sh: unexpected '$1'; to answer one prompt: --once \"$1\"" >&2; exit 2 ;;
esac
"$root/scripts/build.sh" moesaic-server moesaic-cli | { grep --line-buffered -v '^ninja: ' || true; } >&2
model=(--model "$root/models/wordnet-moe")
[ -z "${MOESAIC_MODEL:-}" ] || model=()
for flag in "$@"; do case $flag in --model | --model=* | --config | --config=*) model=() ;; esac; done
if [ "$once" = 0 ]; then
  exec "$root/build/bin/moesaic-server" "${model[@]}" "$@"
fi
work=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" || true; }
  rm -rf "$work"
}
trap finish EXIT
"$root/build/bin/moesaic-server" "${model[@]}" "$@" --grpc-port 0 --metrics-port 0 --port-file "$work/ports" 2>"$work/log" &
server=$!
until [ -s "$work/ports" ]; do
  kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; server=; exit 1; }
  sleep 0.02
done
port=$(sed -n 's/^grpc=//p' "$work/ports")
"$root/build/bin/moesaic-cli" generate --address "127.0.0.1:$port" "$prompt"
