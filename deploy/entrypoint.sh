#!/bin/sh
# What the image runs. `fanout` and its arguments, or only arguments, which are those of `fanout serve`: the SDK's
# DockerWorkspace starts the published server's image with `--host 0.0.0.0 --port 8000`.
#
# A secret may come as a file: NAME_FILE=/run/secrets/x sets NAME to the file's content.
set -eu
for name in OH_SESSION_API_KEYS_0 OH_SECRET_KEY SESSION_API_KEY REDIS_URL OH_METRICS_KEY; do
    eval "file=\${${name}_FILE:-}"
    [ -n "$file" ] || continue
    value=$(cat "$file")
    export "$name=$value"
    unset "${name}_FILE"
done
case ${1:-} in
"" | -*) exec fanout serve "$@" ;;
*) exec fanout "$@" ;;
esac
