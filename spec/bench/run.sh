#!/bin/bash
# The table of README's performance section. Needs build/release (spec/run.sh --bench makes it).
#   spec/bench/run.sh [cached|memory|start|storm|reload|flat|session|logins|sessions ...]   default: all but flat
set -eu
cd "$(dirname "$0")/../.."
cmake --build build/release --target bench_sessions >/dev/null
exec node spec/bench/table.mjs "$@"
