#!/bin/bash
# Installs, builds and runs every test; the last lines count them. Under 15 minutes on two cores.
#   spec/run.sh             everything
#   spec/run.sh -R REGEX    tests by name (any ctest option)
#   spec/run.sh --browser            the pages and logins in Chromium, which it installs; --keycloak: likewise
#   spec/run.sh --fuzz [SECONDS]     each fuzz target for so long (default 60)
#   spec/run.sh --bench              the table of spec/bench
#   spec/run.sh --soak [SECONDS]     load with faults (default 600)
set -eu
cd "$(dirname "$0")/.."
export CTEST_OUTPUT_ON_FAILURE=1

case "${1:-}" in
--browser | --keycloak) deploy/setup.sh "$1" ;;
*) deploy/setup.sh ;;
esac

build() {
  local preset
  for preset in "$@"; do
    cmake --preset "$preset" >"build/$preset.log" 2>&1 || { cat "build/$preset.log"; exit 1; }
    cmake --build --preset "$preset" >"build/$preset.log" 2>&1 || { tail -50 "build/$preset.log"; exit 1; }
  done
}
mkdir -p build

case "${1:-}" in
--browser)
  build release
  exec ctest --test-dir build/release -R e2e.97_chromium
  ;;
--keycloak)
  build release
  exec ctest --test-dir build/release -R e2e.98_keycloak
  ;;
--fuzz)
  build fuzz
  exec spec/fuzz/run.sh "${2:-60}"
  ;;
--bench)
  build release
  exec spec/bench/run.sh "${@:2}"
  ;;
--soak)
  build release
  exec node spec/bench/soak.mjs "${2:-600}"
  ;;
esac

build release asan tsan
printf 'subdirs(release asan tsan)\n' >build/CTestTestfile.cmake
exec ctest --test-dir build -j2 "$@"
