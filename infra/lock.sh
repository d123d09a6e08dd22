#!/bin/sh
# Resolves the *.in files anew into hashed lock files that hold no index address. Needs the network.
set -eu
cd "$(dirname "$0")/.."
compile() {
    .venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-annotate --custom-compile-command 'make lock' "$@"
}
compile requirements.in -o requirements.lock
compile requirements-dev.in -c requirements.lock -o requirements-dev.lock
# Of these only the CUDA libraries: the rest is in requirements.lock.
gpu=$(mktemp)
compile requirements-gpu.in -c requirements.lock -o "$gpu" >/dev/null
awk '/^[^ #]/ { keep = /^nvidia-/ } /^#/ || keep' "$gpu" >requirements-gpu.lock
rm "$gpu"
