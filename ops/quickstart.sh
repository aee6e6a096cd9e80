#!/usr/bin/env bash
# From a fresh checkout to a first completion; `--help` says how. ops/quickstart.py does the work
# once there is a Python to run it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=ops/lib/common.sh
source "$root/ops/lib/common.sh"

help() {
  cat <<'TEXT'
Usage: ops/quickstart.sh [--simulated] [--once] [--port N]

Installs what is needed (ops/bootstrap.sh), starts two local model servers - a primary and a
standby - and the daemon in front of them, sends a sample ticket, prints its completion, and keeps
running until Ctrl-C. Then, or when anything fails, all of it is stopped again.

  --simulated  simulated KoboldCPP servers in place of a real language model (saves 130 MB)
  --once       stop after the sample ticket; exit with 0 only if it was completed
  --port N     listen on this port (default: 5000, or the next free one)

Configuration and logs: .cache/quickstart/
TEXT
}

parts=(--with-model)
arguments=("$@")
while (($#)); do
  case $1 in
    --simulated) parts=() ;;
    --once) ;;
    --port)
      if [[ ! ${2:-} =~ ^[0-9]{1,5}$ ]] || ((10#$2 < 1 || 10#$2 > 65535)); then
        misused "--port needs a number from 1 to 65535"
      fi
      shift
      ;;
    --help | -h) help && exit 0 ;;
    *) misused "unknown option $1" ;;
  esac
  shift
done

run "$root/ops/bootstrap.sh" --runtime-only --skip-health "${parts[@]}"
exec "$root/.venv/bin/python" "$root/ops/quickstart.py" "${arguments[@]}"
