#!/usr/bin/env bash
# Measures the daemon side by side with what it is compared to; prints ratios.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1:-} == --help ]]; then
    echo "usage: ops/bench.sh [pytest options]   measure and print the figures (about three minutes)"
    exit 0
fi
./ops/bootstrap.sh --skip-health
exec .venv/bin/pytest tests/benchmarks -m benchmark -s -q "$@"
