# shellcheck shell=bash
# What the scripts in ops/ share: one-sentence failures, and children that never outlive them.

# fail SENTENCE...: end the script with one sentence on stderr.
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# misused SENTENCE...: the same for a command line that makes no sense.
misused() {
  printf '%s: %s (see --help)\n' "${0##*/}" "$*" >&2
  exit 2
}

# run COMMAND...: run it in a session of its own, so that a signal to this script can stop all of it.
run() {
  setsid "$@" &
  wait $!
}

# A signal may come while stderr is a step's log; what it says is for whoever started the script.
exec {messages}>&2

# stop_children EXIT_CODE: end what `run` started, then this script.
stop_children() {
  trap '' INT TERM HUP
  local leader
  for leader in $(jobs -pr); do
    kill -TERM -- "-$leader" 2>/dev/null || kill -TERM "$leader" 2>/dev/null || true
    wait "$leader" || true
  done
  printf '\n%s: interrupted; run it again to go on\n' "${0##*/}" >&"$messages"
  exit "$1"
}

trap 'stop_children 129' HUP
trap 'stop_children 130' INT
trap 'stop_children 143' TERM
