#!/bin/sh
# Make the virtual environment named by $1 hold what `make bench` compares with and draws with: the published server, in
# the version of the SDK that requirements.lock pins, and matplotlib.
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
