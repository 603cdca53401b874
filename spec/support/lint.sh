#!/bin/bash
# Lint checks, one a call: lint.sh format | tidy BUILD | luacheck | layers. From the repository's root.
set -euo pipefail
cd "$(dirname "$0")/../.."

c_files() { git ls-files 'src/*.c' 'src/*.h' 'spec/c/*.c' 'spec/c/*.h' 'spec/fuzz/*.c' 'spec/bench/*.c'; }

case "$1" in
format)
  # Versions disagree; Debian 12's is the one that counts.
  clang-format --version | grep -q 'version 14' || { echo "not checked: clang-format is not 14"; exit 0; }
  c_files | xargs clang-format --dry-run -Werror
  ;;
tidy)
  # sed, not grep -v: that fails when nothing is left to show.
  # gcc's way of saying that it optimises at link time is none of clang's.
  git ls-files 'src/*.c' | xargs -P 2 -n 4 clang-tidy -quiet -p "$2" \
    --extra-arg=-Wno-ignored-optimization-argument 2>&1 | sed '/warnings* generated/d'
  ;;
luacheck) luacheck -q lua policies spec ;;
layers) lua5.4 spec/support/layers.lua ;;
*) echo "lint.sh format | tidy BUILD | luacheck | layers" >&2; exit 2 ;;
esac
