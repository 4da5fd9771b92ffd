#!/usr/bin/env bash
# Builds the image of the Dockerfile without a Docker engine (buildah) and runs it as its own non-root user until it has
# answered a gRPC request. Needs root for chroot isolation.
#   scripts/docker_check.sh [--keep]     --keep leaves the image in buildah's store
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || exec sudo -- "$0" "$@"
scripts/bootstrap.sh docker
keep=0
[ "${1:-}" != --keep ] || keep=1

export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
work=$(mktemp -d)
container=
finish() {
  [ -z "$container" ] || buildah rm "$container" >/dev/null || true
  [ "$keep" = 1 ] || buildah rmi --force moesaic:check >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

# buildah refuses to pull or commit without a policy; a user's own stays.
if [ ! -e /etc/containers/policy.json ]; then
  mkdir -p /etc/containers
  echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
fi

if ! buildah images --format '{{.Name}}:{{.Tag}}' | grep -qx 'localhost/moesaic-base:bookworm'; then
  echo "docker_check: making a Debian 12 base image" >&2
  debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 5 "$work/debootstrap.log" >&2; exit 1; }
  # The machine's own way to the package archives (proxies, mirrors, certificates) is what the build has too.
  for path in /etc/apt/apt.conf.d /etc/apt/sources.list.d /etc/ssl/certs /usr/local/share/ca-certificates /etc/pip.conf; do
    [ ! -e "$path" ] || { mkdir -p "$work/root$(dirname "$path")"; cp -rLT "$path" "$work/root$path" 2>/dev/null || true; }
  done
  find "$work/root/etc/apt/sources.list.d" -type f ! -name 'debian*' -delete
  [ -z "$(ls "$work/root/etc/apt/sources.list.d")" ] || : >"$work/root/etc/apt/sources.list"
  base=$(buildah from scratch)
  buildah add --quiet "$base" "$work/root" / >/dev/null
  buildah commit --quiet "$base" moesaic-base:bookworm >/dev/null
  buildah rm "$base" >/dev/null
fi

echo "docker_check: building the image" >&2
buildah bud --quiet --pull=false --format docker --build-arg BASE=localhost/moesaic-base:bookworm --tag moesaic:check .
inspect() { buildah inspect --type image --format "$1" moesaic:check; }
user=$(inspect '{{.Docker.Config.User}}')
[ "$user" = moesaic ] || { echo "docker_check: the image runs as '$user', expected moesaic" >&2; exit 1; }
[ -n "$(inspect '{{.Docker.Config.Healthcheck}}')" ] || { echo "docker_check: the image has no HEALTHCHECK" >&2; exit 1; }

echo "docker_check: running the image" >&2
container=$(buildah from --pull=false moesaic:check)
# chroot isolation shares this machine's network, so other ports than the defaults keep clear of a running server.
buildah run --user "$user" "$container" -- sh -eu -c '
  test "$(id -u)" != 0
  tini -- moesaic-server --grpc-port 18001 --metrics-port 18002 &
  server=$!
  for _ in $(seq 100); do
    if moesaic-server --healthcheck --grpc-port 18001 2>/dev/null; then break; fi
    kill -0 $server
    sleep 0.1
  done
  moesaic-server --healthcheck --grpc-port 18001
  moesaic-cli generate --address 127.0.0.1:18001 --max-tokens 24 --temperature 0 "violin"
  kill -TERM $server
  wait $server
'
echo "docker_check: built, healthy, answered a gRPC request as user '$user' and stopped on SIGTERM"
