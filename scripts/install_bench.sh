#!/bin/sh
# What `make bench` needs beside the tests' programs: in the environment named by $1 the published server of the same
# version as the SDK that requirements.lock pins, and matplotlib; and wrk, from Debian's packages.
set -eu
venv=$1
version=$(sed -n 's/^openhands-sdk==\([^ ;]*\).*/\1/p' requirements.lock)
stamp=$venv/.installed

if [ "$(cat "$stamp" 2>/dev/null)" != "$version" ]; then
    found=$(sh scripts/find_python.sh)
    echo "Building $venv with openhands-agent-server $version and matplotlib (a minute or two)"
    "$found" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet "openhands-agent-server==$version" "openhands-sdk==$version" \
        "openhands-tools==$version" matplotlib
    echo "$version" >"$stamp"
fi

command -v wrk >/dev/null 2>&1 && exit 0
as_root=
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
# The lists may be absent or old: refresh them only when they do not do.
# shellcheck disable=SC2086
$as_root apt-get install -y -qq wrk >/dev/null 2>&1 ||
    { $as_root apt-get update -qq && $as_root apt-get install -y -qq wrk; } ||
    { echo "wrk could not be installed; install it yourself." >&2; exit 1; }
