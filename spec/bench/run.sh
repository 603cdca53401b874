#!/bin/bash
# The table of README's performance section. Needs build/release (spec/run.sh --bench makes it).
#   spec/bench/run.sh [cached|uncached|memory|start|storm|reload|flat ...]   default: all but flat
set -eu
cd "$(dirname "$0")/../.."
exec node spec/bench/table.mjs "$@"
