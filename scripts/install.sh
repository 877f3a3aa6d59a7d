#!/bin/sh
# Make the virtual environment named by $1 hold what requirements.lock pins, and this project in editable form.
# Does nothing, without network, when it already does: a stamp in the environment holds a checksum of the inputs,
# because file times say nothing after a fresh clone.
set -eu
venv=$1
python=$venv/bin/python
stamp=$venv/.installed

inputs() {
    pwd
    cat requirements.lock pyproject.toml scripts/install.sh
}
wanted=$(inputs | cksum)

runs() {
    "$1" -c '' >/dev/null 2>&1
}
if runs "$python" && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

if ! runs "$python"; then
    found=$(sh scripts/find_python.sh)
    echo "Building $venv with $found"
    "$found" -m venv --clear "$venv"
fi
rm -f "$stamp"

find_uv() {
    # A name on PATH may be a shim that fails when run.
    if uv --version >/dev/null 2>&1; then
        echo uv
    elif [ -x "$venv/bin/uv" ] || "$python" -m pip install --quiet uv >&2; then
        echo "$venv/bin/uv"
    else
        return 1
    fi
}
# uv trusts authorities from a list of its own unless told otherwise, and a company's proxy is only in the system's.
# The second name is the one older versions of uv know.
export UV_SYSTEM_CERTS=true UV_NATIVE_TLS=true

# Both compile now, even where PYTHONDONTWRITEBYTECODE is set: the SDK's import takes 4 s compiled and 10 s otherwise.
with_uv() {
    uv=$(find_uv) &&
        "$uv" pip install --quiet --compile-bytecode --python "$python" -r requirements.lock &&
        "$uv" pip install --quiet --python "$python" --no-deps -e .
}
with_pip() {
    "$python" -m pip install --quiet --compile -r requirements.lock &&
        "$python" -m pip install --quiet --no-deps -e .
}

echo "Installing what requirements.lock pins (a minute or two the first time)"
with_uv || with_pip
echo "$wanted" >"$stamp"
