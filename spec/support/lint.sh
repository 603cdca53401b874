#!/bin/bash
# Lint checks, one a call: lint.sh format | tidy BUILD | luacheck | layers. From the repository's root.
set -eu
cd "$(dirname "$0")/../.."

c_files() { git ls-files 'src/*.c' 'src/*.h' 'spec/c/*.c' 'spec/c/*.h' 'spec/fuzz/*.c' 'spec/bench/*.c'; }

# Files of the rooms that changed since the last commit, or in it; all of them in a clone without history.
changed_rooms() {
  local since=HEAD~1
  git rev-parse -q --verify HEAD~1 >/dev/null || since=$(git hash-object -t tree /dev/null)
  git diff --name-only "$since" -- src | sed -n 's|^\(src/[^/]*\)/.*|\1|p' | sort -u
}

case "$1" in
format) c_files | xargs clang-format --dry-run -Werror ;;
tidy)
  rooms=$(changed_rooms)
  [ "${ML_TIDY:-changed}" = all ] && rooms=src
  [ -n "$rooms" ] || { echo "no room changed"; exit 0; }
  git ls-files $(printf '%s/*.c ' $rooms) | xargs -P 2 -n 4 clang-tidy -quiet -p "$2" 2>&1 | grep -v 'warnings generated' ;
  exit "${PIPESTATUS[1]}"
  ;;
luacheck) luacheck -q lua policies spec ;;
layers) lua5.4 spec/support/layers.lua ;;
*) echo "lint.sh format | tidy BUILD | luacheck | layers" >&2; exit 2 ;;
esac
