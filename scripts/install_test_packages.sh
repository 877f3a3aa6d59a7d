#!/bin/sh
# Install the programs the tests run beside Python packages: redis-server, tmux and haproxy, and those named as arguments,
# from Debian's packages. Does nothing when they are already on PATH.
set -eu

missing=
# Debian's haproxy is in a directory that is not on everybody's PATH.
PATH=$PATH:/usr/sbin
for program in redis-server tmux haproxy "$@"; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

refuse() {
    echo "The tests need these programs on PATH:$missing. $1" >&2
    echo "Install them yourself, for instance: apt-get install$missing  |  brew install redis tmux haproxy" >&2
    exit 1
}

command -v apt-get >/dev/null 2>&1 || refuse "This machine has no apt-get."
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif sudo -n true >/dev/null 2>&1; then
    as_root="sudo -n"
else
    refuse "Installing them needs root, and sudo asks for a password."
fi

apt() {
    # env: sudo drops variables, and apt must not ask questions.
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@"
}
echo "Installing$missing with apt-get"
# Package and program have the same name. The lists may be absent or old: refresh them only when they do not do.
# shellcheck disable=SC2086
apt install -y --no-install-recommends $missing >/dev/null 2>&1 ||
    { apt update && apt install -y --no-install-recommends $missing; } ||
    refuse "apt-get could not install them (see above)."
# Debian starts a Redis on 6379 at installation, and its HAProxy serves nothing; the tests start their own.
