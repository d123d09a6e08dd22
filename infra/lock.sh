#!/bin/sh
# Resolves the *.in files into hashed lock files that hold no index address. Needs the network.
# Without an argument every package moves to its newest version that fits. With --keep a pin moves only where it must.
set -eu
cd "$(dirname "$0")/.."
case "${1-}" in
'') upgrade=--upgrade ;;
--keep) upgrade= ;;
*)
    echo "Usage: infra/lock.sh [--keep]" >&2
    exit 2
    ;;
esac
compile() {
    .venv/bin/uv pip compile --quiet $upgrade --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-annotate --custom-compile-command 'make lock' "$@"
}
compile requirements.in -o requirements.lock
compile requirements-dev.in -c requirements.lock -o requirements-dev.lock
# Of these only the CUDA libraries: the rest is in requirements.lock.
gpu=$(mktemp)
cp requirements-gpu.lock "$gpu"
compile requirements-gpu.in -c requirements.lock -o "$gpu" >/dev/null
awk '/^[^ #]/ { keep = /^nvidia-/ } /^#/ || keep' "$gpu" >requirements-gpu.lock
rm "$gpu"
