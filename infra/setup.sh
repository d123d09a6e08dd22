#!/bin/sh
# Makes the virtual environment .venv from a hashed lock file, and installs the project itself into it.
# Usage: infra/setup.sh requirements.lock
# Does nothing when .venv holds that lock file, or a larger one that was laid over it, and the project already.
set -eu
cd "$(dirname "$0")/.."
lock=$1
needed_gib=8

stamp=.venv/installed-$lock
# The project is installed as it lies here: only what pyproject.toml says needs another installation. The path is part
# of it, so that a checkout that was moved is installed anew.
project=.venv/installed-project
describe_project() { pwd && cat pyproject.toml; }
install_project() {
    if [ -x .venv/bin/cxr ] && describe_project | cmp -s - "$project"; then return; fi
    # Nothing is fetched: setuptools is in the lock file, and the project names no further packages.
    if [ ! -x .venv/bin/uv ] || ! .venv/bin/uv pip install --quiet --offline --python .venv/bin/python \
        --no-deps --no-build-isolation --editable .; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-index \
            --no-deps --no-build-isolation --editable .
    fi
    describe_project >"$project"
}

if [ -f "$stamp" ] && cmp -s "$lock" "$stamp"; then
    install_project
    exit 0
fi

python=
for candidate in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "No Python 3.11, 3.12 or 3.13 with venv was found: install one, or name it with make PYTHON=/path/to/python." >&2
    exit 2
fi
free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
if [ "$free" -lt "$needed_gib" ]; then
    echo "Only $free GiB are free on this disk, and the environment needs $needed_gib: make room." >&2
    exit 2
fi

echo "Installing $lock into .venv with $("$python" --version)"
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
# uv installs in a fraction of pip's time. Where only pip knows the way to a package index, pip does it.
if .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r infra/uv.lock &&
    .venv/bin/uv pip install --quiet --python .venv/bin/python --compile-bytecode --require-hashes -r "$lock"; then
    :
else
    echo "uv could not install: trying pip" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
fi
cp "$lock" "$stamp"
# The development lock holds everything of the other one.
if [ "$lock" = requirements-dev.lock ]; then cp requirements.lock .venv/installed-requirements.lock; fi
rm -f "$project"
install_project
