#!/bin/sh
# Shows Moonlatch at work on this machine: an OpenID provider, a Kubernetes TokenReview API, Envoy and an application, all real and
# all gone when it ends. Installs what is missing, builds the release, shows eight things, then stays until Ctrl-C.
#
#   deploy/demo.sh           stays; the gateway is at http://127.0.0.1:10080
#   deploy/demo.sh --once    on free ports; ends after the eight things, 0 if all went well, 1 if not
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

case "${1-}" in
"" | --once) ;;
*)
    echo "usage: deploy/demo.sh [--once]" >&2
    exit 1
    ;;
esac

build() {
    cmake --preset release && cmake --build --preset release --target moonlatch
}

deploy/setup.sh
log=$(mktemp)
if ! build >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    echo "demo: the build failed" >&2
    exit 1
fi
rm -f "$log"

export MOONLATCH="${MOONLATCH:-$root/build/release/moonlatch}"
exec node deploy/demo.mjs "$@"
