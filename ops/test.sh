#!/usr/bin/env bash
# Every check there is, the same ones for a developer and for CI; `--help` says how.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=ops/lib/common.sh
source "$root/ops/lib/common.sh"

help() {
  cat <<'TEXT'
Usage: ops/test.sh [--fast] [PYTEST ARGUMENT...]

Installs what is needed (ops/bootstrap.sh), then runs the formatter's check, the linter, the type
checker, the check of what imports what, shellcheck and the tests (all but the benchmarks), which
several processes share. All checks run even when one fails; the last lines name the twenty slowest
tests and the twenty files that take most of the processors, and sum up. The exit code is 0 only when
every check passed.

  --fast  leave out the system tests (those that run the real process and install things)

What else is given goes to pytest, such as tests/unit or -k failover.
TEXT
}

processes=6 # of two cores, too: tests wait two thirds of their time
tests="not benchmark" parts=(--with-model --with-containers --with-monitoring --with-proxies)
arguments=()
for argument in "$@"; do
  case $argument in
    --fast) tests="not benchmark and not system" parts=(--with-model) ;;
    --help | -h) help && exit 0 ;;
    *) arguments+=("$argument") ;;
  esac
done

cd "$root"
run ops/bootstrap.sh "${parts[@]}" --skip-health

failed=0
summary=()

# check NAME COMMAND...: run one check from the virtual environment and note how it went. It stays
# in the foreground, so that Ctrl-C reaches it and it can clean up after itself.
check() {
  local name=$1 program=$2 started=$SECONDS outcome=passed
  shift 2
  printf '\n== %s\n' "$name"
  ".venv/bin/$program" "$@" || { outcome=FAILED failed=1; }
  summary+=("$(printf '%-6s  %-10s %4d s' "$outcome" "$name" $((SECONDS - started)))")
}

# Hundreds of processes start from the same files: they are compiled once, whatever a container's image
# says, and by the first to read the tests, on the processor that the checks before the tests leave idle.
unset PYTHONDONTWRITEBYTECODE
.venv/bin/pytest -m "$tests" --collect-only --quiet "${arguments[@]}" &>/dev/null &
compiled=$!

check formatter ruff format --check --diff .
check linter ruff check .
check types mypy
check imports lint-imports --no-logo
check shell shellcheck --external-sources ops/*.sh ops/lib/*.sh .ci/run
wait "$compiled" || true # what is wrong with them, the tests tell
check tests pytest -m "$tests" --numprocesses "$processes" --no-loadscope-reorder \
  --durations 20 "${arguments[@]}"

printf '\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
