#!/usr/bin/env bash
# Measures the daemon side by side with what it is compared to; prints ratios.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1:-} == --help ]]; then
    echo "usage: ops/bench.sh [pytest options]   measure and print the figures (about ten minutes)"
    echo "HAProxy, which the failover is compared with, is installed on Debian if this runs as root."
    exit 0
fi
./ops/bootstrap.sh --skip-health
if [[ ! -x /usr/sbin/haproxy && $(id -u) == 0 && -e /etc/debian_version ]]; then
    apt-get -q update && apt-get -q install -y --no-install-recommends haproxy
fi
exec .venv/bin/pytest tests/benchmarks -m benchmark -s -q "$@"
