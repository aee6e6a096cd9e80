#!/usr/bin/env bash
# Measures the daemon side by side with what it is compared to; prints ratios.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1:-} == --help ]]; then
    echo "usage: ops/bench.sh [pytest options]   measure and print the figures (about half an hour)"
    echo "       ops/bench.sh -k FILE            only one of the files in tests/benchmarks"
    echo "What it is compared with goes into .cache/bench (1 GB); HAProxy, Redis and wrk are installed on"
    echo "Debian if this runs as root. What cannot be installed is named, and not measured."
    exit 0
fi
./ops/bootstrap.sh --skip-health
missing=()
[[ -x /usr/sbin/haproxy ]] || missing+=(haproxy)
[[ -x /usr/bin/redis-server ]] || missing+=(redis-server)
[[ -x /usr/bin/wrk ]] || missing+=(wrk)
if ((${#missing[@]})) && [[ $(id -u) == 0 && -e /etc/debian_version ]]; then
    { apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"; } ||
        echo "ops/bench.sh: NOT INSTALLED: ${missing[*]}" >&2
fi

# install FOLDER LOCK COMMAND...: what a lock lists is in a folder, and made anew when it changes.
install() {
    local folder=$1 lock=$2
    shift 2
    cmp -s "$lock" "$folder/installed.lock" && return
    rm -rf "$folder"
    mkdir -p "$folder"
    if "$@" "$folder" "$lock"; then
        cp "$lock" "$folder/installed.lock"
    else
        echo "ops/bench.sh: NOT INSTALLED, so not measured: $lock" >&2
        rm -rf "$folder"
    fi
}
python_packages() {
    .venv/bin/python -m venv "$1" && "$1/bin/pip" install -q --require-hashes -r "$2"
}
npm_packages() {
    cp "$(dirname "$2")/package.json" "$2" "$1" && npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund
}
rivals=tests/benchmarks/rivals
install .cache/bench/queues ops/requirements/bench.lock python_packages
install .cache/bench/litellm $rivals/litellm.lock python_packages
install .cache/bench/portkey $rivals/package-lock.json npm_packages

exec .venv/bin/pytest tests/benchmarks -m benchmark -s -q "$@"
