#!/bin/sh
# Print the path of a Python >=3.12,<3.15 that can make virtual environments.
# A name on PATH is not enough: pyenv's shims exist for versions that are not
# active and fail when run, so every candidate is run before it is believed.
usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 15))' >/dev/null 2>&1
}
found() {
    "$1" -c 'import sys; print(sys.executable)'
    exit 0
}
for name in "$PYTHON" python3.13 python3.12 python3.14 python3 python; do
    [ -n "$name" ] && usable "$name" && found "$name"
done
for root in "$PYENV_ROOT" "$HOME/.pyenv" "$(dirname "$(dirname "$(command -v pyenv 2>/dev/null || echo /nowhere/bin/pyenv)")")"; do
    for path in "$root"/versions/3.13*/bin/python "$root"/versions/3.12*/bin/python "$root"/versions/3.14*/bin/python; do
        [ -x "$path" ] && usable "$path" && found "$path"
    done
done
for path in /opt/homebrew/bin/python3.1[234] /usr/local/bin/python3.1[234] \
    "$HOME"/.local/share/uv/python/cpython-3.1[234]*/bin/python3; do
    [ -x "$path" ] && usable "$path" && found "$path"
done
if command -v uv >/dev/null 2>&1; then
    path=$(uv python find --no-python-downloads '>=3.12,<3.15' 2>/dev/null) && usable "$path" && found "$path"
fi
echo "No Python >=3.12,<3.15 found. Install one (pyenv, your system's packages or uv), or set PYTHON=/path/to/python." >&2
exit 1
