#!/bin/sh
# Write requirements.lock: one set of versions and hashes for every supported Python and platform, naming no host.
# `pip install -r` and `uv pip install -r` both take it; uv.lock would record where each file came from.
set -eu
venv=$1
uv=$venv/bin/uv
[ -x "$uv" ] || "$venv/bin/python" -m pip install --quiet uv
"$uv" pip compile --universal --python-version 3.12 --group dev --no-emit-index-url --no-header \
    --generate-hashes --quiet -o requirements.lock pyproject.toml
if grep -nE '://|--(extra-)?index-url|--find-links|--trusted-host' requirements.lock; then
    echo "requirements.lock names a host" >&2
    exit 1
fi
