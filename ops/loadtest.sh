#!/usr/bin/env bash
# Sends events to a daemon, measures the answers and judges them; `--help` says how.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=ops/lib/common.sh
source "$root/ops/lib/common.sh"

help() {
  cat <<'TEXT'
Usage: ops/loadtest.sh [OPTION...]

Installs what is needed (ops/bootstrap.sh), then runs `ai-ticketctl loadtest` from this checkout with
the options given, such as:

  --url URL --token-file FILE   the daemon's public address; without --url its control socket
  --metrics URL                 its metrics page, for slot use and queue
  --rate N | --clients N        open-loop, N events per second; or closed-loop, N clients
  --seconds N                   for so long
  --stream                      also measure the time to the first text
  --slo-p95 SECONDS             the objective
  --output FILE                 keep the report

The exit code is 0 if the objectives were met, 1 if not, 69 if nobody answers. All options:
ops/loadtest.sh --options
TEXT
}

case ${1:-} in
  --help | -h) help && exit 0 ;;
  --options) set -- --help ;;
esac

run "$root/ops/bootstrap.sh" --runtime-only --skip-health >&2
exec "$root/.venv/bin/ai-ticketctl" loadtest "$@"
