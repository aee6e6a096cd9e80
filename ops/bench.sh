#!/usr/bin/env bash
# Measures the daemon side by side with what it is compared to; prints ratios.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1:-} == --help ]]; then
    echo "usage: ops/bench.sh [pytest options]   measure and print the figures (about ten minutes)"
    echo "What it is compared with goes into .cache/bench; HAProxy and Redis are installed on Debian if"
    echo "this runs as root."
    exit 0
fi
./ops/bootstrap.sh --skip-health
missing=()
[[ -x /usr/sbin/haproxy ]] || missing+=(haproxy)
[[ -x /usr/bin/redis-server ]] || missing+=(redis-server)
if ((${#missing[@]})) && [[ $(id -u) == 0 && -e /etc/debian_version ]]; then
    apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"
fi
rivals=.cache/bench
if ! cmp -s ops/requirements/bench.lock "$rivals/installed.lock"; then
    rm -rf "$rivals"
    .venv/bin/python -m venv "$rivals"
    "$rivals/bin/pip" install -q --require-hashes -r ops/requirements/bench.lock
    cp ops/requirements/bench.lock "$rivals/installed.lock"
fi
exec .venv/bin/pytest tests/benchmarks -m benchmark -s -q "$@"
